"""The job: loads the activations, then issues one step a cycle while the streams keep up."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import delay, index_bits, step_layout
from tern_hw.gateware.walk import StepWalk

__all__ = ["Sequencer", "State", "is_in"]


class State(enum.Enum, shape=7):
    """Phase of a job; a bit each, as much depends on them within the cycle."""

    IDLE = 1
    #: Activation beats are taken, written, and summed by a step each.
    LOAD = 2
    #: The last load steps pass the conversion and the memory of group sums.
    GAP = 4
    #: Weight steps.
    COMPUTE = 8
    #: All steps are issued; results leave, and late beats are discarded.
    FINISH = 16
    #: Where activations are aligned: LOAD took the beats, the last groups' units are found ...
    FIND = 32
    #: ... and the words pass again, each aligned, written, and summed by a step.
    ALIGN = 64


def is_in(state, phase):
    """Return whether a job is in some phase."""
    return state.as_value()[State(phase).value.bit_length() - 1]


class Sequencer(wiring.Component):
    """Walk through a job's steps, each issued when its beats and its place are there.

    Latency: 1 from a weight beat to its step; a load step follows its activation beat by
    2 + conversion cycles, when the beat stands in memory. Throughput: a step a cycle; row
    blocks at least `rows` cycles apart, and where a row has one product unit, ends of groups two.
    Backpressure: a step waits, nothing is lost.

    Members
    -------
    start : In
        Begin a job; at least `rows` cycles after the last step of the job before, as its results
        take longer.
    last_n, last_k : In
        Indices of its last output and of a row's last input (checked, stable until it is over).
    busy : Out
    state : Out
    activation_present, weight_present : In
        A beat is there.
    activation_late, weight_late : In
        One will come, and is not there.
    activation_closed : In
        None will come any more.
    activation_take, weight_take : Out
        Ready, and `activation_final`, `weight_final` : the next beat is the last expected.
    scale_available : In
        A scale beat is there that no step has claimed; `scale_claim` : Out takes it.
    scale_ready : In
        It is, or it is not waited for.
    room : In
        Results of one more row block find a place; `room_claim` : Out takes it.
    over : In
        All results left and all packets are closed.
    activation_missing : Out
        The activations' packet ended early; for one cycle.
    load_open : Out
        The activation beat of the cycle before belongs to `load_chunk`, with `load_last` the index
        of the row's last input from it on, and may be written; where it was not there, it is
        written again when it is. So a memory's enable need not wait for the stream.
        Where activations are aligned: align the word of `load_chunk`, and write that.
    load_write : Out
        The same, and the beat was there.
    load_final : Out
        It is the row's last beat.
    beat_step : Out, step_layout
        Where activations are aligned: valid when an activation beat came in the cycle before; its
        place.
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
                "activation_late",
                "weight_present",
                "weight_late",
                "scale_available",
                "scale_ready",
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
                "load_open",
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
                "last_n": In(config.max_n.bit_length()),
                "last_k": In(config.max_k.bit_length()),
                "state": Out(State, init=State.IDLE),
                "load_chunk": Out(index_bits(config.max_chunks)),
                "load_last": Out(config.max_k.bit_length()),
                "load_final": Out(1),
                "step": Out(step_layout(config)),
                **({} if config.aligned is None else {"beat_step": Out(step_layout(config))}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk = walk = StepWalk(self.config)
        aligned = self.config.aligned is not None
        loading = is_in(self.state, State.LOAD)
        aligning = is_in(self.state, State.ALIGN)
        computing = is_in(self.state, State.COMPUTE)
        # What a compute step needs: its beat, a scale where a group ends, and a place for the
        # results where a row block ends. A closed packet is not waited for.
        lacks_scale = walk.group_last & ~self.scale_ready
        lacks_room = walk.row_last & ~(self.room & ~self._too_soon(m))
        lacks = lacks_scale | lacks_room
        if self.config.products == 1:
            # A row's scale and shift still computes the products of the group before.
            ended = Signal()
            lacks |= walk.group_last & ended
        # Each by itself, of as few as can be, as much depends on them within the cycle.
        load_waits, weight_late = loading & self.activation_late, computing & self.weight_late
        holds = weight_late | lacks
        beat, work = loading & self.activation_present, computing & ~holds
        if self.config.products == 1:
            m.d.sync += ended.eq(work & walk.group_last)
        fire = beat | work | aligning if aligned else beat | work
        m.d.comb += [
            # Between the phases it goes to where each begins: the first input of the first row
            # block.
            walk.start.eq(~(loading | computing | aligning if aligned else loading | computing)),
            walk.advance.eq(~load_waits & ~weight_late & ~(computing & lacks)),
            walk.last_n.eq(self.last_n),
            walk.last_k.eq(self.last_k),
            self.activation_take.eq(loading & walk.beat_last),
            self.activation_final.eq(walk.row_last),
            self.activation_missing.eq(loading & self.activation_closed),
            self.weight_take.eq(computing & ~lacks & walk.beat_last),
            self.weight_final.eq(walk.row_last & walk.block_last),
            self.scale_claim.eq(computing & walk.group_last & self.scale_available & ~holds),
            self.room_claim.eq(computing & walk.row_last & ~holds),
            self.activation_stall.eq(load_waits),
            self.weight_stall.eq(weight_late),
            self.scale_stall.eq(computing & ~weight_late & lacks_scale),
            self.room_stall.eq(
                computing & ~weight_late & ~lacks_scale & walk.row_last & ~self.room
            ),
        ]
        m.d.sync += [
            self.load_open.eq((aligning if aligned else loading) & ~walk.segment.any()),
            self.load_write.eq((aligning if aligned else beat) & ~walk.segment.any()),
            self.load_chunk.eq(walk.chunk),
            self.load_last.eq(walk.last_input),
            self.load_final.eq(walk.ragged),
        ]
        self._issue(m, walk, fire, work, aligning if aligned else loading)
        self._phases(m, walk, beat, work)
        return m

    def _too_soon(self, m):
        """Return whether the row block before this one still occupies the rounder."""
        if self.config.rows == 1:
            return Const(0)
        busy = Signal(self.config.rows - 1)
        m.d.sync += busy.eq(Mux(self.room_claim, -1, busy >> 1))
        return busy[0]

    def _issue(self, m, walk, fire, work, summing):
        """Put the step's tag together; a load step waits until its word is in memory."""
        claim = walk.group_last & self.scale_available
        # A packet that ended early stays closed: what lacks a beat lacks one at its last step too.
        missing = ~self.weight_present | (walk.group_last & ~self.scale_available)
        step = Signal(step_layout(self.config))
        same = (
            "chunk",
            "segment",
            "group",
            "group_last",
            "row_last",
            "ragged",
            "rows",
            "block_last",
        )
        m.d.comb += [getattr(step, name).eq(getattr(walk, name)) for name in same]
        m.d.comb += [
            step.valid.eq(fire),
            step.load.eq(summing),
            step.weighted.eq(self.weight_present),
            step.scaled.eq(claim),
            step.poison.eq(missing),
        ]
        late = self.config.issue_cycles + self.config.conversion_cycles
        loaded = delay(m, step, late, name="loaded")
        # The gap lets the last load step pass before the first compute step.
        computing = is_in(self.state, State.COMPUTE)
        m.d.sync += [
            self.step.eq(Mux(computing, step, loaded)),
            self.step.valid.eq(work | (~computing & loaded.valid & loaded.load)),
        ]
        if self.config.aligned is not None:
            loading = is_in(self.state, State.LOAD)
            m.d.sync += [
                self.beat_step.eq(step),
                self.beat_step.valid.eq(fire & loading & ~walk.segment.any()),
            ]

    def _phases(self, m, walk, beat, work):
        """Go from phase to phase; an equation for each, as an enable for all would come late."""
        aligned = self.config.aligned is not None
        idle, load, gap, compute, finish, find, align = self.state.as_value()
        loaded = (beat & walk.row_last) | (load & self.activation_closed)
        computed = work & (walk.row_last & walk.block_last)
        gap_over = gap & self._pause(m, gap, self.config.load_gap_cycles, "gap")
        found = Const(0)
        aligning = [Const(0), Const(0)]
        if aligned:
            found = find & self._pause(m, find, self.config.unit_cycles, "find")
            aligning = [loaded | (find & ~found), found | (align & ~walk.row_last)]
        ends = finish & self.over
        sums_loaded = align & walk.row_last if aligned else loaded
        following = (
            (idle & ~self.start) | ends,
            (idle & self.start) | (load & ~loaded),
            sums_loaded | (gap & ~gap_over),
            gap_over | (compute & ~computed),
            computed | (finish & ~ends),
            *aligning,
        )
        m.d.comb += self.busy.eq(~idle)
        m.d.sync += self.state.as_value().eq(Cat(*following))

    @staticmethod
    def _pause(m, counting, cycles, name):
        """Return whether a pause of so many cycles is in its last; the count restarts after it."""
        count = Signal(index_bits(cycles), name=name)
        m.d.sync += count.eq(Mux(counting, count + 1, 0))
        return count == cycles - 1
