"""quant.ternary against brute force, closed form and its own definition."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quant.ternary import (
    alternating_least_squares,
    dequantize,
    fit_groups,
    least_squares,
    nearest_codes,
    squared_error,
    ternarize,
    threshold,
    threshold_codes,
)
from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix
from tern_hw.reference import matmul

#: Weights on a grid coarse enough that float32 sums of a few are exact: ties are real ties.
GRID = st.integers(-64, 64).map(lambda i: i / 16)
GROUP = st.lists(GRID, min_size=1, max_size=7)


def normal(*shape, seed, mean=0.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + mean


def line_error(weights, codes):
    """Squared error of the best alpha * T + gamma for given codes, by numpy's lstsq."""
    design = np.stack([codes, np.ones(len(codes))], axis=1)
    best, *_ = np.linalg.lstsq(design, weights, rcond=None)
    return float(((weights - design @ best) ** 2).sum())


def best_error(weights):
    """Lowest squared error of any codes, by trying all 3^G."""
    codes = itertools.product((-1.0, 0.0, 1.0), repeat=len(weights))
    return min(line_error(weights, np.array(code)) for code in codes)


def best_split_error(weights):
    """The same by trying all contiguous splits of the sorted weights: low, middle, high."""
    ordered, size = np.sort(weights), len(weights)
    splits = itertools.combinations_with_replacement(range(size + 1), 2)
    codes = (np.repeat([-1.0, 0.0, 1.0], [low, high - low, size - high]) for low, high in splits)
    return min(line_error(ordered, code) for code in codes)


def fitted_error(groups):
    """Squared error of `fit_groups` with the nearest codes, in float64."""
    alpha, gamma = fit_groups(groups)
    codes = nearest_codes(groups, alpha, gamma)
    return squared_error(groups.double(), codes.double(), alpha.double(), gamma.double())


# ---------------------------------------------------------------------------- threshold and codes


@given(GROUP, st.sampled_from([0.5, 0.7, 0.75]))
def test_threshold_is_factor_times_mean_magnitude(weights, factor):
    expected = factor * sum(abs(w) for w in weights) / len(weights)
    assert threshold(torch.tensor([weights]), factor).item() == pytest.approx(expected, rel=1e-6)


def test_threshold_is_dlts_unless_told_otherwise():
    groups = torch.tensor([[1.0, -3.0], [0.0, 8.0]])
    assert threshold(groups).tolist() == pytest.approx([1.4, 2.8])
    assert torch.equal(threshold_codes(groups), threshold_codes(groups, 0.7))
    weight = normal(4, 64, seed=20)
    assert torch.equal(ternarize(weight).scale, ternarize(weight, factor=0.7).scale)


@given(GROUP, st.booleans())
def test_threshold_codes_compare_each_weight_with_delta(weights, center):
    # A factor of 1/2 and float64 keep the comparison exact on the grid but for the centred mean.
    values = np.array(weights) - (np.mean(weights) if center else 0)
    delta = 0.5 * np.abs(values).mean()
    expected = [int(v > delta) - int(v < -delta) for v in values]
    codes = threshold_codes(torch.tensor([weights], dtype=torch.float64), 0.5, center=center)
    near = np.isclose(np.abs(values), delta, rtol=1e-12)
    assert [c for c, n in zip(codes[0].tolist(), near, strict=True) if not n] == [
        c for c, n in zip(expected, near, strict=True) if not n
    ]


def test_a_weight_at_the_threshold_is_zero():
    # mean|w| = 1, delta = 0.5 exactly.
    codes = threshold_codes(torch.tensor([[0.5, -0.5, 1.5, -1.5]]), 0.5)
    assert codes.tolist() == [[0, 0, 1, -1]]


# ---------------------------------------------------------------------------------- least squares


