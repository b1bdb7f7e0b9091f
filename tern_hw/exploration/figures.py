"""What a point costs, and the key of everything that decides it."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from tern_hw.costs import Model, System, TableArea, decode, estimate, prefill
from tern_hw.costs.technology import Values
from tern_hw.errors import TernError

__all__ = [
    "FIGURES",
    "Figures",
    "Job",
    "Work",
    "code_digest",
    "evaluate",
    "is_whole",
    "key_of",
    "source_digest",
]

#: Numbers by the names of `FIGURES`, and "bound".
Figures = dict[str, Any]

#: Every figure of a point, with its unit.
FIGURES: Final[dict[str, str]] = {
    "joules_per_token": "J",
    "seconds_per_token": "s",
    "watts": "W",
    "bytes_per_token": "B",
    "first_token_seconds": "s",
    "prompt_joules_per_token": "J",
    "engine_mm2": "mm2",
    "area_mm2": "mm2",
}
#: What decides figures beside a job: these files of the package, or folders of them.
CODE: Final = ("config", "costs", "exploration/figures.py")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all points of a sweep have to do."""

    model: Model
    context: int
    batch: int
    #: As in `tern_hw.costs.decode`.
    ternary: Mapping[str, int] | None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what decides figures, as JSON holds it: names and paths do not."""
        model = dataclasses.asdict(self.model)
        return {
            "model": {name: each for name, each in model.items() if name not in ("name", "source")},
            "context": self.context,
            "batch": self.batch,
            "ternary": None if self.ternary is None else dict(self.ternary),
        }


@dataclass(frozen=True, kw_only=True)
class Job:
    """A point as a worker gets it: the work, on a system, at these prices."""

    work: Work
    system: System
    numbers: Values


def evaluate(job: Job) -> Figures:
    """Return the figures of a point by the cost model.

    Raises
    ------
    TernError
        If the array cannot do the model.
    """
    work, values = job.work, job.numbers
    phases = [
        make(work.model, work.context, work.batch, work.ternary) for make in (decode, prefill)
    ]
    step, prompt = (estimate(job.system, phase, values) for phase in phases)
    seconds = step.seconds / step.phase.tokens
    return {
        "joules_per_token": step.joules_per_token,
        "seconds_per_token": seconds,
        "watts": step.joules_per_token / seconds,
        "bytes_per_token": step.bytes_per_token,
        "first_token_seconds": prompt.seconds,
        "prompt_joules_per_token": prompt.joules_per_token,
        "engine_mm2": TableArea(values).mm2(job.system.engine),
        "area_mm2": step.area_mm2,
        "bound": step.bound,
    }


def is_whole(figures: Any) -> bool:
    """Tell whether something read from a file is the figures of a point."""
    return (
        isinstance(figures, dict)
        and set(figures) == {*FIGURES, "bound"}
        and isinstance(figures["bound"], str)
        and all(type(figures[name]) is float and math.isfinite(figures[name]) for name in FIGURES)
    )


def key_of(job: Job) -> str:
    """Return the digest of all that decides a job's figures."""
    system = job.system
    if system.array is not system.engine:
        raise TernError("engine must be a ternary array in a sweep, not another format's")
    facts = {
        "code": code_digest(),
        "work": job.work.facts,
        "array": system.array.as_dict(),
        "clock_mhz": float(system.clock_mhz),
        "float_macs": system.float_macs,
        "numbers": job.numbers,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def code_digest() -> str:
    """Return the digest of the cost model's own source; workers elsewhere must have the same."""
    return source_digest(CODE)


@lru_cache
def source_digest(names: tuple[str, ...]) -> str:
    """Return the digest of files of the package, or of folders' modules."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
