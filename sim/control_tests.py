"""The registers: identity, access rules, refused starts, abort and reset."""

import functools
import operator
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiResp

from sim.bench import ABORT, BUSY, DONE, START, Bench
from sim.bins import CHANNELS
from sim.context import coverage, open_bench, seed
from sim.jobs import STREAMS, Job, misframed, random_job, some_outputs, streams
from sim.settings import CLOCK_NS, LIMIT_MS
from sim.stalls import StallMode
from tern_hw.config import (
    ARRAY_ID,
    REGISTER_VERSION,
    Activation,
    ArrayConfig,
    ErrorFlag,
    OutputFormat,
    Packing,
    Register,
    Weights,
)

#: Registers that tell what the array was generated for.
IDENTITY = tuple(Register)[: tuple(Register).index(Register.CONTROL)]
#: Registers that keep what is written.
KEPT = (Register.N, Register.K)
#: What a reset clears.
CLEARED = tuple(register for register in Register if register not in IDENTITY)
#: First address beyond the registers, and the last word of the address space.
UNMAPPED = (0x40, 0x7C, 0x80, 0xFC)
#: Beats of a packet that is still being discarded when the job is interrupted.
SURPLUS = 500


def some_job(config: ArrayConfig, number: int) -> Job:
    """Return a job of a few row blocks and chunks."""
    rng = np.random.default_rng([seed(), 10, number])
    n, k = some_outputs(config), min(3 * config.lanes + 1, config.max_k)
    return random_job(rng, n, k, config)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def identity(dut: Any) -> None:
    """The read-only registers tell what the array was generated for."""
    bench = await open_bench(dut)
    config = bench.config
    array = config.lanes | config.rows << 16
    array |= (config.activation is Activation.FP16) << 24
    array |= (config.packing is Packing.BASE3) << 25
    array |= (config.output is OutputFormat.FP16) << 26
    array |= (config.weights is Weights.FP16) << 27
    ternary = config.weights is Weights.TERNARY
    group = config.group_size if ternary and config.group_size != "row" else 0
    expected = {
        Register.ID: ARRAY_ID,
        Register.VERSION: REGISTER_VERSION,
        Register.ARRAY: array,
        Register.GROUP: group | (config.aligned or 0) << 24,
        Register.MAX_K: config.max_k,
        Register.MAX_N: config.max_n,
        Register.CONTROL: 0,
        Register.STATUS: 0,
        Register.ERRORS: 0,
    }
    for register, value in expected.items():
        assert await bench.read(register) == value, register
    assert ARRAY_ID.to_bytes(4, "big") == b"TERN"
    for register in (*expected, Register.CYCLES, Register.RESULT_STALLS):
        if register is Register.CONTROL:
            continue
        before = await bench.read(register)
        await bench.write(register, 0xFFFFFFFF)
        assert await bench.read(register) == before, register
    # What would start a job in CONTROL does so nowhere else.
    await bench.write(Register.N, 1)
    await bench.write(Register.K, 1)
    for register in set(Register) - {Register.CONTROL, Register.N, Register.K}:
        await bench.write(register, START)
        assert await bench.read(Register.STATUS) == 0, register
    coverage().hit("control", "identity")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def unmapped_addresses(dut: Any) -> None:
    """An address without a register answers SLVERR, reads 0 and changes nothing."""
    bench = await open_bench(dut)
    await bench.write(Register.N, 0x01020304)
    for address in UNMAPPED:
        answer = await bench.registers.write(address, b"\xff\xff\xff\xff")
        assert answer.resp == AxiResp.SLVERR, address
        read = await bench.registers.read(address, 4)
        assert (read.resp, read.data) == (AxiResp.SLVERR, bytes(4)), address
    assert await bench.read(Register.N) == 0x01020304
    assert await bench.read(Register.STATUS) == 0
    coverage().hit("control", "unmapped")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def byte_strobes(dut: Any) -> None:
    """A write of some bytes leaves the others; without its byte, CONTROL does nothing."""
    bench = await open_bench(dut)
    for register in KEPT:
        expected = bytearray(b"\x11\x22\x33\x44")
        await bench.write(register, int.from_bytes(expected, "little"))
        for at, data in ((0, b"\xaa"), (3, b"\xbb"), (1, b"\xcc\xdd"), (2, b"\xee")):
            await bench.registers.write(register + at, data)
            expected[at : at + len(data)] = data
            assert await bench.read(register) == int.from_bytes(expected, "little"), (register, at)
    await bench.write(Register.N, 1)
    await bench.write(Register.K, 1)
    # The start bit is in byte 0, which this write leaves out.
    await bench.registers.write(Register.CONTROL + 1, b"\x01")
    assert await bench.read(Register.STATUS) == 0
    coverage().hit("control", "strobes")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stalls=list(StallMode))
