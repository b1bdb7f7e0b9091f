"""Run the test modules on one emitted Verilog file in one simulator, in a process of its own."""

import contextlib
import enum
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from sim.coverage import Coverage
from sim.settings import CLOCK_NS, CONFIG_VARIABLE, COVERAGE_VARIABLE, SEED_VARIABLE
from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows.icarus import BUILD_ARGUMENTS, find_icarus, icarus_installed
from tern_hw.flows.process import run_tool
from tern_hw.flows.verilator import build_model

__all__ = ["TEST_MODULES", "Report", "Simulator", "run"]

#: Modules of coroutines, by what they try.
TEST_MODULES = ("sim.arithmetic_tests", "sim.control_tests", "sim.fault_tests")
#: Seconds after which a run is stopped; each test has a limit in cycles besides.
RUN_LIMIT_S = 900
#: The ports, all that cocotb needs to see.
PORTS = ("clk", "rst", "s_ax*", "m_axis*")
#: Class that cocotb's main program for Verilator includes.
COCOTB_PREFIX = "Vtop"


class Simulator(enum.StrEnum):
    """A simulator that cocotb drives."""

    VERILATOR = "verilator"
    ICARUS = "icarus"

    @property
    def missing(self) -> str:
        """Return why it cannot be used; empty where it can."""
        if self is Simulator.ICARUS and not icarus_installed():
            return "Icarus Verilog is not installed (Debian: apt install iverilog)"
        return ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a run."""

    #: Test name -> message of its failure; empty where it passed.
    tests: dict[str, str]
    coverage: Coverage
    #: Clock cycles simulated in all tests, and the seconds these took.
    cycles: float
    test_seconds: float
    build_seconds: float
    run_seconds: float
    log: str

    @property
    def failures(self) -> dict[str, str]:
        """Return the tests that failed."""
        return {name: message for name, message in self.tests.items() if message}


def run(
    verilog: Path,
    config: ArrayConfig,
    simulator: Simulator,
    folder: Path,
    *,
    modules: Sequence[str] = TEST_MODULES,
    models: Sequence[Path] = (),
    seed: int = 1,
    environment: dict[str, str] | None = None,
    plusargs: Sequence[str] = (),
) -> Report:
    """Build a simulation of emitted Verilog and run the test modules on it.

    Parameters
    ----------
    verilog
        The emitted file; its top module is `config.name`.
    config
        What it was generated from.
    simulator
        Which simulator.
    folder
        For everything that is written; nobody else's.
    modules
        Python modules with cocotb tests.
    models
        Verilog files of vendor cells that the emitted file instantiates.
    seed
        Of every random choice.
    environment
        More variables for the test modules.
    plusargs
        Arguments that the Verilog itself reads, such as "+name=1".

    Raises
    ------
    TernError
        If the simulator is not installed, or ended without results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    if simulator is Simulator.VERILATOR:
        build = _build_verilator(verilog, config, models)
    else:
        find_icarus()
        build = folder
    built = time.monotonic()
    order = {
        "sources": [str(path.absolute()) for path in (*models, verilog)],
        "config": config.as_dict(),
        "simulator": str(simulator),
        "build": str(build),
        "folder": str(folder.absolute()),
        "modules": list(modules),
        "seed": seed,
        "environment": environment or {},
        "plusargs": list(plusargs),
    }
    request = folder / "request.json"
    request.write_text(json.dumps(order))
    done = run_tool(
        [sys.executable, "-m", "sim.runner", request],
        timeout_s=RUN_LIMIT_S,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    results = folder / "results.xml"
    if not results.is_file():
        raise TernError(f"{simulator} must leave results, and ended with\n{done.stdout[-3000:]}")
    tests, cycles, seconds = _read_results(results)
    return Report(
        tests=tests,
        coverage=Coverage.load(folder / "coverage.json"),
        cycles=cycles,
        test_seconds=seconds,
        build_seconds=built - begun,
        run_seconds=time.monotonic() - built,
        log=done.stdout,
    )


def _build_verilator(verilog: Path, config: ArrayConfig, models: Sequence[Path]) -> Path:
    """Compile the model with cocotb's main program; only the ports are kept visible."""
    import cocotb_tools.config

    libraries = cocotb_tools.config.libs_dir
    binary = build_model(
        verilog,
        top=config.name,
        prefix=COCOTB_PREFIX,
        main=cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp",
        models=models,
        public=PORTS,
        link_flags=[f"-Wl,-rpath,{libraries}", f"-L{libraries}", "-lcocotbvpi_verilator"],
    )
    return binary.parent


def _read_results(path: Path) -> tuple[dict[str, str], float, float]:
    """Return (message by test, clock cycles, seconds)."""
    tests, simulated_ns, seconds = {}, 0.0, 0.0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        problem = case.find("failure")
        if problem is None:
            problem = case.find("error")
        tests[name] = "" if problem is None else _message(problem)
        seconds += float(case.get("time", 0))
        for field in case.iter("property"):
            if field.get("name") == "sim_time_duration":
                simulated_ns += float(field.get("value", 0))
    return tests, simulated_ns / CLOCK_NS, seconds


def _message(problem: ElementTree.Element) -> str:
    return problem.get("error_msg") or problem.get("message") or problem.text or "failed"


def _simulate(order: dict) -> None:
    """Run cocotb's own runner (in the child process)."""
    from cocotb_tools.runner import get_runner

    config = ArrayConfig.from_dict(order["config"])
    folder = Path(order["folder"])
    runner = get_runner(order["simulator"])
    if order["simulator"] == Simulator.ICARUS:
        runner.build(
            sources=order["sources"],
            hdl_toplevel=config.name,
            build_dir=order["build"],
            build_args=list(BUILD_ARGUMENTS),
            timescale=("1ns", "1ps"),
        )
    environment = {
        CONFIG_VARIABLE: json.dumps(order["config"]),
        SEED_VARIABLE: str(order["seed"]),
        COVERAGE_VARIABLE: str(folder / "coverage.json"),
        "COCOTB_LOG_LEVEL": "WARNING",
        # cocotb imports pytest, which would load every plug-in of the environment.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        **order["environment"],
    }
    # Failed tests are read from the results.
    with contextlib.suppress(SystemExit):
        runner.test(
            test_module=order["modules"],
            hdl_toplevel=config.name,
            hdl_toplevel_lang="verilog",
            build_dir=order["build"],
            test_dir=folder,
            results_xml=str(folder / "results.xml"),
            seed=order["seed"],
            extra_env=environment,
            plusargs=order["plusargs"],
        )


if __name__ == "__main__":
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    _simulate(json.loads(Path(sys.argv[1]).read_text()))
