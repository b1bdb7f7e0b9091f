"""What the simulation tests share: configurations, their emitted Verilog, and runs done once."""

import dataclasses
import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

from sim.bins import config_points, matrix_bins
from sim.coverage import Coverage
from sim.runner import Simulator, run
from tern_hw.config import Activation, ArrayConfig, Dot, GroupSize, OutputFormat, Packing
from tern_hw.flows.cells import models_of
from tern_hw.generate import emit

#: Small memories: K and N of their maxima are cheap to reach; neither is a multiple of anything.
SMALL_K, SMALL_N = 100, 60
SEED = 1
#: Options of a small array, so that each run of `simulate` compiles in seconds and all share it.
SMALL_ARRAY = ["--lanes", "8", "--rows", "2", "--max-k", "128", "--max-n", "64"]


def small(lanes: int, rows: int, group_size: GroupSize, *choices: str) -> ArrayConfig:
    """Return a configuration for whole benches.

    Choices: "fp16" (activation), "base3", "half" (output), "carry" (dot product), "turn" (the
    products of scale and shift).
    """
    return ArrayConfig(
        lanes=lanes,
        rows=rows,
        group_size=group_size,
        activation=Activation.FP16 if "fp16" in choices else Activation.INT8,
        packing=Packing.BASE3 if "base3" in choices else Packing.BITS2,
        output=OutputFormat.FP16 if "half" in choices else OutputFormat.FP32,
        dot=Dot.CARRY if "carry" in choices else Dot.TREE,
        products=1 if "turn" in choices else 2,
        max_k=SMALL_K,
        max_n=SMALL_N,
    )


def small_aligned(bits: int, lanes: int, rows: int, group: GroupSize, *choices: str) -> ArrayConfig:
    """Return `small` with fp16 activations aligned to so many bits."""
    return dataclasses.replace(small(lanes, rows, group, "fp16", *choices), aligned=bits)


#: Every pair of choices (activation, packing, kind of group, output), in few configurations.
PAIRWISE = [
    # Maxima that fill their registers' bits, and K that never fills the lanes.
    dataclasses.replace(small(8, 1, "row"), max_k=128, max_n=64),
    dataclasses.replace(small(16, 3, "row", "base3"), max_k=15),
    small(8, 3, 16, "base3"),
    small(12, 2, 4, "half"),
    small(16, 4, 16, "base3", "half"),
    small(13, 2, "row", "fp16", "base3", "half"),
    small(8, 2, 8, "fp16"),
    small(16, 2, 4, "fp16", "base3"),
    # A short K, for each beat takes four steps.
    dataclasses.replace(small(8, 5, 2, "fp16", "half"), max_k=44),
]

#: The other dot product, with chains of one length, of two, and activations of both kinds.
CARRY = [
    small(8, 2, 16, "carry"),
    small(13, 2, "row", "fp16", "base3", "half", "carry"),
]


#: Products of scale and shift in turn: rows that end with a single step, groups of rows of one.
IN_TURN = [
    small(8, 2, 16, "base3", "turn"),
    small(16, 1, "row", "fp16", "half", "turn"),
    small(9, 3, 27, "turn"),
]


#: An array of aligned activations that is quick to build.
QUICK_ALIGNED = small_aligned(16, 8, 1, 16, "base3")
#: Every kind of group with every output and packing, and widths at both ends and between.
ALIGNED = [
    small_aligned(14, 8, 2, 24),
    small_aligned(8, 13, 2, "row", "half"),
    small_aligned(24, 16, 3, 4),
    small_aligned(40, 12, 2, 4, "base3", "half"),
    small_aligned(12, 8, 5, "row", "base3"),
    small_aligned(11, 8, 2, 8, "half"),
]


def all_choices(lanes: int, rows: int, max_k: int, max_n: int) -> list[ArrayConfig]:
    """Return all 24 combinations of activation, packing, kind of group and output."""
    groups: list[GroupSize] = ["row", 2 * lanes, lanes // 2]
    return [
        ArrayConfig(
            lanes=lanes,
            rows=rows,
            activation=activation,
            packing=packing,
            group_size=group,
            output=output,
            max_k=max_k,
            max_n=max_n,
        )
        for activation, packing, group, output in itertools.product(
            Activation, Packing, groups, OutputFormat
        )
    ]


def six_choices(lanes: int, rows: int, max_k: int, max_n: int) -> list[ArrayConfig]:
    """Return six of the 24 combinations, each pair of choices among them."""
    choices = all_choices(lanes, rows, max_k, max_n)
    six = [choices[at] for at in (0, 5, 9, 14, 19, 22)]
    assert {point for config in six for point in config_points(config)} == {
        each.point for each in matrix_bins()
    }
    return six


@lru_cache(maxsize=32)
def verilog_text(config: ArrayConfig) -> str:
    """Return a configuration's emitted Verilog."""
    return emit(config).verilog


def verilog_file(config: ArrayConfig, folder: Path) -> Path:
    """Write a configuration's emitted Verilog into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{config.name}.v"
    path.write_text(verilog_text(config))
    return path


def needs(simulator: Simulator) -> None:
    """Skip the test, with the reason, where the simulator is not installed."""
    if simulator.missing:
        pytest.skip(simulator.missing)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a test needs of a `sim.runner.Report`, as JSON holds it."""

    tests: list[str]
    failures: dict[str, str]
    cycles: float
    test_seconds: float
    build_seconds: float
    run_seconds: float
    coverage_file: str

    @property
    def coverage(self) -> Coverage:
        return Coverage.load(Path(self.coverage_file))


class Runs:
    """Runs of whole benches, each done once in a session, whichever test process asks first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(
        self, config: ArrayConfig, simulator: Simulator, environment: dict[str, str] | None = None
    ) -> Outcome:
        """Return the outcome of all test modules on a configuration."""
        place = self.folder / f"{config.name}-{simulator}"
        place.mkdir(parents=True, exist_ok=True)
        with _locked(place / "lock"):
            kept = place / "outcome.json"
            if not kept.exists():
                kept.write_text(json.dumps(self._run(config, simulator, place, environment)))
            return Outcome(**json.loads(kept.read_text()))

    @staticmethod
    def _run(
        config: ArrayConfig, simulator: Simulator, place: Path, environment: dict[str, str] | None
    ) -> dict:
        report = run(
            verilog_file(config, place),
            config,
            simulator,
            place / "run",
            models=models_of(config),
            seed=SEED,
            environment=environment,
        )
        outcome = Outcome(
            tests=sorted(report.tests),
            failures=report.failures,
            cycles=report.cycles,
            test_seconds=report.test_seconds,
            build_seconds=report.build_seconds,
            run_seconds=report.run_seconds,
            coverage_file=str(place / "run" / "coverage.json"),
        )
        return dataclasses.asdict(outcome)


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of this test session share, and no other session."""
    base = factory.getbasetemp()
    # pytest-xdist gives each worker a folder within the session's.
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
