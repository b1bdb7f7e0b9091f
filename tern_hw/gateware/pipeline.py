"""Small things every pipelined block uses: delays, the carry-in adder, a choice, a step's tag."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueCastable
from amaranth.lib import data

from tern_hw.config import ArrayConfig

__all__ = [
    "add_low",
    "add_with_carry",
    "any_of",
    "at_least",
    "delay",
    "delay_lines",
    "index_bits",
    "select",
    "step_layout",
    "unless",
]


def index_bits(count: int) -> int:
    """Return the bits that hold 0 ... count - 1 (at least one)."""
    return max(1, (count - 1).bit_length())


def delay_lines(m: Module, value, cycles: int, *, name: str) -> list:
    """Return [value, value one cycle later, ..., `cycles` later]."""
    shape = value.shape() if isinstance(value, ValueCastable) else Value.cast(value).shape()
    lines = [value]
    for index in range(cycles):
        stage = Signal(shape, name=f"{name}_{index + 1}")
        m.d.sync += stage.eq(lines[-1])
        lines.append(stage)
    return lines


def delay(m: Module, value, cycles: int, *, name: str):
    """Return `value` as it was `cycles` cycles ago."""
    return delay_lines(m, value, cycles, name=name)[-1]


def add_with_carry(a: Value, b: Value, carry: Value) -> Value:
    """Return signed a + b + carry, exact, written so that one carry chain does it.

    A one below the operands' lowest bit turns the carry into the chain's carry-in; a plain
    `a + b + carry` would ask synthesis for a second adder.
    """
    total = Cat(1, a).as_signed() + Cat(carry, b).as_signed()
    return total[1:].as_signed()


def add_low(a: Value, b: Value, carry: Value) -> Value:
    """Return unsigned a + b + carry, with the carry out on top: the low part of a longer sum."""
    return (Cat(1, a) + Cat(carry, b))[1:]


def at_least(value: Value, least: int) -> Value:
    """Return value >= least, as AND and OR of bits: a few LUTs for what would be a carry chain."""
    if least <= 0:
        return Const(1)
    if least >= 1 << len(value):
        return Const(0)
    half, below = 1 << (len(value) - 1), value[:-1]
    if least > half:
        return value[-1] & at_least(below, least - half)
    return value[-1] | at_least(below, least)


def unless(reset: Value, value: Value) -> Value:
    """Return value, or 0 where `reset`; as gates, for a register's own reset would come late."""
    return value & (~reset).replicate(len(value))


def any_of(choices) -> Value:
    """Return the OR of the values whose enables are set, from pairs (enable, value)."""
    masked = [value & enable.replicate(len(value)) for enable, value in choices]
    return reduce(or_, masked)


def select(index: Value, values: list) -> Value:
    """Return values[index]; two LUT4 a bit for four, where a comparison for each takes three."""
    for bit in index:
        pairs = [values[at : at + 2] for at in range(0, len(values), 2)]
        values = [Mux(bit, pair[-1], pair[0]) for pair in pairs]
    return values[0]


def step_layout(config: ArrayConfig) -> data.StructLayout:
    """Return the tag that travels beside a step's data, from issue to result.

    A step is the work of one cycle: `step_inputs` inputs of every row of a block.
    """
    return data.StructLayout(
        {
            "valid": 1,
            # The load's own pass: row 0 sums the activations themselves.
            "load": 1,
            "chunk": index_bits(config.max_chunks),
            "segment": index_bits(config.segments),
            "group": index_bits(config.max_groups),
            "group_last": 1,
            "row_last": 1,
            # The step belongs to the row's last beat, which K may not fill.
            "ragged": 1,
            # A weight beat stands behind the step; a scale beat was claimed for it.
            "weighted": 1,
            "scaled": 1,
            # A beat is missing; at the row's last step: its results are NaN.
            "poison": 1,
            # Rows of the block that exist (n < N), and whether it is the job's last block.
            "rows": config.rows,
            "block_last": 1,
        }
    )
