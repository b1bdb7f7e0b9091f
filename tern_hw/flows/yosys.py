"""Yosys from pip (pyosys), in a process of its own, so that its crash is only a message here."""

import importlib.util
import sys
from pathlib import Path

from tern_hw.errors import TernError
from tern_hw.flows.process import run_tool

__all__ = ["check", "run_script"]

#: Seconds after which Yosys is stopped.
YOSYS_LIMIT_S = 900
#: Reads commands from its arguments; pyosys has no command line of its own.
DRIVER = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for command in sys.argv[1:]:
    libyosys.run_pass(command, design)
"""


def run_script(commands: list[str], *, cwd: Path | None = None) -> tuple[int, str]:
    """Run Yosys commands on an empty design and return the exit status and the log.

    Parameters
    ----------
    commands
        As Yosys' own prompt takes them.
    cwd
        Working directory: where relative paths begin.

    Raises
    ------
    TernError
        If pyosys is not installed.
    """
    if importlib.util.find_spec("pyosys") is None:
        raise TernError("pyosys must be installed: pip install 'tern-hw[sim]'")
    done = run_tool(
        [sys.executable, "-c", DRIVER, *commands], timeout_s=YOSYS_LIMIT_S, cwd=cwd, check=False
    )
    return done.returncode, done.stdout


def check(verilog: Path, *, top: str) -> str:
    """Return what `check -assert` after `proc` finds; empty when the design is clean.

    Yosys looks for undriven and conflicting wires and for combinational loops.

    Parameters
    ----------
    verilog
        Verilog file.
    top
        Name of the top module.

    Raises
    ------
    TernError
        If pyosys is not installed.
    """
    commands = [
        f'read_verilog "{verilog}"',
        f"hierarchy -check -top {top}",
        "proc",
        "check -assert",
    ]
    status, log = run_script(commands)
    if status == 0:
        return ""
    lines = [line for line in log.splitlines() if "Warning: " in line or "ERROR: " in line]
    return "\n".join(lines) or f"yosys ended with status {status}"
