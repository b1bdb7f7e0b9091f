"""From sums to the result stream: order, last, missing rows, NaN, and a sink that waits."""

from fractions import Fraction

import pytest

from tern_hw.gateware.results import ResultUnit
from tests import naive
from tests.gateware.blocks import bench, pack, randoms, small, ticks

NAN = {"fp32": 0x7FC00000, "fp16": 0x7E00}
CONFIGS = [small(rows=1), small(rows=2, output="fp16"), small(rows=3), small(rows=16)]


def latency_of(config):
    """Return the cycles of rounder and queue."""
    return config.rounder_cycles + 3


def block(config, rng, *, last=False, rows=None):
    """Return the inputs of a random row block."""
    span = 1 << config.accumulator_bits - 1
    rows = config.rows if rows is None else rows
    return {
        "rows": (1 << rows) - 1,
        "last": last,
        "totals": [
            rng.randint(1 - span, span - 1) >> rng.randrange(40) for _ in range(config.rows)
        ],
        "nans": [rng.random() < 0.2 for _ in range(config.rows)],
    }


def model(config, blocks, *, all_nan=False):
    """Return (value, last) of every result in order."""
    unit = Fraction(1, 1 << config.accumulator_fraction_bits)
    results = []
    for each in blocks:
        rows = each["rows"].bit_count()
        for row in range(rows):
            nan = all_nan or each["nans"][row]
            exact = naive.float_bits(each["totals"][row] * unit, config.output)
            value = NAN[config.output] if nan else exact
            results.append((value, each["last"] and row == rows - 1))
    return results


async def send(ctx, unit, each):
    """Offer a block for one cycle, garbage after it; its sums stay for `rows` cycles."""
    ctx.set(unit.rows, each["rows"])
    ctx.set(unit.last, each["last"])
    ctx.set(unit.totals, pack(each["totals"], unit.config.accumulator_bits))
    ctx.set(unit.nans, pack(each["nans"], 1))
    ctx.set(unit.valid, 1)
    await ctx.tick()
    ctx.set(unit.valid, 0)
    for name in ("rows", "last", "nans"):
        ctx.set(getattr(unit, name), -1)
    await ticks(ctx, unit.config.rows - 1)
    ctx.set(unit.totals, -1)


def collector(unit, results, rng, *, backpressure=0.0):
    """Return a sink that appends (value, last) of every transfer."""

    async def sink(ctx):
        stream = unit.results
        while True:
            ctx.set(stream.ready, rng.random() >= backpressure)
            *_, payload, valid, ready = await ctx.tick().sample(
                stream.payload, stream.valid, stream.ready
            )
            if valid and ready:
                results.append((payload.value, payload.last))

    return sink


def job(config, rng, blocks):
    """Return the row blocks of a job; the last one lacks rows where it can."""
    rows = rng.randint(1, config.rows)
    return [
        *(block(config, rng) for _ in range(blocks - 1)),
        block(config, rng, last=True, rows=rows),
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("pause", [0, 3])
def test_results_in_order_at_the_least_interval(config, pause):
    rng = randoms("results", config.name, pause)
    unit = ResultUnit(config, depth=config.rows + latency_of(config))
    jobs = [job(config, rng, blocks) for blocks in (1, 2, 5, 1, 3)]
    seen: list[tuple] = []

    async def drive(ctx):
        for each in (each for blocks in jobs for each in blocks):
            await send(ctx, unit, each)
            await ticks(ctx, rng.randint(0, pause))
        await ticks(ctx, config.rows + unit.latency)

    bench(unit, drive, collector(unit, seen, rng))
    assert seen == [result for blocks in jobs for result in model(config, blocks)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_nothing_is_lost_while_the_sink_waits(config):
    """`depth` places hold whole blocks, credits as `ArrayCore` counts them."""
    rng = randoms("waits", config.name)
    unit = ResultUnit(config, depth=3 * config.rows)
    jobs = [job(config, rng, blocks) for blocks in (4, 7, 9)]
    seen: list[tuple] = []

    async def drive(ctx):
        sent = 0
        for each in (each for blocks in jobs for each in blocks):
            while sent + config.rows - len(seen) > unit.depth:
                await ctx.tick()
            await send(ctx, unit, each)
            sent += each["rows"].bit_count()
        while len(seen) < sent:
            await ctx.tick()

    bench(unit, drive, collector(unit, seen, rng, backpressure=0.8))
    assert seen == [result for blocks in jobs for result in model(config, blocks)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_the_queue_holds_its_depth(config):
    rng = randoms("depth", config.name)
    unit = ResultUnit(config, depth=3 * config.rows)
    blocks = [block(config, rng) for _ in range(3)]
    seen: list[tuple] = []

    async def drive(ctx):
        for each in blocks:
            await send(ctx, unit, each)
        await ticks(ctx, unit.latency + config.rows)
        assert ctx.get(unit.results.valid)
        ctx.set(unit.results.ready, 1)
        for _ in range(2 * unit.depth):
            *_, payload, valid = await ctx.tick().sample(unit.results.payload, unit.results.valid)
            if valid:
                seen.append((payload.value, payload.last))

    bench(unit, drive)
    assert seen == model(config, blocks)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_all_nan(config):
    rng = randoms("nan", config.name)
    unit = ResultUnit(config, depth=4 * config.rows)
    blocks = job(config, rng, 3)
    seen: list[tuple] = []

    async def drive(ctx):
        ctx.set(unit.all_nan, 1)
        for each in blocks:
            await send(ctx, unit, each)
        await ticks(ctx, unit.latency)

    bench(unit, drive, collector(unit, seen, rng))
    assert seen == model(config, blocks, all_nan=True)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_first_transfer_comes_after_the_stated_latency(config):
    unit = ResultUnit(config, depth=2 * config.rows)
    valid = []

    async def drive(ctx):
        ctx.set(unit.results.ready, 1)
        await ticks(ctx, 5)
        await send(ctx, unit, block(config, randoms("latency")))
        await ticks(ctx, unit.latency + 5)

    async def watch(ctx):
        while True:
            valid.append(ctx.get(unit.results.valid))
            await ctx.tick()

    bench(unit, drive, watch)
    first = 5 + unit.latency
    assert unit.latency == latency_of(config)
    assert valid == [first <= cycle < first + config.rows for cycle in range(len(valid))]
