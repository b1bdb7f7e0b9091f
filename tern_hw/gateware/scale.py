"""Exact scale and shift: alpha * S + gamma * X summed over a row's groups, in one long integer."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import FP16_MAX_UNITS, ArrayConfig
from tern_hw.gateware.convert import half_fields, shifted_finely
from tern_hw.gateware.pipeline import add_low, add_with_carry, delay, delay_lines

__all__ = ["ScaleShift"]

#: Bits of a factor's exponent that shift it before the multiplication: as many as one multiplier
#: of 18 bits has room for beside the significand's 11 and its sign's 1. After it, each costs more.
FINE_BITS = 2
#: Bits of the shifted significand.
OPERAND_BITS = 11 + (1 << FINE_BITS) - 1
#: Bits of a product's shift that its first cycle does.
NEAR_BITS = 4
#: Largest shift of a binary16's operand, one too many.
LARGEST_SHIFT = 28


class ScaleShift(wiring.Component):
    """Accumulate scale * dot + shift * inputs over the groups of a row, exactly.

    A binary16 is a significand of 11 bits times a power of two: the product is a multiplication
    by that, shifted a little, and a left shift; a negative factor is a complement whose missing
    one is the carry-in of the next adder.

    Latency: `latency` = 8. Throughput: a group a cycle. Backpressure: none.

    Members
    -------
    valid : In
        A group's sums and factors are present.
    last : In
        It is the row's last group.
    dot, inputs : In, signed(sum_bits)
        S and X of the group.
    scale, shift : In, 16
        alpha and gamma, binary16; one cycle before the sums.
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
        self.latency = config.scale_cycles
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
        enables = delay_lines(m, valid, 6, name="enable")[-2:]
        lasts = delay_lines(m, self.last, 7, name="last")[-2:]
        # Sums are done in two halves, the high one a cycle later: no carry runs through a whole
        # row's. Cycles 6 and 7: the two products together; the shift's missing one goes one
        # adder on.
        half = self.config.accumulator_bits // 2
        term_low = Signal(half)
        term_over = Signal()
        term_carry = Signal()
        m.d.sync += [
            Cat(term_low, term_over).eq(add_low(scaled[:half], shifted[:half], scale_sign)),
            term_carry.eq(shift_sign),
        ]
        above = [
            delay(m, placed[half:], 1, name=f"{name}_above").as_signed()
            for name, placed in (("scale", scaled), ("shift", shifted))
        ]
        term_high = Signal(signed(len(above[0]) + 1))
        m.d.sync += term_high.eq(add_with_carry(*above, term_over))
        # Cycles 7 and 8: the row.
        low = Signal(half)
        over = Signal()
        part_low = Signal(half)
        part_high = Signal(signed(len(self.total) - half))
        sum_low = add_low(part_low, term_low, term_carry)
        m.d.sync += Cat(low, over).eq(sum_low)
        self._accumulate(m, part_low, sum_low, enables[0], lasts[0])
        sum_high = add_with_carry(part_high, term_high, over)
        self._accumulate(m, part_high, sum_high, enables[1], lasts[1])
        bad_now = delay(m, bad, 6, name="bad")
        part_nan = Signal()
        self._accumulate(m, part_nan, part_nan | bad_now, enables[1], lasts[1])
        with m.If(enables[1] & lasts[1]):
            m.d.sync += [
                self.total.eq(Cat(low, sum_high)),
                self.nan.eq(part_nan | bad_now),
            ]
        return m

    @staticmethod
    def _accumulate(m, part, total, enable, last):
        # As in `GroupDot`, a reset instead of a multiplexer before the adder.
        with m.If(enable & last):
            m.d.sync += part.eq(0)
        with m.Elif(enable):
            m.d.sync += part.eq(total)

    def _product(self, m, value, half, name):
        """Return (product, or its complement where the factor is negative; that sign), cycle 5.

        Also whether the factor is not finite, at cycle 1.
        """
        fields = zip(("sign", "significand", "exponent", "bad"), half_fields(half), strict=True)
        sign, significand, exponent, bad = (
            delay(m, field, 1, name=f"{name}_{part}_0") for part, field in fields
        )
        operand, coarse = shifted_finely(significand, exponent, FINE_BITS)
        sign_1, coarse_1, bad_1, operand_1 = (
            delay(m, field, 1, name=f"{name}_{part}")
            for field, part in (
                (sign, "sign"),
                (coarse, "coarse"),
                (bad, "bad"),
                (operand, "operand"),
            )
        )
        shift_1 = coarse_1 << FINE_BITS
        if self.config.unit_max:
            # One shift does both powers of two.
            shift_1 = shift_1 + delay(m, self.unit, 1, name=f"{name}_unit")
        shift_2 = Signal(range(LARGEST_SHIFT + self.config.unit_max + 1), name=f"{name}_shift_2")
        m.d.sync += shift_2.eq(shift_1)
        product = self._multiplied(m, value, operand_1, name)
        shift_3 = delay(m, shift_2, 1, name=f"{name}_shift_3")
        # The product is at most |value| * 2047 * 2**(29 + unit); its lowest place is always 0.
        bits = len(value) + FP16_MAX_UNITS.bit_length() + self.config.unit_max
        partly = (product << shift_3[:NEAR_BITS])[: bits + 1].as_signed()
        partly_4 = delay(m, partly, 1, name=f"{name}_partly").as_signed()
        far = delay(m, shift_3[NEAR_BITS:], 1, name=f"{name}_far") << NEAR_BITS
        sign_4 = delay(m, sign_1, 3, name=f"{name}_sign_4")
        placed = Signal(signed(bits), name=f"{name}_placed")
        shifted = (partly_4 << far) >> 1
        m.d.sync += placed.eq(shifted ^ sign_4.replicate(bits).as_signed())
        return placed, delay(m, sign_4, 1, name=f"{name}_sign_5"), bad_1

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
