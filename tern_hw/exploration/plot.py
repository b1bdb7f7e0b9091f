"""A picture of a sweep: every point by the first two objectives, and the front on top."""

import io
from typing import Any, Final

from tern_hw.exploration.axes import spelled
from tern_hw.exploration.report import front_points, minimised, varying

__all__ = ["LOOKS", "category", "picture"]

#: Okabe and Ito's colours, told apart with any colour vision, and a marker beside each: of
#: matplotlib, and of plotly.
LOOKS: Final = (
    ("#0072B2", "o", "circle"),
    ("#E69F00", "s", "square"),
    ("#009E73", "^", "triangle-up"),
    ("#CC79A7", "D", "diamond"),
    ("#D55E00", "v", "triangle-down"),
    ("#56B4E9", "P", "cross"),
    ("#666666", "X", "x"),
)
#: Axes that tell points apart best, by colour and marker; any other comes after.
FIRST: Final = ("memory", "activation", "packing", "group_size")
#: Dots per inch.
RESOLUTION: Final = 130
#: Largest over smallest value from which an axis is logarithmic.
WIDE: Final = 8.0


def category(facts: dict[str, Any]) -> str | None:
    """Return the axis whose values get a colour each: at most as many as there are colours."""
    names = varying(facts)
    ordered = [*(name for name in FIRST if name in names), *names]
    fitting = (name for name in ordered if len(facts["axes"][name]) <= len(LOOKS))
    return next(fitting, None)


def picture(facts: dict[str, Any]) -> bytes:
    """Return the picture as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots()
    _draw_points(axes, facts)
    _draw_front(axes, facts)
    _dress(axes, facts)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    return buffer.getvalue()


def _at(facts: dict[str, Any], points: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    x, y = minimised(facts)[:2]
    figures = [each["figures"] for each in points]
    return [x.shown(each) for each in figures], [y.shown(each) for each in figures]


def _draw_points(axes: Any, facts: dict[str, Any]) -> None:
    """Draw every point, beaten ones pale, with a colour and a marker for each value of an axis."""
    name = category(facts)
    for value, (colour, marker, _) in zip(_values(facts, name), LOOKS, strict=False):
        points = [each for each in facts["points"] if name is None or each["values"][name] == value]
        label = None if name is None else f"{name.replace('_', ' ')} {spelled(value)}"
        best = [each for each in points if each["front"]]
        axes.scatter(
            *_at(facts, points),
            s=22,
            c=colour,
            marker=marker,
            alpha=0.35,
            linewidths=0,
            label=label,
        )
        axes.scatter(
            *_at(facts, best), s=44, c=colour, marker=marker, edgecolors="black", linewidths=0.9
        )


def _values(facts: dict[str, Any], name: str | None) -> list[Any]:
    return [None] if name is None else facts["axes"][name]


def _draw_front(axes: Any, facts: dict[str, Any]) -> None:
    """Tell in the legend what a black edge means; join the front where it is a line."""
    count, names = facts["counts"]["front"], ", ".join(facts["minimised"])
    label = f"not beaten in {names} ({count})"
    axes.scatter([], [], s=44, c="white", edgecolors="black", linewidths=0.9, label=label)
    if len(facts["minimised"]) == 2:
        xs, ys = _at(facts, front_points(facts))
        axes.plot(xs, ys, drawstyle="steps-post", color="black", linewidth=0.7, zorder=0)


def _best(facts: dict[str, Any]) -> list[str]:
    """Return lines that say what is least in each drawn objective."""
    lines = []
    for each in minimised(facts)[:2]:
        best = min(front_points(facts), key=lambda point: each.shown(point["figures"]))
        words = [f"{name} {spelled(best['values'][name])}" for name in varying(facts)]
        least = f"{each.shown(best['figures']):,.4g} {each.unit}"
        lines.append(f"least {each.title}, {least}: {', '.join(words)}".replace("_", " "))
    return lines


def _dress(axes: Any, facts: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for numbers, name in zip(_at(facts, facts["points"]), "xy", strict=True):
        if min(numbers) > 0 and max(numbers) > WIDE * min(numbers):
            axes.set(**{f"{name}scale": "log"})
            axis = getattr(axes, f"{name}axis")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_minor_formatter(NullFormatter())
    x, y = minimised(facts)[:2]
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    title = (
        f"{facts['model']['name']}, context {facts['context']}, batch {facts['batch']}, "
        f"{facts['technology']}: {facts['counts']['points']:,} points"
    )
    axes.set_title("\n".join([title, *_best(facts)]), fontsize=8.5, loc="left")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(linewidth=0.4, alpha=0.6)
