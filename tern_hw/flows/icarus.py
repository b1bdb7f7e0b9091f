"""Icarus Verilog: whether it is installed, and which."""

import shutil

from tern_hw.errors import TernError
from tern_hw.flows.process import run_tool

__all__ = ["BUILD_ARGUMENTS", "find_icarus", "icarus_installed"]

#: Under a newer language generation Amaranth's outputs stay X at time 0.
BUILD_ARGUMENTS = ("-g2005",)


def icarus_installed() -> bool:
    """Return whether both of Icarus' programs are on the PATH."""
    return all(shutil.which(name) for name in ("iverilog", "vvp"))


def find_icarus() -> str:
    """Return the first line of `iverilog -V`.

    Raises
    ------
    TernError
        If Icarus is not installed.
    """
    if not icarus_installed():
        raise TernError("iverilog must be installed and on the PATH: Debian: apt install iverilog")
    return run_tool(["iverilog", "-V"], timeout_s=60).stdout.splitlines()[0]
