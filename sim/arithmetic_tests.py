"""Jobs without faults: every adversarial case and every kind of shape, under every stall mode."""

import itertools
import os
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from sim.bench import Bench
from sim.context import config, coverage, open_bench, seed
from sim.jobs import (
    adversarial_job,
    adversarial_names,
    clean_job,
    job_with_other_inputs_beyond,
    random_job,
    streams,
)
from sim.settings import LIMIT_MS, RANDOM_JOBS_VARIABLE
from sim.stalls import StallMode
from sim.stimuli import lone_low_bits, magnitudes, powers_of_two, random_layer
from tern_hw.config import ArrayConfig, Weights

#: Cycles for which a starved stream is held back.
DROUGHT_CYCLES = 40
#: With binary16 weights every sum is rounded where it is added, and none of a wider one.
NO_ROUNDER = config().weights is not Weights.TERNARY
#: Outputs of the jobs of `rounding`: more than a binary16 has places for its leading one.
ROUNDED_ROWS = 60
#: Number of jobs of `random_jobs`, which long runs raise.
RANDOM_JOBS = 6


def job_inputs(config: ArrayConfig) -> list[int]:
    """Return values of K: below, at, above and a multiple of the lanes, and the maximum."""
    lanes = config.lanes
    wanted = {1, lanes - 1, lanes, lanes + 1, 3 * lanes, config.max_k}
    return sorted(k for k in wanted if k <= config.max_k)


def job_outputs(config: ArrayConfig) -> list[int]:
    """Return values of N: below, at, above and a multiple of a block's outputs."""
    block = config.block_outputs
    wanted = {1, max(1, block - 1), block, block + 1, 3 * block}
    return sorted(n for n in wanted if n <= config.max_n)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stalls=list(StallMode))
async def adversarial_cases(dut: Any, stalls: StallMode) -> None:
    """Every adversarial layer gives the reference's bits."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed())
    config = bench.config
    for index, name in enumerate(adversarial_names(config)):
        rng = np.random.default_rng([seed(), index])
        n, k = 2 * config.rows + 1, min(2 * config.lanes + 3, config.max_k)
        await bench.run(adversarial_job(name, rng, n, k, config))
        coverage().hit("case", name, stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stalls=list(StallMode))
async def shapes(dut: Any, stalls: StallMode) -> None:
    """Every kind of N and K, all packets queued at once, so that jobs follow without a gap."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed() + 1)
    config = bench.config
    rng = np.random.default_rng(seed())
    sizes = list(itertools.product(job_outputs(config), job_inputs(config)))
    rng.shuffle(sizes)
    jobs = [random_job(rng, int(n), int(k), config) for n, k in sizes]
    for job in jobs:
        bench.offer(job)
    for job in jobs:
        await bench.run(job, offered=True)
    coverage().hit("case", "back to back", stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stalls=list(StallMode))
async def random_jobs(dut: Any, stalls: StallMode) -> None:
    """Random layers of random shapes, long enough to fill every buffer."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 2])
    for index in range(int(os.environ.get(RANDOM_JOBS_VARIABLE, RANDOM_JOBS))):
        bench.stall(stalls, seed() + index)
        n = int(rng.integers(1, min(12 * config.block_outputs, config.max_n) + 1))
        k = int(rng.integers(1, config.max_k + 1))
        await bench.run(random_job(rng, n, k, config))
    coverage().hit("case", "random", stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def largest_outputs(dut: Any) -> None:
    """N of its maximum, with one input."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 3])
    await bench.run(random_job(rng, config.max_n, 1, config))
    coverage().hit("case", "N maximal", StallMode.NONE)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stream=list(streams(config())))
