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

    Latency: 0 from a weight beat to its step; a load step follows its activation beat by
    1 + conversion cycles, when the beat stands in memory. Throughput: a step a cycle; row
    blocks at least `rows` cycles apart. Backpressure: a step waits, nothing is lost.

    Members
    -------
    start : In
        Begin the job of `n` outputs over `k` inputs (checked, stable until it is over); at least
        `rows` cycles after the last step of the job before, as its results take longer.
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
    load_open : Out
        The activation beat belongs to `load_chunk`, with `load_remaining` inputs left, and may be
        written; where it is not there yet, it is written again when it is. So a memory's enable
        need not wait for the stream.
        Where activations are aligned: align the word of `load_chunk`, and write that.
    load_write : Out
        The same, and the beat is there.
    beat_step : Out, step_layout
        Where activations are aligned: valid when an activation beat comes; its place.
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
                "n": In(config.max_n.bit_length()),
                "k": In(config.max_k.bit_length()),
                "state": Out(State, init=State.IDLE),
                "load_chunk": Out(index_bits(config.max_chunks)),
                "load_remaining": Out(config.max_k.bit_length()),
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
        have_weight = self.weight_present | self.weight_closed
        have_scale = ~walk.group_last | self.scale_available | self.scale_closed
        have_room = ~walk.row_last | (self.room & ~self._too_soon(m))
        fire = Signal()
        beat = loading & self.activation_present
        work = computing & have_weight & have_scale & have_room
        # What follows the load begins where that began: at the first input of the first row block.
        again = is_in(self.state, State.GAP)
        if aligned:
            again |= is_in(self.state, State.FIND)
        m.d.comb += [
            fire.eq(beat | work | aligning if aligned else beat | work),
            walk.start.eq(self.start | again),
            walk.n.eq(self.n),
            walk.k.eq(self.k),
            walk.advance.eq(fire),
            self.activation_take.eq(loading & walk.beat_last),
            self.activation_final.eq(walk.row_last),
            self.activation_missing.eq(loading & self.activation_closed),
            self.load_open.eq((aligning if aligned else loading) & ~walk.segment.any()),
            self.load_write.eq((aligning if aligned else beat) & ~walk.segment.any()),
            self.load_chunk.eq(walk.chunk),
            self.load_remaining.eq(walk.inputs_left),
            self.weight_take.eq(computing & have_scale & have_room & walk.beat_last),
            self.weight_final.eq(walk.row_last & walk.block_last),
            self.scale_claim.eq(computing & fire & walk.group_last & self.scale_available),
            self.room_claim.eq(computing & fire & walk.row_last),
            self.activation_stall.eq(loading & ~fire & ~self.activation_closed),
            self.weight_stall.eq(computing & ~have_weight),
            self.scale_stall.eq(computing & have_weight & ~have_scale),
            self.room_stall.eq(computing & have_weight & have_scale & walk.row_last & ~self.room),
        ]
        self._issue(m, walk, fire, aligning if aligned else loading)
        self._phases(m, walk, fire)
        return m

    def _too_soon(self, m):
        """Return whether the row block before this one still occupies the rounder."""
        wait = Signal(index_bits(self.config.rows))
        with m.If(self.room_claim):
            m.d.sync += wait.eq(self.config.rows - 1)
        with m.Elif(wait.any()):
            m.d.sync += wait.eq(wait - 1)
        return wait.any()

    def _issue(self, m, walk, fire, summing):
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
        loaded = delay(m, step, 1 + self.config.conversion_cycles, name="loaded")
        # The gap lets the last load step pass before the first compute step.
        computing = is_in(self.state, State.COMPUTE)
        m.d.comb += [
            self.step.eq(Mux(computing, step, loaded)),
            self.step.valid.eq(Mux(computing, fire, loaded.valid & loaded.load)),
        ]
        if self.config.aligned is not None:
            loading = is_in(self.state, State.LOAD)
            m.d.comb += [
                self.beat_step.eq(step),
                self.beat_step.valid.eq(fire & loading & ~walk.segment.any()),
            ]

    def _phases(self, m, walk, fire):
        """Go from phase to phase; an equation for each, as an enable for all would come late."""
        aligned = self.config.aligned is not None
        idle, load, gap, compute, finish, find, align = self.state.as_value()
        row_ends = fire & walk.row_last
        loaded = load & (row_ends | self.activation_closed)
        computed = compute & row_ends & walk.block_last
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