async def start_while_busy(dut: Any, stalls: StallMode) -> None:
    """A second start is refused and flagged; the running job keeps its N, K and results."""
    bench = await open_bench(dut)
    bench.stall(stalls, seed())
    job = some_job(bench.config, 0)
    # The weights come late, so that the job is surely still running.
    bench.offer(job, ("activation",))
    begun = await bench.start(job)
    assert await bench.read(Register.STATUS) == BUSY
    await bench.write(Register.N, 1)
    await bench.write(Register.K, 1)
    await bench.write(Register.CONTROL, START)
    assert await bench.take_errors() == ErrorFlag.START_BUSY
    # Refused for that alone, whatever N is by now.
    await bench.write(Register.N, 0)
    await bench.write(Register.CONTROL, START)
    assert await bench.take_errors() == ErrorFlag.START_BUSY
    bench.offer(job, ("weight", "scale"))
    counters = await bench.finish(job, begun)
    assert counters.cycles == counters.observed_cycles
    assert not await bench.take_errors()
    await bench.run(some_job(bench.config, 1))
    coverage().hit("control", "start while busy")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def bad_shapes(dut: Any) -> None:
    """N or K of 0 or beyond the maximum: no start, one flag, and the array stays usable."""
    bench = await open_bench(dut)
    config = bench.config
    good = some_job(config, 2)
    await bench.run(good)
    for n, k in (
        (0, 1),
        (1, 0),
        (config.max_n + 1, 1),
        (1, config.max_k + 1),
        (0xFFFFFFFF, 1),
        (1, 0xFFFFFFFF),
        # Right in the bits that the array keeps, wrong in one above.
        *((1 << bit | 1, 1) for bit in range(config.max_n.bit_length(), 32)),
        *((1, 1 << bit | 1) for bit in range(config.max_k.bit_length(), 32)),
    ):
        # What is wrong comes last, right before the start.
        shape = sorted([(Register.N, n), (Register.K, k)], key=lambda pair: pair[1] != 1)
        await bench.write_at_once(*shape, (Register.CONTROL, START))
        # The job before stays done.
        assert await bench.read(Register.STATUS) == DONE, (n, k)
        assert await bench.take_errors() == ErrorFlag.BAD_SHAPE, (n, k)
    await bench.run(good)
    coverage().hit("control", "bad shape")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def sticky_errors(dut: Any) -> None:
    """Flags stay until a one is written over them; the others are left alone."""
    bench = await open_bench(dut)
    job = some_job(bench.config, 3)
    bench.offer(job, ("activation",))
    begun = await bench.start(job)
    for register in (Register.STATUS, Register.N, Register.K):  # a start's bit, elsewhere
        await bench.registers.write(register, (1).to_bytes(4, "little"))
    assert await bench.read(Register.ERRORS) == 0
    await bench.write(Register.CONTROL, START)
    bench.offer(job, ("weight", "scale"))
    await bench.finish(job, begun)
    await bench.write(Register.N, 0)
    await bench.write(Register.CONTROL, START)
    both = ErrorFlag.START_BUSY | ErrorFlag.BAD_SHAPE
    assert await bench.read(Register.ERRORS) == both
    await bench.write(Register.ERRORS, 0)
    await bench.write(Register.ERRORS, ErrorFlag.ACTIVATION_TLAST)
    await bench.registers.write(Register.ERRORS + 1, b"\xff")
    assert await bench.read(Register.ERRORS) == both
    await bench.write(Register.ERRORS, ErrorFlag.BAD_SHAPE)
    assert await bench.read(Register.ERRORS) == ErrorFlag.START_BUSY
    assert await bench.take_errors() == ErrorFlag.START_BUSY
    coverage().hit("control", "sticky errors")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def counters_freeze(dut: Any) -> None:
    """The counters keep their values after the job, and the next start clears them."""
    bench = await open_bench(dut)
    job = some_job(bench.config, 4)
    bench.stall(StallMode.BOTH, seed())
    counters = await bench.run(job)
    await bench.cycles(50)
    assert await bench.read(Register.CYCLES) == counters.cycles
    assert await bench.read(Register.STATUS) == 2
    bench.stall(StallMode.NONE, seed())
    await bench.run(job)
    coverage().hit("control", "counters")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(channel=list(CHANNELS))
