"""The order of a job: row blocks outside, inputs inside; and where in its row a step stands."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import at_least, index_bits, unless

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
        With `advance`: go to the first position of a job.
    last_n, last_k : In
        Indices of its last output and of a row's last input; stable until it is over.
    advance : In
        Go to the next position.
    last_input, last_output : Out
        Index of the row's last input, of the job's last output, counted from this position on.
    row_last, block_last : Out
        The position ends its row block; the row block is the job's last.
    """

    def __init__(self, *, rows: int, quantum: int | None, max_n: int, max_k: int):
        self.rows = rows
        self.quantum = quantum
        super().__init__(
            {
                "start": In(1),
                "last_n": In(max_n.bit_length()),
                "last_k": In(max_k.bit_length()),
                "advance": In(1),
                "last_input": Out(max_k.bit_length()),
                "last_output": Out(max_n.bit_length()),
                "row_last": Out(1),
                "block_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        outputs = _Countdown(self.last_n, self.rows, "outputs")
        m.d.comb += self.last_output.eq(outputs.last)
        with m.If(self.advance):
            # Held by what is subtracted, not by an enable, which would come late.
            m.d.sync += outputs.high.eq(
                Mux(self.start, outputs.whole, outputs.high - Mux(self.row_last, outputs.step, 0))
            )
            m.d.sync += self.block_last.eq(
                Mux(
                    self.start,
                    outputs.first_ends,
                    Mux(self.row_last, outputs.next_ends, outputs.ends),
                )
            )
        if self.quantum is None:
            m.d.comb += [self.row_last.eq(1), self.last_input.eq(self.last_k)]
            return m
        inputs = _Countdown(self.last_k, self.quantum, "inputs")
        m.d.comb += self.last_input.eq(inputs.last)
        first = self.start | self.row_last
        with m.If(self.advance):
            m.d.sync += [
                inputs.high.eq(Mux(first, inputs.whole, inputs.high - inputs.step)),
                self.row_last.eq(Mux(first, inputs.first_ends, inputs.next_ends)),
            ]
        return m


class _Countdown:
    """The index of the last of things that are gone through by a quantum.

    The bits below the quantum's lowest one never change. What ends is told one position ahead, so
    that no comparison stands behind a register.
    """

    def __init__(self, whole, quantum: int, name: str):
        zeros = (quantum & -quantum).bit_length() - 1
        low = min(zeros, len(whole) - 1)
        self.whole = whole[low:]
        self.step = quantum >> low
        self.high = Signal(len(self.whole), name=f"{name}_high")
        self.last = Cat(whole[:low], self.high)
        self.first_ends = ~at_least(self.whole, self.step)
        self.ends = ~at_least(self.high, self.step)
        self.next_ends = ~at_least(self.high, 2 * self.step)


class StepWalk(wiring.Component):
    """Count a job's steps: `JobWalk` over `step_inputs`, with the places within the row.

    Latency: 0 (outputs describe the current step). Throughput: an advance a cycle.

    Members
    -------
    start, last_n, last_k, advance : In
        See `JobWalk`.
    chunk, segment, group : Out
        Word of the activation memory, group within the lanes, group of the row.
    group_last, beat_last, row_last, block_last : Out
        The step is the last of its group; of its beat; of its row block; in the last row block.
    ragged : Out
        The step belongs to the row's last beat.
    rows : Out
        Rows of the block that exist (n < N).
    last_input : Out
        Index of the row's last input, counted from this step on.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.walk = JobWalk(
            rows=config.rows, quantum=config.step_inputs, max_n=config.max_n, max_k=config.max_k
        )
        super().__init__(
            {
                "start": In(1),
                "last_n": In(self.walk.last_n.shape()),
                "last_k": In(self.walk.last_k.shape()),
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
                "last_input": Out(self.walk.last_input.shape()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.walk = walk = self.walk
        m.d.comb += [
            walk.start.eq(self.start),
            walk.last_n.eq(self.last_n),
            walk.last_k.eq(self.last_k),
            walk.advance.eq(self.advance),
            self.row_last.eq(walk.row_last),
            self.block_last.eq(walk.block_last),
            self.last_input.eq(walk.last_input),
            self.rows.eq(Cat(at_least(walk.last_output, row) for row in range(config.rows))),
        ]
        beat_full = self._last_of(m, self.beat_last, self.segment, config.segments)
        group_step = Signal(index_bits(config.group_steps or 1))
        group_full = self._last_of(m, self.group_last, group_step, config.group_steps)
        first = self.start | self.row_last
        with m.If(self.advance):
            m.d.sync += [
                self.chunk.eq(unless(first, self.chunk + beat_full)),
                self.group.eq(unless(first, self.group + group_full)),
            ]
        self._ragged(m, first)
        return m

    def _last_of(self, m, last, step, count):
        """Count the steps of a beat or of a group (None: of the row); tell the last one.

        Returns whether it is full, a row's end apart.
        """
        if count == 1:
            m.d.comb += last.eq(1)
            return 1
        if count is None:
            m.d.comb += last.eq(self.row_last)
            return 0
        full = Signal(name=f"{step.name}_full")
        m.d.comb += last.eq(self.row_last | full)
        with m.If(self.advance):
            restart = self.start | last
            m.d.sync += step.eq(unless(restart, step + 1))
            m.d.sync += full.eq(~restart & (step == count - 2))
        return full

    def _ragged(self, m, first):
        lanes, size = self.config.lanes, self.config.step_inputs
        if lanes == size:
            m.d.comb += self.ragged.eq(self.row_last)
            return
        with m.If(self.advance & first):
            m.d.sync += self.ragged.eq(self.last_k < lanes)
        with m.Elif(self.advance & self.beat_last):
            m.d.sync += self.ragged.eq(self.last_input < lanes + size)
