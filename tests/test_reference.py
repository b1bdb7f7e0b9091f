"""`reference.matmul` against the naive oracle: the same bits, whatever the operands."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix
from tern_hw.reference import layout, matmul, prepare
from tern_hw.reference.activations import columns
from tests import naive
from tests.layers import layer, random_activations, random_fp16, random_layer

OUTPUTS = ("fp32", "fp16")
ACTIVATIONS = ("int8", "least", "any", "normal", "subnormal", "edges", "large")
SCALES = ("any", "normal", "subnormal", "edges", "large")


def bits(values):
    """The bits of floats, as lists of ints."""
    return values.view(np.uint32 if values.dtype == np.float32 else np.uint16).tolist()


def assert_same_bits(activations, matrix, trits, output):
    """The reference's outputs are the oracle's, bit for bit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = matmul(activations, matrix, output=output)
    assert got.dtype == {"fp32": np.float32, "fp16": np.float16}[output]
    wanted = naive.matmul(
        activations.tolist(), trits.tolist(), matrix.scale, matrix.shift, matrix.group_size, output
    )
    assert bits(got) == wanted


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scale", SCALES)
def test_random_layers_of_every_kind(activation, scale, output):
    rng = np.random.default_rng([6, ACTIVATIONS.index(activation), SCALES.index(scale)])
    for group_size, k in [(1, 5), (3, 17), (16, 33), (128, 200), (1000, 40), ("row", 61)]:
        matrix, trits = random_layer(rng, 5, k, group_size, scale, rng.choice(["2bit", "base3"]))
        x = random_activations(rng, (2, k), activation)
        assert_same_bits(x, matrix, trits, output)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 70),
    st.one_of(st.just("row"), st.integers(1, 80)),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(SCALES),
    st.sampled_from(OUTPUTS),
)
def test_any_shape_and_group(seed, n, k, group_size, activation, scale, output):
    rng = np.random.default_rng(seed)
    matrix, trits = random_layer(rng, n, k, group_size, scale)
    assert_same_bits(random_activations(rng, (1, k), activation), matrix, trits, output)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 255, 256, 257, 300])
def test_any_number_of_rows(n):
    rng = np.random.default_rng([7, n])
    matrix, trits = random_layer(rng, n, 20, 8)
    assert_same_bits(random_activations(rng, (1, 20), "int8"), matrix, trits, "fp32")


@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17, 33])
def test_any_number_of_tokens(tokens):
    rng = np.random.default_rng([8, tokens])
    matrix, trits = random_layer(rng, 3, 10, 4)
    assert_same_bits(random_activations(rng, (tokens, 10), "any"), matrix, trits, "fp16")


def test_one_token_without_its_axis():
    rng = np.random.default_rng(9)
    matrix, _ = random_layer(rng, 3, 10, 4)
    x = random_activations(rng, (2, 10), "normal")
    both = matmul(x, matrix)
    assert bits(matmul(x[1], matrix)) == bits(both[1])


def test_operands_of_any_layout():
    rng = np.random.default_rng(10)
    matrix, trits = random_layer(rng, 3, 10, 4)
    wide = random_activations(rng, (10, 6), "any")
    assert_same_bits(wide.T[::2], matrix, trits, "fp32")


# ------------------------------------------------------------ adversarial rows


def test_minus_128_is_an_activation():
    for output in OUTPUTS:
        matrix, trits = layer([[-1] * 300, [1] * 300], [[1]] * 2, [[0]] * 2)
        x = np.full((1, 300), -128, np.int8)
        assert_same_bits(x, matrix, trits, output)
        assert matmul(x, matrix).tolist() == [[38400.0, -38400.0]]


@pytest.mark.parametrize("kind", ["int8", "any"])
def test_all_zero_groups_and_tokens(kind):
    rng = np.random.default_rng(11)
    trits = rng.integers(-1, 2, (4, 24))
    trits[:, 8:16] = 0
    scale, shift = random_fp16(rng, (2, 4, 3), "any")
    matrix, trits = layer(trits, scale, shift, 8)
    x = random_activations(rng, (3, 24), kind)
    x[1] = 0
    x[2, 8:16] = 0
    for output in OUTPUTS:
        assert_same_bits(x, matrix, trits, output)
        assert bits(matmul(x, matrix, output=output)[1]) == [0] * 4


@pytest.mark.parametrize("output", OUTPUTS)
def test_cancellation_to_zero_is_plus_zero(output):
    # Two groups that cancel exactly, at every size that a scale has, with either sign first.
    scales = np.array([2**-24, 1 / 3, 65504, -65504], np.float16)[:, None]
    matrix, trits = layer([[1, 0, -1, 0]] * 4, scales * [1, 1], scales * [1, 1], 2)
    for x in (np.array([[7, 3, 7, -17]], np.int8), np.array([[0.3, 1, 0.3, -1.6]], np.float16)):
        x[0, 3] = -2 * x[0, 0] - x[0, 1] + x[0, 2]
        assert_same_bits(x, matrix, trits, output)
    exact, trits = layer([[1, -1]], [[65504]], [[0]])
    assert bits(matmul(np.full((1, 2), 65504, np.float16), exact, output=output)) == [[0]]