async def starved_source(dut: Any, stream: str) -> None:
    """A source that pauses in mid-job is waited for, and its counter tells for how long."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 4])
    n, k = 4 * config.rows, min(4 * config.lanes, config.max_k)
    job = random_job(rng, n, k, config)
    bench.offer(job)
    source = bench.sources[stream]
    source.pause = True
    # One beat may be on offer already: the drought begins behind it.
    begun = await bench.start(job)
    await bench.cycles(config.job_cycles(n, k) + DROUGHT_CYCLES)
    source.pause = False
    counters = await bench.finish(job, begun)
    assert not await bench.take_errors()
    assert counters.stalls[stream] >= DROUGHT_CYCLES, counters
    others = [name for name in streams(config) if name != stream]
    assert not any(counters.stalls[name] for name in others), counters
    waited = sum(counters.stalls.values())
    assert counters.cycles == config.job_cycles(n, k) + waited, counters
    assert counters.cycles == counters.observed_cycles, counters
    coverage().hit("starved", stream)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def starved_sink(dut: Any) -> None:
    """A sink that is not ready stops the array before it loses a result."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 5])
    n, k = min(40 * config.block_outputs, config.max_n), min(2, config.max_k)
    job = random_job(rng, n, k, config)
    bench.sink.pause = True
    bench.offer(job)
    begun = await bench.start(job)
    await bench.cycles(config.job_cycles(n, k) + DROUGHT_CYCLES)
    bench.sink.pause = False
    counters = await bench.finish(job, begun)
    assert not await bench.take_errors()
    assert counters.stalls["result"] >= DROUGHT_CYCLES, counters
    assert not any(counters.stalls[name] for name in streams(config)), counters
    assert counters.cycles == counters.observed_cycles, counters
    await _starved_at_the_end(bench)
    coverage().hit("starved", "result")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def trickling_sink(dut: Any) -> None:
    """A sink that takes a result now and then: between two, all that has its place comes."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 8])
    # More than the places for results; each taken frees one, which a block must not take for more.
    n = min(config.result_places + 20 + 2 * config.block_outputs, config.max_n)
    job = random_job(rng, n, min(2, config.max_k), config)
    bench.sink.set_pause_generator(itertools.cycle([*[True] * DROUGHT_CYCLES, False]))
    bench.offer(job)
    watch = cocotb.start_soon(_places_are_kept(bench, config.row_blocks(n)))
    begun = await bench.start(job)
    await bench.cycles(n * (DROUGHT_CYCLES + 1))
    watch.cancel()
    counters = await bench.finish(job, begun)
    bench.sink.set_pause_generator(None)
    bench.sink.pause = False
    assert not await bench.take_errors()
    assert counters.stalls["result"] >= DROUGHT_CYCLES, counters
    assert counters.cycles == counters.observed_cycles, counters
    coverage().hit("starved", "result, a trickle")


async def _places_are_kept(bench: Bench, blocks: int) -> None:
    """Watch a job of one weight beat a block: as many are taken as have places, no more, no less.

    The sink takes one result after each drought, so before that all that could be taken was; the
    first few fall into the time in which the places are filled.
    """
    dut, config = bench.dut, bench.config
    if config.weights is not Weights.TERNARY:
        return
    taken = left = 0
    while True:
        await RisingEdge(dut.clk)
        free = (config.result_places + left) // config.rows
        if dut.m_axis_result_tvalid.value and dut.m_axis_result_tready.value:
            filled = left * DROUGHT_CYCLES > 2 * config.result_places
            assert not filled or taken == min(free, blocks), (taken, left)
            left += 1
        if dut.s_axis_weight_tvalid.value and dut.s_axis_weight_tready.value:
            taken += 1
            assert taken <= free, (taken, left)


async def _starved_at_the_end(bench: Bench) -> None:
    """Results that wait when every step is issued are stalls, too: one a cycle, no more."""
    config = bench.config
    rng = np.random.default_rng([seed(), 6])
    job = random_job(rng, 1, 1, config)
    bench.sink.pause = True
    bench.offer(job)
    begun = await bench.start(job)
    await bench.cycles(config.job_cycles(1, 1) + DROUGHT_CYCLES)
    bench.sink.pause = False
    counters = await bench.finish(job, begun)
    assert counters.stalls["result"] >= DROUGHT_CYCLES, counters
    assert counters.cycles == config.job_cycles(1, 1) + counters.stalls["result"], counters


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_ROUNDER)
async def inputs_beyond_the_last(dut: Any) -> None:
    """What the last beats hold beyond K is ignored, in activations and weights."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 9])
    most = config.chunks(config.max_k)
    for chunks in sorted({1, min(3, most), most}):
        for beyond in (1, config.lanes // 2, config.lanes - 1):
            k = min(max(1, chunks * config.lanes - beyond), config.max_k)
            n = min(config.rows + 1, config.max_n)
            await bench.run(job_with_other_inputs_beyond(rng, n, k, config))
    coverage().hit("case", "beyond the last input")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_ROUNDER)
@cocotb.parametrize(bend=[magnitudes, lone_low_bits, powers_of_two])
async def rounding(dut: Any, bend: Any) -> None:
    """The leading one at any place, and ties that a single bit, far below or near, breaks."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 7])
    for k in (min(3, config.max_k), config.max_k):
        n = min(ROUNDED_ROWS, config.max_n)
        layer = bend(rng, random_layer(rng, n, k, config), config)
        await bench.run(clean_job(layer, config))
    coverage().hit("case", bend.__name__)
