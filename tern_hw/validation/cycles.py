"""Counts and cycles of the cost model beside the counters of the simulated Verilog: exactly."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tern_hw.config import Activation, ArrayConfig, Register
from tern_hw.costs import Pace, count_matmul, paced_job
from tern_hw.flows.harness import STALLS, Finished, Jobs, Period, run_jobs
from tern_hw.matrix import TernaryMatrix
from tern_hw.simulation import compiled, jobs_of
from tern_hw.validation.idle import idle_pauses

__all__ = ["CONFIGURATIONS", "QUICK", "CycleCheck", "Streams", "check_cycles"]


def _small(**fields: Any) -> ArrayConfig:
    return ArrayConfig.from_dict(
        {**ArrayConfig().as_dict(), "max_k": 256, "max_n": 256, "packing": "base3", **fields}
    )


#: Arrays simulated by default, and all: every activation, exact and aligned, packing, dot product,
#: kind of group, products at once and in turn.
QUICK: Final = (
    _small(lanes=8, rows=2, group_size=16, packing="2bit"),
    _small(lanes=16, rows=3, group_size=4),
)
CONFIGURATIONS: Final = (
    *QUICK,
    _small(lanes=8, rows=1, group_size="row"),
    _small(lanes=8, rows=12, group_size=8, packing="2bit", output="fp16", dot="carry"),
    _small(lanes=12, rows=3, group_size=4, activation="fp16"),
    _small(lanes=16, rows=1, group_size=32, packing="2bit", activation="fp16", dot="carry"),
    _small(lanes=16, rows=2, group_size=8, activation="fp16", aligned=12),
    _small(lanes=8, rows=1, group_size=24, products=1),
)
#: Outputs and inputs of the jobs: one of each, a short last block, a short last group, several.
SHAPES: Final = ((1, 1), (5, 20), (37, 9), (24, 130))


@dataclass(frozen=True, kw_only=True)
class Streams:
    """How the streams of a job pause: at random, or by periods."""

    #: Probability that a source pauses a cycle, that the sink does, and the seed.
    idle: float = 0.0
    backpressure: float = 0.0
    seed: int = 0
    #: Periods of those that pause, by stream.
    periods: Mapping[str, Period] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a table calls it."""
        found = [
            f"{what} {share:.0%} idle"
            for what, share in (("sources", self.idle), ("sink", self.backpressure))
            if share
        ]
        found += [
            f"{name} {period.pause} after {period.beats}" for name, period in self.periods.items()
        ]
        return ", ".join(found) or "no pause"


STREAMS: Final = (
    Streams(),
    Streams(idle=0.3, seed=1),
    Streams(idle=0.7, seed=2),
    Streams(backpressure=0.4, seed=3),
    Streams(periods={"activation": Period(1, 2), "weight": Period(1, 3), "scale": Period(1, 1)}),
    Streams(periods={"scale": Period(2, 11), "weight": Period(3, 1)}),
    Streams(periods={"result": Period(1, 5)}),
    # Neither a scale nor room for a row block: the scale's stall counts, not the room's.
    Streams(periods={"scale": Period(19, 60), "result": Period(1, 60)}),
    Streams(
        periods={
            "activation": Period(2, 7),
            "weight": Period(4, 6),
            "scale": Period(1, 4),
            "result": Period(3, 8),
        }
    ),
)


@dataclass(frozen=True, kw_only=True)
class CycleCheck:
    """One job: what the model says of it, and what the counters read."""

    config: ArrayConfig
    n: int
    k: int
    streams: Streams
    #: Name -> count: cycles, stalls by stream, beats by stream.
    predicted: dict[str, int]
    measured: dict[str, int]

    @property
    def wrong(self) -> dict[str, int]:
        """Return measured less predicted of each count that differs.

        Under a sink that pauses at random only two ends are predicted: a wait may fall into cycles
        that pass anyway, and what piled
        up leaves in cycles that are no stalls, at most one a result.
        """
        names = self.predicted
        differ = {name: self.measured[name] - value for name, value in names.items()}
        if self.streams.backpressure:
            late = sum(value for name, value in self.measured.items() if name in STALLS)
            differ["cycles"] = _outside(differ["cycles"], 0, late + self.n)
        return {name: error for name, error in differ.items() if error}


def _outside(value: int, low: int, high: int) -> int:
    """Return how far a value lies outside [low, high]."""
    return min(value - low, 0) + max(value - high, 0)


def check_cycles(
    configs: tuple[ArrayConfig, ...], advance: Callable[[int], None] = lambda count: None
) -> Iterator[CycleCheck]:
    """Simulate small jobs on each array and yield predicted and measured counts.

    Parameters
    ----------
    configs : tuple of ArrayConfig
    advance : callable
        Called with 1 after each array.

    Raises
    ------
    TernError
        If Verilator or a C++ compiler is not installed.
    """
    for config in configs:
        binary = compiled(config)
        for n, k in SHAPES:
            for streams in STREAMS:
                jobs = _jobs(config, n, k, streams)
                (done,) = (each for each in run_jobs(binary, jobs) if isinstance(each, Finished))
                yield CycleCheck(
                    config=config,
                    n=n,
                    k=k,
                    streams=streams,
                    predicted=_predicted(jobs),
                    measured=_measured(done),
                )
        advance(1)


def _jobs(config: ArrayConfig, n: int, k: int, streams: Streams) -> Jobs:
    """Return one job of random operands."""
    rng = np.random.default_rng(streams.seed)
    groups = config.groups(k)
    matrix = TernaryMatrix.from_digits(
        rng.integers(0, 3, (n, k)).astype(np.uint8),
        rng.normal(0, 1, (n, groups)).astype(np.float16),
        rng.normal(0, 1, (n, groups)).astype(np.float16),
        group_size=config.group_size,
        packing=config.packing,
    )
    integers = config.activation is Activation.INT8
    token = rng.integers(-128, 128, k).astype(np.int8 if integers else np.float16)
    jobs = jobs_of(
        matrix,
        token[None],
        config,
        idle=streams.idle,
        backpressure=streams.backpressure,
        seed=streams.seed,
    )
    return dataclasses.replace(jobs, periods=streams.periods)


def _predicted(jobs: Jobs) -> dict[str, int]:
    config, n, k = jobs.config, jobs.n, jobs.k
    counts = count_matmul(config, 1, n, k)
    found = {"cycles": counts.cycles}
    if not jobs.backpressure:
        paced = paced_job(config, n, k, _pace(jobs))
        found = {"cycles": paced.cycles, **dict(zip(STALLS, paced.stalls, strict=True))}
    return found | {
        "activation beats": counts.activation_beats,
        "weight beats": counts.weight_beats,
        "scale beats": counts.scale_beats,
        "results": counts.result_beats,
    }


def _pace(jobs: Jobs) -> Pace:
    """Return the pauses that the harness makes: those drawn at random, or else the periods'."""
    if jobs.idle:
        beats = (jobs.activations.shape[1], len(jobs.weights), len(jobs.scales))
        drawn = (idle_pauses(jobs.idle, 4 * jobs.seed + at, n) for at, n in enumerate(beats))
        return Pace(**dict(zip(STALLS, drawn, strict=False)))
    return Pace(
        **{name: (0,) * (each.beats - 1) + (each.pause,) for name, each in jobs.periods.items()}
    )


def _measured(done: Finished) -> dict[str, int]:
    return {
        "cycles": done.registers[Register.CYCLES],
        **{name: done.registers[register] for name, register in STALLS.items()},
        "activation beats": done.event.activations,
        "weight beats": done.event.weights,
        "scale beats": done.event.scales,
        "results": done.event.results,
    }
