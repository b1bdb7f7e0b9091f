"""Layers as jobs of the array, with the results that the naive oracle wants."""

from dataclasses import replace

import numpy as np

from tern_hw.beats import activation_beats, scale_beats, weight_beats
from tern_hw.config import Activation, ArrayConfig
from tern_hw.matrix import TernaryMatrix
from tests import naive
from tests.gateware.jobs import Job

__all__ = ["finite_halves", "job_of", "naive_results", "random_case", "with_beat"]

EXPONENT, LOWEST_EXPONENT_BIT = 0x7C00, 0x0400


def finite_halves(rng, shape):
    """Return random finite binary16 of every size, subnormals included."""
    bits = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    bits[(bits & EXPONENT) == EXPONENT] ^= LOWEST_EXPONENT_BIT
    return bits.view(np.float16)


def random_case(config: ArrayConfig, n: int, k: int, rng) -> tuple[np.ndarray, TernaryMatrix]:
    """Return random activations [K] and a random matrix [N, K] for the array."""
    shape = (n, config.groups(k))
    matrix = TernaryMatrix.from_digits(
        rng.integers(0, 3, (n, k), dtype=np.uint8),
        finite_halves(rng, shape),
        finite_halves(rng, shape),
        group_size=config.group_size,
    )
    if config.activation is Activation.INT8:
        return rng.integers(-128, 128, k).astype(np.int8), matrix
    return finite_halves(rng, k), matrix


def job_of(config: ArrayConfig, x: np.ndarray, matrix: TernaryMatrix, **eagerness) -> Job:
    """Return the job that multiplies `matrix` by `x`."""
    n, k = matrix.shape
    beats = (activation_beats(x, config), weight_beats(matrix, config), scale_beats(matrix, config))
    return Job(n, k, *(_integers(part) for part in beats), **eagerness)


def _integers(beats: np.ndarray) -> list[int]:
    return [int.from_bytes(beat.tobytes(), "little") for beat in beats]


def naive_results(config: ArrayConfig, x: np.ndarray, matrix: TernaryMatrix) -> list[int]:
    """Return the bits of the results, from the naive oracle."""
    trits = (matrix.digits().astype(int) - 1).tolist()
    args = (matrix.scale.tolist(), matrix.shift.tolist(), matrix.group_size)
    values = x.tolist()
    if config.aligned is not None:
        values = naive.aligned(values, config.group_size, config.aligned)
    return naive.matmul([values], trits, *args, output=str(config.output))[0]


def with_beat(job: Job, name: str, index: int, value: int) -> Job:
    """Return the job with one beat of one stream replaced."""
    beats = list(getattr(job, name))
    beats[index] = value
    return replace(job, **{name: beats})
