"""The order of a job: row blocks outside, inputs inside; and where in its row a step stands."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import index_bits

__all__ = ["JobWalk", "StepWalk"]


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
        # What ends is told one position ahead, so that no comparison stands behind a register.
        if self.quantum is None:
            m.d.comb += [self.row_last.eq(1), self.inputs_left.eq(self.k)]
        with m.If(self.start):
            m.d.sync += [self.outputs_left.eq(self.n), self.block_last.eq(self.n <= self.rows)]
        with m.Elif(self.advance & self.row_last):
            m.d.sync += [
                self.outputs_left.eq(self.outputs_left - self.rows),
                self.block_last.eq(self.outputs_left <= 2 * self.rows),
            ]
        if self.quantum is not None:
            with m.If(self.start | (self.advance & self.row_last)):
                m.d.sync += [self.inputs_left.eq(self.k), self.row_last.eq(self.k <= self.quantum)]
            with m.Elif(self.advance):
                m.d.sync += [
                    self.inputs_left.eq(self.inputs_left - self.quantum),
                    self.row_last.eq(self.inputs_left <= 2 * self.quantum),
                ]
        return m


class StepWalk(wiring.Component):
    """Count a job's steps: `JobWalk` over `step_inputs`, with the places within the row.

    Latency: 0 (outputs describe the current step). Throughput: an advance a cycle.

    Members
    -------
    start, n, k, advance : In
        See `JobWalk`.
    chunk, segment, group : Out
        Word of the activation memory, group within the lanes, group of the row.
    group_last, beat_last, row_last, block_last : Out
        The step is the last of its group; of its beat; of its row block; in the last row block.
    ragged : Out
        The step belongs to the row's last beat.
    rows : Out
        Rows of the block that exist (n < N).
    inputs_left : Out
        Inputs of the row from this step on.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.walk = JobWalk(
            rows=config.rows, quantum=config.step_inputs, max_n=config.max_n, max_k=config.max_k
        )
        super().__init__(
            {
                "start": In(1),
                "n": In(self.walk.n.shape()),
                "k": In(self.walk.k.shape()),
                "advance": In(1),
                "chunk": Out(index_bits(config.max_chunks)),
                "segment": Out(index_bits(config.segments)),
                "group": Out(index_bits(config.max_groups)),
                "group_last": Out(1),
                "beat_last": Out(1),
                "ragged": Out(1),
                "row_last": Out(1),
                "block_last": Out(1),
                "rows": Out(config.rows),
                "inputs_left": Out(self.walk.inputs_left.shape()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.walk = walk = self.walk
        m.d.comb += [
            walk.start.eq(self.start),
            walk.n.eq(self.n),
            walk.k.eq(self.k),
            walk.advance.eq(self.advance),
            self.row_last.eq(walk.row_last),
            self.block_last.eq(walk.block_last),
            self.inputs_left.eq(walk.inputs_left),
            self.rows.eq(Cat(walk.outputs_left > row for row in range(config.rows))),
        ]
        self._last_of(m, self.beat_last, self.segment, config.segments)
        group_step = Signal(index_bits(config.group_steps or 1))
        self._last_of(m, self.group_last, group_step, config.group_steps)
        with m.If(self.start):
            m.d.sync += [self.chunk.eq(0), self.group.eq(0)]
        with m.Elif(self.advance):
            m.d.sync += [
                self.chunk.eq(Mux(self.row_last, 0, self.chunk + self.beat_last)),
                self.group.eq(Mux(self.row_last, 0, self.group + self.group_last)),
            ]
        self._ragged(m)
        return m

    def _last_of(self, m, last, step, count):
        """Count the steps of a beat or of a group (None: of the row); tell the last one."""
        if count == 1:
            m.d.comb += last.eq(1)
            return
        full = 0 if count is None else step == count - 1
        m.d.comb += last.eq(self.row_last | full)
        if count is None:
            return
        with m.If(self.start):
            m.d.sync += step.eq(0)
        with m.Elif(self.advance):
            m.d.sync += step.eq(Mux(last, 0, step + 1))

    def _ragged(self, m):
        lanes, size = self.config.lanes, self.config.step_inputs
        if lanes == size:
            m.d.comb += self.ragged.eq(self.row_last)
            return
        with m.If(self.start | (self.advance & self.row_last)):
            m.d.sync += self.ragged.eq(self.k <= lanes)
        with m.Elif(self.advance & self.beat_last):
            m.d.sync += self.ragged.eq(self.inputs_left <= lanes + size)