@pytest.mark.parametrize("activation", ["int8", "any", "large"])
def test_near_cancellation_leaves_the_exact_rest(activation):
    rng = np.random.default_rng(12)
    half = rng.integers(-1, 2, (6, 40))
    scale = random_fp16(rng, (6, 1), "large")
    matrix, trits = layer(
        np.hstack([half, half, rng.integers(-1, 2, (6, 3))]),
        np.hstack([scale, -scale, random_fp16(rng, (6, 1), "subnormal")]),
        np.zeros((6, 3)),
        40,
    )
    one = random_activations(rng, (2, 40), activation)
    rest = random_activations(rng, (2, 3), "int8" if activation == "int8" else "subnormal")
    for output in OUTPUTS:
        assert_same_bits(np.hstack([one, one, rest]), matrix, trits, output)


def test_rows_of_outliers():
    rng = np.random.default_rng(13)
    for kind in ("least", "large"):
        matrix, trits = random_layer(rng, 4, 300, 128, "large")
        same, ones = layer(
            np.ones((2, 300)), np.full((2, 3), 65504), [[65504] * 3, [-65504] * 3], 128
        )
        x = random_activations(rng, (1, 300), kind)
        for output in OUTPUTS:
            assert_same_bits(x, matrix, trits, output)
            assert_same_bits(x, same, ones, output)


def test_the_least_values_of_all():
    matrix, trits = layer([[1], [-1]], [[2**-24]] * 2, [[0]] * 2)
    x = np.array([[2**-24], [-(2**-24)]], np.float16)
    for output in OUTPUTS:
        assert_same_bits(x, matrix, trits, output)
    assert matmul(x, matrix).tolist() == [[2**-48, -(2**-48)], [-(2**-48), 2**-48]]
    # Below half of the least subnormal, a negative value is -0 in binary16.
    assert bits(matmul(x, matrix, output="fp16")) == [[0, 0x8000], [0x8000, 0]]


# -------------------------------------------------------- the rounding point


def check_sum(value, unit, output):
    """The reference rounds value * 2**unit as the oracle does; a row of powers of two makes it.

    With a unit of -24 the activations are int8, with -48 they are fp16.
    """
    places = np.array([place for place in range(value.bit_length()) if abs(value) >> place & 1])
    assert places[-1] < 40
    low = places // 2 if unit == -48 else places
    matrix, trits = layer(
        [np.full(len(places), np.sign(value))], [2.0 ** (low - 24)], [0 * places], 1
    )
    x = 2.0 ** (places - low)[None]
    x = (x * 2.0**-24).astype(np.float16) if unit == -48 else x.astype(np.int8)
    exact = naive.exact_row(x[0], trits[0], matrix.scale[0], matrix.shift[0], 1)
    assert exact == Fraction(value) * Fraction(2) ** unit
    assert_same_bits(x, matrix, trits, output)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("output", "precision"), [("fp32", 24), ("fp16", 11)])
@pytest.mark.parametrize("dropped", [1, 2, 3, 12])
def test_ties_and_their_neighbours(output, precision, dropped, sign):
    half = 1 << (dropped - 1)
    for kept in (
        (1 << precision) - 1,
        (1 << precision) - 2,
        1 << (precision - 1),
        (1 << (precision - 1)) + 1,
    ):
        for beyond in {half - 1, half, half + 1, 1, (1 << dropped) - 1}:
            check_sum(sign * ((kept << dropped) + beyond), -24, output)


@pytest.mark.parametrize("sign", [1, -1])
def test_overflow_of_binary16_starts_at_65520(sign):
    for value in (65504, 65519, 65520, 65521, 65535):
        check_sum(sign * (value << 24), -24, "fp16")
        check_sum(sign * ((value << 24) - 1), -24, "fp16")
    matrix, _ = layer([[sign]], [[16380]], [[0]])
    assert matmul(np.array([[4]], np.int8), matrix, output="fp16").tolist() == [[sign * np.inf]]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("low", [0, 1, (1 << 23) - 1, 1 << 23, (1 << 23) + 1, (1 << 24) - 1])
def test_subnormal_results_of_binary16(low, sign):
    for kept in (0, 1, 2, 3, 1022, 1023, 1024):
        for output in OUTPUTS:
            # The least subnormal, 2**-24, is 1 << 24 units of 2**-48.
            if kept or low:
                check_sum(sign * ((kept << 24) + low), -48, output)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_tie_broken_by_the_last_bit_of_all(output, sign):
    # More than 50 binary places lie between the tie and its tie-breaker.
    for least in (0, 2.0**-24, -(2.0**-24)):
        trits = [[sign, sign, sign]]
        scale = [[32768, 32768 * 2.0 ** -(24 if output == "fp32" else 11), 2.0**-24]]
        matrix, trits = layer(trits, scale, [[0, 0, 0]], 1)
        x = np.array([[32768, 32768, least]], np.float16)
        if output == "fp16":
            x[0, :2] = 1
        assert_same_bits(x, matrix, trits, output)


