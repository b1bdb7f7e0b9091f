"""quant.analysis.asymmetry and fits: moments by hand, fits against brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from quant.analysis.asymmetry import asymmetry, chance_of_one_side, group_moments
from quant.analysis.fits import (
    best_symmetric_error,
    error_row,
    error_sums,
    layer_errors,
    normal_row,
)
from quant.methods.dlt import mean_above_threshold
from quant.ternary import fit_groups, nearest_codes, squared_error, threshold_codes
from tern_hw.errors import TernError
from tests.quant.models import random_llama


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_layer(weight):
    """A model whose only block linear has this weight."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        linear.weight.copy_(weight)
    return nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"proj": linear})])})


# -------------------------------------------------------------------------------------- moments


def test_moments_of_a_small_group_by_hand():
    # Mean 1, deviations -1 -1 -1 3: variance 3, third moment 6.
    moments = group_moments(torch.tensor([0.0, 0.0, 0.0, 4.0]))
    root = math.sqrt(3)
    expected = [1 / root, 6 / 3**1.5, 3 / root, 1 / root]
    assert torch.allclose(moments, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_mirrored_group_turns_the_odd_moments_and_swaps_the_sides():
    groups = normal(5, 32, seed=1)
    one, other = group_moments(groups), group_moments(-groups)
    assert torch.allclose(one[:, :2], -other[:, :2])
    assert torch.allclose(one[:, 2], other[:, 3])


def test_moments_ignore_the_scale_of_a_group():
    groups = normal(5, 32, seed=2)
    assert torch.allclose(group_moments(groups), group_moments(groups * 1024))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_group_of_equal_weights_has_no_moments(value):
    assert group_moments(torch.full((2, 100), value)).tolist() == [[0.0] * 4] * 2


# ----------------------------------------------------------------------------------- one-sided


def spiked(*spikes):
    """A row of 128 weights of +-1 with spikes far out in place of the first ones."""
    row = torch.ones(128)
    row[1::2] = -1
    row[: len(spikes)] = torch.tensor(spikes)
    return row


def test_outliers_on_one_side_and_on_both_are_told_apart():
    rows = [spiked(), spiked(), spiked(20.0), spiked(-30.0), spiked(20.0, -20.0)]
    report, _ = asymmetry(one_layer(torch.stack(rows)))
    summary = report.groups[-1]
    assert summary.groups == 5
    assert (summary.one_sided, summary.two_sided) == (0.4, 0.2)
    furthest = [float((row - row.mean()).abs().max() / row.std(correction=0)) for row in rows[2:4]]
    assert summary.one_sided_sigma == pytest.approx(sum(furthest) / 2, rel=1e-6)


def test_a_higher_sigma_leaves_fewer_outliers():
    weight = torch.stack([spiked(5.0), spiked(20.0)])
    shares = [asymmetry(one_layer(weight), sigma=sigma)[0].groups[-1].one_sided for sigma in (4, 9)]
    assert shares == [1.0, 0.5]


def test_chance_of_one_side_is_what_normal_weights_show():
    groups = normal(200_000, 16, seed=3)
    # Against the true spread, which is what the formula is about.
    above, below = (groups > 2).any(-1), (groups < -2).any(-1)
    assert chance_of_one_side(16, 2.0) == pytest.approx(
        float((above ^ below).double().mean()), abs=4e-3
    )


def test_normal_weights_are_asymmetric_as_often_as_chance_says():
    report, moments = asymmetry(one_layer(normal(400, 1280, seed=4)))
    summary = report.groups[-1]
    assert summary.groups == len(moments) == 4000
    assert summary.shifted == pytest.approx(0.05, abs=0.015)
    assert summary.skewed == pytest.approx(0.05, abs=0.015)
    assert summary.one_sided == pytest.approx(report.one_sided_by_chance, abs=0.005)


def test_shifted_weights_are_seen_as_shifted():
    report, _ = asymmetry(one_layer(normal(40, 1280, seed=5) + 0.5))
    assert report.groups[-1].shifted > 0.99
    assert report.groups[-1].mean_over_std[0] == pytest.approx(0.5, abs=0.05)


# ----------------------------------------------------------------------------------------- fits


def test_best_symmetric_error_is_the_best_of_all_codes():
    for seed in range(20):
        group = normal(6, seed=seed) + 0.3
        w = group.double().numpy()
        errors = []
        for code in itertools.product((-1.0, 0.0, 1.0), repeat=6):
            t = np.array(code)
            alpha = float(w @ t) / max(float(t @ t), 1.0)
            errors.append(float(((w - alpha * t) ** 2).sum()))
        assert float(best_symmetric_error(group)) == pytest.approx(min(errors), rel=1e-9)


def test_alternating_scale_never_beats_the_best_symmetric_error():
    groups = normal(500, 64, seed=6)
    zero = torch.zeros(500)
    alpha = mean_above_threshold(groups, threshold_codes(groups))
    for _ in range(30):
        codes = nearest_codes(groups, alpha, zero)
        alpha = mean_above_threshold(groups, codes)
    alternating = squared_error(groups.double(), codes, alpha.double(), zero.double())
    assert bool((alternating >= best_symmetric_error(groups) - 1e-9).all())
    assert float(alternating.sum()) == pytest.approx(
        float(best_symmetric_error(groups).sum()), rel=0.01
    )


def test_best_symmetric_error_of_zero_and_of_exact_levels_is_zero():
    assert best_symmetric_error(torch.zeros(3, 8)).tolist() == [0.0] * 3
    assert float(best_symmetric_error(torch.tensor([2.0, -2.0, 0.0, 2.0]))) == 0.0


def test_layer_errors_of_levels_with_a_shift_are_the_shifts_alone():
    # Levels 1, 3 and 5: a scale of 2 and a shift of 3 hold them exactly.
    weight = torch.tensor([[1.0, 3.0, 5.0, 1.0], [5.0, 5.0, 3.0, 1.0]])
    errors = layer_errors(weight, 4)
    assert errors["dlt"] == 0
    assert errors["symmetric"] > 0
    row = error_row("x", error_sums(weight, 4))
    assert row.shift_part == pytest.approx(errors["symmetric"] / errors["threshold_scale"])


def test_errors_stand_in_the_order_of_their_freedom():
    sums = layer_errors(normal(50, 300, seed=7), 128)
    assert sums["threshold_scale"] >= sums["threshold_shift"] >= sums["dlt"]
    assert sums["threshold_scale"] >= sums["symmetric"] >= sums["symmetric_half"] > 0


def test_dlt_error_is_that_of_fit_groups_short_group_included():
    weight = normal(3, 40, seed=8)
    expected = 0.0
    for groups in (weight[:, :32].reshape(3, 2, 16), weight[:, 32:].reshape(3, 1, 8)):
        alpha, gamma = fit_groups(groups)
        codes = nearest_codes(groups, alpha, gamma)
        expected += float(squared_error(groups, codes, alpha, gamma).sum())
    assert layer_errors(weight, 16)["dlt"] == pytest.approx(expected, rel=1e-5)


def test_shift_costs_sixteen_bits_a_group_as_half_the_group_does():
    row = error_row("x", error_sums(normal(4, 256, seed=9), 128))
    assert row.bits_dlt - row.bits_symmetric == pytest.approx(16 / 128)
    assert row.bits_half == pytest.approx(row.bits_dlt)


def test_normal_weights_lose_as_the_textbook_says():
    # Best symmetric ternary of a normal weight: 1 - 0.8098 of its variance (three-level Lloyd-Max).
    assert normal_row(2048).symmetric == pytest.approx(0.1902, abs=0.003)


# --------------------------------------------------------------------------------------- report


def test_report_covers_every_kind_and_all_of_them():
    model = random_llama()
    report, moments = asymmetry(model, group_size=16)
    kinds = [row.kind for row in report.groups]
    assert kinds[-1] == "all"
    assert len(kinds) == 8
    assert kinds == [row.kind for row in report.errors]
    assert sum(row.groups for row in report.groups[:-1]) == report.groups[-1].groups == len(moments)
    assert sum(row.weights for row in report.errors[:-1]) == report.errors[-1].weights


def test_rows_as_groups_count_chance_by_their_own_size():
    report, moments = asymmetry(random_llama(), group_size="row")
    assert report.inputs == 72
    assert set(moments[:, 4].tolist()) == {40.0, 72.0}


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_sigma_is_refused(sigma):
    with pytest.raises(TernError, match="--sigma must be a positive number, not"):
        asymmetry(random_llama(), sigma=sigma)


def test_weight_that_is_not_finite_is_refused_by_name():
    model = random_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = math.nan
    with pytest.raises(TernError, match=r"layers\.1\.mlp\.up_proj\.weight\[2, 3\] must be finite"):
        asymmetry(model)
