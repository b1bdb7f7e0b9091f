"""A sweep from its plan to the facts: known figures, new ones, and the front."""

from collections.abc import Callable
from typing import Any, Final

from tern_hw.errors import TernError
from tern_hw.exploration.figures import Figures, Job, Work, evaluate, key_of
from tern_hw.exploration.objectives import Objective, pareto_front
from tern_hw.exploration.plan import Plan, Point
from tern_hw.exploration.results import Results
from tern_hw.exploration.workers import Answer, evaluate_shown

__all__ = ["NOTE", "sweep_facts"]

#: What the figures do not know.
NOTE: Final = (
    "Figures are of the cost model, not of silicon: any clock counts as reached, wires and control "
    "take no area, and a memory takes some only where it is on the chip. "
    "Accuracy is not weighed: group size and activation change what a model answers; lanes, rows, "
    "packing and memory do not."
)


def sweep_facts(
    plan: Plan,
    results: Results,
    objectives: list[Objective],
    *,
    workers: int,
    scheduler: str | None = None,
    evaluator: Callable[[Job], Figures] = evaluate,
) -> dict[str, Any]:
    """Evaluate what is not known yet, and return everything there is to say of a sweep.

    Parameters
    ----------
    plan : Plan
    results : Results
        Grows by what is evaluated.
    objectives : list of Objective
    workers, scheduler
        As in `tern_hw.exploration.workers.evaluate_all`.
    evaluator : callable
        Gives a job's figures; another one than the cost model needs results of its own.

    Raises
    ------
    TernError
        If no combination has figures, or workers or files fail.
    """
    jobs = _jobs(plan)
    keys = [key_of(job) for job in jobs]
    missing = [at for at, key in enumerate(keys) if key not in results.known]
    refused: dict[int, str] = {}

    def keep(answers: dict[int, Answer]) -> None:
        places = {missing[at]: answer for at, answer in answers.items()}
        refused.update({at: each for at, each in places.items() if isinstance(each, str)})
        results.add({keys[at]: each for at, each in places.items() if isinstance(each, dict)})

    evaluate_shown(
        evaluator,
        [jobs[at] for at in missing],
        doing="evaluating points",
        things="points",
        done=keep,
        workers=workers,
        scheduler=scheduler,
    )
    for at, sentence in refused.items():
        plan.skips.add(sentence, plan.points[at].command)
    good = [at for at in range(len(jobs)) if at not in refused]
    if not good:
        raise TernError(plan.skips.first)
    figures = [results.known[keys[at]] for at in good]
    points = _rows([plan.points[at] for at in good], figures, objectives)
    return _facts(plan, results, objectives, points, new=len(missing) - len(refused))


def _jobs(plan: Plan) -> list[Job]:
    work = Work(
        model=plan.subject.model,
        context=plan.context,
        batch=plan.batch,
        ternary=plan.subject.ternary,
    )
    return [Job(work=work, system=each.system, numbers=each.numbers) for each in plan.points]


def _rows(
    points: list[Point], figures: list[Figures], objectives: list[Objective]
) -> list[dict[str, Any]]:
    front = pareto_front([[each[one.figure] for one in objectives] for each in figures])
    return [
        {
            "number": number,
            "array": point.system.array.name,
            "values": point.values,
            "figures": found,
            "front": best,
            "command": point.command,
        }
        for number, (point, found, best) in enumerate(zip(points, figures, front, strict=True), 1)
    ]


def _facts(
    plan: Plan,
    results: Results,
    objectives: list[Objective],
    points: list[dict[str, Any]],
    *,
    new: int,
) -> dict[str, Any]:
    model = plan.subject.model
    skipped = sum(plan.skips.counts.values())
    return {
        "model": {"name": model.name, "source": model.source, "parameters": model.parameters},
        "context": plan.context,
        "batch": plan.batch,
        "technology": plan.technology,
        "axes": {axis.name: [*axis.values] for axis in plan.axes},
        "minimised": [each.name for each in objectives],
        "counts": {
            "combinations": plan.combinations,
            "skipped": skipped,
            "left_out": plan.left_out,
            "points": len(points),
            "evaluated": new,
            "known_before": len(points) - new,
            "front": sum(each["front"] for each in points),
        },
        "skipped": [
            {
                "rule": rule,
                "combinations": count,
                "first": plan.skips.examples[rule][0],
                "command": plan.skips.examples[rule][1],
            }
            for rule, count in plan.skips.counts.items()
        ],
        "points": points,
        "results": str(results.path),
        "note": NOTE,
    }
