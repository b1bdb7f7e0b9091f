"""Simulation models of vendor cells: Yosys' own, made readable for every simulator."""

import importlib.util
import re
from pathlib import Path
from typing import Final

from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows.cache import cached

__all__ = ["CELL_FILES", "cell_models", "models_of"]

#: The file of a family's models, in pyosys' share folder.
CELL_FILES: Final = {
    "ecp5": "lattice/cells_sim_ecp5.v",
    "ice40": "ice40/cells_sim.v",
    "xc7": "xilinx/cells_sim.v",
}
#: Default values of ports, which Icarus refuses under -g2005.
HEADER = "`define NO_ICE40_DEFAULT_ASSIGNMENTS 1\n"
#: Delays, which no simulation here needs.
SPECIFY = re.compile(r"^\s*specify\b.*?^\s*endspecify\b", re.DOTALL | re.MULTILINE)
#: Cells of place and route alone, which end elaboration in a way that Icarus refuses.
MODULE = re.compile(r"^module\b.*?^endmodule\b", re.DOTALL | re.MULTILINE)
UNREADABLE = "$error("
INCLUDE = re.compile(r'^\s*`include "([^"]+)"', re.MULTILINE)


def cell_models(family: str) -> list[Path]:
    """Return Verilog files with models of a family's cells.

    Parameters
    ----------
    family
        "ecp5", "ice40" or "xc7".

    Returns
    -------
    list of Path
        Yosys' simulation models in one file of the cache: included files put in place, delays
        left out.

    Raises
    ------
    TernError
        If there are none for the family, or pyosys is not installed.
    """
    if family not in CELL_FILES:
        raise TernError(f"family must be one of {', '.join(CELL_FILES)}, not {family!r}")
    spec = importlib.util.find_spec("pyosys")
    if spec is None or spec.origin is None:
        raise TernError("pyosys must be installed: pip install 'tern-hw[sim]'")
    text = _readable(Path(spec.origin).parent / "share" / CELL_FILES[family])
    name = f"{family}_cells.v"
    parts = [family, text]
    return [cached("cells", parts, lambda folder: _write(folder / name, text)) / name]


def models_of(config: ArrayConfig) -> list[Path]:
    """Return the models that a configuration's Verilog needs; none where it is portable."""
    family = config.dot.cell_family
    return [] if family is None else cell_models(family)


def _readable(source: Path) -> str:
    """Return a file's text with what it includes, without delays and unreadable modules."""
    text = SPECIFY.sub("", HEADER + _with_includes(source, set()))
    return MODULE.sub(lambda module: "" if UNREADABLE in module[0] else module[0], text)


def _with_includes(source: Path, seen: set[Path]) -> str:
    """Put in place what a file includes, each file once."""
    seen.add(source)

    def place(match: re.Match[str]) -> str:
        path = source.parent / match[1]
        return "" if path in seen else _with_includes(path, seen)

    return INCLUDE.sub(place, source.read_text())


def _write(path: Path, text: str) -> None:
    path.write_text(text)
