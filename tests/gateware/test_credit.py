"""The credit counter: gifts and claims at once, at its limits, and back to the start."""

import pytest

from tern_hw.gateware.credit import CreditCounter
from tests.gateware.blocks import bench, observed_latency, randoms, ticks

SHAPES = [(4, 0, 1), (8, 8, 2), (6, 6, 6), (9, 9, 4), (1, 0, 1), (15, 3, 5)]


@pytest.mark.parametrize(("limit", "initial", "cost"), SHAPES)
def test_random_gifts_and_claims(limit, initial, cost):
    counter = CreditCounter(limit=limit, initial=initial, cost=cost)
    rng = randoms("credit", limit, initial, cost)
    levels = []

    async def drive(ctx):
        left = initial
        # Phases that fill, drain and balance the counter.
        for odds, claims in ((1.0, 0.05), (0.2, 1.0), (0.6, 0.6), (1.0, 1.0)) * 3:
            for _ in range(60):
                assert ctx.get(counter.enough) == (left >= cost)
                levels.append(left)
                claim = left >= cost and rng.random() < claims
                give = left - cost * claim < limit and rng.random() < odds
                start = rng.random() < 0.02
                ctx.set(counter.start, start)
                ctx.set(counter.give, give)
                ctx.set(counter.claim, claim)
                await ctx.tick()
                left = initial if start else left + give - cost * claim

    bench(counter, drive)
    assert {min(levels), max(levels)} == {0, limit}


def test_full_counter_holds_exactly_its_limit():
    counter = CreditCounter(limit=6, initial=0, cost=3)
    seen = []

    async def drive(ctx):
        ctx.set(counter.give, 1)
        await ticks(ctx, 6)
        ctx.set(counter.give, 0)
        ctx.set(counter.claim, 1)
        for _ in range(2):
            seen.append(ctx.get(counter.enough))
            await ctx.tick()
        ctx.set(counter.claim, 0)
        seen.append(ctx.get(counter.enough))

    bench(counter, drive)
    assert seen == [1, 1, 0]


def test_a_gift_counts_in_the_next_cycle():
    counter = CreditCounter(limit=4, initial=0, cost=1)
    assert observed_latency(counter, {"give": 0}, {"give": 1}, "enough") == 1
