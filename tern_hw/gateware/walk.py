"""The order in which a job's beats come: row blocks outside, inputs inside."""

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["JobWalk"]


class JobWalk(wiring.Component):
    """Count the row blocks of a job and, within each, quanta of its inputs.

    Latency: 0 (outputs describe the current position). Throughput: an advance a cycle.

    Parameters
    ----------
    rows : int
        Outputs of a row block.
    quantum : int or None
        Inputs of one position; None where a row block is a single position.
    max_n, max_k : int

    Members
    -------
    start : In
        Go to the first position of a job of `n` outputs over `k` inputs.
    n, k : In
        Stable from `start` to the end of the job.
    advance : In
        Go to the next position.
    inputs_left, outputs_left : Out
        From this position on, it included.
    row_last, block_last : Out
        The position ends its row block; the row block is the job's last.
    """

    def __init__(self, *, rows: int, quantum: int | None, max_n: int, max_k: int):
        self.rows = rows
        self.quantum = quantum
        super().__init__(
            {
                "start": In(1),
                "n": In(max_n.bit_length()),
                "k": In(max_k.bit_length()),
                "advance": In(1),
                "inputs_left": Out(max_k.bit_length()),
                "outputs_left": Out(max_n.bit_length()),
                "row_last": Out(1),
                "block_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.block_last.eq(self.outputs_left <= self.rows)
        if self.quantum is None:
            m.d.comb += [self.row_last.eq(1), self.inputs_left.eq(self.k)]
        else:
            m.d.comb += self.row_last.eq(self.inputs_left <= self.quantum)
        with m.If(self.start):
            m.d.sync += self.outputs_left.eq(self.n)
            if self.quantum is not None:
                m.d.sync += self.inputs_left.eq(self.k)
        with m.Elif(self.advance):
            if self.quantum is not None:
                left = Mux(self.row_last, self.k, self.inputs_left - self.quantum)
                m.d.sync += self.inputs_left.eq(left)
            with m.If(self.row_last):
                m.d.sync += self.outputs_left.eq(self.outputs_left - self.rows)
        return m
