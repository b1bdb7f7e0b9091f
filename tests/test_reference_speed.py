"""The reference is no toy: three times numpy's float32, core for core, in one run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.mark.slow
def test_int8_product_is_three_times_numpys_float32(record_property):
    result = subprocess.run(
        ["taskset", "--cpu-list", "0", sys.executable, str(ROOT / "tests" / "bench_reference.py")],
        env=os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr
    record_property("reference against numpy, one core", result.stdout.strip())
    name, _, ratio = result.stdout.splitlines()[-1].partition(": ")
    assert name == "ratio of the least"
    assert float(ratio) >= 3, result.stdout