@given(
    hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-8, 8, width=32)),
    st.data(),
)
def test_least_squares_is_as_good_as_lstsq(weights, data):
    trits = st.lists(
        st.sampled_from([-1.0, 0.0, 1.0]), min_size=len(weights), max_size=len(weights)
    )
    codes = np.array(data.draw(trits))
    alpha, gamma = least_squares(torch.from_numpy(weights[None]), torch.from_numpy(codes[None]))
    error = float(((weights - alpha.item() * codes - gamma.item()) ** 2).sum())
    assert error == pytest.approx(line_error(weights, codes), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("code", [-1.0, 0.0, 1.0])
def test_least_squares_of_one_code_is_the_mean_without_scale(code):
    alpha, gamma = least_squares(torch.tensor([[1.0, 2.0, 6.0]]), torch.full((1, 3), code))
    assert (alpha.item(), gamma.item()) == (0, 3)


def test_least_squares_keeps_its_digits_under_a_large_shift():
    # Scale 2^-10 on a shift of 1000: float32 has 14 bits left below the shift.
    codes = torch.tensor([[1.0, -1.0, 0.0, 1.0, -1.0, 0.0] * 20])
    weights = 1000 + codes / 1024
    alpha, gamma = least_squares(weights, codes)
    assert alpha.item() == pytest.approx(1 / 1024, rel=1e-4)
    assert gamma.item() == pytest.approx(1000, rel=1e-7)


def test_least_squares_spread_of_a_long_row_is_exact():
    # One code of 16384 differs: the denominator cancels to 4 * 16383 out of 2^28.
    codes = torch.ones(1, 16384)
    codes[0, 0] = -1
    alpha, gamma = least_squares(codes * 0.5 + 0.25, codes)
    assert alpha.item() == pytest.approx(0.5, rel=1e-6)
    assert gamma.item() == pytest.approx(0.25, rel=1e-6)


# ---------------------------------------------------------------------------------- nearest codes


@given(GROUP, st.integers(0, 32), st.integers(-32, 32))
def test_nearest_codes_pick_a_nearest_level(weights, scale, shift):
    alpha, gamma = scale / 16, shift / 16
    codes = nearest_codes(torch.tensor([weights]), torch.tensor([alpha]), torch.tensor([gamma]))
    for weight, code in zip(weights, codes[0].tolist(), strict=True):
        distances = {t: abs(weight - alpha * t - gamma) for t in (-1, 0, 1)}
        assert distances[code] == min(distances.values())


def test_nearest_codes_are_zero_on_ties_and_without_levels():
    weights = torch.tensor([[1.5, 0.5, 3.0], [1.5, 0.5, 3.0]])
    codes = nearest_codes(weights, torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    assert codes.tolist() == [[0, 0, 1], [0, 0, 0]]


# ---------------------------------------------------------------------- alternating least squares


@pytest.mark.parametrize("mean", [0.0, 0.7, 40.0])
def test_no_round_of_alternating_least_squares_raises_the_error(mean):
    groups = normal(64, 128, seed=1, mean=mean).double()
    codes = threshold_codes(groups, center=True)
    errors = []
    for rounds in range(12):
        kept, alpha, gamma = alternating_least_squares(groups, codes, max_rounds=rounds)
        errors.append(squared_error(groups, kept, alpha, gamma))
    falls = torch.stack(errors).diff(dim=0)
    assert (falls <= 1e-9).all()
    assert (falls < -1e-3).any(dim=0).float().mean() > 0.9, "most groups improve on their start"


def test_alternating_least_squares_ends_where_neither_step_moves():
    groups = normal(32, 128, seed=2)
    codes, alpha, gamma = alternating_least_squares(groups, threshold_codes(groups))
    assert torch.equal(nearest_codes(groups, alpha, gamma), codes)
    again = least_squares(groups, codes)
    assert torch.equal(again[0], alpha)
    assert torch.equal(again[1], gamma)


def test_alternating_least_squares_of_a_batch_is_that_of_each_group():
    groups = normal(3, 5, 32, seed=3)
    start = threshold_codes(groups)
    together = alternating_least_squares(groups, start)
    for i, j in itertools.product(range(3), range(5)):
        alone = alternating_least_squares(groups[i, j], start[i, j])
        assert all(torch.equal(a[i, j], b) for a, b in zip(together, alone, strict=True))


def test_alternating_least_squares_leaves_its_start_alone():
    groups = normal(8, 64, seed=4)
    start = threshold_codes(groups)
    kept = start.clone()
    codes, *_ = alternating_least_squares(groups, start)
    assert torch.equal(start, kept)
    assert not torch.equal(codes, kept)


# ----------------------------------------------------------------------------- the fit as a whole


@given(GROUP)
def test_the_best_codes_are_a_contiguous_split(weights):
    # Holds the faster oracle below to the definition.
    assert best_split_error(np.array(weights)) == pytest.approx(best_error(np.array(weights)))


@given(GROUP)
def test_fit_lies_between_the_best_codes_and_plain_dlt(weights):
    groups = torch.tensor([weights])
    error = fitted_error(groups).item()
    dlt = line_error(np.array(weights), threshold_codes(groups)[0].numpy().astype(float))
    assert best_split_error(np.array(weights)) - 1e-5 <= error <= dlt + 1e-5


@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_fit_comes_close_to_the_best_codes(mean):
    groups = normal(200, 24, seed=5, mean=mean)
    best = np.array([best_split_error(group) for group in groups.double().numpy()])
    ratio = fitted_error(groups).numpy() / best
    assert ratio.min() >= 1 - 1e-5
    print("fit over best:", ratio.mean(), np.mean(ratio < 1 + 1e-5))
    assert ratio.mean() < 1.05
    assert np.mean(ratio < 1 + 1e-5) > 0.4


def test_fit_rescues_a_group_beyond_the_threshold_on_one_side():
    groups = torch.tensor([[10.0, 11.0, 12.0, 10.0, 11.0, 12.0]])
    assert threshold_codes(groups).unique().tolist() == [1]
    alpha, gamma = fit_groups(groups)
    assert (alpha.item(), gamma.item()) == pytest.approx((1, 11))


# -------------------------------------------------------------------------- weights, groups, fp16


@pytest.mark.parametrize("group_size", [1, 7, 16, 20, 32, 100, "row"])
def test_each_group_is_fitted_alone(group_size):
    weight = normal(3, 45, seed=6)
    fit = ternarize(weight, group_size)
    span = 45 if group_size == "row" else group_size
    for g, k in enumerate(range(0, 45, span)):
        alone = ternarize(weight[:, k : k + span].clone(), "row")
        assert torch.equal(fit.trits[:, k : k + span], alone.trits)
        assert torch.equal(fit.scale[:, g], alone.scale[:, 0])
        assert torch.equal(fit.shift[:, g], alone.shift[:, 0])


def test_a_short_last_group_does_not_see_padding():
    # Padding with zeros would draw the shift of a group around 5 towards 0.
    weight = torch.cat([normal(2, 128, seed=7), normal(2, 5, seed=8, mean=5.0)], dim=1)
    fit = ternarize(weight, 128)
    assert fit.shift.shape == (2, 2)
    assert (fit.shift[:, 1] > 4).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_codes_are_the_nearest_levels_of_the_rounded_scale_and_shift(dtype):
    weight = (normal(16, 300, seed=9) * 0.03).to(dtype)
    fit = ternarize(weight, 128)
    assert (fit.scale.dtype, fit.shift.dtype) == (torch.float16, torch.float16)
    assert (fit.scale >= 0).all()
    exact = weight.double()
    chosen = (exact - fit.dequantize().double()).abs()
    for trit in (-1, 0, 1):
        level = dequantize(torch.full((16, 300), trit), fit.scale, fit.shift, 128).double()
        assert (chosen <= (exact - level).abs() * (1 + 1e-6)).all()


@pytest.mark.parametrize("mean", [1000, 1000.2])
def test_rounding_to_fp16_moves_the_codes_with_it(mean):
    # Near 1000 the unit of fp16 is 0.5: the shift rounds to 1000 and the codes must follow.
    weight = mean + 0.2 * torch.tensor([[1.0, -1.0, 0.0, 1.0, -1.0, 0.0]])
    fit = ternarize(weight, "row")
    distance = (weight - fit.dequantize()).abs()
    others = [(weight - (float(fit.shift) + t * float(fit.scale))).abs() for t in (-1, 0, 1)]
    assert torch.equal(distance, torch.stack(others).amin(dim=0))


@pytest.mark.parametrize("group_size", [32, 128, "row"])
@pytest.mark.parametrize("packing", ["2bit", "base3"])
def test_dequantized_is_the_references_weight_to_the_bit(group_size, packing):
    fit = ternarize(normal(24, 200, seed=10) * 0.02, group_size)
    matrix = TernaryMatrix.from_digits(
        fit.digits.numpy(),
        fit.scale.numpy(),
        fit.shift.numpy(),
        group_size=group_size,
        packing=packing,
    )
    # One-hot activations read the weights out, each exact and rounded once.
    read_out = matmul(np.eye(200, dtype=np.int8), matrix).T
    assert np.array_equal(read_out.view(np.uint32), fit.dequantize().numpy().view(np.uint32))


def test_scaling_by_a_power_of_two_and_negation_carry_through():
    weight = normal(8, 256, seed=11)
    fit, other = ternarize(weight), ternarize(-4 * weight)
    assert torch.equal(other.trits, -fit.trits)
    assert torch.equal(other.scale, 4 * fit.scale)
    assert torch.equal(other.shift, -4 * fit.shift)


def test_relative_error_of_normal_weights_is_that_of_a_three_level_quantiser():
    # The best equally spaced three levels for a normal density leave 0.190 (Max, 1960, table I).
    error = ternarize(normal(64, 4096, seed=12), "row").relative_error(normal(64, 4096, seed=12))
    assert error == pytest.approx(0.190, abs=0.002)


# ------------------------------------------------------------------------- degenerate and refused


@pytest.mark.parametrize("value", [0.0, 1.0, -0.375, 65504.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_equal_weights_are_their_shift(value, size):
    fit = ternarize(torch.full((1, size), value), "row")
    assert fit.trits.tolist() == [[0] * size]
    assert (fit.scale.item(), fit.shift.item()) == (0, value)
    assert fit.relative_error(torch.full((1, size), value)) == 0


def test_two_and_three_equally_spaced_values_are_exact():
    weight = torch.tensor([[1.0, 3.0, 3.0, 1.0], [2.0, -1.0, 0.5, -1.0]])
    fit = ternarize(weight, "row")
    assert torch.equal(fit.dequantize(), weight)


def test_weights_below_fp16_become_their_shift_not_garbage():
    weight = 1e-12 * normal(2, 64, seed=13)
    fit = ternarize(weight, 32)
    assert not fit.scale.any()
    assert not fit.trits.any()


def test_fit_does_not_carry_gradients():
    weight = normal(2, 8, seed=14).requires_grad_()
    assert not ternarize(weight, 4).dequantize().requires_grad


@pytest.mark.parametrize("value", [1e5, -3e38, 1e30])
def test_huge_weights_are_refused_by_name(value):
    weight = normal(4, 96, seed=15)
    weight[2, 32:64] = value
    with pytest.raises(
        TernError, match=r"shift of w \(row 2, group 1\) must be at most 65504 .*not"
    ):
        ternarize(weight, 32, name="w")


def test_a_huge_scale_is_refused_by_name():
    weight = torch.tensor([[0.0, 1e6, -1e6]])
    with pytest.raises(
        TernError, match=r"scale of weight \(row 0, group 0\) must be at most 65504"
    ):
        ternarize(weight, "row")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_non_finite_weights_are_refused_by_name_and_index(value):
    weight = normal(4, 8, seed=16)
    weight[1, 5] = float(value)
    with pytest.raises(TernError, match=rf"layer\.weight\[1, 5\] must be finite, not {value}"):
        ternarize(weight, 4, name="layer.weight")


def test_float64_beyond_float32_is_refused_as_not_finite():
    with pytest.raises(TernError, match=r"weight\[0, 0\] must be finite"):
        ternarize(torch.full((1, 2), 1e300, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,), (2, 2, 2)])
def test_only_matrices_are_fitted(shape):
    with pytest.raises(TernError, match="weight must be a floating-point matrix"):
        ternarize(torch.zeros(shape))


def test_integer_weights_are_refused():
    with pytest.raises(TernError, match=r"not int8 \[2, 2\]"):
        ternarize(torch.zeros(2, 2, dtype=torch.int8))


@pytest.mark.parametrize("factor", [-0.1, 1.0, float("nan")])
def test_factor_is_refused(factor):
    with pytest.raises(TernError, match="factor must be at least 0 and below 1, not"):
        ternarize(torch.ones(1, 2), factor=factor)
