"""The portable dot product: a pipelined adder tree whose negations cost no adder of their own."""

from dataclasses import dataclass

from amaranth.hdl import Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import add_with_carry

__all__ = ["AdderTree", "Node", "add_up", "dot_members", "join", "leaf", "sum_bits"]


@dataclass(frozen=True)
class Node:
    """A sum of some lanes that still lacks `carry` (0 or 1) to be exact."""

    value: Value
    carry: Value
    lanes: int


def sum_bits(config: ArrayConfig, lanes: int) -> int:
    """Return the width of a sum over some lanes that still lacks a one.

    It stays below lanes * 2**(fixed_bits - 1).
    """
    return config.fixed_bits + (lanes - 1).bit_length()


def leaf(m: Module, config: ArrayConfig, dot, lane: int) -> Node:
    """Return one lane's product: its activation masked, or complemented where negative."""
    bits = config.fixed_bits
    x = dot.x[lane * bits : (lane + 1) * bits]
    negative = dot.negative[lane]
    term = Signal(signed(bits), name=f"term_{lane}")
    m.d.comb += term.eq((x ^ negative.replicate(bits)) & dot.nonzero[lane].replicate(bits))
    return Node(term, negative, 1)


def join(m: Module, config: ArrayConfig, nodes: list[Node], name: str) -> Node:
    """Register the sum of two nodes, or a node that has no partner."""
    lanes = sum(node.lanes for node in nodes)
    value = Signal(signed(sum_bits(config, lanes)), name=f"sum_{name}")
    carry = Signal(name=f"carry_{name}")
    last = nodes[-1]
    if len(nodes) == 2:
        m.d.sync += value.eq(add_with_carry(nodes[0].value, last.value, nodes[0].carry))
    else:
        m.d.sync += value.eq(last.value)
    m.d.sync += carry.eq(last.carry)
    return Node(value, carry, lanes)


def add_up(m: Module, config: ArrayConfig, level: list[Node]) -> Node:
    """Return the sum of all nodes, ceil(log2) of their number of cycles later."""
    depth = 0
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [join(m, config, pair, f"l{depth}_{at}") for at, pair in enumerate(pairs)]
        depth += 1
    return level[0]


def dot_members(config: ArrayConfig) -> dict:
    """Return the members of a dot product over the lanes, whatever it is made of."""
    return {
        "x": In(config.lanes * config.fixed_bits),
        "nonzero": In(config.lanes),
        "negative": In(config.lanes),
        "total": Out(signed(sum_bits(config, config.lanes))),
        "carry": Out(1),
    }


class AdderTree(wiring.Component):
    """Sum trit * activation over the lanes: exactly `total + carry`.

    A negated activation is its complement plus one. A tree over n lanes has n - 1 adders with
    an unused carry-in each: they take n - 1 of the ones, `carry` is the last, for the adder
    that comes after. So -1 x -128 = +128 needs no wider negation.

    Latency: `latency` = ceil(log2(lanes)). Throughput: a dot product a cycle.
    Backpressure: none.

    Members
    -------
    x : In, lanes * fixed_bits
        Two's-complement activations, lane 0 lowest.
    nonzero, negative : In, lanes
        Trit of each lane; `negative` implies `nonzero`.
    total : Out, signed
        The dot product, less `carry`.
    carry : Out
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = config.tree_levels
        super().__init__(dot_members(config))

    def elaborate(self, platform):
        m = Module()
        level = [leaf(m, self.config, self, lane) for lane in range(self.config.lanes)]
        total = add_up(m, self.config, level)
        m.d.comb += [self.total.eq(total.value), self.carry.eq(total.carry)]
        return m
