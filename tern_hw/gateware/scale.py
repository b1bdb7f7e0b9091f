"""Exact scale and shift: alpha * S + gamma * X summed over a row's groups, in one long integer."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import FP16_MAX_UNITS, ArrayConfig
from tern_hw.gateware.convert import half_fields
from tern_hw.gateware.pipeline import add_with_carry, delay

__all__ = ["ScaleShift"]

#: Bits of a factor's exponent that shift it before the multiplication: as many as one multiplier
#: of 18 bits has room for beside the significand's 11 and its sign's 1. After it, each costs more.
FINE_BITS = 2
#: Bits of the shifted significand.
OPERAND_BITS = 11 + (1 << FINE_BITS) - 1
#: Largest shift of a binary16's operand, one too many.
LARGEST_SHIFT = 28


class ScaleShift(wiring.Component):
    """Accumulate scale * dot + shift * inputs over the groups of a row, exactly.

    A binary16 is a significand of 11 bits times a power of two: the product is a multiplication
    by that, shifted a little, and a left shift; a negative factor is a complement whose missing
    one is the carry-in of the next adder.

    Latency: `latency` = 6. Throughput: a group a cycle. Backpressure: none.

    Members
    -------
    valid : In
        A group's sums and factors are present.
    last : In
        It is the row's last group.
    dot, inputs : In, signed(sum_bits)
        S and X of the group.
    scale, shift : In, 16
        alpha and gamma, binary16.
    unit : In
        Where activations are aligned: S and X count 2**unit.
    scaled : In
        `scale` and `shift` are real; where not, they are not looked at.
    nonfinite : Out
        The group's scale or shift is an infinity or a NaN; one cycle after it, for one cycle.
    total : Out, signed(accumulator_bits)
        The sum of the row that ended last, in units of 2**-accumulator_fraction_bits.
    nan : Out
        A scale or shift of that row was not finite.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = 6
        super().__init__(
            {
                "valid": In(1),
                "last": In(1),
                "dot": In(signed(config.sum_bits)),
                "inputs": In(signed(config.sum_bits)),
                "scale": In(16),
                "shift": In(16),
                "scaled": In(1),
                "nonfinite": Out(1),
                "total": Out(signed(config.accumulator_bits)),
                "nan": Out(1),
                **({"unit": In(range(config.unit_max + 1))} if config.unit_max else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        scaled, scale_sign, scale_bad = self._product(m, self.dot, self.scale, "scale")
        shifted, shift_sign, shift_bad = self._product(m, self.inputs, self.shift, "shift")
        # Cycle 1 tells whether the factors are numbers.
        valid = delay(m, self.valid, 1, name="valid_1")
        bad = delay(m, self.valid & self.scaled, 1, name="scaled") & (scale_bad | shift_bad)
        m.d.comb += self.nonfinite.eq(bad)
        # Cycle 5: the two products together; the shift's missing one goes one adder on.
        term = Signal(signed(len(scaled) + 1))
        term_carry = Signal()
        m.d.sync += [
            term.eq(add_with_carry(scaled, shifted, scale_sign)),
            term_carry.eq(shift_sign),
        ]
        # Cycle 6: the row.
        enable = delay(m, valid, 4, name="valid_5")
        last = delay(m, self.last, 5, name="last")
        bad_now = delay(m, bad, 4, name="bad")
        part = Signal.like(self.total)
        part_nan = Signal()
        total = add_with_carry(part, term, term_carry)
        # As in `GroupDot`, a reset instead of a multiplexer before the adder.
        with m.If(enable & last):
            m.d.sync += [part.eq(0), part_nan.eq(0)]
            m.d.sync += [self.total.eq(total), self.nan.eq(part_nan | bad_now)]
        with m.Elif(enable):
            m.d.sync += [part.eq(total), part_nan.eq(part_nan | bad_now)]
        return m

    def _product(self, m, value, half, name):
        """Return (product, or its complement where the factor is negative; that sign), cycle 4.

        Also whether the factor is not finite, at cycle 1.
        """
        sign, operand, coarse, bad = half_fields(half, FINE_BITS)
        fields = [
            delay(m, field, 1, name=f"{name}_{part}")
            for field, part in (
                (sign, "sign"),
                (coarse, "coarse"),
                (bad, "bad"),
                (operand, "operand"),
            )
        ]
        sign_1, coarse_1, bad_1, operand_1 = fields
        shift_1 = coarse_1 << FINE_BITS
        if self.config.unit_max:
            # One shift does both powers of two.
            shift_1 = shift_1 + delay(m, self.unit, 1, name=f"{name}_unit")
        shift_2 = Signal(range(LARGEST_SHIFT + self.config.unit_max + 1), name=f"{name}_shift_2")
        m.d.sync += shift_2.eq(shift_1)
        product = self._multiplied(m, value, operand_1, name)
        shift_3 = delay(m, shift_2, 1, name=f"{name}_shift_3")
        sign_3 = delay(m, sign_1, 2, name=f"{name}_sign_3")
        # The product is at most |value| * 2047 * 2**(29 + unit); its lowest place is always 0.
        bits = len(value) + FP16_MAX_UNITS.bit_length() + self.config.unit_max
        placed = Signal(signed(bits), name=f"{name}_placed")
        shifted = (product << shift_3) >> 1
        m.d.sync += placed.eq(shifted ^ sign_3.replicate(bits).as_signed())
        return placed, delay(m, sign_3, 1, name=f"{name}_sign_4"), bad_1

    @staticmethod
    def _multiplied(m, value, operand_1, name):
        """Return the product at cycle 3, of a value at cycle 0 and an operand at cycle 1.

        Plain registers without a reset, so that a multiplier's own can be these.
        """
        value_1 = Signal.like(value, name=f"{name}_value_1", reset_less=True)
        value_2 = Signal.like(value, name=f"{name}_value_2", reset_less=True)
        operand_2 = Signal.like(operand_1, name=f"{name}_operand_2", reset_less=True)
        bits = len(value) + OPERAND_BITS
        product = Signal(signed(bits), name=f"{name}_product", reset_less=True)
        m.d.sync += [
            value_1.eq(value),
            value_2.eq(value_1),
            operand_2.eq(operand_1),
            product.eq(value_2 * operand_2),
        ]
        return product
