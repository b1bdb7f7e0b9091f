"""A validation as tables on stdout: predicted, measured, error."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["print_report"]


def print_report(facts: dict[str, Any]) -> None:
    """Print the facts of `validation_facts`."""
    console = Console(width=max(110, Console().width))
    for part, show in (("cycles", _cycles), ("area", _area), ("switching", _switching)):
        if part in facts:
            show(console, facts[part])
    for sentence in facts["regressions"]:
        console.print(f"regression: {sentence}", highlight=False, markup=False)
    console.print(f"{len(facts['regressions']) or 'no'} regression(s)", highlight=False)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at else "left", overflow="fold")
    return table


def _cycles(console: Console, facts: dict[str, Any]) -> None:
    columns = ("array", "streams", "jobs", "predicted", "measured", "error")
    table = _table("cycles of jobs: model, and counters of the compiled Verilog", columns)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job in facts["jobs"]:
        groups.setdefault((job["name"], job["streams"]), []).append(job)
    for (name, streams), jobs in groups.items():
        predicted = sum(job["predicted"]["cycles"] for job in jobs)
        measured = sum(job["measured"]["cycles"] for job in jobs)
        wrong = sum(abs(value) for job in jobs for value in job["error"].values())
        table.add_row(
            name,
            streams,
            str(len(jobs)),
            f"{'from ' if jobs[0]['random_sink'] else ''}{predicted:,}",
            f"{measured:,}",
            str(wrong),
        )
    console.print(table)
    console.print(
        "error: of cycles, stalls and beats of every job, added up. Where the sink is idle at "
        "random cycles lie between the formula and formula + stalls + results.\n"
    )


def _area(console: Console, facts: dict[str, Any]) -> None:
    unit = facts["unit"]
    table = _table(
        f"area in {unit}: fitted model, and synthesis",
        ("array", "set", "predicted", "measured", "error"),
    )
    for each in facts["arrays"]:
        table.add_row(each["name"], each["role"], *_numbers(each["predicted"], each["measured"]))
    console.print(table)
    bars = facts["bars"]
    console.print(
        f"held out: {facts['held_out']} arrays, median {facts['median']:.1%} (bar "
        f"{bars['median']:.0%}), worst {facts['worst']:.1%} (bar {bars['worst']:.0%})"
        + ("" if facts["enough"] else f"; bar missed: {bars['held_out']} arrays"),
        highlight=False,
    )
    console.print(f"coefficients: {facts['source']}\n", highlight=False)
    table = _table(
        "synthesised now, beside the record", ("array", "recorded", "measured", "change")
    )
    for each in facts["again"]:
        table.add_row(each["name"], *_numbers(each["recorded"], each["measured"], inverse=True))
    console.print(table)


def _numbers(predicted: float, measured: float, *, inverse: bool = False) -> tuple[str, str, str]:
    error = measured / predicted - 1 if inverse else predicted / measured - 1
    return f"{predicted:,.0f}", f"{measured:,.0f}", f"{error:+.1%}"


def _switching(console: Console, facts: dict[str, Any]) -> None:
    _ratios(console, "compute energy: tables (45 nm), and toggles of gates", facts["ratios"])
    for name, key in (("tables", "analytic_pj_per_mac"), ("gates", "gates_pj_per_mac")):
        pairs = ", ".join(
            f"{each[key]['ternary']:.3f} / {each[key]['fp16']:.3f}" for each in facts["ratios"]
        )
        console.print(f"{name}, pJ a MAC, ternary / FP16: {pairs}", highlight=False)
    if facts["recorded"]:
        title = "layers of a model: tables of today, and the gates' toggles as recorded"
        _ratios(console, title, facts["recorded"])
    console.print(f"scope: {facts['scope']}\n", highlight=False)


def _ratios(console: Console, title: str, ratios: Sequence[dict[str, Any]]) -> None:
    columns = ("FP16 over ternary", "predicted", "measured", "error", "bar", "verdict")
    table = _table(title, columns)
    for each in ratios:
        table.add_row(
            each["name"],
            f"{each['predicted']:.2f}",
            f"{each['measured']:.2f}",
            f"{each['error']:+.1%}",
            f"{each['bar']:.0%}",
            "within" if each["within"] else "bar missed",
        )
    console.print(table)
