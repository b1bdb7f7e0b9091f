"""`make lint` is clean: one definition of the checks, run as a test."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("check", ["lint-rules", "lint-format", "lint-types"])
def test_lint_is_clean(check):
    make = shutil.which("make")
    assert make is not None, "make must be installed"
    # The environment that runs this test is set up already: --old-file keeps make from doing it.
    environment = Path(sys.prefix)
    command = [make, f"VENV={environment}", f"--old-file={environment}/stamp", check]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert child.returncode == 0, child.stdout + child.stderr
