"""The ring: every word once, in order, while others come and go, until it is full and empty."""

import pytest

from tern_hw.gateware.memories import Ring
from tests.gateware.blocks import bench, randoms


@pytest.mark.parametrize("depth", [1, 2, 5, 8, 33])
def test_words_come_out_once_and_in_order(depth):
    ring = Ring(width=16, depth=depth)
    assert ring.depth >= depth
    rng = randoms("ring", depth)
    words = [rng.getrandbits(16) for _ in range(400)]
    seen, levels = [], []

    async def drive(ctx):
        written = taken = 0
        # Phases that fill, drain and balance it.
        for writes, takes in ((1.0, 0.1), (0.2, 1.0), (0.7, 0.7), (1.0, 1.0)) * 2:
            for _ in range(3 * ring.depth):
                # A word may be taken from the cycle after its write on.
                kept = written - taken
                take = kept > 0 and rng.random() < takes
                write = kept < ring.depth and written < len(words) and rng.random() < writes
                levels.append(kept)
                ctx.set(ring.take, take)
                ctx.set(ring.write, write)
                ctx.set(ring.data, words[written] if write else 0xBAD)
                await ctx.tick()
                written, taken = written + write, taken + take
                if taken:
                    seen.append((taken, ctx.get(ring.word)))

    bench(ring, drive)
    assert {0, ring.depth} <= set(levels)
    # After a word was taken it stays until the next one is.
    assert seen == [(count, words[count - 1]) for count, _ in seen]


def test_latency_is_as_stated():
    ring = Ring(width=4, depth=2)
    assert ring.LATENCY == 1

    async def fill(ctx):
        ctx.set(ring.data, 9)
        ctx.set(ring.write, 1)
        await ctx.tick()
        ctx.set(ring.write, 0)
        ctx.set(ring.take, 1)
        assert ctx.get(ring.word) == 0
        await ctx.tick()
        assert ctx.get(ring.word) == 9

    bench(ring, fill)
