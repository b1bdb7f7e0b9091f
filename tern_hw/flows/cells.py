"""Simulation models of the vendors' cells, as Yosys ships them, cut to what simulators read."""

import re
from pathlib import Path
from typing import Final, NamedTuple

from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows.cache import cached
from tern_hw.flows.process import failure
from tern_hw.flows.synthesis import yosys_version
from tern_hw.flows.yosys import run_script, share_folder

__all__ = ["FAMILIES", "cell_models", "flattened", "models_of"]

#: Seconds after which Yosys is stopped.
FLATTEN_LIMIT_S: Final = 1800

MODULE: Final = re.compile(r"^module \\?(\S+?)\s*\(.*?^endmodule$", re.S | re.MULTILINE)
#: Delays, with conditions that Icarus refuses; nothing here simulates time within a cycle.
DELAYS: Final = re.compile(r"^\s*specify\b.*?\bendspecify$\n?", re.S | re.MULTILINE)
ATTRIBUTES: Final = re.compile(r"\(\*[^*]*\*\)")


class Family(NamedTuple):
    """Where a family's models are, and which of them a netlist may need."""

    #: Relative to Yosys' share folder.
    files: tuple[str, ...]
    cells: tuple[str, ...]


#: Family -> its models. Block RAM, and ECP5's multiplier, come without behaviour: a netlist that is
#: to be simulated does without them.
FAMILIES: Final[dict[str, Family]] = {
    "ecp5": Family(
        ("lattice/common_sim.vh", "lattice/ccu2c_sim.vh"),
        ("LUT2", "LUT4", "CCU2C", "PFUMX", "L6MUX21", "TRELLIS_FF", "TRELLIS_DPR16X4"),
    ),
    "xc7": Family(
        ("xilinx/cells_sim.v",),
        (
            *(f"LUT{inputs}" for inputs in range(1, 7)),
            *("INV", "MUXF7", "MUXF8", "CARRY4", "FDRE", "FDSE", "SRL16E", "SRLC32E", "DSP48E1"),
            *("RAM32X1D", "RAM64X1D", "RAM128X1D", "RAM32M", "RAM64M"),
        ),
    ),
}


def cell_models(family: str) -> list[Path]:
    """Return Verilog files with models of the cells that a netlist of a family instantiates.

    Parameters
    ----------
    family
        One of `FAMILIES`.

    Returns
    -------
    list of Path
        In the store; not to be written to.

    Raises
    ------
    TernError
        If the family is unknown, pyosys is not installed, or lacks one of the models.
    """
    if family not in FAMILIES:
        raise TernError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    files, cells = FAMILIES[family]
    source = "".join((share_folder() / name).read_text() for name in files)
    text = _extract(source, cells, family)
    name = f"{family}.v"
    return [cached("cells", [name, text], lambda folder: _write(folder / name, text)) / name]


def models_of(config: ArrayConfig) -> list[Path]:
    """Return the models that a configuration's Verilog needs; none where it is portable."""
    family = config.dot.cell_family
    return [] if family is None else cell_models(family)


def flattened(netlist: Path, top: str, family: str) -> Path:
    """Return a netlist in which each cell is replaced by its model, as one module.

    A simulator that compiles a module for each value of a parameter (each LUT's contents) takes
    hours of a netlist of thousands of cells, and minutes of this.

    Parameters
    ----------
    netlist
        Verilog of cells of `family`.
    top
        Name of its module.
    family
        One of `FAMILIES`.

    Returns
    -------
    Path
        A Verilog file in the store; not to be written to.

    Raises
    ------
    TernError
        If Yosys fails.
    """
    design = netlist.read_text()
    models = "\n".join(path.read_text() for path in cell_models(family))
    texts = {"netlist.v": design, "models.v": _needed(models, design)}
    commands = [
        "read_verilog netlist.v models.v",
        f"hierarchy -check -top {top}",
        "proc",
        "flatten",
        "delete t:$scopeinfo",
        "opt -full -purge",
        "write_verilog -noattr flat.v",
    ]

    def build(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text)
        status, log = run_script(commands, cwd=folder, timeout_s=FLATTEN_LIMIT_S)
        if status:
            raise failure("yosys", status, log)

    parts = [yosys_version(), *texts.values(), *commands]
    return cached("flattened", parts, build) / "flat.v"


def _needed(models: str, design: str) -> str:
    """Return the models that a design needs, and those that these need.

    Not all of a family's are within what Yosys reads.
    """
    known = {match[1]: match[0] for match in MODULE.finditer(models)}
    needed: dict[str, str] = {}
    todo = [design]
    while todo:
        text = todo.pop()
        for name in known.keys() - needed.keys():
            if re.search(rf"^\s*{name}\b", text, re.M):
                needed[name] = known[name]
                todo.append(known[name])
    return "\n".join(needed[name] for name in sorted(needed))


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _extract(text: str, cells: tuple[str, ...], family: str) -> str:
    """Return the modules of these names, without attributes and delays."""
    found = {match[1]: match[0] for match in MODULE.finditer(text)}
    for cell in cells:
        if cell not in found:
            raise TernError(f"Yosys must have a model of {family}'s {cell}, and has none")
    return "\n".join(ATTRIBUTES.sub("", DELAYS.sub("", found[cell])) + "\n" for cell in cells)
