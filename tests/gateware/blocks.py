"""Drive one block in Amaranth's simulator: the clock, the seed and the cycle limit live here."""

import random
from collections.abc import Iterable
from typing import Any

from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator

from tern_hw.config import ArrayConfig

__all__ = [
    "activations",
    "bench",
    "observed_latency",
    "pack",
    "randoms",
    "respond",
    "small",
    "ticks",
]

#: Every random choice of the block tests follows from this and the test's own salt.
SEED = 20240
#: A bench that takes longer than this hangs.
LIMIT_CYCLES = 100_000
CLOCK_SECONDS = 1e-6
SMALL: dict[str, Any] = {"lanes": 8, "rows": 2, "group_size": "row", "max_k": 64, "max_n": 64}
#: Longer than any block's latency.
SETTLE_CYCLES = 24


def randoms(*salt: object) -> random.Random:
    """Return the generator of a test; other salt, other values."""
    return random.Random(f"{SEED} {salt}")


def small(**fields: Any) -> ArrayConfig:
    """Return a configuration whose block simulates fast."""
    return ArrayConfig(**SMALL | fields)


def activations(config: ArrayConfig, rng: random.Random, count: int) -> list[int]:
    """Return activations as the integers that the data path sees, a third of them extreme."""
    low, high = (-128, 127) if config.fixed_max == 128 else (-config.fixed_max, config.fixed_max)
    corners = (low, low + 1, -1, 0, 1, high)
    return [
        rng.choice(corners) if rng.random() < 1 / 3 else rng.randint(low, high)
        for _ in range(count)
    ]


def pack(values: Iterable[int], bits: int) -> int:
    """Return integers, two's complement, side by side, the first one lowest."""
    word = 0
    for at, value in enumerate(values):
        word |= (value & ((1 << bits) - 1)) << bits * at
    return word


def bench(dut, *coroutines):
    """Run the coroutines beside each other to the end of the first, the others in the background.

    Raises
    ------
    AssertionError
        If it takes more than `LIMIT_CYCLES`.
    """
    top = Module()
    top.domains.sync = ClockDomain()
    top.submodules.dut = dut
    simulator = Simulator(top)
    simulator.add_clock(CLOCK_SECONDS)
    for index, coroutine in enumerate(coroutines):
        simulator.add_testbench(coroutine, background=index > 0)
    simulator.add_testbench(_watchdog, background=True)
    simulator.run()


async def ticks(ctx, count):
    """Wait so many cycles, none among them."""
    for _ in range(count):
        await ctx.tick()


async def _watchdog(ctx):
    await ctx.delay(LIMIT_CYCLES * CLOCK_SECONDS)
    raise AssertionError(f"the bench does not end in {LIMIT_CYCLES} cycles")


def respond(dut, vectors, outputs, *, latency=None, lag=None):
    """Drive vector i in cycle i and return, for each, the outputs `latency` cycles later.

    Parameters
    ----------
    vectors : sequence of dict
        Input names to values.
    outputs : sequence of str
    latency : int, optional
        The block's own where not given.
    lag : dict, optional
        Input name to the cycles by which it comes after the others.
    """
    latency = dut.latency if latency is None else latency
    lag = lag or {}
    seen: list[list] = []

    async def drive(ctx):
        for cycle in range(len(vectors) + latency):
            for name in vectors[0]:
                index = cycle - lag.get(name, 0)
                if 0 <= index < len(vectors):
                    ctx.set(getattr(dut, name), vectors[index][name])
            _, _, *values = await ctx.tick().sample(*(getattr(dut, name) for name in outputs))
            seen.append(values)

    bench(dut, drive)
    return seen[latency:]


def observed_latency(dut, before, after, output):
    """Return the cycles from a change of the inputs to the change of an output."""
    changes = []

    async def drive(ctx):
        for name, value in before.items():
            ctx.set(getattr(dut, name), value)
        await ticks(ctx, SETTLE_CYCLES)
        settled = ctx.get(getattr(dut, output))
        for name, value in after.items():
            ctx.set(getattr(dut, name), value)
        for cycle in range(SETTLE_CYCLES):
            if ctx.get(getattr(dut, output)) != settled:
                changes.append(cycle)
                return
            await ctx.tick()
        raise AssertionError(f"{output} does not change")

    bench(dut, drive)
    return changes[0]
