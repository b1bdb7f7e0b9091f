"""Look-up tables of a Liberty: linear between their points, and beyond the outermost two."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tern_hw.errors import TernError
from tern_hw.gates.cells import Bracket, Surface
from tern_hw.gates.syntax import Group

__all__ = ["Mean", "Spread", "Table", "read_table"]

#: What a table's axis may be, and whether it is the output's load (else a transition time).
AXES: Final = {
    "total_output_net_capacitance": True,
    "input_net_transition": False,
    "input_transition_time": False,
    "related_pin_transition": False,
}


@dataclass(frozen=True)
class Table:
    """Values over the load (fF), over the input's transition time (ns), over both or over none."""

    #: Points of the axes; an axis that the table lacks has the one point 0.
    loads_ff: tuple[float, ...]
    slews_ns: tuple[float, ...]
    #: values[load][slew].
    values: tuple[tuple[float, ...], ...]

    def at(self, load_ff: float, slew_ns: float) -> Bracket:
        """Return the value at a point, three times."""
        i, u = _place(self.loads_ff, load_ff)
        j, v = _place(self.slews_ns, slew_ns)
        rows = [self.values[i], self.values[min(i + 1, len(self.values) - 1)]]
        last = len(self.slews_ns) - 1
        near, far = ((1 - v) * row[j] + v * row[min(j + 1, last)] for row in rows)
        value = (1 - u) * near + u * far
        return Bracket(value, value, value)


@dataclass(frozen=True)
class Mean:
    """The mean of surfaces, as of a net's rises and falls, which take turns."""

    parts: Sequence[Surface]

    def at(self, load_ff: float, slew_ns: float) -> Bracket:
        """Return the mean, bounds with bounds."""
        found = [part.at(load_ff, slew_ns) for part in self.parts]
        return Bracket(*(math.fsum(column) / len(found) for column in zip(*found, strict=True)))


@dataclass(frozen=True)
class Spread:
    """The mean of surfaces of which each holds at times; the least and the largest as bounds."""

    parts: Sequence[Surface]

    def at(self, load_ff: float, slew_ns: float) -> Bracket:
        """Return the mean between the least and the largest."""
        found = [part.at(load_ff, slew_ns) for part in self.parts]
        values = [bracket.value for bracket in found]
        return Bracket(
            min(bracket.low for bracket in found),
            math.fsum(values) / len(values),
            max(bracket.high for bracket in found),
        )


def _place(points: tuple[float, ...], x: float) -> tuple[int, float]:
    """Return the interval that x is taken from, and where it lies in it (0 to 1 inside)."""
    if len(points) == 1:
        return 0, 0.0
    i = min(max(bisect_right(points, x) - 1, 0), len(points) - 2)
    return i, (x - points[i]) / (points[i + 1] - points[i])


def read_table(
    group: Group, templates: dict[str, Group], *, unit: float, load_ff: float, time_ns: float
) -> Table:
    """Read a table, its values times `unit`.

    Parameters
    ----------
    group
        Such as `rise_power (template) { index_1 ...; values ...; }`.
    templates
        The library's table templates by name.
    unit, load_ff, time_ns
        Factors of the values, of loads and of times.

    Raises
    ------
    TernError
        If an axis is unknown, or the values are not as many as the points.
    """
    template = templates.get(group.arguments[0] if group.arguments else "", group)
    points: dict[bool, tuple[float, ...]] = {True: (0.0,), False: (0.0,)}
    order = []
    for number in (1, 2, 3):
        variable = template.text(f"variable_{number}")
        if not variable:
            continue
        if variable not in AXES:
            raise TernError(f"table axis must be one of {', '.join(AXES)}, not {variable!r}")
        is_load = AXES[variable]
        owner = group if f"index_{number}" in group.attributes else template
        factor = load_ff if is_load else time_ns
        points[is_load] = tuple(factor * point for point in owner.numbers(f"index_{number}"))
        order.append(is_load)
    values = [unit * value for value in group.numbers("values")]
    rows, columns = len(points[True]), len(points[False])
    if len(values) != rows * columns:
        raise TernError(f"table must have {rows * columns} values, not {len(values)}")
    if order[:1] == [False] and len(order) == 2:
        grid = [tuple(values[at::rows]) for at in range(rows)]
    else:
        grid = [tuple(values[at * columns : (at + 1) * columns]) for at in range(rows)]
    return Table(points[True], points[False], tuple(grid))
