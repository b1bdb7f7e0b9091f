"""What the floating-point multiply-add computes, in Python's integers."""

from dataclasses import dataclass
from typing import Final

from tern_hw.config import OutputFormat

__all__ = ["FORMATS", "FloatFormat", "multiply_add"]


@dataclass(frozen=True)
class FloatFormat:
    """A binary interchange format (IEEE 754-2019, 3.4)."""

    #: Bits of the significand, the hidden one included.
    precision: int
    exponent_bits: int

    @property
    def bits(self) -> int:
        return self.precision + self.exponent_bits

    @property
    def infinity(self) -> int:
        """Bits of +infinity."""
        return ((1 << self.exponent_bits) - 1) << (self.precision - 1)

    @property
    def nan(self) -> int:
        """Bits of the canonical NaN: positive, quiet, no payload."""
        return self.infinity | 1 << (self.precision - 2)

    @property
    def least_power(self) -> int:
        """The least positive number is 2**-this."""
        return (1 << (self.exponent_bits - 1)) + self.precision - 3

    def split(self, bits: int) -> tuple[int, int, int]:
        """Return (sign, significand, exponent): the number is significand * 2**(exponent - 1)
        units of the least one."""
        fraction = bits & ((1 << (self.precision - 1)) - 1)
        field = bits >> (self.precision - 1) & ((1 << self.exponent_bits) - 1)
        hidden = bool(field) << (self.precision - 1)
        return bits >> (self.bits - 1), hidden | fraction, max(field, 1)


FORMATS: Final = {
    OutputFormat.FP16: FloatFormat(precision=11, exponent_bits=5),
    OutputFormat.FP32: FloatFormat(precision=24, exponent_bits=8),
}
HALF: Final = FORMATS[OutputFormat.FP16]


def multiply_add(a: int, b: int, c: int, form: FloatFormat) -> int:
    """Return the bits of a * b + c, exact and then rounded once to nearest, ties to even.

    Parameters
    ----------
    a, b : int
        Bits of binary16 numbers.
    c : int
        Bits of a number of the format.
    form : FloatFormat

    Returns
    -------
    int
        Bits of the result; any NaN as the canonical one (IEEE 754-2019, 5.4.1, 6 and 7.2).
    """
    sign_mask = 1 << (form.bits - 1)
    magnitude_c = c & (sign_mask - 1)
    sign = (a ^ b) >> 15
    if (
        (a & 0x7FFF) >= HALF.infinity
        or (b & 0x7FFF) >= HALF.infinity
        or magnitude_c >= form.infinity
    ):
        return _special(a, b, c, form)
    _, sig_a, exp_a = HALF.split(a)
    _, sig_b, exp_b = HALF.split(b)
    sign_c, sig_c, exp_c = form.split(c)
    # Everything in units of 2**-unit, the product's or the accumulator's least place.
    unit = max(2 * HALF.least_power, form.least_power)
    product = sig_a * sig_b << (exp_a + exp_b - 2 + unit - 2 * HALF.least_power)
    addend = sig_c << (exp_c - 1 + unit - form.least_power)
    total = (-product if sign else product) + (-addend if sign_c else addend)
    if total == 0:
        return sign_mask if sign and sign_c else 0
    return _round(abs(total), unit, form) | (sign_mask if total < 0 else 0)


def _special(a: int, b: int, c: int, form: FloatFormat) -> int:
    """Return the result where an operand is infinite or NaN."""
    half_a, half_b, magnitude_c = a & 0x7FFF, b & 0x7FFF, c & ((1 << (form.bits - 1)) - 1)
    if half_a > HALF.infinity or half_b > HALF.infinity or magnitude_c > form.infinity:
        return form.nan
    sign_bit = 1 << (form.bits - 1)
    if HALF.infinity in (half_a, half_b):
        if 0 in (half_a, half_b):
            return form.nan
        infinity = form.infinity | (sign_bit if (a ^ b) >> 15 else 0)
        return form.nan if magnitude_c == form.infinity and c != infinity else infinity
    return c


def _round(magnitude: int, unit: int, form: FloatFormat) -> int:
    """Return the bits of magnitude * 2**-unit (positive), rounded."""
    # Bits below the last place that is kept: by precision, or by the format's least number.
    drop = max(magnitude.bit_length() - form.precision, unit - form.least_power)
    if drop <= 0:
        kept = magnitude << -drop
    else:
        kept, rest = magnitude >> drop, magnitude & ((1 << drop) - 1)
        half = 1 << (drop - 1)
        kept += rest > half or (rest == half and kept & 1)
    # A significand of full precision adds its hidden bit to the exponent's field.
    field = drop - (unit - form.least_power)
    return min(kept + (field << (form.precision - 1)), form.infinity)
