"""The sequencer: every step in order, exactly the beats consumed, whatever the streams do."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from tern_hw.gateware.sequencer import Sequencer, State
from tests.gateware.blocks import bench, randoms, small
from tests.gateware.models import POSITION, row_positions

CONFIGS = [
    small(group_size=16),
    small(rows=1),
    small(rows=1, group_size=40),
    small(lanes=12, rows=3, group_size=4, activation="fp16"),
    small(lanes=9, rows=4, group_size=27, activation="fp16"),
    small(rows=16, group_size=8),
    small(lanes=16, rows=5, group_size=1),
    small(rows=1, products=1),
    small(rows=1, group_size=16, products=1),
    small(lanes=9, rows=3, group_size=27, products=1),
]
ALIGNED = [
    small(group_size=16, activation="fp16", aligned=16),
    small(rows=1, activation="fp16", aligned=8),
    small(lanes=12, rows=3, group_size=4, activation="fp16", aligned=40),
]
SHAPES = [(4, 16), (1, 1), (5, 20), (7, 32), (17, 9), (3, 31), (33, 2), (2, 64)]
IDLE = {"activation": 0.5, "weight": 0.5, "scale": 0.5, "room": 0.5}
#: All, none, one alone.
STALLS = [{}, IDLE, *({name: 0.7} for name in IDLE)]
STALL_NAMES = ("activation_stall", "weight_stall", "scale_stall", "room_stall")
OUTPUTS = (
    *("busy", "state", "activation_take", "activation_final", "activation_missing"),
    *("weight_take", "weight_final", "scale_claim", "room_claim"),
    *("load_write", "load_chunk", "load_last", "step", *STALL_NAMES),
)
#: Outputs that tell of the cycle before.
LATE = ("load_write", "load_chunk", "load_last", "step", "beat_step")


@dataclass(frozen=True)
class Shape:
    """A job: its shape, how idle its streams are, and the beats that come where some do not."""

    n: int
    k: int
    idle: dict = field(default_factory=dict)
    beats: dict = field(default_factory=dict)

    def expected(self, config):
        """Return the beats that the job takes."""
        chunks, blocks = config.chunks(self.k), config.row_blocks(self.n)
        return {
            "activation": chunks,
            "weight": blocks * chunks,
            "scale": blocks * config.groups(self.k),
        }


JOBS = [Shape(n, k, idle) for n, k in SHAPES for idle in STALLS]


def weight_steps(config, shape):
    """Return each compute step: its position, rows, last block, weighted, scaled, poison.

    The poison counts where the row block ends, with its results.
    """
    beats = shape.expected(config) | shape.beats
    chunks, groups = config.chunks(shape.k), config.groups(shape.k)
    blocks = config.row_blocks(shape.n)
    for block in range(blocks):
        rows = min(config.rows, shape.n - block * config.rows)
        poison = False
        for position in row_positions(config, shape.k):
            chunk, _, group, group_last, *_ = position
            weighted = block * chunks + chunk < beats["weight"]
            scaled = group_last and block * groups + group < beats["scale"]
            poison |= not weighted or (group_last and not scaled)
            last = block == blocks - 1
            row_last = position[-1]
            yield (*position, (1 << rows) - 1, last, weighted, scaled, poison and row_last)


class Streams:
    """What the sequencer sees of the packets: beats that come when they like, then no more."""

    def __init__(self, config, shape, rng):
        self.left = shape.expected(config) | shape.beats
        self.present = {"activation": False, "weight": False}
        self.credits = 0
        self.shape, self.rng = shape, rng

    def _awake(self, name):
        return self.rng.random() >= self.shape.idle.get(name, 0)

    def offer(self, running):
        """Return the inputs of a cycle."""
        inputs = {"room": self._awake("room")}
        for name in self.present:
            self.present[name] |= running and self.left[name] > 0 and self._awake(name)
            inputs[f"{name}_present"] = self.present[name]
            closed = not self.left[name]
            inputs[f"{name}_late"] = not (closed or inputs[f"{name}_present"])
            if name == "activation":
                inputs["activation_closed"] = closed
        if running and self.left["scale"] and self._awake("scale"):
            self.left["scale"] -= 1
            self.credits += 1
        inputs["scale_available"] = self.credits > 0
        inputs["scale_ready"] = inputs["scale_available"] or not self.left["scale"]
        return inputs

    def settle(self, outputs):
        """Take what the sequencer took."""
        for name, present in self.present.items():
            if present and outputs[f"{name}_take"]:
                self.left[name] -= 1
                self.present[name] = False
        self.credits -= outputs["scale_claim"]


def run(config, shapes):
    """Run the jobs one after the other; return each one's cycles as dicts of inputs and outputs.

    Outputs that come a cycle late stand beside those of their cycle.
    """
    dut = Sequencer(config)
    outputs = OUTPUTS if config.aligned is None else (*OUTPUTS, "beat_step")
    rng = randoms("sequencer", config.name)
    logs: list[list[dict]] = []

    async def cycle(ctx, inputs):
        for name, value in inputs.items():
            ctx.set(getattr(dut, name), value)
        _, _, *values = await ctx.tick().sample(*(getattr(dut, name) for name in outputs))
        return {**inputs, **dict(zip(outputs, values, strict=True))}

    async def drive(ctx):
        for shape in shapes:
            streams = Streams(config, shape, rng)
            log: list[dict] = []
            finishing = 0
            while not log or log[-1]["busy"] or len(log) == 1:
                inputs = {
                    "start": not log,
                    "last_n": shape.n - 1,
                    "last_k": shape.k - 1,
                    "over": finishing > config.rows + 1,
                }
                log.append(await cycle(ctx, inputs | streams.offer(bool(log))))
                streams.settle(log[-1])
                finishing += log[-1]["state"] == State.FINISH
            for each, following in pairwise(log):
                each.update({name: following[name] for name in LATE if name in following})
            logs.append(log)

    bench(dut, drive)
    return logs


def steps(log, *, load):
    """Return the cycle and the step of every valid step of a phase."""
    return [
        (at, each["step"])
        for at, each in enumerate(log)
        if each["step"].valid and each["step"].load == load
    ]


def position(step):
    return tuple(getattr(step, name) for name in POSITION)


def computed(log):
    """Return the compute steps, as `weight_steps` gives them."""
    return [
        (*position(s), s.rows, s.block_last, s.weighted, s.scaled, s.poison and s.row_last)
        for _, s in steps(log, load=0)
    ]


def first_cycle(log, state):
    return next(at for at, each in enumerate(log) if each["state"] == state)


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.name)
def campaign(request):
    """All jobs, one after the other: the configuration, and each job with its cycles."""
    config = request.param
    return config, list(zip(JOBS, run(config, JOBS), strict=True))


def test_every_step_in_order_and_exactly_the_beats(campaign):
    config, jobs = campaign
    for shape, log in jobs:
        load = [position(step) for _, step in steps(log, load=1)]
        assert load == row_positions(config, shape.k)
        assert computed(log) == list(weight_steps(config, shape))
        expected = shape.expected(config)
        for name in ("activation", "weight"):
            finals = [c[f"{name}_final"] for c in log if c[f"{name}_take"] and c[f"{name}_present"]]
            assert finals == [0] * (expected[name] - 1) + [1]
        assert sum(each["scale_claim"] for each in log) == expected["scale"]
        assert sum(each["room_claim"] for each in log) == config.row_blocks(shape.n)
        assert not any(each["activation_missing"] for each in log)


def test_each_activation_beat_is_written_once_and_summed_when_it_stands(campaign):
    config, jobs = campaign
    late = 1 + config.conversion_cycles
    for shape, log in jobs:
        writes = [(at, each) for at, each in enumerate(log) if each["load_write"]]
        assert all(each["activation_present"] for _, each in writes)
        assert [(each["load_chunk"], each["load_last"]) for _, each in writes] == [
            (chunk, shape.k - chunk * config.lanes - 1) for chunk in range(config.chunks(shape.k))
        ]
        starts = [at for at, step in steps(log, load=1) if step.segment == 0]
        assert starts == [at + late for at, _ in writes]


def test_without_stalls_a_step_a_cycle_and_blocks_at_the_interval(campaign):
    config, jobs = campaign
    for shape, log in ((shape, log) for shape, log in jobs if not shape.idle):
        count, blocks = config.steps(shape.k), config.row_blocks(shape.n)
        assert [first_cycle(log, state) for state in (State.LOAD, State.GAP)] == [1, 1 + count]
        compute = 1 + count + config.load_gap_cycles
        assert first_cycle(log, State.COMPUTE) == compute
        claims = [at for at, each in enumerate(log) if each["room_claim"]]
        ends = block_ends(config, shape.k, blocks, compute)
        assert claims == ends
        assert first_cycle(log, State.FINISH) == ends[-1] + 1
        assert not any(each[name] for each in log for name in STALL_NAMES)


def block_ends(config, k, blocks, first):
    """Return the cycles of the row blocks' last steps, the very first step's given."""
    at, ended, ends = first - 1, False, []
    for *_, group_last, _, row_last in row_positions(config, k) * blocks:
        at += 1 + (config.products == 1 and ended and group_last)
        if row_last:
            at = max(at, ends[-1] + config.rows if ends else at)
            ends.append(at)
        ended = group_last
    return ends


def test_each_cycle_fires_or_tells_for_whom_it_waits(campaign):
    config, jobs = campaign
    for shape, log in jobs:
        pending = list(weight_steps(config, shape))
        last_claim, last_end = -config.rows, -2
        for at, c in enumerate(log):
            waits_for = dict.fromkeys(STALL_NAMES, False)
            waits_for["activation_stall"] = c["state"] == State.LOAD and not c["activation_present"]
            if c["state"] == State.COMPUTE:
                _, _, _, group_last, _, row_last, *_ = pending[0]
                weight = not c["weight_late"]
                scale = not group_last or c["scale_ready"]
                room = not row_last or c["room"]
                waits_for["weight_stall"] = not weight
                waits_for["scale_stall"] = weight and not scale
                waits_for["room_stall"] = weight and scale and not room
                spaced = not row_last or at - last_claim >= config.rows
                if config.products == 1 and group_last:
                    spaced &= at - last_end >= 2
                assert c["step"].valid == (weight and scale and room and spaced)
                if c["step"].valid:
                    pending.pop(0)
                    last_claim = at if row_last else last_claim
                    last_end = at if group_last else last_end
            assert {name: bool(c[name]) for name in STALL_NAMES} == waits_for
        assert not pending


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("name", ["weight", "scale"])
@pytest.mark.parametrize("idle", [{}, IDLE], ids=["eager", "idle"])
def test_missing_beats_poison_their_row_block_and_all_after(config, name, idle):
    """After each a whole job: nothing of the fault remains."""
    n, k = 3 * config.rows - 1, min(3 * config.lanes - 1, config.max_k)
    whole = Shape(n, k, idle)
    count = whole.expected(config)[name]
    cut = [Shape(n, k, idle, {name: beats}) for beats in {1, count // 2, count - 1} - {0, count}]
    shapes = [shape for each in cut for shape in (each, whole)]
    for shape, log in zip(shapes, run(config, shapes), strict=True):
        assert computed(log) == list(weight_steps(config, shape))
        assert computed(log)[-1][-1] == (shape is not whole)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("idle", [{}, IDLE], ids=["eager", "idle"])
def test_missing_activations_are_told_once_and_the_job_goes_on(config, idle):
    n, k = 2 * config.rows, min(3 * config.lanes, config.max_k)
    whole = Shape(n, k, idle)
    cut = [Shape(n, k, idle, {"activation": beats}) for beats in range(1, config.chunks(k))]
    assert cut
    shapes = [shape for each in cut for shape in (each, whole)]
    for shape, log in zip(shapes, run(config, shapes), strict=True):
        taken = sum(each["activation_present"] and each["activation_take"] for each in log)
        assert taken == (shape.expected(config) | shape.beats)["activation"]
        assert sum(each["activation_missing"] for each in log) == (shape is not whole)
        assert not any(each["activation_stall"] and each["activation_closed"] for each in log)
        positions = [position(step) for _, step in steps(log, load=0)]
        assert positions == row_positions(config, k) * config.row_blocks(n)


def test_busy_from_the_start_until_all_is_over():
    (log, _) = run(small(), [Shape(3, 20), Shape(1, 1)])
    finish = first_cycle(log, State.FINISH)
    # `over` comes in the fifth cycle of FINISH: the last results take longer than a row block.
    assert [each["busy"] for each in log] == [0] + [1] * (finish + 4) + [0]
    assert [each["state"] for each in log][finish:] == [State.FINISH] * 5 + [State.IDLE]


@pytest.mark.parametrize("config", ALIGNED, ids=lambda config: config.name)
def test_aligned_activations_come_then_pass_again_when_their_units_are_found(config):
    """Beats as their stream has them; words without a pause, each summed when it stands."""
    late = 1 + config.conversion_cycles
    for shape, log in zip(JOBS, run(config, JOBS), strict=True):
        assert computed(log) == list(weight_steps(config, shape))
        chunks = range(config.chunks(shape.k))
        places = [each for each in row_positions(config, shape.k) if each[1] == 0]
        beats = [(at, each["beat_step"]) for at, each in enumerate(log) if each["beat_step"].valid]
        assert [position(step) for _, step in beats] == places
        assert all(log[at]["activation_present"] for at, _ in beats)
        left = [(chunk, shape.k - chunk * config.lanes - 1) for chunk in chunks]
        assert [(log[at]["load_chunk"], log[at]["load_last"]) for at, _ in beats] == left
        words = [(at, each) for at, each in enumerate(log) if each["load_write"]]
        assert [(each["load_chunk"], each["load_last"]) for _, each in words] == left
        loaded = first_cycle(log, State.FIND)
        first = loaded + config.unit_cycles
        assert [at for at, _ in words] == [first + chunk * config.segments for chunk in chunks]
        sums = steps(log, load=1)
        assert [position(step) for _, step in sums] == row_positions(config, shape.k)
        assert [at for at, _ in sums] == [first + late + at for at in range(config.steps(shape.k))]
        compute = first + config.steps(shape.k) + config.load_gap_cycles
        assert first_cycle(log, State.COMPUTE) == compute
        if not shape.idle:
            assert loaded == 1 + config.steps(shape.k)
        assert not any(each["activation_stall"] for each in log[loaded:])


@pytest.mark.parametrize("config", ALIGNED, ids=lambda config: config.name)
def test_aligned_job_goes_on_where_activations_are_missing(config):
    whole = Shape(3, 3 * config.lanes)
    cut = Shape(3, 3 * config.lanes, {}, {"activation": 1})
    for shape, log in zip((cut, whole), run(config, (cut, whole)), strict=True):
        assert sum(each["activation_missing"] for each in log) == (shape is cut)
        assert [position(step) for _, step in steps(log, load=1)] == row_positions(config, shape.k)
        positions = [position(step) for _, step in steps(log, load=0)]
        assert positions == row_positions(config, shape.k) * config.row_blocks(shape.n)
