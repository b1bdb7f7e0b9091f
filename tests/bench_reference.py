"""Time the reference's int8 matrix-vector product against numpy's in float32, in one run.

    python tests/bench_reference.py [--size 4096] [--group 128] [--rounds 40]

Timed: `matmul(x, matrix)` from call to result, checks included; and `W @ x` with W and x in
float32. Both take all the cores they are given (`taskset --cpu-list 0` before it gives one). The
matrix's repacked form is made before (its time is printed): it is kept while the matrix lives. The
two take turns of five calls in every round; the ratio is of the two least times.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from tern_hw.matrix import TernaryMatrix, group_count
from tern_hw.reference import matmul, prepare

CALLS = 5


def random_matrix(size: int, group: int) -> TernaryMatrix:
    """Return a square layer with scales and shifts as trained models have them."""
    rng = np.random.default_rng(25)
    digits = rng.integers(0, 3, (size, size), dtype=np.uint8)
    pairs = rng.normal(0, [[[0.02]], [[0.002]]], (2, size, group_count(size, group)))
    scale, shift = pairs.astype(np.float16)
    return TernaryMatrix.from_digits(digits, scale, shift, group_size=group)


def seconds(call: Callable[[], object]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(size: int, group: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every call, by name."""
    matrix = random_matrix(size, group)
    x = np.random.default_rng(26).integers(-127, 128, size).astype(np.int8)
    dense, wide = matrix.digits().astype(np.float32) - 1, x.astype(np.float32)
    print(f"repacking, once a matrix: {1e3 * seconds(lambda: prepare(matrix)):.0f} ms")
    calls = {"reference": lambda: matmul(x, matrix), "numpy": lambda: dense @ wide}
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] += [seconds(call) for _ in range(CALLS)]
    return times


def main() -> None:
    """Print the least and the median time of both, and the ratio of the least."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    times = measure(given.size, given.group, given.rounds)
    for name, all_times in times.items():
        least, median = min(all_times), float(np.median(all_times))
        rate = given.size**2 / least / 1e9
        print(
            f"{name:9}  least {1e3 * least:.3f} ms  median {1e3 * median:.3f} ms  {rate:.1f} GW/s"
        )
    print(f"ratio of the least: {min(times['numpy']) / min(times['reference']):.2f}")


if __name__ == "__main__":
    main()
