"""The small pieces of every pipeline: delays, adders with a carry, comparisons, widths of tags."""

import pytest
from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import (
    add_low,
    add_with_carry,
    at_least,
    delay,
    delay_lines,
    index_bits,
    step_layout,
    unless,
)
from tests.gateware.blocks import randoms, respond

PAIR = data.StructLayout({"low": 3, "high": signed(4)})


class Lines(wiring.Component):
    """All lines of a delay of `cycles`, and what `delay` returns."""

    def __init__(self, shape, cycles):
        self.cycles = cycles
        self.latency = 0
        lines = {f"line_{index}": Out(shape) for index in range(cycles + 1)}
        super().__init__({"value": In(shape), "late": Out(shape), **lines})

    def elaborate(self, platform):
        m = Module()
        lines = delay_lines(m, self.value, self.cycles, name="value")
        assert len(lines) == self.cycles + 1
        for index, line in enumerate(lines):
            m.d.comb += getattr(self, f"line_{index}").eq(line)
        m.d.comb += self.late.eq(delay(m, self.value, self.cycles, name="again"))
        return m


@pytest.mark.parametrize("cycles", [0, 1, 3])
def test_delay_lines_hold_the_past(cycles):
    rng = randoms("delay", cycles)
    values = [rng.randint(-64, 63) for _ in range(40)]
    names = [f"line_{index}" for index in range(cycles + 1)]
    seen = respond(Lines(signed(7), cycles), [{"value": v} for v in values], [*names, "late"])
    past = [0] * cycles + values
    for at, (*lines, late) in enumerate(seen):
        assert lines == [past[at + cycles - index] for index in range(cycles + 1)]
        assert late == lines[-1]


def test_delay_keeps_the_layout_of_a_view():
    values = [{"low": 5, "high": -3}, {"low": 1, "high": 7}, {"low": 0, "high": -8}]
    seen = respond(Lines(PAIR, 2), [{"value": v} for v in values], ["late"], latency=2)
    assert [{"low": late.low, "high": late.high} for (late,) in seen] == values


class Adder(wiring.Component):
    """`add_with_carry` of two widths."""

    latency = 0

    def __init__(self, a_bits, b_bits):
        self.bits = max(a_bits, b_bits) + 1
        super().__init__(
            {
                "a": In(signed(a_bits)),
                "b": In(signed(b_bits)),
                "carry": In(1),
                "sum": Out(signed(9)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        total = add_with_carry(self.a, self.b, self.carry)
        assert total.shape() == signed(self.bits)
        m.d.comb += self.sum.eq(total)
        return m


@pytest.mark.parametrize(("a_bits", "b_bits"), [(3, 3), (2, 5), (5, 2), (1, 4)])
def test_add_with_carry_is_exact_for_all_operands(a_bits, b_bits):
    vectors = [
        {"a": a, "b": b, "carry": carry}
        for a in range(-(1 << a_bits - 1), 1 << a_bits - 1)
        for b in range(-(1 << b_bits - 1), 1 << b_bits - 1)
        for carry in (0, 1)
    ]
    sums = respond(Adder(a_bits, b_bits), vectors, ["sum"])
    assert [value for (value,) in sums] == [v["a"] + v["b"] + v["carry"] for v in vectors]


class Gates(wiring.Component):
    """`add_low`, `unless` and, for every constant, `at_least` of some bits."""

    latency = 0

    def __init__(self, bits):
        self.bits = bits
        self.most = (1 << bits) + 1
        super().__init__(
            {
                "a": In(bits),
                "b": In(bits),
                "bit": In(1),
                "sum": Out(bits + 1),
                "kept": Out(bits),
                "reached": Out(self.most + 2),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.sum.eq(add_low(self.a, self.b, self.bit)),
            self.kept.eq(unless(self.bit, self.a)),
            self.reached.eq(Cat(at_least(self.a, least) for least in range(-1, self.most + 1))),
        ]
        return m


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_low_sums_resets_and_comparisons_for_all_operands(bits):
    gates = Gates(bits)
    every = range(1 << bits)
    vectors = [{"a": a, "b": b, "bit": bit} for a in every for b in every for bit in (0, 1)]
    for v, (total, kept, reached) in zip(
        vectors, respond(gates, vectors, ["sum", "kept", "reached"]), strict=True
    ):
        assert total == v["a"] + v["b"] + v["bit"]
        assert kept == (0 if v["bit"] else v["a"])
        # -1 and 0 are always reached, 2**bits never.
        assert reached == (1 << (v["a"] + 2)) - 1


def test_index_bits_is_the_least_width():
    assert [index_bits(count) for count in (1, 2, 3, 4, 5, 8, 9, 256, 257)] == [
        1, 1, 2, 2, 3, 3, 4, 8, 9,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        # chunks, segments, groups: one value still takes one bit
        ({"lanes": 8, "group_size": "row", "max_k": 8, "rows": 1}, (1, 1, 1, 1)),
        ({"lanes": 8, "group_size": 2, "max_k": 64, "rows": 3}, (3, 2, 5, 3)),
        ({"lanes": 8, "group_size": 16, "max_k": 65, "rows": 16}, (4, 1, 3, 16)),
    ],
)
def test_a_step_holds_its_largest_position(fields, widths):
    layout = step_layout(ArrayConfig(**fields))
    shapes = [layout[name].shape for name in ("chunk", "segment", "group", "rows")]
    assert [Signal(shape).shape() for shape in shapes] == [unsigned(bits) for bits in widths]
