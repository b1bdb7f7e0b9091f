"""Faults with defined answers: NaN, illegal codes, TLAST early and late; then a clean job."""

from dataclasses import replace
from typing import Any

import cocotb
import numpy as np

from sim.bench import Bench
from sim.context import config, coverage, open_bench, seed
from sim.jobs import (
    ILLEGAL_BYTES,
    STREAMS,
    Job,
    faulty_job,
    misframed,
    random_job,
    some_outputs,
    streams,
    weight_bytes,
)
from sim.settings import LIMIT_MS
from sim.stalls import StallMode
from sim.stimuli import Layer, random_layer
from tern_hw.config import Activation, ArrayConfig, Register, Weights

MODES = [StallMode.NONE, StallMode.BOTH]
#: Beats that come too late, more than a job and a few register accesses take.
SURPLUS = 600
NONFINITE = (np.nan, np.inf, -np.inf)
#: Operands of binary16 weights have no faults: NaN and infinity go where IEEE 754 sends them.
NO_FAULTS = config().weights is not Weights.TERNARY


def size(config: ArrayConfig) -> tuple[int, int]:
    """Return N and K of a job with ragged row blocks and chunks."""
    return some_outputs(config), min(3 * config.lanes + 1, config.max_k)


def layer(config: ArrayConfig, *key: int) -> Layer:
    """Return a random layer of that size."""
    return random_layer(np.random.default_rng([seed(), 20, *key]), *size(config), config)


def good_job(config: ArrayConfig, *key: int) -> Job:
    """Return a job without a fault, of that size."""
    return random_job(np.random.default_rng([seed(), 20, *key]), *size(config), config)


