"""Which block a cell of a flattened netlist belongs to, by its name."""

import re
from collections import Counter
from collections.abc import Collection, Iterable

from tern_hw.flows.pins import INSTANCE

__all__ = ["TOP", "cells_by_part", "part_of"]

#: The part of what lies in no instance.
TOP = "top"
#: What Amaranth adds to the name of a second instance.
AMARANTH_SUFFIX = re.compile(r"\$\d+")
#: A cell's first line in Yosys' Verilog; with parameters, its name comes after them.
CELL = re.compile(r"^  (\w+) (?:#\(|(\\?)(\S+) +\()$")
NAME_AFTER_PARAMETERS = re.compile(r"^  \) (\\?)(\S+) +\($")


def part_of(cell: str, scopes: Collection[str]) -> str:
    """Return the path of the block that a cell of a flattened netlist belongs to.

    Yosys names a cell after the nets at it, and these keep the path of their instance; a cell
    between two blocks is named after one of them.

    Parameters
    ----------
    cell
        Such as "core.dot_0.tree.sum_l0_1_TRELLIS_FF_Q".
    scopes
        Paths of the instances of the design.

    Returns
    -------
    str
        The longest scope that the name begins with, such as "core.dot_0.tree"; `TOP` for none.
    """
    scope = cell
    while (scope := scope.rpartition(".")[0]) and scope not in scopes:
        pass
    name = AMARANTH_SUFFIX.sub("", scope).removeprefix(f"{INSTANCE}.")
    return TOP if name in ("", INSTANCE) else name


def cells_by_part(verilog: Iterable[str], scopes: Collection[str]) -> dict[str, dict[str, int]]:
    """Count the cells of each block in a netlist as Yosys writes it.

    Parameters
    ----------
    verilog
        Lines of the netlist.
    scopes
        See `part_of`.

    Returns
    -------
    dict
        Part -> cell type -> count.
    """
    parts: dict[str, Counter[str]] = {}
    kind = ""
    for line in verilog:
        if found := CELL.match(line):
            kind, name = found[1], found[3]
        elif after := NAME_AFTER_PARAMETERS.match(line):
            name = after[2]
        else:
            continue
        if name is not None:
            parts.setdefault(part_of(name, scopes), Counter())[kind] += 1
    return {part: dict(sorted(cells.items())) for part, cells in sorted(parts.items())}
