"""The C++ compiler: units in parallel, and Verilator's run-time library compiled once."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tern_hw.flows.cache import cached
from tern_hw.flows.process import find_program, run_tool

__all__ = ["Unit", "compile_and_link", "compiler_version", "runtime_objects"]

#: Seconds after which one compiler run is stopped (1024 lanes need about one minute a unit).
COMPILE_LIMIT_S = 1800
#: What Verilator's own makefile passes (include/verilated.mk), for a model without extras.
MODEL_FLAGS = (
    "-std=gnu++17",
    "-w",
    "-DVERILATOR=1",
    *(
        f"-DVM_{feature}=0"
        for feature in ("COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF")
    ),
)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One translation unit: its source and the optimisation it deserves."""

    source: Path
    #: Such as "-O2".
    optimise: str


@lru_cache(maxsize=1)
def _compiler() -> Path:
    return find_program(
        os.environ.get("CXX") or "g++", "a C++17 compiler is needed (Debian: apt install g++)"
    )


@lru_cache(maxsize=1)
def compiler_version() -> str:
    """Return the compiler's path and first line of --version.

    Raises
    ------
    TernError
        If there is no C++ compiler.
    """
    path = _compiler()
    return f"{path} {run_tool([path, '--version'], timeout_s=60).stdout.splitlines()[0]}"


def _compile(unit: Unit, output: Path, include: Sequence[Path]) -> Path:
    paths = [f"-I{path}" for path in include]
    run_tool(
        [_compiler(), *MODEL_FLAGS, unit.optimise, *paths, "-c", unit.source, "-o", output],
        timeout_s=COMPILE_LIMIT_S,
    )
    return output


def _compile_all(units: Sequence[Unit], folder: Path, include: Sequence[Path]) -> list[Path]:
    # The largest first, so that the last to end is a small one.
    order = sorted(units, key=lambda unit: -unit.source.stat().st_size)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(
            pool.map(lambda unit: _compile(unit, folder / f"{unit.source.stem}.o", include), order)
        )


def runtime_objects(root: Path, version: str, *, vpi: bool) -> list[Path]:
    """Return Verilator's run-time library as object files, compiled once and kept.

    Parameters
    ----------
    root
        VERILATOR_ROOT.
    version
        The tool's version, for the store.
    vpi
        Whether the model is driven through VPI (cocotb).
    """
    names = ["verilated", "verilated_threads", *(["verilated_vpi"] if vpi else [])]
    include = [root / "include", root / "include" / "vltstd"]

    def build(folder: Path) -> None:
        units = [Unit(source=include[0] / f"{name}.cpp", optimise="-O2") for name in names]
        _compile_all(units, folder, include)

    parts = ["runtime 1", str(root), version, compiler_version(), *names, *MODEL_FLAGS]
    entry = cached("runtime", parts, build)
    return [entry / f"{name}.o" for name in names]


def compile_and_link(
    units: Sequence[Unit],
    binary: Path,
    *,
    include: Sequence[Path],
    objects: Sequence[Path] = (),
    link_flags: Sequence[str] = (),
) -> None:
    """Compile the units in parallel (beside the binary) and link them with ready objects.

    Raises
    ------
    TernError
        If there is no compiler, or it fails.
    """
    compiled = _compile_all(units, binary.parent, include)
    run_tool(
        [_compiler(), *compiled, *objects, "-o", binary, *link_flags, "-pthread"],
        timeout_s=COMPILE_LIMIT_S,
    )
