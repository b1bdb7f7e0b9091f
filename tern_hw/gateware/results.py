"""From a row block's sums to the result stream: one output after the other through one rounder."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.credit import CreditCounter
from tern_hw.gateware.memories import Ring
from tern_hw.gateware.pipeline import delay, index_bits, select
from tern_hw.gateware.rounder import Rounder

__all__ = ["ResultUnit", "result_layout"]


def result_layout(config: ArrayConfig) -> data.StructLayout:
    """Return the payload of the result stream."""
    return data.StructLayout({"value": config.result_bits, "last": 1})


class ResultUnit(wiring.Component):
    """Round and queue the outputs of each row block.

    Latency: `latency` from `valid` to the first transfer. Throughput: an output a cycle, so a
    row block takes `rows` cycles. Backpressure: none at `valid`; who sends a block has
    claimed `rows` of the `depth` places, and gets each back with the transfer.

    Members
    -------
    valid : In
        A row block's sums are present; at least `rows` cycles after the one before.
    rows : In
        Rows that exist, from row 0 on; at least row 0.
    last : In
        The block is the job's last.
    totals : In, rows * signed(accumulator_bits)
        They stay for `rows` cycles; all else is looked at where `valid`.
    nans : In, rows
    all_nan : In
        Every result of the job is NaN.
    results : Out, stream
    """

    def __init__(self, config: ArrayConfig, *, depth: int):
        self.config = config
        self.depth = depth
        self.rounder = Rounder(config)
        self.latency = self.rounder.latency + config.queue_cycles
        super().__init__(
            {
                "valid": In(1),
                "rows": In(config.rows),
                "last": In(1),
                "totals": In(config.rows * config.accumulator_bits),
                "nans": In(config.rows),
                "all_nan": In(1),
                "results": Out(stream.Signature(result_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.rounder = rounder = self.rounder
        row, sends, nan, final = self._turns(m)
        bits = self.config.accumulator_bits
        totals = [self.totals[at : at + bits] for at in range(0, len(self.totals), bits)]
        m.d.comb += [
            rounder.total.eq(select(row, totals).as_signed()),
            rounder.nan.eq(nan | self.all_nan),
        ]
        layout = result_layout(self.config)
        m.submodules.ring = ring = Ring(width=layout.size, depth=self.depth)
        m.submodules.waiting = waiting = CreditCounter(limit=self.depth, initial=0, cost=1)
        taken = Signal()
        # A block RAM answers late in the cycle: its word leaves from a register.
        leaving = Signal(layout.size, reset_less=True)
        free = ~self.results.valid | self.results.ready
        m.d.comb += [
            ring.write.eq(delay(m, sends, rounder.latency, name="valid")),
            ring.data.eq(Cat(rounder.result, delay(m, final, rounder.latency, name="final"))),
            waiting.give.eq(ring.write),
            ring.take.eq(waiting.enough & (~taken | free)),
            waiting.claim.eq(ring.take),
            self.results.payload.eq(leaving),
        ]
        with m.If(ring.take | free):
            m.d.sync += taken.eq(ring.take)
        with m.If(free):
            m.d.sync += [leaving.eq(ring.word), self.results.valid.eq(taken)]
        return m

    def _turns(self, m):
        """Return (row whose turn it is, whether it has a sum, whether NaN, whether the last)."""
        rows = self.config.rows
        row, waiting, nans, last = Signal(index_bits(rows)), Signal(rows), Signal(rows), Signal()
        with m.If(self.valid):
            m.d.sync += [row.eq(rows > 1), last.eq(self.last)]
        with m.Elif(row.any()):
            m.d.sync += row.eq(Mux(row == rows - 1, 0, row + 1))
        rows_left = Mux(self.valid, self.rows, waiting)
        nans_left = Mux(self.valid, self.nans, nans)
        m.d.sync += [waiting.eq(rows_left >> 1), nans.eq(nans_left >> 1)]
        final = Mux(self.valid, self.last, last)
        if rows > 1:
            final &= ~rows_left[1:].any()
        return row, rows_left[0], nans_left[0], final
