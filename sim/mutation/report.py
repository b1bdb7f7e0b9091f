"""The mutation run as JSON and as tables: the score, the tests that noticed, who is left."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sim.mutation.mutants import Mutant
from sim.mutation.store import Outcome
from tern_hw.config import ArrayConfig

__all__ = ["facts", "print_facts"]


def facts(
    config: ArrayConfig, seed: int, mutants: Sequence[Mutant], outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Return all that is known, as JSON holds it.

    The score counts killed mutants among those that are not proven equivalent.
    """
    states = Counter(outcome.state for outcome in outcomes)
    counted = len(mutants) - states["equivalent"]
    return {
        "array": config.name,
        "configuration": config.as_dict(),
        "seed": seed,
        "mutants": len(mutants),
        "killed": states["killed"],
        "equivalent": states["equivalent"],
        "survived": states["survived"],
        "score_percent": round(100 * states["killed"] / counted, 2) if counted else None,
        "all": [_line(*pair) for pair in zip(mutants, outcomes, strict=True)],
    }


def _line(mutant: Mutant, outcome: Outcome) -> dict[str, Any]:
    fields = dataclasses.asdict(mutant)
    del fields["options"]
    return fields | {
        "state": outcome.state,
        "killed_by": outcome.trial.killed_by,
        "message": outcome.trial.message,
        "proof": outcome.proof,
    }


def print_facts(report: dict[str, Any]) -> None:
    """Print the score, kills by module and by test, and every mutant that was not killed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False)
    score = Table(box=box.ROUNDED, show_header=False)
    score.add_row("array", report["array"])
    score.add_row("mutants", f"{report['mutants']} (seed {report['seed']})")
    for name in ("killed", "equivalent", "survived"):
        score.add_row(name, str(report[name]))
    score.add_row("score", f"{report['score_percent']} %")
    console.print(score)
    console.print(_by(report["all"], "module"))
    console.print(_by([each for each in report["all"] if each["killed_by"]], "killed_by"))
    left = Table("number", "place", "state", box=box.ROUNDED, title="not killed")
    for each in report["all"]:
        if each["state"] != "killed":
            place = f"{each['module']} {each['cell']}.{each['port']}[{each['bit']}] {each['mode']}"
            left.add_row(str(each["number"]), place, each["proof"] or each["state"])
    console.print(left)


def _by(lines: Sequence[dict[str, Any]], field: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(field, "mutants", "killed", "equivalent", "survived", box=box.ROUNDED)
    for value in sorted({each[field] for each in lines}):
        states = Counter(each["state"] for each in lines if each[field] == value)
        counts = [states.total(), *(states[name] for name in ("killed", "equivalent", "survived"))]
        table.add_row(value or "(top)", *map(str, counts))
    return table
