"""The opponent's reference: a loop of multiply-adds, each rounded once, beside plain fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tern_hw.errors import TernError
from tern_hw.reference import matmul_rounded, multiply_add


def nearest(value: Fraction, dtype) -> float:
    """Round a fraction to a format, ties to even, by trying its neighbours."""
    guess = dtype(float(value))
    with np.errstate(over="ignore"):
        around = [np.nextafter(guess, dtype(-np.inf)), guess, np.nextafter(guess, dtype(np.inf))]
    finite = [number for number in around if np.isfinite(number)]
    kind = np.uint16 if dtype is np.float16 else np.uint32
    return min(finite, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(kind)) & 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_loop_of_rounded_sums(dtype):
    rng = np.random.default_rng(1)
    activations = rng.normal(0, 1, 20).astype(np.float16)
    powers = 2.0 ** rng.integers(-12, 4, (30, 20))
    weights = (rng.normal(0, 1, (30, 20)) * powers).astype(np.float16)
    expected = []
    for row in weights:
        total = dtype(0)
        for x, w in zip(activations, row, strict=True):
            exact = Fraction(float(x)) * Fraction(float(w)) + Fraction(float(total))
            total = nearest(exact, dtype)
        expected.append(total)
    output = "fp16" if dtype is np.float16 else "fp32"
    assert np.array_equal(matmul_rounded(activations, weights, output=output), expected)


def test_a_tie_goes_to_even_unless_a_last_bit_decides():
    one = np.ones(1, np.float16)
    large = np.full(1, 2.0**24, np.float32)
    above = np.nextafter(one, np.float16(2))
    assert multiply_add(one, one, large)[0] == 2.0**24
    assert multiply_add(above, above, large)[0] == 2.0**24 + 2
    assert multiply_add(one, np.full(1, 2048, np.float16), one)[0] == 2048


def test_nan_is_canonical_and_infinities_follow_ieee():
    inf, nan = np.float16(np.inf), np.array([0xFE01], np.uint16).view(np.float16)[0]
    zero, one = np.float16(0), np.float16(1)
    cases = [(inf, zero, one), (nan, one, one), (inf, one, -inf), (one, one, nan)]
    a, b, c = (np.array(column, np.float16) for column in zip(*cases, strict=True))
    assert multiply_add(a, b, c).view(np.uint16).tolist() == [0x7E00] * 4
    assert multiply_add(a[:1], np.array([one]), np.array([one])).view(np.uint16)[0] == 0x7C00
    minus_zero = np.array([-0.0], np.float16)
    kept = multiply_add(minus_zero, np.ones(1, np.float16), minus_zero)
    assert math.copysign(1, kept[0]) < 0


@pytest.mark.parametrize(
    ("activations", "weights", "sentence"),
    [
        (np.zeros(3), np.zeros((2, 3), np.float16), "activations must be float16 with 1 dimen"),
        (np.zeros(3, np.float16), np.zeros(3, np.float16), "weights must be float16 with 2 dim"),
        (np.zeros(3, np.float16), np.zeros((2, 4), np.float16), "weights must have 3 columns"),
    ],
)
def test_what_does_not_fit_is_refused(activations, weights, sentence):
    with pytest.raises(TernError, match=sentence):
        matmul_rounded(activations, weights)
