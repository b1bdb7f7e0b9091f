"""What a sweep minimises, each with its unit, and the points that nothing beats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tern_hw.errors import TernError

__all__ = ["DEFAULT", "OBJECTIVES", "Objective", "pareto_front", "read_objectives"]


@dataclass(frozen=True)
class Objective:
    """A figure to be as small as possible, and how it is shown."""

    name: str
    #: Name in `tern_hw.exploration.figures.FIGURES`.
    figure: str
    title: str
    unit: str
    #: From the figure's unit to the one shown.
    scale: float

    @property
    def label(self) -> str:
        """Title and unit, for an axis."""
        return f"{self.title}, {self.unit}"

    def shown(self, figures: dict[str, Any]) -> float:
        """Return a point's figure in the unit shown."""
        return figures[self.figure] * self.scale


OBJECTIVES: Final[dict[str, Objective]] = {
    each.name: each
    for each in (
        Objective("energy", "joules_per_token", "energy of a token", "mJ", 1e3),
        Objective("time", "seconds_per_token", "time of a token", "ms", 1e3),
        Objective("area", "area_mm2", "area", "mm2", 1.0),
        Objective("array-area", "engine_mm2", "area of the array alone", "mm2", 1.0),
        Objective("first-token", "first_token_seconds", "time to the first token", "s", 1.0),
        Objective(
            "prompt-energy", "prompt_joules_per_token", "energy of a prompt's token", "mJ", 1e3
        ),
        Objective("power", "watts", "power while decoding", "W", 1.0),
        Objective("bytes", "bytes_per_token", "bytes of a token", "MB", 1e-6),
    )
}
DEFAULT: Final = "energy,time,area"


def read_objectives(text: str) -> list[Objective]:
    """Return the objectives of a list of names.

    Raises
    ------
    TernError
        If a name is unknown or there twice, or there is only one.
    """
    names = text.split(",")
    for name in names:
        if name not in OBJECTIVES:
            raise TernError(f"--minimise must be names from {', '.join(OBJECTIVES)}, not {name!r}")
        if names.count(name) > 1:
            raise TernError(f"--minimise must have each name once, not {name!r} again")
    if len(names) < 2:
        raise TernError(f"--minimise must be two names or more, not {text!r} alone")
    return [OBJECTIVES[name] for name in names]


def pareto_front(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Tell for each point whether no other is as good in everything and better in something.

    Parameters
    ----------
    costs : sequence, shape (points, objectives)
        Less is better. Points that are equal in everything stand or fall together.
    """
    import numpy as np

    table = np.asarray(costs, dtype=np.float64)
    if table.size == 0:
        return []
    # Sorted, a point can only be beaten by one before it.
    unique, places = np.unique(table, axis=0, return_inverse=True)
    kept = np.empty_like(unique)
    count = 0
    good = np.zeros(len(unique), dtype=bool)
    for at, row in enumerate(unique):
        if not (kept[:count] <= row).all(axis=1).any():
            kept[count] = row
            good[at] = True
            count += 1
    return [bool(each) for each in good[places.reshape(-1)]]
