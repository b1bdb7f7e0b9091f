"""Columns of what synthesis found, for the table, the CSV and the page; none where none was."""

import re
from typing import Any, Final

from tern_hw.flows.targets import KINDS

__all__ = ["cell_columns", "cell_lines", "cell_texts", "cell_titles"]

#: Kinds that have a column even where no array has such a cell.
ALWAYS: Final = ("lut", "carry", "ff", "dsp", "block_ram")


def cell_titles(facts: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return name in a point's cells -> (title, unit): the area, and the kinds that are shown."""
    if "synthesis" not in facts:
        return {}
    target, unit = facts["synthesis"]["target"], facts["synthesis"]["area_unit"]
    known = [cells for point in facts["points"] if (cells := point["cells"])]
    shown = [kind for kind in KINDS if kind in ALWAYS or any(cells[kind] for cells in known)]
    return {"area": (f"{target} area", unit)} | {kind: (target, KINDS[kind]) for kind in shown}


def cell_columns(titles: dict[str, tuple[str, str]]) -> list[str]:
    """Return the columns' names in a CSV, as "ecp5_area_lut4_eq", "ecp5_block_ram"."""
    return [re.sub("[^a-z0-9]+", "_", " ".join(each).lower()) for each in titles.values()]


def cell_texts(titles: dict[str, tuple[str, str]], point: dict[str, Any]) -> list[str]:
    """Return a point's cells as text, empty where its array was not synthesised."""
    cells = point.get("cells")
    return [f"{cells[name]:.0f}" if cells else "" for name in titles]


def cell_lines(facts: dict[str, Any]) -> list[str]:
    """Return in sentences what was synthesised, what was left out, and what failed."""
    if (found := facts.get("synthesis")) is None:
        return []
    count, name = f"{found['synthesised']:,} of the front's {found['arrays']:,}", found["target"]
    lines = [
        f"{count} arrays synthesised for {name} (Yosys {found['tools']['yosys']})",
        f"{name} area in {found['area_unit']}: {found['area_rule']}",
    ]
    if left := found["left_out"]:
        lines.append(f"left out {left:,} arrays by --synth-limit")
    lines += [f"not synthesised: {each['array']}: {each['reason']}" for each in found["failed"]]
    return lines + [f"{module}: in no sum: {each}" for module, each in _others(facts).items()]


def _others(facts: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the cells that no rule knows, by module."""
    known = [cells for point in facts["points"] if (cells := point["cells"])]
    return {each["module"]: each["others"] for each in known if each["others"]}
