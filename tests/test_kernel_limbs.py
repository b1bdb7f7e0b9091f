"""Binary16 activations as 8-bit limbs: how they are cut, left out where empty, and joined."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw import kernels
from tern_hw.config import OutputFormat
from tern_hw.kernels import activations, limbs
from tern_hw.reference.rounding import FORMATS
from tests import naive
from tests.kernels import WAYS, assert_same, trained_layer
from tests.layers import layer, random_activations


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("group_size", [32, 288])
@pytest.mark.parametrize("tokens", [1, 2])
def test_groups_in_which_the_first_or_the_last_limb_is_zero(way, group_size, tokens):
    rng = np.random.default_rng(71)
    least, most = rng.integers(-8, 9, (2, tokens, group_size))
    # Their sum is 0, as that of a group without any.
    least[:, group_size // 2 :] = -least[:, : group_size // 2]
    least, most = least * 2.0**-24, most * 8.0
    middle = rng.integers(-8, 9, (tokens, group_size)) * 2.0**-12
    nothing = np.zeros_like(least)
    groups = [least, middle, most, least + (abs(least) == 0) * most, nothing, middle]
    x = np.concatenate(groups, axis=1).astype(np.float16)
    cut, count, _ = activations.limbs_of(x)
    by_group = cut.reshape(tokens, count, len(groups), group_size).any(axis=3)
    # First and last limb, as the kernels' narrow way for one token tells them apart.
    ends = [
        (bool(low), bool(high)) for low, high in zip(by_group[0, 0], by_group[0, 3], strict=True)
    ]
    both_none = (False, False)
    assert count == 4
    assert ends == [(True, False), both_none, (False, True), (True, True), both_none, both_none]
    matrix = trained_layer(rng, 70, x.shape[1], group_size)
    repacked = kernels.repack(matrix, way[1], instructions=way[0])
    assert (repacked.units is not None) is (group_size == 32)
    assert_same(x, matrix, repacked)


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.sampled_from(["any", "normal", "subnormal", "edges", "least"]))
def test_limbs_are_the_activations_and_as_few_as_can_be(seed, kind):
    rng = np.random.default_rng(seed)
    assert_cut(random_activations(rng, (2, 9), kind).astype(np.float16))


def test_limbs_next_to_the_least_that_two_hold():
    # Twice -16512 is -129 * 256, and -128 * 257 is the least.
    for value in (-16512, -16448, -16384, 16256, 16320):
        assert_cut(np.array([[value, 1]]).astype(np.float16) * np.float16(2.0**-24))


def assert_cut(x):
    """The limbs of activations are these, as few as can be and as far left as they fit."""
    cut, count, exponent = activations.limbs_of(x)
    by_token = cut.reshape(len(x), count, -1).astype(object)
    joined = sum(by_token[:, limb] * 256**limb for limb in range(count))
    assert (joined == np.vectorize(Fraction)(x.astype(object)) / Fraction(2) ** exponent).all()
    assert -31 <= exponent <= 15
    # One place further left, and some activation would not fit, or seven places are all there are.
    assert not _fit(joined * 2, count) or count == 1 or exponent == -31
    # In units of the lowest bit that any has, one limb less does not hold them.
    lowest = min((int(value & -value) for value in joined.flat if value), default=1)
    assert count == 1 or not _fit(joined // lowest, count - 1)


def _fit(values, limbs):
    ones = (256**limbs - 1) // 255
    return -128 * ones <= values.min() and values.max() <= 127 * ones


# --------------------------------------------------------------------------------- joined


def test_sums_next_to_a_tie_are_rounded_once():
    # 2**24 + 1 is a tie of binary32; the lowest limb decides.
    trits = np.zeros((2, 64), int)
    trits[:, :3] = 1
    matrix, _ = layer(trits, [[1]] * 2, [[0]] * 2, 64)
    for least in (0, 2**-24, -(2**-24)):
        x = np.zeros((1, 64), np.float16)
        x[0, :3] = 4096, 2**-12, least
        assert_same(x, matrix, kernels.repack(matrix))


@settings(max_examples=300)
@given(
    st.lists(st.integers(-(1 << 52), 1 << 52), min_size=2, max_size=6),
    st.integers(-31, 0),
    st.integers(-3, 3),
    st.booleans(),
)
def test_limbs_are_joined_exactly(units, exponent, apart, cancel):
    """Also where limbs cancel: against exact fractions."""
    if cancel:
        # The lowest limb takes back nearly all that the others are.
        rest = sum(unit << 8 * place for place, unit in enumerate(units[1:], 1))
        while abs(rest) >= 1 << 52:
            units = [unit >> 8 for unit in units]
            rest = sum(unit << 8 * place for place, unit in enumerate(units[1:], 1))
        units[0] = apart - rest
    assert_joined(units, exponent)


@settings(max_examples=300)
@given(
    st.integers(1 << 23, (1 << 24) - 1),
    st.integers(0, 27),
    st.integers(2, 6),
    st.integers(-1, 1),
    st.integers(-31, 0),
    st.sampled_from([-1, 1]),
)
def test_limbs_at_and_next_to_a_tie_are_joined_exactly(whole, zeros, count, apart, exponent, sign):
    """Of binary32, whose tie float64 alone would not tell from its neighbours."""
    tie = (2 * whole + 1) << zeros
    assert_joined([sign * apart, *[0] * (count - 2), sign * tie], exponent)


def assert_joined(units, exponent):
    """Sums of so many 2**-24, a limb each, are joined to the nearest float of either format."""
    sums = np.ldexp(np.array(units, np.float64), -24)[:, None]
    exact = sum(Fraction(unit) * 256**place for place, unit in enumerate(units))
    exact *= Fraction(2) ** (exponent - 24)
    for name, bits in (("fp32", np.uint32), ("fp16", np.uint16)):
        got = limbs.join(sums, len(units), exponent, FORMATS[OutputFormat(name)])
        assert got.view(bits).item() == naive.float_bits(exact, name)
