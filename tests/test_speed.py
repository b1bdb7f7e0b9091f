"""Floors under the speed of reference and kernels, against numpy's float32, core for core."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tern_hw import kernels

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_products_are_faster_than_numpys_float32(tmp_path, record_property):
    command = ["taskset", "--cpu-list", "0", sys.executable, "-m", "tern_hw.bench"]
    figures = tmp_path / "bench.json"
    done = subprocess.run(
        [*command, "--tokens", "1", "--threads", "1", "--rounds", "5", "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    hot = json.loads(figures.read_text())["cases"][0]
    times = {row["name"]: row["times_numpy"][0] for row in hot["rows"]}
    record_property("times numpy, one core", times)
    # Half of what a quiet machine gives.
    assert times["reference 2bit G128"] >= 3, done.stdout
    if kernels.chosen() == "avx512vnni":
        assert times["int8 2bit G128"] >= 14, done.stdout
        assert times["fp16 2bit G128"] >= 4, done.stdout
        assert times["int8 base3 G256"] >= 10, done.stdout
