"""Jobs on the array in Amaranth's simulator, with streams that pause after each transfer."""

import itertools

from tern_hw.gateware.core import INPUTS
from tests.gateware.jobs import Bench

#: Cycles after which every source has its first beat on offer.
SETTLED = 60


class PacedBench(Bench):
    """A bench whose sources and sink keep a `Pace`."""

    def __init__(self, config, pace):
        super().__init__(config, seed=0)
        self.pace = pace
        self.jobs = None

    def queue(self, job):
        self.jobs = job
        for name in INPUTS:
            beats = getattr(job, name)
            self.pending[name].append(self._paced(name, beats, getattr(self.pace, name)))

    def _paced(self, name, beats, pauses):
        dut = self.dut
        tdata, tvalid, tready, tlast = (
            getattr(dut, f"s_axis_{name}_{part}") for part in ("tdata", "tvalid", "tready", "tlast")
        )

        async def offer(ctx):
            for index, (beat, pause) in enumerate(zip(beats, each(pauses), strict=False)):
                ctx.set(tdata, beat)
                ctx.set(tlast, index == len(beats) - 1)
                ctx.set(tvalid, 1)
                *_, taken = await ctx.tick().sample(tready)
                while not taken:
                    *_, taken = await ctx.tick().sample(tready)
                ctx.set(tvalid, 0)
                for _ in range(pause):
                    await ctx.tick()

        return offer

    async def _sink(self, ctx):
        dut, pauses, job = self.dut, None, None
        while True:
            if job is not self.jobs:  # a new job begins the pauses anew
                job, pauses = self.jobs, each(self.pace.result)
            ctx.set(dut.m_axis_result_tready, 1)
            *_, valid, value, last = await ctx.tick().sample(
                dut.m_axis_result_tvalid, dut.m_axis_result_tdata, dut.m_axis_result_tlast
            )
            if valid:
                self.collected.append((value, last))
                ctx.set(dut.m_axis_result_tready, 0)
                for _ in range(next(pauses)):
                    await ctx.tick()


def each(pauses):
    """Return an endless iterator of a stream's pauses."""
    return itertools.cycle(pauses if isinstance(pauses, tuple) else (pauses,))


def run_paced(config, jobs, pace):
    """Return what the counters read after each job."""
    bench = PacedBench(config, pace)
    outcomes = []

    async def host(ctx):
        await ctx.tick().repeat(2)
        for job in jobs:
            bench.queue(job)
            await ctx.tick().repeat(SETTLED)
            await bench.start(ctx, job.n, job.k)
            await bench.finish(ctx, job.n, job.k)
            await ctx.tick().repeat(SETTLED)
            outcomes.append(await bench.outcome(ctx))

    bench.run(host)
    return outcomes
