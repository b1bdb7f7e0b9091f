"""The reference's own tests once more without the compiler, where numpy's scalars could wrap."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = sorted(Path(__file__).parent.glob("test_reference*.py"))
#: Fails the run unless the functions are plain Python in it.
CHECK = "from tern_hw.reference.kernels import row_sums; assert not hasattr(row_sums, 'py_func')"


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_the_reference_passes_its_tests_with_the_jit_off():
    check = run("-c", CHECK)
    assert check.returncode == 0, check.stderr
    files = [str(path) for path in TESTS if path != Path(__file__)]
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-m", "not slow"]
    tests = run("-m", "pytest", *options, *files)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert " passed" in tests.stdout
