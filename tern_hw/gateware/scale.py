"""Exact scale and shift: alpha * S + gamma * X summed over a row's groups, in one long integer."""

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
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


class _Marks(NamedTuple):
    """What goes beside a term of a row's sum, whose low half is added a cycle before its high."""

    #: Cycle of the low half.
    cycle: int
    #: A half is there; it is the row's last: of the low half, of the high one.
    enables: list[Value]
    lasts: list[Value]
    #: A factor is not finite; at cycle 1.
    bad: Value


class ScaleShift(wiring.Component):
    """Accumulate scale * dot + shift * inputs over the groups of a row, exactly.

    A binary16 is a significand of 11 bits times a power of two: the product is a multiplication
    by that, shifted a little, and a left shift; a negative factor is a complement whose missing
    one is the carry-in of the next adder.

    Latency: `latency` = 8. Throughput: `config.products` = 2: a group a cycle; 1: every other one,
    as one unit computes a group's products in turn. Backpressure: none.

    Members
    -------
    valid : In
        A group's sums and factors are present; not in two cycles together where `products` = 1.
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
        The group's scale or shift is an infinity or a NaN; one cycle after it, for one cycle; with
        `products` = 1 the shift is told of a cycle later.
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
        if self.config.products == 2:
            self._both(m)
        else:
            self._in_turn(m)
        return m

    def _both(self, m):
        """Add a group's products together, and that to the row."""
        unit = self._unit
        scaled, scale_sign, scale_bad = self._product(m, self.dot, self.scale, unit, "scale")
        shifted, shift_sign, shift_bad = self._product(m, self.inputs, self.shift, unit, "shift")
        bad = scale_bad | shift_bad
        marks = self._marks(m, self.valid, self.last, self.valid & self.scaled, bad, cycle=6)
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
        self._onto_row(m, term_low, term_carry, term_high, marks)

    def _in_turn(self, m):
        """Add the scale's product to the row, and the shift's a cycle after it."""
        second = delay(m, self.valid, 1, name="second")
        names = ("shift", "last", "scaled")
        shift, last, scaled = (
            delay(m, getattr(self, name), 1, name=f"second_{name}") for name in names
        )
        # No reset: the block RAM that X comes from has a register that can be this one.
        inputs = Signal.like(self.inputs, name="second_inputs", reset_less=True)
        m.d.sync += inputs.eq(self.inputs)
        # A factor comes a cycle before what it multiplies.
        value = Mux(second, inputs, self.dot)
        factor = Mux(self.valid, shift, self.scale)
        unit = self._unit
        if self.config.unit_max:
            unit = Mux(second, delay(m, unit, 1, name="second_unit"), unit)
        placed, sign, bad = self._product(m, value, factor, unit, "product")
        real = (self.valid & self.scaled) | (second & scaled)
        marks = self._marks(m, self.valid | second, second & last, real, bad, cycle=5)
        # Cycles 6 and 7, and 7 and 8: as above, but for the sum of the two.
        half = self.config.accumulator_bits // 2
        above = delay(m, placed[half:], 1, name="above").as_signed()
        self._onto_row(m, placed[:half], sign, above, marks)

    def _marks(self, m, valid, last, real, bad, *, cycle):
        """Take along what is told of a term at cycle 0 (but `bad`, at 1); tell of bad factors."""
        valid = delay(m, valid, 1, name="valid_1")
        bad = delay(m, real, 1, name="scaled") & bad
        m.d.comb += self.nonfinite.eq(bad)
        enables = delay_lines(m, valid, cycle, name="enable")[-2:]
        lasts = delay_lines(m, last, cycle + 1, name="last")[-2:]
        return _Marks(cycle, enables, lasts, bad)

    def _onto_row(self, m, term_low, carry, term_high, marks):
        """Add a term's low half, and a cycle later its high half, to the row's sum."""
        half = len(term_low)
        low = Signal(half)
        over = Signal()
        part_low = Signal(half)
        part_high = Signal(signed(len(self.total) - half))
        sum_low = add_low(part_low, term_low, carry)
        m.d.sync += Cat(low, over).eq(sum_low)
        self._accumulate(m, part_low, sum_low, marks.enables[0], marks.lasts[0])
        sum_high = add_with_carry(part_high, term_high, over)
        self._accumulate(m, part_high, sum_high, marks.enables[1], marks.lasts[1])
        bad_now = delay(m, marks.bad, marks.cycle, name="bad")
        part_nan = Signal()
        self._accumulate(m, part_nan, part_nan | bad_now, marks.enables[1], marks.lasts[1])
        with m.If(marks.enables[1] & marks.lasts[1]):
            m.d.sync += [
                self.total.eq(Cat(low, sum_high)),
                self.nan.eq(part_nan | bad_now),
            ]

    @property
    def _unit(self):
        return self.unit if self.config.unit_max else Const(0, 1)

    @staticmethod
    def _accumulate(m, part, total, enable, last):
        # As in `GroupDot`, a reset instead of a multiplexer before the adder.
        with m.If(enable & last):
            m.d.sync += part.eq(0)
        with m.Elif(enable):
            m.d.sync += part.eq(total)

    def _product(self, m, value, half, unit, name):
        """Return (product, or its complement where the factor is negative; that sign), cycle 5.

        Also whether the factor is not finite, at cycle 1. Its binary16 comes a cycle before the
        value and the unit, which is looked at where activations are aligned.
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
            shift_1 = shift_1 + delay(m, unit, 1, name=f"{name}_unit")
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
