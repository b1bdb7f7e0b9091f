"""Run whole jobs on `TernaryArray` in Amaranth's simulator, with idle sources and a slow sink."""

import random
from dataclasses import dataclass, field

from amaranth.sim import Simulator

from tern_hw.config import ArrayConfig, Register
from tern_hw.gateware.array import TernaryArray
from tern_hw.gateware.core import INPUTS
from tern_hw.gateware.registers import STALLS

__all__ = ["Bench", "Job", "Outcome", "read", "run_jobs", "write"]

#: `Register.STATUS` of a finished job.
DONE = 0b10
OUTCOME_REGISTERS = (Register.CYCLES, Register.ERRORS, *STALLS)

#: A job that takes this many times its formula (plus this many cycles) counts as hung.
HANG_FACTOR, HANG_CYCLES = 40, 2000


@dataclass(frozen=True)
class Job:
    """The beats of one job, as integers, and how eager its streams are (0: always, 1: never)."""

    n: int
    k: int
    activation: list[int]
    weight: list[int]
    scale: list[int]
    idle: float = 0.0
    backpressure: float = 0.0
    #: Stream name to the beat that carries TLAST, where it is not the last.
    tlast: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came out of one job."""

    results: list[int]
    lasts: list[int]
    cycles: int
    errors: int
    stalls: tuple[int, ...]


async def write(ctx, dut, register, value):
    ctx.set(dut.s_axil_awaddr, int(register))
    ctx.set(dut.s_axil_wdata, value)
    ctx.set(dut.s_axil_wstrb, 0xF)
    for name in ("awvalid", "wvalid", "bready"):
        ctx.set(getattr(dut, f"s_axil_{name}"), 1)
    await ctx.tick()
    for name in ("awvalid", "wvalid"):
        ctx.set(getattr(dut, f"s_axil_{name}"), 0)
    await ctx.tick()


async def read(ctx, dut, register):
    ctx.set(dut.s_axil_araddr, int(register))
    ctx.set(dut.s_axil_arvalid, 1)
    ctx.set(dut.s_axil_rready, 1)
    await ctx.tick()
    ctx.set(dut.s_axil_arvalid, 0)
    while not ctx.get(dut.s_axil_rvalid):
        await ctx.tick()
    value = ctx.get(dut.s_axil_rdata)
    await ctx.tick()
    return value


def source(dut, name, job, rng):
    """Return a process that offers a job's beats of one stream."""
    beats = getattr(job, name)
    last = job.tlast.get(name, len(beats) - 1)

    async def offer(ctx):
        tdata, tvalid, tready, tlast = (
            getattr(dut, f"s_axis_{name}_{part}") for part in ("tdata", "tvalid", "tready", "tlast")
        )
        for index, beat in enumerate(beats):
            while rng.random() < job.idle:
                await ctx.tick()
            ctx.set(tdata, beat)
            ctx.set(tlast, index == last)
            ctx.set(tvalid, 1)
            *_, taken = await ctx.tick().sample(tready)
            while not taken:
                *_, taken = await ctx.tick().sample(tready)
            ctx.set(tvalid, 0)

    return offer


class Bench:
    """A `TernaryArray` with its three sources, its sink and a host, in Amaranth's simulator."""

    def __init__(self, config: ArrayConfig, *, seed: int):
        self.config = config
        self.dut = TernaryArray(config)
        self.rng = random.Random(seed)
        self.collected: list[tuple[int, int]] = []
        self.backpressure = 0.0
        self.pending: dict[str, list] = {name: [] for name in INPUTS}

    def run(self, host) -> None:
        """Run the coroutine `host(ctx)` to its end."""
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(host)
        simulator.add_testbench(self._sink, background=True)
        for name in INPUTS:
            simulator.add_testbench(self._player(name), background=True)
        simulator.run()

    def queue(self, job: Job) -> None:
        """Hand a job's beats to the sources; nothing is started."""
        self.backpressure = job.backpressure
        for name, queue in self.pending.items():
            queue.append(source(self.dut, name, job, self.rng))

    async def start(self, ctx, n: int, k: int) -> None:
        await write(ctx, self.dut, Register.N, n)
        await write(ctx, self.dut, Register.K, k)
        await write(ctx, self.dut, Register.CONTROL, 1)

    async def finish(self, ctx, n: int, k: int) -> None:
        """Wait until the job is done; a hang is an error."""
        for _ in range(HANG_FACTOR * self.config.job_cycles(n, k) + HANG_CYCLES):
            if await read(ctx, self.dut, Register.STATUS) == DONE:
                return
        raise AssertionError(f"{n} x {k}: not done, {len(self.collected)} results")

    async def outcome(self, ctx) -> Outcome:
        """Return what the last job gave, and forget its results."""
        words = {register: await read(ctx, self.dut, register) for register in OUTCOME_REGISTERS}
        results, self.collected = self.collected, []
        return Outcome(
            results=[value for value, _ in results],
            lasts=[last for _, last in results],
            cycles=words[Register.CYCLES],
            errors=words[Register.ERRORS],
            stalls=tuple(words[register] for register in STALLS),
        )

    async def _sink(self, ctx):
        dut = self.dut
        while True:
            ctx.set(dut.m_axis_result_tready, self.rng.random() >= self.backpressure)
            *_, valid, ready, value, last = await ctx.tick().sample(
                dut.m_axis_result_tvalid,
                dut.m_axis_result_tready,
                dut.m_axis_result_tdata,
                dut.m_axis_result_tlast,
            )
            if valid and ready:
                self.collected.append((value, last))

    def _player(self, name):
        async def play(ctx):
            while True:
                if self.pending[name]:
                    await self.pending[name].pop(0)(ctx)
                else:
                    await ctx.tick()

        return play


def run_jobs(config: ArrayConfig, jobs: list[Job], *, seed: int = 0) -> list[Outcome]:
    """Run jobs one after the other, errors cleared before each, and return what each gave."""
    bench = Bench(config, seed=seed)
    outcomes = []

    async def host(ctx):
        await ctx.tick().repeat(2)
        for job in jobs:
            bench.queue(job)
            await ctx.tick().repeat(3)
            await write(ctx, bench.dut, Register.ERRORS, 0xFF)
            await bench.start(ctx, job.n, job.k)
            await bench.finish(ctx, job.n, job.k)
            outcomes.append(await bench.outcome(ctx))

    bench.run(host)
    return outcomes
