"""aligned(W): the rounding of activations within a group, against the naive oracle."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw.config import ErrorFlag
from tern_hw.errors import TernError
from tern_hw.matrix import group_count
from tern_hw.reference import align, matmul, matmul_faults
from tests import naive
from tests.layers import layer, random_fp16, random_layer

KINDS = ("any", "normal", "subnormal", "edges", "large")
WIDTHS = (8, 11, 12, 16, 24, 40)


def bits(values):
    """The bits of floats, as lists of ints."""
    return values.view(np.uint32 if values.dtype == np.float32 else np.uint16).tolist()


def expected(x, matrix, trits, aligned, output):
    """The naive product of naively aligned tokens."""
    tokens = [naive.aligned(token, matrix.group_size, aligned) for token in x.tolist()]
    return naive.matmul(
        tokens, trits.tolist(), matrix.scale, matrix.shift, matrix.group_size, output
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_activations_of_every_kind(width, kind):
    rng = np.random.default_rng([31, width, KINDS.index(kind)])
    for size in (1, 3, 16, 100, "row"):
        x = random_fp16(rng, (2, 37), kind)
        for token, rounded in zip(x, align(x, size, width), strict=True):
            wanted = naive.aligned(token.tolist(), size, width)
            assert [Fraction(float(value)) for value in rounded] == wanted


@pytest.mark.parametrize("width", [8, 12, 16, 33])
@pytest.mark.parametrize("sign", [1, -1])
def test_halves_go_away_from_zero_and_their_neighbours_do_not(width, sign):
    # The largest, 1024, makes the unit 2**(12 - W).
    unit = 2.0 ** (12 - width)
    for count in (0, 1, 2, 3):
        half = np.float16((count + 0.5) * unit)
        assert float(half) == (count + 0.5) * unit
        below, above = (np.nextafter(half, np.float16(end)) for end in (0, 65504))
        x = np.array([[1024, sign * half, sign * below, sign * above]], np.float16)
        up, down = sign * (count + 1) * unit, sign * count * unit
        assert align(x, "row", width).tolist() == [[1024, up, down, up]]


@pytest.mark.parametrize("width", [8, 11, 12])
def test_the_largest_integer_is_not_exceeded(width):
    x = np.array([[65504, -65504, 2047, -2047]], np.float16)
    largest = 65504.0 if width == 12 else (2 ** (width - 1) - 1) * 2.0 ** (17 - width)
    assert align(x, 1, width)[0, :2].tolist() == [largest, -largest]
    assert align(x, "row", width)[0, :2].tolist() == [largest, -largest]


@pytest.mark.parametrize("width", [12, 16, 24])
def test_what_is_near_the_largest_stays_as_it_is(width):
    rng = np.random.default_rng([32, width])
    x = random_fp16(rng, (1, 64), "normal")
    x[0, 0] = 4.0
    near = np.abs(x) >= 4 * 2.0 ** (12 - width)
    rounded = align(x, "row", width)
    assert (rounded[near] == x[near]).all()
    assert near.any()
    assert np.array_equal(align(rounded, "row", width), rounded)


def test_a_group_is_rounded_by_itself_and_a_token_too():
    x = np.array([[60000, 3 * 2.0**-24], [2.0**-24, 3 * 2.0**-24]], np.float16)
    assert align(x, 1, 12).tolist() == x.tolist()
    assert align(x, "row", 12).tolist() == [[60000, 0], x[1].tolist()]


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 50),
    st.one_of(st.just("row"), st.integers(1, 60)),
    st.sampled_from(KINDS),
    st.integers(8, 40),
    st.sampled_from(["fp32", "fp16"]),
)
def test_products_are_exact_from_there(seed, n, k, group_size, kind, width, output):
    rng = np.random.default_rng(seed)
    matrix, trits = random_layer(rng, n, k, group_size, kind)
    x = random_fp16(rng, (2, k), kind)
    got = matmul(x, matrix, output=output, aligned=width)
    assert bits(got) == expected(x, matrix, trits, width, output)
    assert bits(matmul(x[1], matrix, output=output, aligned=width)) == bits(got)[1]
    assert bits(got) == bits(matmul(align(x, group_size, width), matrix, output=output))


def test_faults_have_the_same_answers():
    rng = np.random.default_rng(33)
    digits = rng.integers(0, 4, (3, 20), dtype=np.uint8)
    scale, shift = random_fp16(rng, (2, 3, group_count(20, 8)), "normal")
    x = random_fp16(rng, (2, 20), "any")
    x[0, 7] = np.inf
    out, flags = matmul_faults(x, digits, scale, shift, group_size=8, aligned=13)
    assert flags == ErrorFlag.ACTIVATION_NONFINITE | ErrorFlag.ILLEGAL_CODE
    trits = np.where(digits == 3, 0, digits.astype(int) - 1)
    matrix, _ = layer(trits, scale, shift, 8)
    assert bits(out)[0] == [0x7FC00000] * 3
    assert bits(out)[1] == expected(x[1:], matrix, trits, 13, "fp32")[0]


@pytest.mark.parametrize("width", [7, 41, 16.0, True, "16"])
def test_width_refused(width):
    matrix, _ = random_layer(np.random.default_rng(34), 2, 8, 8)
    with pytest.raises(TernError, match=rf"^aligned must be an integer .*, not {width!r}$"):
        matmul(np.zeros((1, 8), np.float16), matrix, aligned=width)


def test_int8_is_refused():
    matrix, _ = random_layer(np.random.default_rng(35), 2, 8, 8)
    with pytest.raises(TernError, match=r"^activations must be float16 where aligned, not int8$"):
        matmul(np.zeros((1, 8), np.int8), matrix, aligned=16)
