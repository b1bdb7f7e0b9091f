"""Synthesis with Yosys: a netlist, its cells by kind, and the log, kept in the store."""

import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tern_hw.flows.cache import cached
from tern_hw.flows.parts import cells_by_part
from tern_hw.flows.process import failure
from tern_hw.flows.targets import CellCount, Target
from tern_hw.flows.yosys import run_script

__all__ = ["SynthesisOptions", "SynthesisResult", "save_synthesis", "synthesize", "yosys_version"]

#: Changes with what an entry of the store holds.
STORE_FORMAT = "synthesis 2"
#: Seconds after which Yosys is stopped (1024 lanes take minutes).
SYNTHESIS_LIMIT_S = 3600


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """How a design is synthesised."""

    target: Target
    #: Whether multiplications may take DSP blocks.
    dsp: bool = True
    #: Whether memories may take block RAM.
    block_ram: bool = True

    def commands(self, verilog: str, top: str) -> list[str]:
        """Return Yosys' commands from a file of Verilog to a netlist in the working directory."""
        words = [self.target.command, f"-top {top}"]
        words += [] if self.dsp else [self.target.no_dsp]
        words += [] if self.block_ram else [self.target.no_block_ram]
        # What asks for block RAM by an attribute would get it all the same.
        free = [] if self.block_ram else ["setattr -unset ram_style"]
        return [
            f"read_verilog {verilog}",
            *free,
            " ".join(word for word in words if word),
            "tee -q -o cells.json stat -json",
            "tee -q -o scopes.txt select -list t:$scopeinfo",
            "delete t:$scopeinfo",
            "write_json netlist.json",
            "write_verilog -noattr -noexpr netlist.v",
        ]


@dataclass(frozen=True, kw_only=True)
class SynthesisResult:
    """What came of a synthesis."""

    target: Target
    top: str
    counts: CellCount
    #: The same by block, by the names of the cells: "core.dot_0.tree" -> its cells.
    parts: dict[str, CellCount]
    #: Paths of the instances below the top, such as "core.dot_0.tree".
    scopes: list[str]
    #: Seconds that Yosys took, when it ran.
    seconds: float
    #: Holds design.v, yosys.log, netlist.json and netlist.v; not to be written to.
    folder: Path

    @property
    def netlist_json(self) -> Path:
        """The netlist as nextpnr reads it."""
        return self.folder / "netlist.json"

    @property
    def netlist_verilog(self) -> Path:
        """The netlist as a simulator reads it, with the vendor's cells as instances."""
        return self.folder / "netlist.v"


def yosys_version() -> str:
    """Return pyosys' version, or "" where it is not installed."""
    try:
        return importlib.metadata.version("pyosys")
    except importlib.metadata.PackageNotFoundError:
        return ""


def synthesize(
    verilog: str,
    top: str,
    options: SynthesisOptions,
    *,
    notify: Callable[[str], None] = lambda text: None,
) -> SynthesisResult:
    """Synthesise a design, or take the result from the store.

    Parameters
    ----------
    verilog
        Text of all modules.
    top
        Name of the top module.
    options
        Family and what it may use.
    notify
        Called with a line on what begins, where a tool has to run.

    Raises
    ------
    TernError
        If pyosys is not installed, or fails.
    """

    def build(folder: Path) -> None:
        notify(f"yosys: {top} for {options.target.name}")
        _run(folder, verilog, commands)

    commands = options.commands("design.v", top)
    entry = cached("synthesis", [STORE_FORMAT, verilog, yosys_version(), *commands], build)
    facts = json.loads((entry / "facts.json").read_text())
    return SynthesisResult(
        target=options.target,
        top=top,
        counts=options.target.count(facts["cells"]),
        parts={part: options.target.count(cells) for part, cells in facts["parts"].items()},
        scopes=facts["scopes"],
        seconds=facts["seconds"],
        folder=entry,
    )


def _run(folder: Path, verilog: str, commands: list[str]) -> None:
    (folder / "design.v").write_text(verilog)
    begun = time.monotonic()
    status, log = run_script(commands, cwd=folder, timeout_s=SYNTHESIS_LIMIT_S)
    seconds = time.monotonic() - begun
    (folder / "yosys.log").write_text(log)
    if status:
        raise failure("yosys", status, log)
    stat = json.loads((folder / "cells.json").read_text())
    scopes = [line.partition("/")[2] for line in (folder / "scopes.txt").read_text().split()]
    with (folder / "netlist.v").open() as lines:
        parts = cells_by_part(lines, frozenset(scopes))
    facts = {
        "cells": stat["design"]["num_cells_by_type"],
        "parts": parts,
        "scopes": sorted(scopes),
        "seconds": round(seconds, 1),
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    for name in ("cells.json", "scopes.txt"):
        (folder / name).unlink()


def save_synthesis(result: SynthesisResult, folder: Path) -> None:
    """Copy the files of a synthesis into a folder of the user's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("design.v", "yosys.log", "netlist.json", "netlist.v"):
        shutil.copyfile(result.folder / name, folder / name)