async def register_channel_stalls(dut: Any, channel: str) -> None:
    """Address, data and responses may each come late: every access still happens once."""
    bench = await open_bench(dut)
    draw = random.Random(seed())
    bench.stall_channel(channel, seed())
    job = some_job(bench.config, 11)
    for _ in range(4):
        values = {register: draw.getrandbits(32) for register in KEPT}
        for register, value in values.items():
            await bench.write(register, value)
        for register, value in values.items():
            assert await bench.read(register) == value, (register, channel)
        # Writes and reads under way at once.
        writes = [bench.registers.init_write(r, v.to_bytes(4, "little")) for r, v in values.items()]
        reads = [bench.registers.init_read(Register.ID, 4) for _ in range(3)]
        for access in (*writes, *reads):
            await access.wait()
        assert {bytes(access.data.data) for access in reads} == {ARRAY_ID.to_bytes(4, "little")}
        for register, value in values.items():
            assert await bench.read(register) == value, (register, channel)
    # A start that happened twice would raise START_BUSY.
    bench.offer(job)
    await bench.write(Register.N, job.n)
    await bench.write(Register.K, job.k)
    await bench.write(Register.CONTROL, START)
    await bench.results(job)
    bench.stall_channel(channel, None)
    assert not await bench.take_errors()
    coverage().hit("control", f"{channel} stalls")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def reads_in_mid_job(dut: Any) -> None:
    """Reading while a job runs changes nothing; CYCLES counts the time between two reads."""
    bench = await open_bench(dut)
    job = some_job(bench.config, 12)
    # Without its weights the job waits.
    bench.offer(job, ("activation", "scale"))
    begun = await bench.start(job)
    counts, times = [], []
    for _ in range(4):
        edge = RisingEdge(dut.s_axil_rvalid)
        reading = cocotb.start_soon(bench.read(Register.CYCLES))
        await edge
        times.append(get_sim_time("ns") / CLOCK_NS)
        counts.append(await reading)
        await bench.cycles(7)
    assert np.array_equal(np.diff(counts), np.diff(times)), (counts, times)
    bench.offer(job, ("weight",))
    counters = await bench.finish(job, begun)
    assert counters.cycles == counters.observed_cycles
    assert not await bench.take_errors()
    coverage().hit("control", "read in mid-job")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def start_at_the_end(dut: Any) -> None:
    """A start at any cycle around the end of a job is either refused and flagged, or runs a job."""
    bench = await open_bench(dut)
    config = bench.config
    job = some_job(config, 13)
    total = config.job_cycles(job.n, job.k)
    for wait in range(total - 12, total + 8):
        bench.offer(job)
        bench.offer(job)
        await bench.start(job)
        await bench.cycles(wait)
        await bench.write(Register.CONTROL, START)
        # Both frames come before the errors are read: a start that was lost shows as a time-out.
        await bench.results(job)
        refused = await bench.take_errors()
        assert refused in (ErrorFlag.START_BUSY, 0), refused
        if refused:
            while await bench.read(Register.STATUS) & BUSY:
                pass
            # In whichever cycle it was refused, the job before is done.
            assert await bench.read(Register.STATUS) == DONE
            await bench.write(Register.CONTROL, START)
        await bench.results(job)
        while await bench.read(Register.STATUS) & BUSY:
            pass
        assert not await bench.take_errors()
        coverage().hit("control", f"start at the end: {'refused' if refused else 'accepted'}")


