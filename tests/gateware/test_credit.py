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
        left, waived = initial, False
        # What is left when the claim of the cycle before is not counted yet.
        counted = [initial]
        # Phases that fill, drain and balance the counter.
        for odds, claims in ((1.0, 0.05), (0.2, 1.0), (0.6, 0.6), (1.0, 1.0)) * 3:
            for _ in range(60):
                assert ctx.get(counter.backed) == (left >= cost)
                assert ctx.get(counter.enough) == (left >= cost or waived)
                spare = counted[-2] < limit - 1 if len(counted) > 1 else initial < limit
                assert ctx.get(counter.spare) == spare
                levels.append(left)
                claim = left >= cost and rng.random() < claims
                give = left < limit and rng.random() < odds
                start, waive = rng.random() < 0.02, rng.random() < 0.2
                ctx.set(counter.start, start)
                ctx.set(counter.give, give)
                ctx.set(counter.claim, claim)
                ctx.set(counter.waive, waive)
                await ctx.tick()
                left = initial if start else left + give - cost * claim
                waived = waive and not start
                counted = [initial] if start else [*counted, left + cost * claim]

    bench(counter, drive)
    assert {min(levels), max(levels)} == {0, limit}


@pytest.mark.parametrize(("limit", "initial", "cost"), SHAPES)
def test_who_gives_where_there_is_a_spare_place_never_gives_too_much(limit, initial, cost):
    counter = CreditCounter(limit=limit, initial=initial, cost=cost)
    rng = randoms("spare", limit, initial, cost)
    seen = []

    async def drive(ctx):
        left = initial
        for _ in range(300):
            give = ctx.get(counter.spare)
            claim = ctx.get(counter.backed) and rng.random() < 0.1
            seen.append(left)
            assert not give or left < limit
            ctx.set(counter.give, give)
            ctx.set(counter.claim, claim)
            await ctx.tick()
            left += give - cost * claim

    bench(counter, drive)
    # With a counter of one place it is told that there is none: it takes two cycles to tell.
    assert limit < 3 or max(seen) >= limit - 1


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
