"""The front's arrays through synthesis: what each takes on an FPGA, beside its points' figures."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.exploration.figures import Figures, source_digest
from tern_hw.exploration.plan import Plan
from tern_hw.exploration.report import front_points
from tern_hw.exploration.workers import Answer, evaluate_shown
from tern_hw.flows.synthesis import SynthesisOptions, yosys_version
from tern_hw.flows.targets import KINDS, TARGETS
from tern_hw.flows.yosys import share_folder

__all__ = ["LIMIT", "ArrayJob", "check_synthesis", "synthesise", "tools_digest", "with_cells"]

#: Arrays that are synthesised where nothing else is said: 64 lanes x 4 rows take half a minute.
LIMIT: Final = 8
#: Most arrays that --synth-limit takes.
MAX_LIMIT: Final = 100_000
#: What decides a netlist beside a job: these files of the package, or folders of them.
CODE: Final = ("config", "gateware", "flows", "synthesis.py")
#: What the cells do not hold.
NOTE: Final = (
    "Cells are counted after synthesis with DSP blocks and block RAM, and of the array alone: no "
    "companion unit, no memory controller. Nothing was placed: the clock is the one asked for."
)


@dataclass(frozen=True, kw_only=True)
class ArrayJob:
    """An array as a worker gets it, and the family that it is synthesised for."""

    array: ArrayConfig
    target: str


def check_synthesis(target: str, limit: int | None) -> None:
    """Refuse at once what would only fail when the sweep is over.

    Raises
    ------
    TernError
        If there is no such target, pyosys is missing, or the limit is out of its range.
    """
    if target not in TARGETS:
        raise TernError(f"--synth must be one of {', '.join(TARGETS)}, not {target!r}")
    if limit is not None and not 1 <= limit <= MAX_LIMIT:
        raise TernError(f"--synth-limit must be an integer from 1 to {MAX_LIMIT}, not {limit}")
    share_folder()


def synthesise(job: ArrayJob) -> Figures:
    """Return the cells of an array by kind, from the store of `tern_hw.synth` where it has them.

    Raises
    ------
    TernError
        If Yosys fails.
    """
    # Here and not above: Amaranth takes long to load, and a report does without.
    from tern_hw.synthesis import measure

    options = SynthesisOptions(target=TARGETS[job.target])
    result = measure(job.array, "array", options).synthesis
    counts = result.counts
    return {
        "module": result.top,
        "area": counts.area,
        **{kind: getattr(counts, kind) for kind in KINDS},
        "others": counts.others,
        "yosys_seconds": result.seconds,
        "tools": tools_digest(),
    }


def tools_digest() -> str:
    """Name the gateware's source and the versions of Amaranth and Yosys that make a netlist."""
    amaranth = importlib.metadata.version("amaranth")
    return f"{source_digest(CODE)} amaranth {amaranth} yosys {yosys_version()}"


def with_cells(
    facts: dict[str, Any],
    plan: Plan,
    target: str,
    *,
    limit: int,
    workers: int,
    scheduler: str | None = None,
    evaluator: Callable[[ArrayJob], Figures] = synthesise,
) -> dict[str, Any]:
    """Synthesise the distinct arrays of a front, and return a sweep's facts with their cells.

    Parameters
    ----------
    facts : dict
        Of `sweep_facts`.
    plan : Plan
        Of the same sweep.
    target : str
        Name of a family.
    limit : int
        Most arrays; those of the front's first points are taken, so a larger limit only adds.
    workers, scheduler
        As in `tern_hw.exploration.workers.evaluate_all`.
    evaluator : callable
        Gives an array's cells.

    Returns
    -------
    dict
        With "synthesis", and in each point "cells": a point's own, front or not, or None.

    Raises
    ------
    TernError
        If workers fail; an array that fails is only named.
    """
    array_of = {point.command: point.system.array for point in plan.points}
    arrays = [*dict.fromkeys(array_of[each["command"]] for each in front_points(facts))]
    answers = _answers(arrays[:limit], target, evaluator, workers, scheduler)
    cells = {array: each for array, each in answers.items() if isinstance(each, dict)}
    failed = [
        {"array": array.name, "reason": _sentence(each)}
        for array, each in answers.items()
        if isinstance(each, str)
    ]
    points = [each | {"cells": cells.get(array_of[each["command"]])} for each in facts["points"]]
    counts = {"arrays": len(arrays), "synthesised": len(cells), "left_out": len(arrays[limit:])}
    return facts | {"points": points, "synthesis": _head(target) | counts | {"failed": failed}}


def _answers(
    arrays: list[ArrayConfig],
    target: str,
    evaluator: Callable[[ArrayJob], Figures],
    workers: int,
    scheduler: str | None,
) -> dict[ArrayConfig, Answer]:
    found: dict[int, Answer] = {}

    def keep(answers: dict[int, Answer]) -> None:
        for at, each in answers.items():
            if isinstance(each, dict):
                _check_tools(each)
            found[at] = each

    evaluate_shown(
        evaluator,
        [ArrayJob(array=array, target=target) for array in arrays],
        doing=f"synthesising arrays for {target}",
        things="arrays",
        done=keep,
        workers=workers,
        scheduler=scheduler,
        chunk=1,
        few=1,
    )
    return {array: found[at] for at, array in enumerate(arrays)}


def _check_tools(cells: Figures) -> None:
    """Take the digest from a worker's answer, and refuse one that is not ours."""
    if cells.pop("tools") != tools_digest():
        raise TernError("every worker must have this version's gateware and tools, not others")


def _sentence(reason: str) -> str:
    """Return what a tool's failure says in one line: its first, and the last that it quotes."""
    first, *quoted = reason.splitlines()
    return f"{first.rstrip(':')} ({quoted[-1].strip()})" if quoted else first


def _head(target: str) -> dict[str, Any]:
    family = TARGETS[target]
    return {
        "target": target,
        "about": family.about,
        "area_unit": family.area_unit,
        "area_rule": family.area_rule,
        "tools": {"yosys": yosys_version()},
        "note": NOTE,
    }
