"""A sweep's report: the front as a table and as CSV, and what was left out, with reasons."""

import csv
import io
import textwrap
from typing import Any, Final

from tern_hw.exploration.axes import spelled
from tern_hw.exploration.cells import cell_columns, cell_lines, cell_texts, cell_titles
from tern_hw.exploration.objectives import OBJECTIVES, Objective

__all__ = ["column", "front_csv", "front_points", "minimised", "print_report", "varying"]

#: Most points of the front in the table.
MOST_ROWS: Final = 20
#: Columns that a table may take where there is no terminal, and those of a paragraph.
WIDTH: Final = 240
PARAGRAPH: Final = 100


def minimised(facts: dict[str, Any]) -> list[Objective]:
    """Return the objectives of a sweep."""
    return [OBJECTIVES[name] for name in facts["minimised"]]


def varying(facts: dict[str, Any]) -> list[str]:
    """Return the axes that have more than one value."""
    return [name for name, values in facts["axes"].items() if len(values) > 1]


def front_points(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the points of the front, the least in the first objective first."""
    costs = [each.figure for each in minimised(facts)]
    points = [each for each in facts["points"] if each["front"]]
    return sorted(points, key=lambda each: [each["figures"][name] for name in costs])


def column(objective: Objective) -> str:
    """Return an objective's column name: title and unit, as "energy_mj"."""
    return f"{objective.name}_{objective.unit}".lower().replace("-", "_")


def front_csv(facts: dict[str, Any]) -> str:
    """Return the front as CSV: axes, figures with their units, cells, bound and command."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    titles = cell_titles(facts)
    figures = [*map(column, OBJECTIVES.values()), *cell_columns(titles)]
    writer.writerow(["array", *facts["axes"], *figures, "bound", "command"])
    for point in front_points(facts):
        shown = [f"{each.shown(point['figures']):.9g}" for each in OBJECTIVES.values()]
        shown += cell_texts(titles, point)
        values = [spelled(each) for each in point["values"].values()]
        bound = point["figures"]["bound"]
        writer.writerow([point["array"], *values, *shown, bound, point["command"]])
    return stream.getvalue()


def print_report(facts: dict[str, Any], written: list[str]) -> None:
    """Print the front, the counts and what was skipped."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    say = _sayer(console)
    model, counts = facts["model"], facts["counts"]
    say(
        f"{model['name']}, a token at a context of {facts['context']}, batch {facts['batch']}: "
        f"{counts['combinations']:,} combinations, {counts['points']:,} points "
        f"({counts['evaluated']:,} evaluated now, {counts['known_before']:,} known before)"
    )
    _say_skipped(say, facts)
    names = ", ".join(f"{each.title} ({each.unit})" for each in minimised(facts))
    say(f"{counts['front']} points are not beaten in {names}")
    console.print(_table(facts))
    if (more := counts["front"] - MOST_ROWS) > 0:
        say(f"and {more} more of the front, in --csv, --html and --json")
    for line in cell_lines(facts):
        say(line)
    _say_best(say, facts)
    say(textwrap.fill(facts["note"], PARAGRAPH))
    if "synthesis" in facts:
        say(textwrap.fill(facts["synthesis"]["note"], PARAGRAPH))
    say(f"figures are kept in {facts['results']}")
    for path in written:
        say(f"wrote {path}")


def _sayer(console: Any) -> Any:
    """Return a function that prints a sentence, never cut, never taken for markup."""
    return lambda text: console.print(text, markup=False, soft_wrap=True)


def _say_skipped(say: Any, facts: dict[str, Any]) -> None:
    for each in facts["skipped"]:
        say(f"skipped {each['combinations']:,}: {each['rule']}")
    if left := facts["counts"]["left_out"]:
        say(f"left out {left:,} by --limit")


def _table(facts: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    objectives = minimised(facts)
    axes = varying(facts)
    for name in axes:
        table.add_column(Text(name.replace("_", " ")), justify="right")
    for each in objectives:
        table.add_column(Text(f"{each.name}\n{each.unit}"), justify="right")
    titles = cell_titles(facts)
    for title, unit in titles.values():
        table.add_column(Text(f"{title}\n{unit}"), justify="right")
    table.add_column("bound by")
    for point in front_points(facts)[:MOST_ROWS]:
        cells = [spelled(point["values"][name]) for name in axes]
        cells += [f"{each.shown(point['figures']):,.4g}" for each in objectives]
        cells += cell_texts(titles, point)
        table.add_row(*(Text(each) for each in [*cells, point["figures"]["bound"]]))
    return table


def _say_best(say: Any, facts: dict[str, Any]) -> None:
    """Print the command line of the best point by each objective."""
    for each in minimised(facts):
        best = min(front_points(facts), key=lambda point: each.shown(point["figures"]))
        say(f"least {each.title}, {each.shown(best['figures']):,.4g} {each.unit}:")
        say(f"  {best['command']}")
