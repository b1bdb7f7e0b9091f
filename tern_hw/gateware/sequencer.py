"""The job: loads the activations, then issues one step a cycle while the streams keep up."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import delay, index_bits, step_layout
from tern_hw.gateware.walk import JobWalk

__all__ = ["Sequencer", "State"]


class State(enum.Enum, shape=3):
    """Phase of a job."""

    IDLE = 1
    #: Activation beats are taken, written, and summed by a step each.
    LOAD = 2
    #: The last load steps pass the conversion and the memory of group sums.
    GAP = 3
    #: Weight steps.
    COMPUTE = 4
    #: All steps are issued; results leave, and late beats are discarded.
    FINISH = 5


class Sequencer(wiring.Component):
    """Walk through a job's steps, each issued when its beats and its place are there.

    Latency: 0 from a weight beat to its step; a load step follows its activation beat by
    1 + conversion cycles, when the beat stands in memory. Throughput: a step a cycle; row
    blocks at least `rows` cycles apart. Backpressure: a step waits, nothing is lost.

    Members
    -------
    start : In
        Begin the job of `n` outputs over `k` inputs (checked, stable until it is over).
    n, k : In
    busy : Out
    state : Out
    activation_present, weight_present : In
        A beat is there.
    activation_closed, weight_closed : In
        No beat will come any more.
    activation_take, weight_take : Out
        Ready, and `activation_final`, `weight_final` : the next beat is the last expected.
    scale_available : In
        A scale beat is there that no step has claimed.
    scale_closed : In
    scale_claim : Out
    room : In
        Results of one more row block find a place; `room_claim` : Out takes it.
    over : In
        All results left and all packets are closed.
    activation_missing : Out
        The activations' packet ended early; for one cycle.
    load_write : Out
        Write the activation beat, `load_chunk` its address, `load_remaining` inputs left.
    step : Out, step_layout
    activation_stall, weight_stall, scale_stall, room_stall : Out
        The array waits for that stream in this cycle.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        one_bit = {
            In: (
                "start",
                "activation_present",
                "activation_closed",
                "weight_present",
                "weight_closed",
                "scale_available",
                "scale_closed",
                "room",
                "over",
            ),
            Out: (
                "busy",
                "activation_take",
                "activation_final",
                "activation_missing",
                "weight_take",
                "weight_final",
                "scale_claim",
                "room_claim",
                "load_write",
                "activation_stall",
                "weight_stall",
                "scale_stall",
                "room_stall",
            ),
        }
        super().__init__(
            {
                **{name: flow(1) for flow, names in one_bit.items() for name in names},
                "n": In(config.max_n.bit_length()),
                "k": In(config.max_k.bit_length()),
                "state": Out(State, init=State.IDLE),
                "load_chunk": Out(index_bits(config.max_chunks)),
                "load_remaining": Out(config.max_k.bit_length()),
                "step": Out(step_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.walk = walk = JobWalk(
            rows=config.rows, quantum=config.step_inputs, max_n=config.max_n, max_k=config.max_k
        )
        loading = self.state == State.LOAD
        computing = self.state == State.COMPUTE
        fire = Signal()
        m.d.comb += [walk.n.eq(self.n), walk.k.eq(self.k)]

        # Position within the row: chunk (memory word), segment (group within the lanes), group.
        chunk = Signal(index_bits(config.max_chunks))
        segment = Signal(index_bits(config.segments))
        group = Signal(index_bits(config.max_groups))
        group_step = Signal(index_bits(config.group_steps or 1))
        row_first = Signal(init=1)
        group_first = Signal(init=1)
        poisoned = Signal()
        row_last = walk.row_last
        beat_last = row_last | (segment == config.segments - 1)
        group_last = Signal()
        if config.group_steps is None:
            m.d.comb += group_last.eq(row_last)
        else:
            m.d.comb += group_last.eq(row_last | (group_step == config.group_steps - 1))

        # What the step needs. Load: the beat. Compute: the beat, a scale where a group ends, and
        # a place for the results where the row ends. A closed packet is not waited for.
        spacing = Signal(index_bits(config.rows))
        have_scale = ~group_last | self.scale_available | self.scale_closed
        have_room = ~row_last | (self.room & ~spacing.any())
        have_weight = self.weight_present | self.weight_closed
        m.d.comb += fire.eq(
            (loading & self.activation_present) | (computing & have_weight & have_scale & have_room)
        )
        claim = group_last & self.scale_available
        missing = ~self.weight_present | (group_last & ~self.scale_available)
        m.d.comb += [
            walk.start.eq(self.start | (self.state == State.GAP)),
            walk.advance.eq(fire),
            self.activation_take.eq(loading & beat_last),
            self.activation_final.eq(row_last),
            self.activation_missing.eq(loading & self.activation_closed),
            self.load_write.eq(loading & self.activation_present & ~segment.any()),
            self.load_chunk.eq(chunk),
            self.load_remaining.eq(walk.inputs_left),
            self.weight_take.eq(computing & have_scale & have_room & beat_last),
            self.weight_final.eq(row_last & walk.block_last),
            self.scale_claim.eq(computing & fire & claim),
            self.room_claim.eq(computing & fire & row_last),
        ]
        with m.If(self.start | (self.state == State.GAP)):
            m.d.sync += [chunk.eq(0), segment.eq(0), group.eq(0), group_step.eq(0)]
            m.d.sync += [row_first.eq(1), group_first.eq(1), poisoned.eq(0)]
        with m.Elif(fire):
            m.d.sync += [
                segment.eq(Mux(beat_last, 0, segment + 1)),
                chunk.eq(Mux(row_last, 0, chunk + beat_last)),
                group_step.eq(Mux(group_last, 0, group_step + 1)),
                group.eq(Mux(row_last, 0, group + group_last)),
                row_first.eq(row_last | (row_first & ~group_last)),
                group_first.eq(group_last),
                poisoned.eq(~row_last & (poisoned | missing)),
            ]
        with m.If(self.room_claim):
            m.d.sync += spacing.eq(config.rows - 1)
        with m.Elif(spacing.any()):
            m.d.sync += spacing.eq(spacing - 1)

        step = Signal(step_layout(config))
        rows = Cat(walk.outputs_left > row for row in range(config.rows))
        m.d.comb += [
            step.valid.eq(fire),
            step.load.eq(loading),
            step.chunk.eq(chunk),
            step.segment.eq(segment),
            step.group.eq(group),
            step.group_first.eq(group_first),
            step.group_last.eq(group_last),
            step.row_first.eq(row_first),
            step.row_last.eq(row_last),
            step.weighted.eq(self.weight_present),
            step.scaled.eq(claim),
            step.poison.eq(poisoned | missing),
            step.rows.eq(rows),
            step.block_last.eq(walk.block_last),
        ]
        # Load steps wait until their beat is in memory; none meets a compute step there.
        loaded = delay(m, step, 1 + config.conversion_cycles, name="loaded")
        m.d.comb += self.step.eq(Mux(loaded.valid & loaded.load, loaded, step))
        with m.If(loading):
            m.d.comb += self.step.valid.eq(loaded.valid & loaded.load)
        self._phases(m, fire, walk)
        m.d.comb += [
            self.activation_stall.eq(loading & ~fire & ~self.activation_closed),
            self.weight_stall.eq(computing & ~have_weight),
            self.scale_stall.eq(computing & have_weight & ~have_scale),
            self.room_stall.eq(computing & have_weight & have_scale & row_last & ~self.room),
        ]
        return m

    def _phases(self, m, fire, walk):
        gap = Signal(index_bits(self.config.load_gap_cycles))
        m.d.comb += self.busy.eq(self.state != State.IDLE)
        with m.If(self.state == State.IDLE):
            with m.If(self.start):
                m.d.sync += self.state.eq(State.LOAD)
        with m.Elif(self.state == State.LOAD):
            with m.If((fire & walk.row_last) | self.activation_closed):
                m.d.sync += [self.state.eq(State.GAP), gap.eq(0)]
        with m.Elif(self.state == State.GAP):
            m.d.sync += gap.eq(gap + 1)
            with m.If(gap == self.config.load_gap_cycles - 1):
                m.d.sync += self.state.eq(State.COMPUTE)
        with m.Elif(self.state == State.COMPUTE):
            with m.If(fire & walk.row_last & walk.block_last):
                m.d.sync += self.state.eq(State.FINISH)
        with m.Elif(self.over):
            m.d.sync += self.state.eq(State.IDLE)