async def recovers(bench: Bench, number: int) -> None:
    """Run a clean job, which must find no trace of a fault."""
    await bench.run(good_job(bench.config, 99, number))


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_FAULTS)
@cocotb.parametrize(stalls=MODES)
async def nonfinite_activation(dut: Any, stalls: StallMode) -> None:
    """NaN or infinity in an activation: all of the token's outputs are NaN. int8 has none."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed())
    config = bench.config
    for index, value in enumerate(NONFINITE):
        faulty = layer(config, index)
        for place in (0, faulty.k // 2, faulty.k - 1):
            if config.activation is Activation.FP16:
                faulty.activations[:] = 1
                faulty.activations[place] = value
                job = faulty_job(faulty, config)
                assert job.flags
                await bench.run(job)
                coverage().hit("fault", "activation", stalls)
        await recovers(bench, index)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_FAULTS)
@cocotb.parametrize(stalls=MODES)
async def nonfinite_scale(dut: Any, stalls: StallMode) -> None:
    """NaN or infinity in a scale or a shift: that row alone is NaN."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed() + 1)
    config = bench.config
    rng = np.random.default_rng([seed(), 21])
    for index in range(6):
        faulty = layer(config, index)
        operand = (faulty.scale, faulty.shift)[index % 2]
        row, group = rng.integers(0, operand.shape[0]), rng.integers(0, operand.shape[1])
        operand[row, group] = NONFINITE[index // 2]
        job = faulty_job(faulty, config)
        assert job.flags
        await bench.run(job)
        await recovers(bench, index)
    coverage().hit("fault", "scale", stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_FAULTS)
@cocotb.parametrize(stalls=MODES)
async def illegal_codes(dut: Any, stalls: StallMode) -> None:
    """An illegal code counts as trit 0 and is flagged, in any byte of any row, padding included."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed() + 2)
    config = bench.config
    rng = np.random.default_rng([seed(), 22])
    for index in range(8):
        faulty = layer(config, index)
        weights = weight_bytes(faulty, config)
        # The first and the last byte of a row, then any.
        at = (0, -1)[index] if index < 2 else rng.integers(0, config.row_beat_bytes)
        rows = config.rows if index < 6 else 1
        row, beat = rng.integers(0, rows), rng.integers(0, len(weights))
        by_row = weights.reshape(-1, config.rows, config.row_beat_bytes)
        by_row[beat, row, at] = rng.choice(ILLEGAL_BYTES[config.packing])
        await bench.run(faulty_job(faulty, config, weights))
        await recovers(bench, index)
    coverage().hit("fault", "code", stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_FAULTS)
async def every_illegal_code(dut: Any) -> None:
    """Each illegal code at each byte of each row: none is a trit other than 0."""
    bench = await open_bench(dut)
    config = bench.config
    codes = np.array(ILLEGAL_BYTES[config.packing], np.uint8)
    faulty = layer(config, 0)
    weights = weight_bytes(faulty, config)
    places = np.arange(weights.shape[1])
    for first in range(0, len(codes), len(weights)):
        beats = first + np.arange(len(weights))
        # Neighbours in a beat have different codes.
        weights[:] = codes[(beats[:, None] + places) % len(codes)]
        await bench.run(faulty_job(faulty, config, weights))
    await recovers(bench, 0)
    coverage().hit("fault", "every code")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_FAULTS)
async def illegal_codes_beyond_the_last_row(dut: Any) -> None:
    """Rows that fill the last block are ignored wholly, and so are their scales."""
    bench = await open_bench(dut)
    config = bench.config
    faulty = layer(config, 0)
    weights = weight_bytes(faulty, config)
    n, _ = size(config)
    used = n % config.rows or config.rows
    last = weights.reshape(config.row_blocks(n), -1, config.rows, config.row_beat_bytes)[-1]
    last[:, used:] = ILLEGAL_BYTES[config.packing][0]
    job = faulty_job(faulty, config, weights)
    assert not job.flags
    fill = ((1 << 32 * (config.rows - used)) - 1) << 32 * used
    groups = config.groups(faulty.k)
    scale = job.scale[:-groups] + tuple(word | fill for word in job.scale[-groups:])
    await bench.run(replace(job, scale=scale))
    coverage().hit("fault", "beyond the last row")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms", skip=NO_FAULTS)
@cocotb.parametrize(stalls=MODES)
async def many_faults(dut: Any, stalls: StallMode) -> None:
    """Several faults of several kinds in one job keep their own answers."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed() + 3)
    config = bench.config
    rng = np.random.default_rng([seed(), 23])
    for index in range(6):
        faulty = layer(config, index)
        faulty.scale[rng.random(faulty.scale.shape) < 0.1] = rng.choice(NONFINITE)
        faulty.shift[rng.random(faulty.shift.shape) < 0.1] = rng.choice(NONFINITE)
        if config.activation is Activation.FP16 and index == 5:
            faulty.activations[rng.integers(0, faulty.k)] = np.inf
        # Any bytes: many legal codes among illegal ones.
        weights = weight_bytes(faulty, config)
        weights[:] = rng.integers(0, 256, weights.shape)
        await bench.run(faulty_job(faulty, config, weights))
    await recovers(bench, 0)
    coverage().hit("fault", "many", stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stream=list(streams(config())), stalls=MODES)
async def tlast_early(dut: Any, stream: str, stalls: StallMode) -> None:
    """A packet that ends early: NaN where beats are missing, N results all the same."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed() + 4)
    config = bench.config
    good = good_job(config, 0)
    whole = len(good.packet(stream))
    for number, length in enumerate(sorted({1, 2, whole // 2, whole - 2, whole - 1})):
        if 1 <= length < whole:
            await bench.run(misframed(good, stream, length, 0, config))
            coverage().hit("fault", f"{stream} TLAST early", stalls)
        await recovers(bench, number)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stream=list(streams(config())), stalls=MODES)
async def tlast_late(dut: Any, stream: str, stalls: StallMode) -> None:
    """A packet that is too long: exact results, the rest is discarded whatever it holds."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed() + 5)
    config = bench.config
    good = good_job(config, 0)
    whole = len(good.packet(stream))
    # Illegal codes, NaN scales, NaN activations.
    fill = ILLEGAL_BYTES[config.packing][-1] if stream == "weight" else 0xFF
    filler = int.from_bytes(bytes([fill]) * (len(bench.sources[stream].bus.tdata) // 8), "little")
    for number, surplus in enumerate((1, 2, 7, 3 * whole)):
        await bench.run(misframed(good, stream, whole + surplus, filler, config))
        coverage().hit("fault", f"{stream} TLAST late", stalls)
        await recovers(bench, number)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stream=list(streams(config())))
async def cleared_while_discarding(dut: Any, stream: str) -> None:
    """A packet that is too long is flagged once: what is still discarded raises nothing again."""
    bench = await open_bench(dut)
    config = bench.config
    good = good_job(config, 0)
    whole = len(good.packet(stream))
    # So long that the flag is read and cleared while most of it is still to come.
    job = misframed(good, stream, whole + SURPLUS, 0, config)
    bench.offer(job)
    begun = await bench.start(job)
    while not await bench.read(Register.ERRORS):
        pass
    assert await bench.take_errors() == STREAMS[stream]
    await bench.finish(job, begun)
    assert not await bench.take_errors()
    coverage().hit("fault", f"{stream} cleared while discarding")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def single_beat_packets(dut: Any) -> None:
    """Packets of the fewest beats that lack their TLAST, on all streams at once."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 24])
    inputs = 1 if config.group_size == "row" else min(config.group_size, config.lanes)
    job = random_job(rng, 1, min(inputs, config.max_k), config)
    for stream in streams(config):
        job = misframed(job, stream, len(job.packet(stream)) + 1, 0, config)
    await bench.run(job)
    await recovers(bench, 0)
    coverage().hit("fault", "single beats")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def random_frames(dut: Any) -> None:
    """Random packet lengths on all streams at once, under random stalls."""
    bench = await open_bench(dut)
    config = bench.config
    rng = np.random.default_rng([seed(), 25])
    for index in range(12):
        bench.stall(StallMode(rng.choice(list(StallMode))), seed() + index)
        n = int(rng.integers(1, some_outputs(config) + 1))
        job = random_job(rng, n, int(rng.integers(1, config.max_k + 1)), config)
        for stream in streams(config):
            whole = len(job.packet(stream))
            length = int(rng.integers(1, 2 * whole + 2))
            if length != whole and rng.integers(3):
                job = misframed(job, stream, length, 0, config)
        await bench.run(job)
        await recovers(bench, index)
    coverage().hit("fault", "random frames")
