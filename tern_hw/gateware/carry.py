"""The ECP5 dot product: a carry cell that selects, negates and adds in one, in short chains."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Const, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import delay
from tern_hw.gateware.tree import Node, join, leaf, sum_bits

__all__ = ["CarryChains", "fused_add"]

#: LUT4 of the cell over (A, B, C, D) = (sum, activation, nonzero, negative): A, plus B where
#: nonzero, its complement where negative. The low four bits are the carry that the cell generates
#: where it does not propagate one: A, for then both operands are equal.
FUSED_INIT = 0x996A


def fused_add(m: Module, total, x, nonzero, negative, carry, *, width: int, name: str) -> Signal:
    """Return total + x * trit + carry in `width` bits, where a negated x lacks its one.

    One LUT4 of a CCU2C and its carry do all of it for a bit (Lattice, ECP5 family data sheet,
    PFU in ripple mode); the carry enters as the chain's lowest bit, 1 + carry.
    """
    result = Signal(signed(width), name=name)
    high = Const(1, 1)
    a = [high, *_extended(total, width)]
    b = [carry, *_extended(x, width)]
    controls = [(high, Const(0, 1)), *[(nonzero, negative)] * width]
    sums = [Signal(name=f"{name}_carry_in"), *result]
    if len(sums) % 2:
        a, b = [*a, a[-1]], [*b, b[-1]]
        controls.append(controls[-1])
        sums.append(Signal(name=f"{name}_unused"))
    carry_in: Const | Signal = Const(0, 1)
    for at in range(0, len(sums), 2):
        carry_out = Signal(name=f"{name}_carry_{at}")
        halves: dict[str, Any] = {}
        for half in range(2):
            bit = at + half
            halves |= {
                f"p_INIT{half}": Const(FUSED_INIT, 16),
                f"p_INJECT1_{half}": "NO",
                f"i_A{half}": a[bit],
                f"i_B{half}": b[bit],
                f"i_C{half}": controls[bit][0],
                f"i_D{half}": controls[bit][1],
                f"o_S{half}": sums[bit],
            }
        cell = Instance("CCU2C", i_CIN=carry_in, o_COUT=carry_out, **halves)
        setattr(m.submodules, f"{name}_{at}", cell)
        carry_in = carry_out
    return result


def _extended(value, width: int) -> list:
    bits = list(value)
    return bits + [bits[-1]] * (width - len(bits))


class CarryChains(wiring.Component):
    """Sum trit * activation over the lanes: exactly `total + carry`.

    The lanes are cut into chains of at most `config.CHAIN_LANES`. A chain's first lane is masked
    and negated by LUTs, as in the tree; each further lane is one row of carry cells, a row a cycle,
    so a lane's inputs wait for the sum that comes along: registers, which cost no LUTs, and two
    rows in a cycle would set the array's clock. Chains that are longer have wider
    sums than a tree would; shorter ones have more lanes that need LUTs of their own. The chains'
    totals meet in a tree.

    The cells are ECP5's: the block runs in a simulator with their models
    (`tern_hw.flows.cells`), not in Amaranth's.

    Latency: `latency` = lanes of the longest chain - 1 + ceil(log2(chains)). Throughput: a dot
    product a cycle. Backpressure: none.

    Members
    -------
    x, nonzero, negative, total, carry
        See `AdderTree`.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = config.tree_levels
        super().__init__(
            {
                "x": In(config.lanes * config.fixed_bits),
                "nonzero": In(config.lanes),
                "negative": In(config.lanes),
                "total": Out(signed(sum_bits(config, config.lanes))),
                "carry": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, chains = self.config.lanes, self.config.dot_chains
        edges = [lanes * at // chains for at in range(chains + 1)]
        level = [
            self._chain(m, range(first, end), f"chain_{first}") for first, end in pairwise(edges)
        ]
        depth = 0
        while len(level) > 1:
            pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
            level = [join(m, self.config, pair, f"l{depth}_{at}") for at, pair in enumerate(pairs)]
            depth += 1
        m.d.comb += [self.total.eq(level[0].value), self.carry.eq(level[0].carry)]
        return m

    def _chain(self, m, lanes: range, name: str) -> Node:
        """Return the sum of a few lanes, `config.chain_cycles` later."""
        bits = self.config.fixed_bits
        node = leaf(m, self.config, self, lanes[0])
        for stage in range(self.config.chain_cycles):
            for lane in lanes[stage + 1 : stage + 2]:
                x, nonzero, negative = (
                    delay(m, value, stage, name=f"{part}_{lane}")
                    for value, part in (
                        (self.x[lane * bits : (lane + 1) * bits], "x"),
                        (self.nonzero[lane], "nonzero"),
                        (self.negative[lane], "negative"),
                    )
                )
                width = sum_bits(self.config, node.lanes + 1)
                total = fused_add(
                    m,
                    node.value,
                    x,
                    nonzero,
                    negative,
                    node.carry,
                    width=width,
                    name=f"{name}_{lane}",
                )
                node = Node(total, negative, node.lanes + 1)
            node = join(m, self.config, [node], f"{name}_s{stage}")
        return node
