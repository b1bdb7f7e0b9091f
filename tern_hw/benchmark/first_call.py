"""How long a process's first product takes: with the compiler at work, and from its cache."""

import os
import subprocess
import sys
import tempfile
from typing import Final

from tern_hw.errors import TernError

__all__ = ["first_calls"]

#: Prints the seconds of the import, of repacking and of the first product of one token.
PROGRAM: Final = """
import time
start = time.perf_counter()
import numpy as np
from tern_hw import kernels
from tern_hw.matrix import TernaryMatrix
rng = np.random.default_rng(1)
digits = rng.integers(0, 3, (256, 512), dtype=np.uint8)
scale, shift = np.full((2, 256, 4), 0.02, np.float16)
matrix = TernaryMatrix.from_digits(digits, scale, shift, group_size=128)
x = np.ones(512, np.int8)
imported = time.perf_counter()
repacked = kernels.repack(matrix)
packed = time.perf_counter()
kernels.matmul(x, repacked, threads=1)
end = time.perf_counter()
print(imported - start, packed - imported, end - packed)
"""


def first_calls() -> dict[str, dict[str, float]]:
    """Return seconds of import, repacking and the first product, compiled and from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: _run(folder) for name in ("compiled", "cached")}


def _run(folder: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"NUMBA_CACHE_DIR": folder},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise TernError(f"a process's first product must end well, not with: {last[0]}")
    names = ("import", "repack", "first_product")
    return dict(zip(names, map(float, done.stdout.split()), strict=True))
