"""The one rounding: an exact integer to the bits of a binary16 or binary32, to nearest even."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import OutputFormat
from tern_hw.reference.jit import jit

__all__ = ["FORMATS", "FloatFormat", "round_terms"]


@dataclass(frozen=True)
class FloatFormat:
    """A binary interchange format of IEEE 754."""

    #: Significant bits (p), the hidden one counted.
    precision: int
    #: Exponent of the least subnormal: every finite value is a multiple of 2**least.
    least: int
    #: Bits of +infinity.
    infinity: int
    #: Bits of the canonical NaN.
    nan: int
    #: The type of a value, and of its bits.
    dtype: type[np.floating]
    bits: type[np.unsignedinteger]


FORMATS: Final = {
    OutputFormat.FP32: FloatFormat(24, -149, 0x7F800000, 0x7FC00000, np.float32, np.uint32),
    OutputFormat.FP16: FloatFormat(11, -24, 0x7C00, 0x7E00, np.float16, np.uint16),
}


def round_terms(
    terms: NDArray[np.int64], places: NDArray[np.int64], exponent: int, target: FloatFormat
) -> NDArray[Any]:
    """Round sum_j terms[j] * 2**(places[j] + exponent) to the format, once, to nearest even.

    Parameters
    ----------
    terms : int64 [J, count]
        Magnitudes at most 2**62, or at most 2**63 - 1 where J is 1.
    places : int64 [J]
        Rising from 0 to at most 60.
    exponent : int
        From -56 to 0.
    target : FloatFormat

    Returns
    -------
    target.dtype [count]
        An exact zero is +0, a negative value that rounds to zero -0, overflow infinity.
    """
    bits = np.empty(terms.shape[1], target.bits)
    sign = (target.infinity << 1) & ~target.infinity
    _round_all(terms, places, exponent, target.precision, target.least, target.infinity, sign, bits)
    return bits.view(target.dtype)


@jit
def _bit_length(value):  # type: ignore[no-untyped-def]
    """Return the bits of a non-negative integer below 2**63."""
    length = 0
    for step in (32, 16, 8, 4, 2, 1):
        if value >> step:
            value >>= step
            length += step
    return length + (1 if value else 0)


@jit
def _collect(terms, places, i):  # type: ignore[no-untyped-def]
    """Return the exact sum as (top, low, low_bits): top * 2**low_bits + low, 0 <= low."""
    top, low = int(terms[0, i]), 0
    for j in range(1, len(places)):
        low_bits = int(places[j - 1])
        gap = int(places[j]) - low_bits
        low |= (top & ((1 << gap) - 1)) << low_bits
        top = (top >> gap) + int(terms[j, i])
    return top, low, int(places[-1])


@jit
def _jam(top, low, low_bits):  # type: ignore[no-untyped-def]
    """Return (m, shift) with top * 2**low_bits + low about m * 2**shift, for what is to be rounded.

    m keeps 62 bits where any are dropped, and its lowest bit then stands for them all: too far
    below the rounding point to tell them apart.
    """
    taken = min(62 - _bit_length(top), low_bits)
    if taken <= 0:
        return top | (1 if low else 0), low_bits
    shift = low_bits - taken
    rest = low & ((1 << shift) - 1)
    return (top << taken) | (low >> shift) | (1 if rest else 0), shift


@jit
def _encode(magnitude, exponent, precision, least):  # type: ignore[no-untyped-def]
    """Return the format's bits of magnitude * 2**exponent, rounded; too large is not yet infinity.

    Subnormal, normal and a carry into the next binade are one formula.
    """
    quantum = max(exponent + _bit_length(magnitude) - precision, least)
    drop = quantum - exponent
    if drop <= 0:
        significand = magnitude << -drop
    else:
        significand = magnitude >> drop
        rest = magnitude & ((1 << drop) - 1)
        half = 1 << (drop - 1)
        if rest > half or (rest == half and significand & 1):
            significand += 1
    return ((quantum - least) << (precision - 1)) + significand


@jit
def _round_all(terms, places, exponent, precision, least, infinity, sign, bits):  # type: ignore[no-untyped-def]
    """Write the rounded bits of every sum."""
    for i in range(len(bits)):
        top, low, low_bits = _collect(terms, places, i)
        negative = top < 0
        if negative:
            # -(top * 2**low_bits + low), with the low part again from 0 up.
            top = -top - (1 if low else 0)
            low = (1 << low_bits) - low if low else 0
        magnitude, shift = _jam(top, low, low_bits)
        if magnitude == 0:
            bits[i] = 0
            continue
        code = min(_encode(magnitude, exponent + shift, precision, least), infinity)
        bits[i] = code | sign if negative else code
