"""What a run hands its test modules through the environment, and where their coverage goes."""

import atexit
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from sim.bench import Bench
from sim.bins import config_points
from sim.coverage import Coverage
from sim.settings import CONFIG_VARIABLE, COVERAGE_VARIABLE, SEED_VARIABLE
from tern_hw.config import ArrayConfig

__all__ = ["coverage", "open_bench", "seed"]


@lru_cache(maxsize=1)
def config() -> ArrayConfig:
    """Return the configuration of the array under test."""
    return ArrayConfig.from_dict(json.loads(os.environ[CONFIG_VARIABLE]))


def seed() -> int:
    """Return the run's seed."""
    return int(os.environ[SEED_VARIABLE])


@lru_cache(maxsize=1)
def coverage() -> Coverage:
    """Return the run's coverage; it is written when the simulator ends."""
    collected = Coverage()
    for point in config_points(config()):
        collected.hit("config", *point)
    atexit.register(collected.save, Path(os.environ[COVERAGE_VARIABLE]))
    return collected


async def open_bench(dut: Any) -> Bench:
    """Return a bench on the reset array."""
    bench = Bench(dut, config(), coverage())
    await bench.reset()
    return bench
