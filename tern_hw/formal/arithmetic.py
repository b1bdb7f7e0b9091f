"""The arithmetic blocks: decoder, adder tree, scale and shift, rounder, activation converter."""

import math
from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal, Value, signed

from tern_hw.config import ArrayConfig, OutputFormat, Packing
from tern_hw.formal.harness import Harness, history

__all__ = [
    "ConverterTable",
    "DecoderTable",
    "ExactScale",
    "NearestEven",
    "TreeSum",
    "byte_trits",
    "half_integer",
]


def byte_trits(byte: int, packing: Packing) -> Sequence[int | None] | None:
    """Return a byte's trits, first digit's first; None where the byte (base-3) is no code.

    An illegal field of a 2-bit code is None in the list's place.
    """
    if packing is Packing.BITS2:
        fields = [byte >> at & 3 for at in (0, 2, 4, 6)]
        return [None if field == 3 else field - 1 for field in fields]
    return BASE3_CODES.get(byte)


def _base3_codes() -> dict[int, list[int]]:
    """Return trits by byte: v = digits in base 3, first most significant; ceil(v * 256 / 243)."""
    codes = {}
    for v in range(243):
        digits = [v // 3**power % 3 for power in (4, 3, 2, 1, 0)]
        codes[math.ceil(v * 256 / 243)] = [digit - 1 for digit in digits]
    return codes


BASE3_CODES = _base3_codes()


class DecoderTable(Harness):
    """Every byte of a beat decodes as the table says, masked to some lanes; illegal ones flag."""

    def state(self) -> None:
        m, dut, config = self.m, self.dut, self.block.config
        self.free_inputs("codes", "mask", "ones")
        trits, illegal = self._table(config)
        late = self.block.latency
        # Mask and `ones` come in the decoder's last cycle.
        mask, ones = history(m, dut.mask, 1, "mask"), history(m, dut.ones, 1, "ones")
        lanes = history(m, Cat(*(Cat(*trit) for trit in trits[: config.lanes])), late, "trits")
        nonzero = [(lanes[2 * at] | ones) & mask[at] for at in range(config.lanes)]
        negative = [lanes[2 * at + 1] & ~ones & mask[at] for at in range(config.lanes)]
        flag = history(m, Cat(*illegal).any(), late, "flag")
        known = history(m, Const(1), late, "known")
        self.holds(~known | (dut.nonzero == Cat(*nonzero)))
        self.holds(~known | (dut.negative == Cat(*negative)))
        self.holds(~known | (dut.illegal.any() == flag))

    def _table(self, config: ArrayConfig) -> tuple[list[tuple[Any, Any]], list[Any]]:
        """Return (nonzero, negative) of each digit, and whether each byte is illegal."""
        lanes: list[tuple[Any, Any]] = []
        illegal = []
        for index in range(config.row_beat_bytes):
            byte = self.dut.codes[8 * index : 8 * index + 8]
            digits = config.packing.digits_per_byte
            table = Signal(2 * digits + 1, name=f"table_{index}")
            with self.m.Switch(byte):
                for code in range(256):
                    with self.m.Case(code):
                        self.m.d.comb += table.eq(_entry(code, config.packing))
            lanes += [(table[2 * at], table[2 * at + 1]) for at in range(digits)]
            illegal.append(table[-1])
        return lanes, illegal


def _entry(code: int, packing: Packing) -> int:
    """Return (nonzero, negative) of a byte's trits, first lowest, and on top its illegality."""
    trits = byte_trits(code, packing)
    digits = packing.digits_per_byte
    if trits is None:
        return 1 << 2 * digits
    word = 0
    for at, trit in enumerate(trits):
        word |= ((trit not in (0, None)) | (trit == -1) << 1) << 2 * at
    return word | (None in trits) << 2 * digits


class TreeSum(Harness):
    """`total + carry` is the sum of trit * activation, for all trits and activations.

    The sum is written in pairs, as a tree: solvers do not find a proof of a sum written in line.
    """

    def state(self) -> None:
        m, dut, config = self.m, self.dut, self.block.config
        self.free_inputs("x", "nonzero", "negative")
        self.assume((dut.negative & ~dut.nonzero) == 0)
        bits = config.fixed_bits
        level: list[Any] = []
        for lane in range(config.lanes):
            x = dut.x[lane * bits : (lane + 1) * bits].as_signed()
            level.append(Mux(dut.nonzero[lane], Mux(dut.negative[lane], -x, x), 0))
        depth = 0
        while len(level) > 1:
            pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
            level = [
                self._register(sum(pair[1:], pair[0]), f"spec_{depth}_{at}")
                for at, pair in enumerate(pairs)
            ]
            depth += 1
        expected = history(m, level[0], self.block.latency - depth, "expected")
        known = history(m, Const(1), self.block.latency, "known")
        self.holds(~known | (dut.total + dut.carry == expected))

    def _register(self, value: Any, name: str) -> Signal:
        register = Signal(Value.cast(value).shape(), name=name)
        self.m.d.sync += register.eq(value)
        return register


def half_integer(half: Any) -> tuple[Any, Any, Any]:
    """Return (magnitude in units of 2**-24, sign, whether it is not finite) of a binary16.

    Row by row of a table over the exponent: no shifter, unlike the gateware.
    """
    fraction, exponent, sign = half[:10], half[10:15], half[15]
    magnitude: Any = Const(0, 41)
    for value in range(31):
        significand = fraction if value == 0 else Cat(fraction, Const(1, 1))
        placed = Cat(Const(0, max(value - 1, 0)), significand) if value > 1 else significand
        magnitude = Mux(exponent == value, placed, magnitude)
    return magnitude, sign, exponent == 31


class ConverterTable(Harness):
    """Every activation becomes its integer (a binary16 sign and magnitude); what is none shows."""

    def state(self) -> None:
        m, dut, config = self.m, self.dut, self.block.config
        self.free_inputs("beat")
        late = self.block.latency
        known = history(m, Const(1), late, "known")
        bits, fixed_bits = config.activation_bits, config.fixed_bits
        anything_bad = []
        for lane in range(config.lanes):
            raw = dut.beat[lane * bits : (lane + 1) * bits]
            value, bad = self._value(raw)
            expected = history(m, value, late, f"lane_{lane}")
            got = dut.fixed[lane * fixed_bits : (lane + 1) * fixed_bits]
            finite = history(m, ~bad, late, f"finite_{lane}")
            # The integer of an infinity is nobody's business: its flag is.
            self.holds(~known | ~finite | (got == expected))
            anything_bad.append(bad)
        flagged = history(m, Cat(*anything_bad), late, "flagged")
        self.holds(~known | (dut.nonfinite == flagged))

    def _value(self, raw: Any) -> tuple[Any, Any]:
        if self.block.config.activation_bits == 8:
            return raw, Const(0, 1)
        magnitude, sign, bad = half_integer(raw)
        return Cat(magnitude[: self.block.config.fixed_bits - 1], sign), bad


class LanesOfStep(Harness):
    """The lanes that count: of the step's segment, and below K in a row's last beat."""

    def state(self) -> None:
        m, dut, config = self.m, self.dut, self.block.config
        self.free_inputs("load", "last", "segment", "ragged")
        real = Signal(config.lanes, name="spec_real")
        with m.If(dut.load):
            m.d.sync += real.eq(Cat(dut.last >= lane for lane in range(config.lanes)))
        segment = Value.cast(dut.segment)
        for lane in range(config.lanes):
            inside = (segment == lane // config.step_inputs) if config.segments > 1 else Const(1)
            self.holds(dut.mask[lane] == (inside & (~dut.ragged | real[lane])))
        self.holds(dut.real == real)


def group_distance(config: ArrayConfig) -> int:
    """Return the least cycles from a group to the next one."""
    return 3 - config.products


def cycles_before(config: ArrayConfig) -> int:
    """Return the cycles that `ExactScale` looks at before a row's last group.

    Those of a group and of a row's end before it, and of the factors of that.
    """
    return 2 * group_distance(config) + 1


class ExactScale(Harness):
    """`total` is the sum of scale * dot + shift * inputs over the groups of a row, exactly.

    Said of rows of one group or two, after any row, with bubbles or without.

    Parameters
    ----------
    factor
        "scale" or "shift"; the other one is 0.
    exponent
        Of the factor's binary16; its fraction and its sign are free.
    bits
        The sums S and X are integers of so many bits, sign included.
    groups
        Groups that a row has at most: 1 or 2.
    """

    def __init__(
        self, block: Any, text: str, *, factor: str, exponent: int, bits: int, groups: int
    ) -> None:
        super().__init__(block, text)
        self.factor, self.exponent, self.bits = factor, exponent, bits
        self.groups = groups

    def state(self) -> None:
        m, dut = self.m, self.dut
        self.free_inputs("valid", "last", "scaled")
        fraction, negative = self.free(10, "fraction"), self.free(1, "negative")
        half_bits = Cat(fraction, Const(self.exponent, 5), negative)
        # The factors come a cycle before their sums.
        m.d.comb += getattr(dut, self.factor).eq(half_bits)
        half_bits = history(m, half_bits, 1, "factor")
        product: Any = Const(0, 1)
        bad: Any = Const(0, 1)
        for half, value in (("scale", "dot"), ("shift", "inputs")):
            small = self.free(signed(self.bits), f"any_{value}")
            m.d.comb += getattr(dut, value).eq(small)
            magnitude, sign, nonfinite = half_integer(half_bits)
            units = self._multiple(magnitude, small)
            if half == self.factor:
                product = product + Mux(sign, -units, units)
                bad = bad | nonfinite
        late = self.block.latency
        apart = group_distance(self.block.config)
        if apart > 1:
            self.assume(~(dut.valid & history(m, dut.valid, 1, "occupied")))
        known = history(m, Const(1), late + cycles_before(self.block.config), "known")
        ends, goes_on = dut.valid & dut.last, dut.valid & ~dut.last
        # The group that ends the row; the one before it; and before that a row's end.
        end = history(m, ends, late, "end")
        again = history(m, goes_on, late + apart, "again")
        begun = history(m, ends, late + 2 * apart, "begun")
        if self.groups == 1:
            begun, again = begun & ~again, Const(0, 1)
        term = history(m, product, late, "term")
        earlier = Mux(again, history(m, product, late + apart, "earlier"), 0)
        # What an infinity or a missing factor adds is nobody's business.
        exact = history(m, dut.scaled & ~bad, late, "exact")
        exact &= ~again | history(m, dut.scaled & ~bad, late + apart, "exact_before")
        broken = history(m, bad & dut.scaled, late, "broken")
        broken |= again & history(m, bad & dut.scaled, late + apart, "broken_before")
        row = (earlier + term)[: len(dut.total)].as_signed()
        self.holds(~known | ~begun | ~end | ~exact | (dut.total == row))
        self.holds(~known | ~begun | ~end | (dut.nan == broken))
        total, nan = (history(m, getattr(dut, name), 1, name) for name in ("total", "nan"))
        self.holds(~known | end | ((dut.total == total.as_signed()) & (dut.nan == nan)))

    def _multiple(self, magnitude: Any, value: Any) -> Any:
        """Return magnitude * value, added up bit by bit, two's complement."""
        total: Any = Const(0, 1)
        for at in range(self.bits):
            part = Mux(value[at], magnitude << at, 0)
            total = total - part if at == self.bits - 1 else total + part
        return total


class NearestEven(Harness):
    """The result is the total's nearest binary32 or binary16, ties to even.

    A table over the place of the leading one: in each row the kept, the guard and the sticky bits
    are fixed places of the magnitude.
    """

    def state(self) -> None:
        m, dut, config = self.m, self.dut, self.block.config
        self.free_inputs("total", "nan")
        # A sum's magnitude is below the most negative integer's.
        self.assume(dut.total != -(1 << (config.accumulator_bits - 1)))
        negative = dut.total[-1]
        magnitude = Signal(config.accumulator_bits - 1)
        m.d.comb += magnitude.eq(Mux(negative, -dut.total, dut.total))
        single = config.output is OutputFormat.FP32
        fraction_bits, exponent_bits = (23, 8) if single else (10, 5)
        body = Signal(fraction_bits + exponent_bits)
        for top in range(len(magnitude)):
            leads = magnitude[top:] == 1
            with m.If(leads):
                value = _rounded(magnitude, top, config, fraction_bits, exponent_bits)
                m.d.comb += body.eq(value)
        quiet = ((1 << exponent_bits) - 1) << fraction_bits | 1 << (fraction_bits - 1)
        expected = Mux(dut.nan, quiet, Cat(body, negative))
        late = self.block.latency
        known = history(m, Const(1), late, "known")
        self.holds(~known | (dut.result == history(m, expected, late, "expected")))


def _rounded(
    magnitude: Any, top: int, config: ArrayConfig, fraction_bits: int, exponent_bits: int
) -> Any:
    """Return exponent and fraction of a magnitude whose leading one stands at `top`."""
    bias = (1 << (exponent_bits - 1)) - 1
    exponent = top - config.accumulator_fraction_bits
    infinity = ((1 << exponent_bits) - 1) << fraction_bits
    if exponent > bias:
        return infinity
    # The last kept bit stands here; below the least normal exponent it does not move any more.
    last = max(exponent, 1 - bias) - fraction_bits + config.accumulator_fraction_bits
    field = max(exponent, 1 - bias) + bias if exponent >= 1 - bias else 0
    kept = (
        magnitude[last:] if last > 0 else Cat(Const(0, -last) if last else Const(0, 0), magnitude)
    )
    guard = magnitude[last - 1] if last > 0 else Const(0, 1)
    sticky = magnitude[: last - 1].any() if last > 1 else Const(0, 1)
    up = guard & (sticky | kept[0])
    # A carry out of the fraction raises the exponent: that is what their order is for.
    return (field << fraction_bits) + kept[:fraction_bits] + up
