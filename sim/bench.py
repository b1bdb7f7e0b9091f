"""The array under test with its clients: cocotbext-axi sources, sink and register master."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotb.utils import get_sim_time
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from sim.bins import CYCLES_EQUAL, RESULTS_EQUAL, input_class, output_class
from sim.coverage import Coverage
from sim.jobs import STREAMS, Job, first_difference, streams
from sim.settings import CLOCK_NS
from sim.stalls import StallMode, pause_pattern
from tern_hw.config import ArrayConfig, ErrorFlag, Register

__all__ = ["Bench", "Counters"]

RESET_CYCLES = 4
START, ABORT = 1, 2
BUSY, DONE = 1, 2
#: Cycles that a job may take before it counts as hanging, beyond a multiple of the formula.
LIMIT_FACTOR, LIMIT_CYCLES = 30, 4000
#: Cycles from the edge that takes the start's write to the edge from which Register.CYCLES counts:
#: the start is registered. The write's response rises at the former edge.
START_CYCLES = 1


@dataclass(frozen=True, kw_only=True)
class Counters:
    """The counter registers after a job, and the bench's own count of its cycles."""

    cycles: int
    observed_cycles: int
    #: By stream name, and "result".
    stalls: dict[str, int]


class Bench:
    """One array, its clients, and what may be asked of them.

    Parameters
    ----------
    dut
        The top module.
    config
        What it was generated from.
    coverage
        Where what happens is counted.
    """

    def __init__(self, dut: Any, config: ArrayConfig, coverage: Coverage) -> None:
        self.dut = dut
        self.config = config
        self.coverage = coverage
        self.stalls = StallMode.NONE
        # cocotbext-axi writes every frame to the log.
        for name in (f"cocotb.{dut._name}", "cocotb.regression"):
            logging.getLogger(name).setLevel(logging.WARNING)
        Clock(dut.clk, CLOCK_NS, "ns").start()
        dut.rst.value = 1
        self.sources = {name: self._source(f"s_axis_{name}") for name in streams(config)}
        self.sink = self._sink("m_axis_result")
        self.registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)

    def _bus(self, prefix: str) -> tuple[AxiStreamBus, dict[str, int]]:
        bus = AxiStreamBus.from_prefix(self.dut, prefix)
        # One integer a beat: the clients would otherwise go through it byte by byte.
        return bus, {"byte_lanes": 1}

    def _source(self, prefix: str) -> AxiStreamSource:
        bus, lanes = self._bus(prefix)
        return AxiStreamSource(bus, self.dut.clk, self.dut.rst, **lanes)

    def _sink(self, prefix: str) -> AxiStreamSink:
        bus, lanes = self._bus(prefix)
        return AxiStreamSink(bus, self.dut.clk, self.dut.rst, **lanes)

    # ----------------------------------------------------------------- control

    async def cycles(self, count: int) -> None:
        """Wait for `count` rising edges of the clock."""
        await ClockCycles(self.dut.clk, count)

    async def reset(self) -> None:
        """Reset array and clients; what the clients still held is dropped."""
        self.dut.rst.value = 1
        await self.cycles(RESET_CYCLES)
        self.drop_packets()
        self.sink.clear()
        self.dut.rst.value = 0
        await self.cycles(2)

    def drop_packets(self) -> None:
        """Make the sources forget what they have not sent."""
        for source in self.sources.values():
            source.clear()
            source.assert_reset(True)
            source.assert_reset(False)

    def flush_results(self) -> None:
        """Make the sink forget what it has taken."""
        self.sink.clear()
        self.sink.assert_reset(True)
        self.sink.assert_reset(False)

    async def read(self, register: int) -> int:
        """Read a register, which must answer OKAY."""
        answer = await self.registers.read(register, 4)
        assert answer.resp == AxiResp.OKAY, f"reading {register:#x} gave {answer.resp!r}"
        return int.from_bytes(answer.data, "little")

    async def write(self, register: int, value: int) -> None:
        """Write a register, which must answer OKAY."""
        await self.write_at_once((register, value))

    async def write_at_once(self, *writes: tuple[int, int]) -> None:
        """Write registers, pairs (register, value), without a pause between; all answer OKAY."""
        asked = [self.registers.init_write(at, value.to_bytes(4, "little")) for at, value in writes]
        for each in asked:
            await each.wait()
            answer = each.data
            assert answer.resp == AxiResp.OKAY, f"writing {answer.address:#x} gave {answer.resp!r}"

    async def take_errors(self) -> ErrorFlag:
        """Read the sticky errors and clear those that were set."""
        errors = await self.read(Register.ERRORS)
        await self.write(Register.ERRORS, errors)
        assert await self.read(Register.ERRORS) == 0
        return ErrorFlag(errors)

    # ------------------------------------------------------------------ stalls

    def stall(self, mode: StallMode, seed: int) -> None:
        """Let the sources and the sink stall from now on as `mode` says."""
        self.stalls = mode
        for offset, source in enumerate(self.sources.values()):
            self._pause(source, mode.sources_idle, 4 * seed + offset)
        self._pause(self.sink, mode.sink_backpressure, 4 * seed + 3)

    def stall_channel(self, channel: str, seed: int | None) -> None:
        """Let one channel of the register master pause at random, or (None) no more."""
        half = self.registers.write_if if channel in ("aw", "w", "b") else self.registers.read_if
        self._pause(getattr(half, f"{channel}_channel"), seed is not None, seed or 0)

    @staticmethod
    def _pause(client: Any, stalls: bool, seed: int) -> None:
        client.set_pause_generator(pause_pattern(seed) if stalls else None)
        if not stalls:
            client.pause = False

    # -------------------------------------------------------------------- jobs

    def offer(self, job: Job, names: Collection[str] = STREAMS) -> None:
        """Queue the job's packets, or those of some streams, at the sources."""
        for name in self.sources.keys() & names:
            self.sources[name].send_nowait(AxiStreamFrame(list(job.packet(name))))

    async def start(self, job: Job) -> float:
        """Write N, K and start; return the time (ns) at which the write was answered."""
        await self.write(Register.N, job.n)
        await self.write(Register.K, job.k)
        answered = RisingEdge(self.dut.s_axil_bvalid)
        writing = self.registers.init_write(Register.CONTROL, START.to_bytes(4, "little"))
        await answered
        begun = float(get_sim_time("ns"))
        await writing.wait()
        return begun

    async def results(self, job: Job) -> AxiStreamFrame:
        """Wait for one packet of results and compare it with what the job expects, bit for bit."""
        limit = LIMIT_FACTOR * self.config.job_cycles(job.n, job.k) + LIMIT_CYCLES
        frame = await with_timeout(self.sink.recv(), limit * CLOCK_NS, "ns")
        difference = first_difference(frame.tdata, job.expected)
        assert not difference, f"{self.config.name}, n={job.n}, k={job.k}: {difference}"
        self.coverage.hit("equal", RESULTS_EQUAL, times=len(job.expected))
        return frame

    async def finish(self, job: Job, begun: float) -> Counters:
        """Take the results of a started job, wait until it is over, and return its counters."""
        frame = await self.results(job)
        observed = (frame.sim_time_end / self._steps_per_ns() - begun) / CLOCK_NS
        for _ in range(LIMIT_CYCLES):
            status = await self.read(Register.STATUS)
            if status == DONE:
                break
            assert status == BUSY, f"STATUS must be busy until done, not {status}"
        else:
            raise AssertionError("the array stayed busy after its last result")
        assert self.sink.empty(), "results came after the last"
        counters = await self._counters(round(observed) - START_CYCLES)
        self._cover(job, counters)
        return counters

    @staticmethod
    def _steps_per_ns() -> float:
        return float(get_sim_time("step")) / float(get_sim_time("ns"))

    async def _counters(self, observed: int) -> Counters:
        stalls = {}
        for name in (*self.sources, "result"):
            stalls[name] = await self.read(Register[f"{name.upper()}_STALLS"])
        cycles = await self.read(Register.CYCLES)
        return Counters(cycles=cycles, observed_cycles=observed, stalls=stalls)

    async def run(self, job: Job, *, offered: bool = False) -> Counters:
        """Run a job from start to end; results, errors and counters must be as they should."""
        if not offered:
            self.offer(job)
        begun = await self.start(job)
        counters = await self.finish(job, begun)
        errors = await self.take_errors()
        assert errors == job.flags, f"ERRORS is {errors!r}, not {job.flags!r}"
        if job.flags & ~ErrorFlag(7):
            return counters
        self.check_cycles(job, counters)
        return counters

    def check_cycles(self, job: Job, counters: Counters) -> None:
        """Hold the counters to the formula: equal without stalls, and never less."""
        formula = self.config.job_cycles(job.n, job.k)
        what = f"{self.config.name}, n={job.n}, k={job.k}, stalls {self.stalls}: {counters}"
        assert counters.cycles == counters.observed_cycles, what
        if self.stalls is StallMode.NONE:
            assert counters.cycles == formula, f"{what}, formula {formula}"
            assert not any(counters.stalls.values()), what
            self.coverage.hit("equal", CYCLES_EQUAL)
        assert counters.cycles >= formula, f"{what}, formula {formula}"

    def _cover(self, job: Job, counters: Counters) -> None:
        inputs, outputs = input_class(job.k, self.config), output_class(job.n, self.config)
        self.coverage.hit("shape", inputs, outputs, self.stalls)
        for stream, stalls in counters.stalls.items():
            self.coverage.hit("stall", stream, "waited" if stalls else "never waited", self.stalls)
