"""A dot product that looks up three lanes at a time in distributed RAM: a bare block."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import delay

__all__ = ["GROUP", "TableDot"]

#: Lanes of a table: 27 sums fit the 32 words of a 7-series RAM32M; four lanes would take 81.
GROUP = 3
WORD_ADDRESS_BITS = 5


class TableDot(wiring.Component):
    """Sum trit * activation over the lanes, from tables of every sum of three lanes.

    A table's words are written once for many rows of weights (T-MAC, Wei et al. 2024, in logic).
    They hold a sum plus 2**(bits - 1), never negative, so that no adder spends a LUT on a sign;
    the offsets are taken off together, at the end, in the highest bits alone.

    No dot product of the array, whose steps have new activations every cycle: writing the tables
    and the code of three trits in five bits are left to whoever uses it.

    Latency: `latency` = 2 + ceil(log2(tables)): the words, the tree, the offset. Throughput: a dot
    product a cycle. Backpressure: none. A word can be read the cycle after it was written.

    Members
    -------
    write : In
    entry : In, 5
        Word to be written, the same in every table.
    words : In, tables * bits
        Its content: the sum of the table's three lanes under the trits that `entry` stands for,
        plus 2**(bits - 1). Lanes beyond the last one count as 0.
    codes : In, tables * 5
        A table's three trits: the sum of (trit + 1) * 3**lane.
    total : Out, signed
    """

    def __init__(self, config: ArrayConfig):
        self.tables = -(-config.lanes // GROUP)
        self.bits = config.fixed_bits + 2
        levels = (self.tables - 1).bit_length()
        self.latency = 2 + levels
        super().__init__(
            {
                "write": In(1),
                "entry": In(WORD_ADDRESS_BITS),
                "words": In(self.tables * self.bits),
                "codes": In(self.tables * WORD_ADDRESS_BITS),
                "total": Out(signed(self.bits + levels)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        level = [self._table(m, at) for at in range(self.tables)]
        for depth in range(self.latency - 2):
            pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
            level = [self._join(m, pair, f"sum_{depth}_{at}") for at, pair in enumerate(pairs)]
        whole = level[0]
        # The offsets' sum is a multiple of this bit's weight: those below it stand.
        low = self.bits - 1
        m.d.sync += self.total.eq(Cat(whole[:low], whole[low:] - self.tables))
        return m

    def _table(self, m, at):
        table = memory.Memory(
            shape=self.bits,
            depth=1 << WORD_ADDRESS_BITS,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        m.submodules[f"table_{at}"] = table
        writer, reader = table.write_port(), table.read_port(domain="comb")
        m.d.comb += [
            writer.en.eq(self.write),
            writer.addr.eq(self.entry),
            writer.data.eq(self.words.word_select(at, self.bits)),
            reader.addr.eq(self.codes.word_select(at, WORD_ADDRESS_BITS)),
        ]
        return delay(m, reader.data, 1, name=f"word_{at}")

    @staticmethod
    def _join(m, nodes, name):
        """Register the sum of two nodes, or a node that has no partner."""
        bits = len(nodes[0]) + len(nodes) - 1
        total = Signal(bits, name=name)
        m.d.sync += total.eq(sum(nodes[1:], nodes[0]))
        return total
