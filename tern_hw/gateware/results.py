"""From a row block's sums to the result stream: one output after the other through one rounder."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.memories import Queue
from tern_hw.gateware.pipeline import delay, index_bits, select
from tern_hw.gateware.rounder import Rounder

__all__ = ["ResultUnit", "result_layout"]

#: Cycles from a write into the queue to the transfer of what was written: in, out, a register.
QUEUE_LATENCY = 3


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
        self.latency = self.rounder.latency + QUEUE_LATENCY
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
        m.submodules.queue = queue = Queue(width=layout.size, depth=self.depth)
        m.d.comb += [
            queue.w_en.eq(delay(m, sends, rounder.latency, name="valid")),
            queue.w_data.eq(Cat(rounder.result, delay(m, final, rounder.latency, name="final"))),
        ]
        # A block RAM answers late in the cycle: its word leaves from a register.
        leaving = Signal(layout.size, reset_less=True)
        free = ~self.results.valid | self.results.ready
        m.d.comb += [queue.r_en.eq(free), self.results.payload.eq(leaving)]
        with m.If(free):
            m.d.sync += [leaving.eq(queue.r_data), self.results.valid.eq(queue.r_rdy)]
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
