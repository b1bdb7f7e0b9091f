"""The ECP5 dot product: a carry cell that selects, negates and adds in one, in short chains."""

from itertools import pairwise

from amaranth.hdl import Const, Module, Signal, signed
from amaranth.lib import wiring

from tern_hw.config import ArrayConfig
from tern_hw.gateware.carry_cell import carry_chain
from tern_hw.gateware.pipeline import delay
from tern_hw.gateware.tree import Node, add_up, dot_members, join, leaf, sum_bits

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
    one, zero = Const(1, 1), Const(0, 1)
    rows = [(one, carry, one, zero)]
    operands = zip(_extended(total, width), _extended(x, width), strict=True)
    rows += [(a, b, nonzero, negative) for a, b in operands]
    sums = [Signal(name=f"{name}_carry_in"), *result]
    if len(rows) % 2:
        rows.append(rows[-1])
        sums.append(Signal(name=f"{name}_unused"))
    carry_chain(m, rows, FUSED_INIT, zero, sums=sums, name=name)
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
        super().__init__(dot_members(config))

    def elaborate(self, platform):
        m = Module()
        lanes, chains = self.config.lanes, self.config.dot_chains
        edges = [lanes * at // chains for at in range(chains + 1)]
        level = [
            self._chain(m, range(first, end), f"chain_{first}") for first, end in pairwise(edges)
        ]
        total = add_up(m, self.config, level)
        m.d.comb += [self.total.eq(total.value), self.carry.eq(total.carry)]
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
