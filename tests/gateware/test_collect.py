"""The collector: every output once, in order, under backpressure; NaN where a block lacks beats."""

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.gateware.collect import Collector
from tests.gateware.blocks import bench, pack, randoms, ticks

CONFIG = ArrayConfig(
    lanes=8, rows=1, activation="fp16", weights="fp16", output="fp16", max_k=64, max_n=300
)
NAN = 0x7E00
#: More cycles than all outputs take, and those in which a surplus one would still show.
PATIENCE, AFTER_CYCLES = 4000, 80


def collected(n, *, backpressure, poisoned=(), all_nan=False):
    """Send the blocks of one job, a block whenever there is room; return values and lasts."""
    dut = Collector(CONFIG)
    rng = randoms("collect", n, backpressure)
    size, contexts = CONFIG.lanes * CONFIG.rows, CONFIG.mac_contexts
    blocks = CONFIG.row_blocks(n)
    sums = [rng.getrandbits(15) for _ in range(blocks * CONFIG.block_outputs)]
    values, lasts = [], []

    async def take(ctx):
        after = 0
        for _ in range(PATIENCE):
            after += bool(lasts and lasts[-1])
            if after > AFTER_CYCLES:
                return
            ready = rng.random() >= backpressure
            ctx.set(dut.results.ready, ready)
            _, _, valid, value, last = await ctx.tick().sample(
                dut.results.valid, dut.results.payload.value, dut.results.payload.last
            )
            if valid and ready:
                values.append(value)
                lasts.append(last)

    async def send(ctx):
        ctx.set(dut.all_nan, all_nan)
        ctx.set(dut.last_n, n - 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for block in range(blocks):
            while not ctx.get(dut.room):
                await ctx.tick()
            ctx.set(dut.claim, 1)
            await ctx.tick()
            ctx.set(dut.claim, 0)
            for context in range(contexts):
                first = (block * contexts + context) * size
                ctx.set(dut.write, 1)
                ctx.set(dut.context, context)
                ctx.set(dut.words, pack(sums[first : first + size], 16))
                ctx.set(dut.poison, block in poisoned)
                await ctx.tick()
                ctx.set(dut.write, 0)
                await ticks(ctx, rng.randrange(3))

    bench(dut, take, send)
    return sums, values, lasts


@pytest.mark.parametrize("backpressure", [0.0, 0.6])
@pytest.mark.parametrize("n", [1, 8, 56, 57, 224, 299])
def test_outputs_come_once_and_in_order(n, backpressure):
    sums, values, lasts = collected(n, backpressure=backpressure)
    assert values == sums[:n]
    assert lasts == [0] * (n - 1) + [1]


def test_a_block_that_lacks_beats_is_nan():
    sums, values, _ = collected(200, backpressure=0.3, poisoned=(0, 2))
    block = CONFIG.block_outputs
    assert values[:block] == values[2 * block : 3 * block] == [NAN] * block
    assert values[block : 2 * block] == sums[block : 2 * block]
    assert values[3 * block :] == sums[3 * block : 200]


def test_a_job_without_all_activations_is_nan():
    _, values, lasts = collected(60, backpressure=0.0, all_nan=True)
    assert values == [NAN] * 60
    assert lasts == [0] * 59 + [1]
