"""A sweep as one HTML page that needs no network: the plot, the table, each point's command."""

import html
import json
from pathlib import Path
from string import Template
from typing import Any, Final

from tern_hw.exploration.axes import spelled
from tern_hw.exploration.cells import cell_lines, cell_texts, cell_titles
from tern_hw.exploration.objectives import OBJECTIVES
from tern_hw.exploration.plot import LOOKS, category
from tern_hw.exploration.report import minimised, varying

__all__ = ["MOST_POINTS", "page", "page_points"]

TEMPLATE: Final = Path(__file__).resolve().parent / "page.html"
#: Most points of a page: the front and the first others; a browser grows slow beyond.
MOST_POINTS: Final = 4000


def page(facts: dict[str, Any]) -> str:
    """Return the page: plotly's own script, the data and the table are in it."""
    from plotly.offline import get_plotlyjs

    points = page_points(facts)
    names, cells = [*facts["axes"]], cell_titles(facts)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{facts['model']['name']}: design-space exploration"),
        summary=html.escape(_summary(facts, len(points))),
        skipped="".join(f"<li>{html.escape(each)}</li>" for each in _skipped(facts)),
        note=html.escape(_note(facts)),
        head=_head(names, cells),
        rows="\n".join(_row(point, names, cells) for point in points),
        data=_embedded(_data(facts, points)),
        plotly=get_plotlyjs(),
    )


def page_points(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the points of a page: all of the front, and others up to `MOST_POINTS` in all."""
    room = MOST_POINTS - facts["counts"]["front"]
    chosen = []
    for point in facts["points"]:
        room -= not point["front"]
        if point["front"] or room >= 0:
            chosen.append(point)
    return chosen


def _summary(facts: dict[str, Any], here: int) -> str:
    counts = facts["counts"]
    names = ", ".join(f"{each.title} ({each.unit})" for each in minimised(facts))
    left = "" if here == counts["points"] else f" This page has {here:,} of them."
    return (
        f"A token at a context of {facts['context']}, batch {facts['batch']}, "
        f"{facts['technology']}: {counts['points']:,} points of {counts['combinations']:,} "
        f"combinations; {counts['front']} are not beaten in {names}.{left}"
    )


def _skipped(facts: dict[str, Any]) -> list[str]:
    lines = [f"skipped {each['combinations']:,}: {each['rule']}" for each in facts["skipped"]]
    if left := facts["counts"]["left_out"]:
        lines.append(f"left out {left:,} by --limit")
    return lines + cell_lines(facts)


def _note(facts: dict[str, Any]) -> str:
    parts = [facts, *([facts["synthesis"]] if "synthesis" in facts else [])]
    return " ".join(each["note"] for each in parts)


def _head(names: list[str], titles: dict[str, tuple[str, str]]) -> str:
    shown = [(name.replace("_", " "), "") for name in names]
    shown += [(each.title, each.unit) for each in OBJECTIVES.values()]
    shown += titles.values()
    heads = [("#", ""), ("front", ""), *shown, ("bound by", ""), ("command", "")]
    return "".join(
        f'<th><button type="button">{html.escape(title)}'
        f"{f'<br><small>{html.escape(unit)}</small>' if unit else ''}</button></th>"
        for title, unit in heads
    )


def _row(point: dict[str, Any], names: list[str], titles: dict[str, tuple[str, str]]) -> str:
    figures = point["figures"]
    cells = [str(point["number"]), "yes" if point["front"] else ""]
    cells += [spelled(point["values"][name]) for name in names]
    cells += [f"{each.shown(figures):.6g}" for each in OBJECTIVES.values()]
    cells += cell_texts(titles, point)
    cells.append(figures["bound"])
    inner = "".join(f"<td>{html.escape(each)}</td>" for each in cells)
    command = f"<td><code>{html.escape(point['command'])}</code></td>"
    return f'<tr id="point-{point["number"]}">{inner}{command}</tr>'


def _data(facts: dict[str, Any], points: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the page's script needs: columns instead of points, numbers as they are shown."""
    figures = [each["figures"] for each in points]
    return {
        "objectives": [
            {
                "name": each.name,
                "label": each.label,
                "values": [float(f"{each.shown(found):.9g}") for found in figures],
            }
            for each in OBJECTIVES.values()
        ],
        "axes": {
            name: [spelled(each["values"][name]) for each in points] for name in varying(facts)
        },
        "columns": len(facts["axes"]),
        "numbers": [each["number"] for each in points],
        "front": [each["front"] for each in points],
        "minimised": facts["minimised"],
        "colour": category(facts),
        "looks": [[colour, symbol] for colour, _, symbol in LOOKS],
    }


def _embedded(data: dict[str, Any]) -> str:
    """Return JSON that no HTML parser takes for the end of its script."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
