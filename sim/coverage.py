"""Functional coverage: what was exercised, counted by named bins, merged over runs, printed."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Bin", "Coverage"]


class Bin(NamedTuple):
    """One thing that a run can exercise."""

    #: What is covered, such as "shape".
    group: str
    #: Which of it, such as ("K below lanes", "N ragged", "both").
    point: tuple[str, ...]


class Coverage:
    """Hit counts of bins."""

    def __init__(self, hits: Iterable[tuple[Bin, int]] = ()) -> None:
        self.hits: Counter[Bin] = Counter()
        self.hits.update(dict(hits))

    def hit(self, group: str, *point: str, times: int = 1) -> None:
        """Count one occurrence of a bin, or several."""
        self.hits[Bin(group, tuple(str(part) for part in point))] += times

    def merge(self, other: "Coverage") -> None:
        """Add another run's counts."""
        self.hits.update(other.hits)

    def missing(self, required: Iterable[Bin]) -> list[Bin]:
        """Return the required bins that were never hit, sorted."""
        return sorted(each for each in set(required) if not self.hits[each])

    def save(self, path: Path) -> None:
        """Write the counts as JSON."""
        rows = [
            {"group": b.group, "point": b.point, "hits": self.hits[b]} for b in sorted(self.hits)
        ]
        path.write_text(json.dumps(rows, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Coverage":
        """Read what `save` wrote."""
        rows = json.loads(path.read_text())
        return cls((Bin(row["group"], tuple(row["point"])), row["hits"]) for row in rows)

    def table(self, required: Iterable[Bin]) -> str:
        """Return one line a group: bins hit of those required, hits, and the least hit bin."""
        wanted: dict[str, set[Bin]] = {}
        for each in required:
            wanted.setdefault(each.group, set()).add(each)
        lines = [f"{'coverage':<14}{'bins hit':>12}{'hits':>9}  least hit"]
        for group in sorted({each.group for each in self.hits} | wanted.keys()):
            lines.append(self._line(group, wanted.get(group, set())))
        return "\n".join(lines)

    def _line(self, group: str, wanted: set[Bin]) -> str:
        seen = {each: hits for each, hits in self.hits.items() if each.group == group}
        hit = sum(1 for each in wanted if seen.get(each))
        least = min(wanted or seen, key=lambda each: (seen.get(each, 0), each.point))
        text = f"{' / '.join(least.point)}: {seen.get(least, 0)}"
        return f"{group:<14}{f'{hit} of {len(wanted)}':>12}{sum(seen.values()):>9}  {text}"
