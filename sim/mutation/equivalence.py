"""Whether a mutant behaves as the whole array does: Yosys' miter, ABC's proof.

A part of the array around the broken cell is compared with the same part unbroken: equal inputs,
from reset on and for ever, must give equal outputs. What the part instantiates is cut off, its
ports standing among those of the part, so equal parts make equal arrays. The part is the module
alone, with all that it contains, or within the module around it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sim.mutation.mutants import PREPARE, Mutant
from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows.process import ToolError, run_tool
from tern_hw.flows.smt import find_abc
from tern_hw.flows.yosys import run_script

__all__ = ["prove_equivalent"]

#: Seconds that the last stage, property directed reachability, may take.
PDR_LIMIT_S = 10
PROOF_LIMIT_S = 300
#: From a miter to ABC's format; what reads beyond a memory's end reads 0, and what has no start
#: value (a memory's output) starts at 0 on both sides.
TO_AIGER = (
    "hierarchy -top miter",
    "delete -output miter/o:*",
    "chformal -lower",
    "memory_map",
    "opt -full",
    "techmap",
    "opt -fast",
    "async2sync",
    "dffunmap",
    "setundef -init -zero",
    "setundef -undriven -zero",
    "setundef -zero",
    "opt_clean",
    "aigmap",
    "opt_clean",
    "write_aiger -I -B -zinit -no-startoffset miter.aig",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the array that is compared: a module, and which of those below it are cut off."""

    words: str
    module: str
    #: Full names of modules whose instances are cut off.
    cut: tuple[str, ...]


def prove_equivalent(folder: Path, config: ArrayConfig, mutant: Mutant) -> str:
    """Return how it was proven that a mutant is none; empty where it was not.

    Parameters
    ----------
    folder
        Holds the array's Verilog, `mutants.SOURCE`.
    config
        The array's configuration.
    mutant
        Which.
    """
    verilog = (folder / PREPARE[0].split()[1]).read_text()
    modules = [name.lstrip("\\") for name in re.findall(r"^module (\S+?) ?\(", verilog, re.M)]
    for part in _parts(config.name, modules, mutant):
        if how := _prove(folder, mutant, part):
            return f"{part.words}: {how}"
    return ""


def _parts(top: str, modules: list[str], mutant: Mutant) -> list[Part]:
    """Return parts to try, the smallest first."""
    own = f"{top}.{mutant.module}" if mutant.module else top
    below = tuple(name for name in modules if name.startswith(f"{own}."))
    parts = [Part(words=f"{mutant.module or 'top'} alone", module=own, cut=below)]
    broken = f"{own}.{mutant.cell}"
    if broken in below:
        # A port of an instance: what the instance does with it may make no difference.
        rest = tuple(name for name in below if not f"{name}.".startswith(f"{broken}."))
        words = f"{mutant.module or 'top'} and its {mutant.cell}"
        parts.append(Part(words=words, module=own, cut=rest))
    if mutant.module not in ("", "core"):
        if below:
            parts.append(Part(words=f"{mutant.module} and below", module=own, cut=()))
        parts += _around(top, own, modules)
    return parts


def _around(top: str, own: str, modules: list[str]) -> list[Part]:
    """Return the modules that a broken one stands in, from within, each with the way down to it.

    What a pipeline holds at reset or abort goes out of its module, and no further: whether it
    counts is told by the valid bits of those around it.
    """
    parts = []
    outer = own.rpartition(".")[0]
    while outer != top:
        others = tuple(
            name
            for name in modules
            if name.startswith(f"{outer}.")
            and not f"{own}.".startswith(f"{name}.")
            and not name.startswith(f"{own}.")
        )
        short = outer.removeprefix(f"{top}.")
        words = f"{short} and its {own.removeprefix(f'{outer}.')}"
        parts.append(Part(words=words, module=outer, cut=others))
        outer = outer.rpartition(".")[0]
    return parts


def _prove(folder: Path, mutant: Mutant, part: Part) -> str:
    # A register whose output is cut leaves its start value on the constant there, which Yosys
    # takes for a contradiction: `opt_clean` takes it away.
    broken = [f"mutate {mutant.options}", "opt_clean"]
    for side, command in (("gold", []), ("gate", broken)):
        commands = [*PREPARE, *command, *_isolate(part), f"rename {part.module} {side}"]
        _yosys([*commands, f"select {side}", f"write_rtlil -selected {side}.il"], folder)
    read = ["read_rtlil gold.il", "read_rtlil gate.il"]
    miter = "miter -equiv -flatten -make_assert gold gate miter"
    _yosys([*read, miter, *TO_AIGER], folder)
    return _decide(folder)


def _isolate(part: Part) -> list[str]:
    """Return commands after which the part is one flat module."""
    keep = [f"setattr -mod -set keep_hierarchy 1 {name}" for name in part.cut]
    # `flatten` leaves the instances that are cut off next.
    cells = " ".join(f"{part.module}/t:{name}" for name in part.cut)
    return [
        f"hierarchy -top {part.module}",
        *keep,
        "flatten",
        *([f"expose -evert {cells}"] if cells else []),
    ]


def _decide(folder: Path) -> str:
    """Return ABC's proof in words; empty where it has none."""
    commands = f"read_aiger miter.aig; fold; strash; scorr; print_stats; pdr -T {PDR_LIMIT_S}"
    try:
        done = run_tool(
            [find_abc(), "-c", commands], timeout_s=PROOF_LIMIT_S, cwd=folder, check=False
        )
    except ToolError:
        return ""
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    if "was asserted in frame" in text:
        return ""
    if "Property proved" in text:
        return "signal correspondence and PDR (ABC)"
    if re.search(r"lat = +0 +and = +0 ", text) and "All outputs solved" in text:
        return "signal correspondence by induction (ABC), no difference left"
    return ""


def _yosys(commands: list[str], folder: Path) -> None:
    status, log = run_script(commands, cwd=folder)
    if status:
        raise TernError(f"yosys must build the miter, and ended with\n{log[-800:]}")