# -------------------------------------------------------------- long sums


def long_layer(k, value, activation):
    """A row of K inputs of the largest scales, and its exact sum by multiplication."""
    matrix, _ = layer(np.full((1, k), value), [[65504]], [[65504 * value]])
    x = np.full((1, k), activation)
    return matrix, x, k * 2 * 65504 * value * int(activation)


@pytest.mark.parametrize("k", [16384, 16385, 32785, 65536])
@pytest.mark.parametrize("activation", [np.int8(-128), np.int8(127), np.float16(-65504)])
@pytest.mark.parametrize("value", [1, -1])
def test_longest_sums_of_the_largest_values(k, activation, value):
    matrix, x, exact = long_layer(k, value, activation)
    for output in OUTPUTS:
        assert bits(matmul(x, matrix, output=output)) == [
            [naive.float_bits(Fraction(exact), output)]
        ]


@pytest.mark.parametrize("activation", ["int8", "any"])
def test_a_long_row_of_random_large_scales(activation):
    rng = np.random.default_rng(18)
    matrix, trits = random_layer(rng, 1, 20000, 128, "large")
    assert prepare(matrix).halves == 2
    for output in OUTPUTS:
        assert_same_bits(random_activations(rng, (1, 20000), activation), matrix, trits, output)


def test_one_sum_holds_a_row_to_16384_inputs_and_halves_beyond():
    for k, halves in [(16384, 1), (16400, 2)]:
        matrix, _, _ = long_layer(k, 1, np.int8(1))
        assert prepare(matrix).halves == halves


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_scales_in_two_halves_give_the_same_bits(monkeypatch, activation, output):
    monkeypatch.setattr(layout, "ONE_SUM_LIMIT", 0)
    rng = np.random.default_rng([14, ACTIVATIONS.index(activation)])
    for kind in SCALES:
        matrix, trits = random_layer(rng, 4, 50, 16, kind)
        assert prepare(matrix).halves == 2
        assert_same_bits(random_activations(rng, (2, 50), activation), matrix, trits, output)


@pytest.mark.parametrize(
    ("x", "limbs"),
    [
        (np.array([[-128, 127]], np.int8), 1),
        (np.array([[0, -0.0]], np.float16), 1),
        (np.array([[127, -128]], np.float16), 1),
        (np.array([[1024, 2047]], np.float16), 2),
        (np.array([[65504, 2**-24]], np.float16), 6),
        (np.array([[65504, -32]], np.float16), 2),
    ],
)
def test_no_more_limbs_than_the_activations_take(x, limbs):
    matrix, trits = layer([[1, -1]], [[1]], [[1]])
    assert columns(x, prepare(matrix)).limbs == limbs
    assert_same_bits(x, matrix, trits, "fp32")


def test_a_matrix_is_prepared_once_and_forgotten_with_it():
    matrix, _ = random_layer(np.random.default_rng(15), 3, 8, 8)
    before = len(layout._prepared)
    assert prepare(matrix) is prepare(matrix)
    assert len(layout._prepared) == before + 1
    del matrix
    assert len(layout._prepared) == before


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 9), np.int8), r"int8 or float16 of shape .M, 8. or .8., not int8 \[2, 9\]"),
        (np.zeros((1, 2, 8), np.int8), r"not int8 \[1, 2, 8\]"),
        (np.int8(0), "not int8$"),
        (np.array(0, np.int8), r"not int8 \[\]"),
        (np.zeros(8, np.float32), r"not float32 \[8\]"),
        (np.zeros(8, np.uint8), r"not uint8 \[8\]"),
        ([0] * 8, "not list"),
        (np.array([0, 1, np.nan, 0, 0, 0, 0, 0], np.float16), r"be finite, not nan at \[2\]$"),
        (np.full((2, 8), [[0], [-np.inf]], np.float16), r"be finite, not -inf at \[1, 0\]$"),
    ],
)
def test_activations_refused(x, message):
    matrix, _ = random_layer(np.random.default_rng(16), 3, 8, 8)
    with pytest.raises(TernError, match=f"^activations must .*{message}"):
        matmul(x, matrix)


@pytest.mark.parametrize("output", ["bf16", None, 32])
def test_output_format_refused(output):
    matrix, _ = random_layer(np.random.default_rng(17), 3, 8, 8)
    with pytest.raises(TernError, match=f"^output must be one of fp32, fp16, not {output!r}$"):
        matmul(np.zeros(8, np.int8), matrix, output=output)


def test_long_rows_beyond_the_proved_bound_are_refused():
    pairs = np.ones((1, 1), np.float16)
    with pytest.raises(TernError, match="in_features must be an integer from 1 to 4194304, not"):
        TernaryMatrix(
            packed=np.full((1, (1 << 20) + 1), 0x55, np.uint8),
            scale=pairs,
            shift=pairs,
            in_features=(1 << 22) + 1,
            group_size="row",
            packing="2bit",
        )
