"""From a row block's sums to the result stream: one output after the other through one rounder."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import delay
from tern_hw.gateware.rounder import Rounder

__all__ = ["ResultUnit", "result_layout"]

#: Cycles from a write into the FIFO to the transfer of what was written.
FIFO_LATENCY = 2


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
    nans : In, rows
    all_nan : In
        Every result of the job is NaN.
    results : Out, stream
    """

    def __init__(self, config: ArrayConfig, *, depth: int):
        self.config = config
        self.depth = depth
        self.rounder = Rounder(config)
        # Serializer, rounder, queue.
        self.latency = 1 + self.rounder.latency + FIFO_LATENCY
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
        bits = self.config.accumulator_bits
        totals = Signal.like(self.totals)
        nans = Signal.like(self.nans)
        waiting = Signal.like(self.rows)
        last = Signal()
        with m.If(self.valid):
            m.d.sync += [
                totals.eq(self.totals),
                nans.eq(self.nans),
                waiting.eq(self.rows),
                last.eq(self.last),
            ]
        with m.Else():
            m.d.sync += [totals.eq(totals >> bits), nans.eq(nans >> 1), waiting.eq(waiting >> 1)]
        m.d.comb += [
            rounder.total.eq(totals[:bits].as_signed()),
            rounder.nan.eq(nans[0] | self.all_nan),
        ]
        final = last & ~waiting[1:].any() if self.config.rows > 1 else last
        layout = result_layout(self.config)
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=layout.size, depth=self.depth)
        m.d.comb += [
            queue.w_en.eq(delay(m, waiting[0], rounder.latency, name="valid")),
            queue.w_data.eq(Cat(rounder.result, delay(m, final, rounder.latency, name="final"))),
            self.results.payload.eq(queue.r_data),
            self.results.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.results.ready),
        ]
        return m
