"""Verilog to gates: Yosys maps a block to a fixed set of static CMOS gates, or to a Liberty's."""

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any, Final

from tern_hw.errors import TernError
from tern_hw.flows.cache import cached
from tern_hw.flows.yosys import run_script

__all__ = ["GENERIC_GATES", "gate_netlist"]

#: Gates of static CMOS of one stage, by abc's names; an inverter is always among them.
GENERIC_GATES: Final = "NAND,NOR,AOI3,OAI3,AOI4,OAI4"


def gate_netlist(
    verilog: str,
    *,
    top: str,
    liberty: Path | None = None,
    constraint: str = "",
    delay_ps: int = 0,
    unused: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return a block as gates: one flat module of Yosys' JSON (`write_json`).

    Parameters
    ----------
    verilog
        Text of the design.
    top
        Name of its top module.
    liberty
        Cells to map to; None takes `GENERIC_GATES` and plain flip-flops.
    constraint
        Text of abc's constraint file: driving cell and load. Without it abc inserts no buffer.
    delay_ps
        Delay (ps) that abc aims at; 0 leaves it to abc.
    unused
        Cells of the Liberty that must not be used.

    Returns
    -------
    dict
        The module: "ports", "cells", "netnames".

    Raises
    ------
    TernError
        If pyosys is not installed, or Yosys refuses the design.
    """
    parts = ["netlist 2", verilog, top, constraint, str(delay_ps), *unused]
    parts += [importlib.metadata.version("pyosys") if _has_pyosys() else ""]
    parts += [liberty.read_text() if liberty else GENERIC_GATES]

    def build(folder: Path) -> None:
        source, target, cells = (folder / name for name in ("design.v", "gates.json", "cells.lib"))
        source.write_text(verilog)
        (folder / "abc.constr").write_text(constraint)
        commands = [f'read_verilog "{source}"', f"synth -flatten -top {top}"]
        if liberty is None:
            commands += [r"dfflegalize -cell $_DFF_P_ 01", f"abc -g {GENERIC_GATES}"]
        else:
            # Under a name of its own: Yosys keeps what it read of a library by its path.
            cells.write_text(liberty.read_text())
            commands += _liberty_commands(cells, folder, delay_ps, unused)
        commands += ["opt_clean", f'write_json "{target}"']
        status, log = run_script(commands)
        if status or not target.is_file():
            lines = [line for line in log.splitlines() if "ERROR: " in line]
            reason = lines[-1] if lines else f"yosys ended with status {status}"
            raise TernError(f"{top} must be synthesisable to gates: {reason}")
        cells.unlink(missing_ok=True)

    folder = cached("netlist", parts, build)
    return json.loads((folder / "gates.json").read_text())["modules"][top]


def _has_pyosys() -> bool:
    return importlib.util.find_spec("pyosys") is not None


def _liberty_commands(
    liberty: Path, folder: Path, delay_ps: int, unused: tuple[str, ...]
) -> list[str]:
    skipped = "".join(f" -dont_use {name}" for name in unused)
    aim = f" -D {delay_ps}" if delay_ps else ""
    constraint = f' -constr "{folder / "abc.constr"}"'
    return [
        f'dfflibmap -liberty "{liberty}"{skipped}',
        f'abc -liberty "{liberty}"{constraint}{aim}{skipped}',
    ]
