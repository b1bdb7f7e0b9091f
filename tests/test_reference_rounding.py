"""The rounding routine alone: sums of terms at any place, against the oracle's exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tern_hw.config import OutputFormat
from tern_hw.reference.rounding import FORMATS, round_terms
from tests import naive

OUTPUTS = st.sampled_from(["fp32", "fp16"])
LARGEST = 1 << 62
#: Terms of every size, not only large ones.
TERMS = st.integers(0, 62).flatmap(lambda size: st.integers(-(1 << size), 1 << size))


def rounded(terms, places, exponent, output):
    target = FORMATS[OutputFormat(output)]
    columns = np.array(terms, np.int64)[:, None]
    result = round_terms(columns, np.array(places, np.int64), exponent, target)
    assert result.dtype == target.dtype
    return int(result.view(target.bits)[0])


def exact(terms, places, exponent):
    return sum(
        Fraction(term) * Fraction(2) ** (place + exponent)
        for term, place in zip(terms, places, strict=True)
    )


@given(st.lists(TERMS, min_size=6, max_size=6), st.integers(-56, 0), OUTPUTS)
@example([1, 0, 0, 0, 0, 0], -56, "fp16")
@example([-1, 0, 0, 0, 0, 0], -56, "fp16")
@example([-LARGEST] * 6, -56, "fp32")
@example([LARGEST] * 6, -56, "fp32")
@example([1, 0, 0, 0, 0, -LARGEST], -24, "fp32")
@example([-256, 1, 0, 0, 0, 0], -24, "fp32")
def test_limbs_of_eight_bits(terms, exponent, output):
    places = [0, 8, 16, 24, 32, 40]
    assert rounded(terms, places, exponent, output) == naive.float_bits(
        exact(terms, places, exponent), output
    )


@given(st.lists(TERMS.filter(lambda term: abs(term) < 1 << 52), min_size=12, max_size=12), OUTPUTS)
def test_limbs_in_halves(terms, output):
    places = sorted(8 * limb + 20 * half for limb in range(6) for half in range(2))
    assert rounded(terms, places, -48, output) == naive.float_bits(
        exact(terms, places, -48), output
    )


@given(st.integers(-(1 << 63) + 1, (1 << 63) - 1), st.integers(-56, 0), OUTPUTS)
@example((1 << 63) - 1, -24, "fp32")
@example(-(1 << 63) + 1, -24, "fp16")
def test_one_term(term, exponent, output):
    assert rounded([term], [0], exponent, output) == naive.float_bits(
        exact([term], [0], exponent), output
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("output", "upper_bits", "place"),
    [("fp32", 62, 40), ("fp32", 62, 60), ("fp32", 25, 60), ("fp16", 24, 40), ("fp16", 12, 52)],
)
def test_a_tie_is_broken_by_one_unit_far_below(output, upper_bits, place, sign):
    precision = FORMATS[OutputFormat(output)].precision
    for kept in ((1 << precision) - 4, (1 << precision) - 3):
        tie = (2 * kept + 1) << (upper_bits - precision - 1)
        found = [
            rounded([sign * least, sign * tie], [0, place], -48, output) for least in (-1, 0, 1)
        ]
        assert found == [
            naive.float_bits(exact([sign * least, sign * tie], [0, place], -48), output)
            for least in (-1, 0, 1)
        ]
        assert found[2] - found[0] == 1


@pytest.mark.parametrize(("output", "finite"), [("fp32", 0x7F800000), ("fp16", 0x7C00)])
def test_every_power_of_two_is_exact(output, finite):
    for power in range(62):
        bits = rounded([1 << power], [0], -48, output)
        value = Fraction(1 << power, 1 << 48)
        assert bits == naive.float_bits(value, output)
        assert bits < finite


@pytest.mark.parametrize("output", ["fp32", "fp16"])
def test_canonical_patterns(output):
    target = FORMATS[OutputFormat(output)]
    for bits, value in [(target.infinity, np.inf), (target.nan, np.nan)]:
        found = np.array([bits], target.bits).view(target.dtype)[0]
        assert found == value or (np.isnan(found) and np.isnan(value))
    assert target.precision == np.finfo(target.dtype).nmant + 1
    assert 2.0**target.least == np.finfo(target.dtype).smallest_subnormal
