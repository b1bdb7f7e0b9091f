"""What a product of one token spends outside the kernel: `python -m tests.bench_kernel_call`.

Shapes of as many products differ in blocks of rows; the last one stays in the second cache.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from tern_hw import kernels
from tern_hw.benchmark.cases import Shape, random_matrix
from tern_hw.benchmark.roofs import dot_products
from tern_hw.kernels.activations import prepare_job
from tern_hw.kernels.instructions import PORTABLE
from tern_hw.kernels.loops import row_sums_of
from tern_hw.kernels.team import run_job

SHAPES = ((8192, 2048), (4096, 4096), (2048, 8192), (1024, 16384), (512, 4096))


def microseconds(call: Callable[[], object]) -> float:
    """Return the median of 500 calls, after 30."""
    seconds = []
    for _ in range(530):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return 1e6 * statistics.median(seconds[30:])


def main() -> None:
    """Print a line for each shape: one thread, int8, 2 bits, one scale a row."""
    instructions = kernels.chosen()
    if instructions == PORTABLE:
        raise SystemExit("instructions must be some that have kernels, not portable")
    rng = np.random.default_rng(1)
    dots, products = dot_products(instructions, 1)
    rate = products / microseconds(dots)
    print("outputs x inputs  dot products alone  kernel alone  call (us)")
    for n, k in SHAPES:
        matrix = kernels.repack(random_matrix(rng, Shape(n, k), "row"))
        x = rng.integers(-127, 128, (1, k)).astype(np.int8)
        # The job has its memory by address alone: what it reads and writes is named until the end.
        result = np.empty((1, n), np.float32)
        job = prepare_job(x, matrix, 1, result)
        kernel = row_sums_of(instructions, matrix.packing, 1, integers=matrix.units is not None)

        def alone(
            kernel: int = kernel, numbers: object = job.numbers, blocks: int = n // 32
        ) -> None:
            run_job(kernel, numbers, blocks, 1)

        def call(x: object = x, matrix: object = matrix) -> None:
            kernels.matmul(x, matrix, threads=1)

        parts = n * k / rate, microseconds(alone), microseconds(call)
        print(f"{n:7} x {k:<7}" + "".join(f"{part:14.1f}" for part in parts))


if __name__ == "__main__":
    main()
