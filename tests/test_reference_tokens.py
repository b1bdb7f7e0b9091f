"""The int8 software path: one scale a token, one integer rounding, two float roundings."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tern_hw.errors import TernError
from tern_hw.reference import matmul_quantized, quantize_tokens
from tests import naive
from tests.layers import random_layer

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def float32(value):
    """The float32 nearest to a fraction."""
    return np.array([naive.float_bits(value, "fp32")], np.uint32).view(np.float32)[0]


def expected_scale(x):
    largest = max(abs(Fraction(float(value))) for value in x)
    if largest == 0:
        return np.float32(1)
    return max(float32(largest / 127), np.float32(2.0**-149))


def expected_token(x):
    scale = Fraction(float(expected_scale(x)))
    # Python rounds a fraction's ties to even.
    return [max(-127, min(127, round(Fraction(float(value)) / scale))) for value in x]


@given(st.lists(FLOATS, min_size=1, max_size=12))
@example([0.0, -0.0])
@example([1e-45, -3e-45])
@example([2.5e-43])
@example([3.4028235e38, -1.0])
@example([127.0, 0.5, 1.5, 2.5, -0.5, -126.5])
@example([127.0, 0.50000006, 1.4999999, -2.4999998])
def test_scale_and_integers_are_the_exact_ones(values):
    x = np.array(values, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q, scale = quantize_tokens(x)
    assert q.dtype == np.int8
    assert scale.dtype == np.float32
    assert scale == expected_scale(x)
    assert q.tolist() == expected_token(x)


def test_ties_go_to_even_and_the_largest_is_127():
    q, scale = quantize_tokens(np.array([[127, 0.5, 1.5, -0.5, -1.5, 126.5, -127]], np.float32))
    assert scale.tolist() == [1.0]
    assert q.tolist() == [[127, 0, 2, 0, -2, 126, -127]]


def test_each_token_has_its_own_scale():
    rng = np.random.default_rng(21)
    x = (rng.normal(size=(5, 33)) * [[1], [1e-3], [0], [1e30], [1e-42]]).astype(np.float32)
    q, scale = quantize_tokens(x)
    assert (q.shape, scale.shape) == (x.shape, (5,))
    assert scale.tolist() == [expected_scale(token) for token in x]
    assert q.tolist() == [expected_token(token) for token in x]
    assert (scale[2], q[2].any()) == (1.0, False)
    one, own = quantize_tokens(x[1])
    assert (one.tolist(), own) == (q[1].tolist(), scale[1])


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-44, 1e36])
def test_the_product_is_rounded_once_more(size):
    rng = np.random.default_rng(22)
    matrix, trits = random_layer(rng, 5, 40, 16, "any")
    x = (rng.normal(size=(3, 40)) * size).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = matmul_quantized(x, matrix)
    assert out.dtype == np.float32
    for m, token in enumerate(x):
        q, scale = expected_token(token), Fraction(float(expected_scale(token)))
        for n in range(5):
            exact = naive.exact_row(q, trits[n], matrix.scale[n], matrix.shift[n], 16)
            first = Fraction(float(float32(exact)))
            assert int(out[m, n].view(np.uint32)) == naive.float_bits(first * scale, "fp32")
    assert np.array_equal(matmul_quantized(x[0], matrix).view("u4"), out[0].view("u4"))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3)), r"be float32 of shape .M, K. or .K., not float64 \[2, 3\]"),
        (np.zeros((1, 2, 3), np.float32), r"not float32 \[1, 2, 3\]"),
        ([1.0], "not list"),
        (np.zeros((2, 0), np.float32), r"have one input or more, not shape \[2, 0\]"),
        (np.array([[1, 2], [3, np.nan]], np.float32), r"be finite, not nan at \[1, 1\]$"),
        (np.array([np.inf], np.float32), r"be finite, not inf at \[0\]$"),
    ],
)
def test_refusals(x, message):
    matrix, _ = random_layer(np.random.default_rng(23), 2, 3, 3)
    for call in (quantize_tokens, lambda x: matmul_quantized(x, matrix)):
        with pytest.raises(TernError, match=f"^activations must .*{message}"):
            call(x)


def test_another_k_is_refused():
    matrix, _ = random_layer(np.random.default_rng(24), 2, 3, 3)
    with pytest.raises(TernError, match=r"shape \[M, 3\] or \[3\], not int8 \[1, 4\]"):
        matmul_quantized(np.ones((1, 4), np.float32), matrix)