async def interrupted(bench: Bench, number: int, cycles: int) -> None:
    """Start a job and let it run for some cycles; every second one has packets without an end."""
    job = some_job(bench.config, number)
    if cycles % 2:
        for stream in streams(bench.config):
            job = misframed(job, stream, len(job.packet(stream)) + SURPLUS, 0, bench.config)
    bench.offer(job)
    await bench.start(job)
    await bench.cycles(cycles)


def interruptions(config: ArrayConfig) -> list[int]:
    """Return cycles that lie in each phase of `some_job`: load, gap, compute, results, over."""
    n, k = some_outputs(config), min(3 * config.lanes + 1, config.max_k)
    total = config.job_cycles(n, k)
    load = config.load_cycles(k) + config.load_gap_cycles
    return sorted(
        {1, 2, load - 1, load, load + 2, total // 2, total - 3, total - 1, total, total + 9}
    )


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stalls=[StallMode.NONE, StallMode.BOTH])
async def reset_in_mid_job(dut: Any, stalls: StallMode) -> None:
    """Reset at any time leaves an idle array that runs the next job as if nothing had been."""
    bench = await open_bench(dut)
    for cycles in interruptions(bench.config):
        bench.stall(stalls, seed() + cycles)
        await interrupted(bench, 5, cycles)
        await bench.reset()
        for register in CLEARED:
            assert await bench.read(register) == 0, register
        await bench.run(some_job(bench.config, 6))
    coverage().hit("control", "reset in mid-job", stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
@cocotb.parametrize(stalls=[StallMode.NONE, StallMode.BOTH])
async def abort_in_mid_job(dut: Any, stalls: StallMode) -> None:
    """Abort at any time drops the job; what the sources still hold stays with them."""
    bench = await open_bench(dut)
    any_tlast = functools.reduce(operator.or_, STREAMS.values())
    for cycles in interruptions(bench.config):
        bench.stall(stalls, seed() + cycles)
        await interrupted(bench, 7, cycles)
        await bench.write(Register.CONTROL, ABORT)
        await bench.cycles(2)
        assert await bench.read(Register.STATUS) & BUSY == 0
        for source in bench.sources.values():
            assert int(source.bus.tready.value) == 0, "an idle array takes no beats"
        bench.drop_packets()
        bench.flush_results()
        await bench.cycles(2)
        # A packet without an end may have been found out before the abort.
        assert not await bench.take_errors() & ~any_tlast
        await bench.run(some_job(bench.config, 8))
    coverage().hit("control", "abort in mid-job", stalls)


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def done_stays(dut: Any) -> None:
    """DONE stays while other registers are written, and goes with an abort or the next start."""
    bench = await open_bench(dut)
    job = some_job(bench.config, 14)
    await bench.run(job)
    for register in set(Register) - {Register.CONTROL}:
        await bench.registers.write(register, (1).to_bytes(4, "little"))
        assert await bench.read(Register.STATUS) == DONE, register
    await bench.write(Register.CONTROL, ABORT)
    assert await bench.read(Register.STATUS) == 0
    # Refused as the shape is bad, a start leaves DONE where it was.
    await bench.run(job)
    await bench.write(Register.N, 0)
    await bench.write(Register.CONTROL, START)
    assert await bench.take_errors() == ErrorFlag.BAD_SHAPE
    assert await bench.read(Register.STATUS) == DONE
    coverage().hit("control", "DONE stays")


@cocotb.test(timeout_time=LIMIT_MS, timeout_unit="ms")
async def abort_when_idle(dut: Any) -> None:
    """Abort of an idle array does nothing, and abort beats a start in the same write."""
    bench = await open_bench(dut)
    await bench.write(Register.CONTROL, ABORT)
    await bench.run(some_job(bench.config, 9))
    await bench.write(Register.CONTROL, START | ABORT)
    assert await bench.read(Register.STATUS) & BUSY == 0
    assert not await bench.take_errors()
    await bench.run(some_job(bench.config, 10))
    coverage().hit("control", "abort when idle")
