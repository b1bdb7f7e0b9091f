"""Tokens quantised by compiled code: the reference's bits, and its refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw import kernels, reference
from tern_hw.errors import TernError


def assert_same(x):
    got, wanted = kernels.quantize_tokens(x), reference.quantize_tokens(x)
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 70), st.integers(-149, 127))
def test_random_tokens_of_any_size(seed, m, k, exponent):
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):
        x = np.ldexp(rng.normal(size=(m, k)), exponent).astype(np.float32)
    assert_same(np.where(np.isfinite(x), x, np.float32(1)))


@settings(max_examples=200)
@given(st.integers(1, 127), st.integers(-100, 100), st.integers(0, 2**32))
def test_quotients_at_and_next_to_ties(largest, exponent, seed):
    rng = np.random.default_rng(seed)
    halves = np.arange(-2 * largest, 2 * largest + 1) / 2
    near = np.nextafter(np.float32(halves), np.float32(rng.choice([-1e9, 1e9])))
    x = np.concatenate([halves, near, [127.0]]).astype(np.float32) * np.float32(2.0**exponent)
    assert_same(x)


def test_zeros_and_the_least_numbers():
    least = np.finfo(np.float32).smallest_subnormal
    most = np.finfo(np.float32).max
    assert_same(np.zeros((2, 5), np.float32))
    assert_same(np.array([[0, -0.0, least], [least * 63, -least, 0], [most, -most, 1]], np.float32))
    assert_same(np.zeros((0, 5), np.float32))
    assert_same(np.asfortranarray(np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    x = np.ones((3, 4), np.float32)
    x[1, 2] = value
    with pytest.raises(TernError, match=rf"finite, not {value} at \[1, 2\]"):
        kernels.quantize_tokens(x)


@pytest.mark.parametrize("x", [np.ones((2, 2)), np.ones((1, 0), np.float32), [1.0], None])
def test_what_is_no_token_is_refused(x):
    with pytest.raises(TernError, match="activations must"):
        kernels.quantize_tokens(x)
