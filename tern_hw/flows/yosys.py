"""Yosys from pip (pyosys), in a process of its own, so that its crash is only a message here."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from tern_hw.errors import TernError
from tern_hw.flows.process import run_tool

__all__ = ["check", "run_script", "share_folder"]

#: Seconds after which Yosys is stopped.
YOSYS_LIMIT_S = 900
#: Reads commands from its arguments; pyosys has no command line of its own.
#: On Linux it ends with the process that started it, however that ends: nobody waits for it then.
DRIVER = """
import ctypes, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
from pyosys import libyosys
design = libyosys.Design()
for command in sys.argv[1:]:
    libyosys.run_pass(command, design)
"""


def _package() -> Path:
    spec = importlib.util.find_spec("pyosys")
    if spec is None or spec.origin is None:
        raise TernError("pyosys must be installed: pip install 'tern-hw[sim]'")
    return Path(spec.origin).parent


def share_folder() -> Path:
    """Return the folder of Yosys' own files, the vendors' cell models among them.

    Raises
    ------
    TernError
        If pyosys is not installed.
    """
    return _package() / "share"


def run_script(
    commands: Sequence[str], *, cwd: Path | None = None, timeout_s: float = YOSYS_LIMIT_S
) -> tuple[int, str]:
    """Run Yosys commands on an empty design and return the exit status and the log.

    Parameters
    ----------
    commands
        As one would type them.
    cwd
        Working directory.
    timeout_s
        Seconds after which Yosys is stopped.

    Raises
    ------
    TernError
        If pyosys is not installed, or does not end in time.
    """
    _package()
    command = [sys.executable, "-c", DRIVER, *commands]
    done = run_tool(command, timeout_s=timeout_s, cwd=cwd, check=False)
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
