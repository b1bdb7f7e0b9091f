"""The walks through a job: row blocks outside, inputs inside, multiples or not."""

import pytest

from tern_hw.gateware.walk import JobWalk, StepWalk
from tests.gateware.blocks import bench, randoms, small, ticks
from tests.gateware.models import POSITION, row_positions

OUTPUTS = ("last_input", "last_output", "row_last", "block_last")
JOBS = [(1, 1), (3, 8), (4, 8), (5, 9), (6, 7), (12, 24), (13, 25), (2, 32), (20, 3)]


def positions(rows, quantum, n, k):
    """Return (last input, last output, ends its row block, is in the last) of every position."""
    return [
        (inputs - 1, outputs - 1, inputs <= (quantum or k), outputs <= rows)
        for outputs in range(n, 0, -rows)
        for inputs in (range(k, 0, -quantum) if quantum else [k])
    ]


def go(walk, names, jobs, rng):
    """Walk through jobs (n, k, positions) with pauses; return the outputs of every position."""
    seen: list[list[tuple]] = []

    async def drive(ctx):
        for n, k, count in jobs:
            ctx.set(walk.last_n, n - 1)
            ctx.set(walk.last_k, k - 1)
            ctx.set(walk.start, 1)
            # A start waits for an advance.
            ctx.set(walk.advance, 0)
            await ticks(ctx, rng.randrange(2))
            ctx.set(walk.advance, 1)
            await ctx.tick()
            ctx.set(walk.start, 0)
            seen.append([])
            for _ in range(count):
                ctx.set(walk.advance, 0)
                await ticks(ctx, rng.randrange(3))
                seen[-1].append(tuple(ctx.get(getattr(walk, name)) for name in names))
                ctx.set(walk.advance, 1)
                await ctx.tick()
            ctx.set(walk.advance, 0)

    bench(walk, drive)
    return seen


@pytest.mark.parametrize("rows", [1, 3, 4, 16])
@pytest.mark.parametrize("quantum", [1, 3, 8, None])
def test_every_position_in_order(rows, quantum):
    walk = JobWalk(rows=rows, quantum=quantum, max_n=20, max_k=32)
    expected = [positions(rows, quantum, n, k) for n, k in JOBS]
    jobs = [(n, k, len(job)) for (n, k), job in zip(JOBS, expected, strict=True)]
    assert go(walk, OUTPUTS, jobs, randoms("walk", rows, quantum)) == expected


@pytest.mark.parametrize("quantum", [5, None])
def test_largest_job_fits(quantum):
    walk = JobWalk(rows=4, quantum=quantum, max_n=16, max_k=64)
    expected = positions(4, quantum, 16, 64)
    assert go(walk, OUTPUTS, [(16, 64, len(expected))], randoms("largest")) == [expected]


def test_start_goes_back_to_the_first_position():
    walk = JobWalk(rows=2, quantum=4, max_n=20, max_k=32)
    seen = []

    async def drive(ctx):
        ctx.set(walk.last_n, 6)
        ctx.set(walk.last_k, 8)
        ctx.set(walk.advance, 1)
        for advances in (0, 1, 4, 5):
            ctx.set(walk.start, 1)
            await ctx.tick()
            ctx.set(walk.start, 0)
            await ticks(ctx, advances)
            seen.append((ctx.get(walk.last_input), ctx.get(walk.last_output)))

    bench(walk, drive)
    assert seen == [(8, 6), (4, 6), (4, 4), (0, 4)]


# ----------------------------------------------------------------------- steps

STEP_OUTPUTS = (*POSITION, "beat_last", "block_last", "rows", "last_input")
CONFIGS = [
    small(),
    small(group_size=32),
    small(rows=1, group_size=40),
    small(lanes=9, rows=5, group_size=27),
    small(lanes=12, rows=3, group_size=4),
    small(rows=16, group_size=1),
]
STEP_JOBS = [(1, 1), (5, 33), (8, 64), (64, 9), (33, 8), (3, 47), (16, 12)]


def step_positions(config, n, k):
    """Return the outputs of every step, as `STEP_OUTPUTS` names them."""
    for left in range(n, 0, -config.rows):
        rows = (1 << min(left, config.rows)) - 1
        for step, position in enumerate(row_positions(config, k)):
            last_input = k - step * config.step_inputs - 1
            beat_last = position[-1] or position[1] == config.segments - 1
            yield (*position, beat_last, left <= config.rows, rows, last_input)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_every_step_in_order(config):
    expected = [list(step_positions(config, n, k)) for n, k in STEP_JOBS]
    jobs = [(n, k, len(job)) for (n, k), job in zip(STEP_JOBS, expected, strict=True)]
    assert go(StepWalk(config), STEP_OUTPUTS, jobs, randoms("steps", config.name)) == expected


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_start_amid_a_job_forgets_it(config):
    expected = list(step_positions(config, 64, 64))
    cuts = range(1, len(row_positions(config, 64)) + 4)
    seen = go(StepWalk(config), STEP_OUTPUTS, [(64, 64, cut) for cut in cuts], randoms("cut"))
    assert seen == [expected[:cut] for cut in cuts]
