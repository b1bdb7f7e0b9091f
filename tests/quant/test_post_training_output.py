"""Fits by output error (GPTQ, PT2-LLM, aware) against brute force and closed form."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant.methods import method_config
from quant.methods.aware import TernaryRows, descend, refit
from quant.methods.calibration import Statistics
from quant.methods.gptq import round_columns
from quant.methods.grids import Grid, GridFit, fit_grid, nearest, spans
from quant.methods.hessian import compensate, damped, inverse_factor, output_error
from quant.methods.pt2_llm import align, align_codes
from quant.ternary import least_squares, ternarize
from tests.quant.layers import inputs, normal, quantized, row_error, statistics

GROUP_SIZES = [16, 20, 200, "row"]


# --------------------------------------------------------------------------------------------- GPTQ


@pytest.mark.parametrize("grid", list(Grid))
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_gptq_on_white_inputs_rounds_plainly(grid, group_size):
    weight = normal(8, 40, seed=5)
    white = Statistics(torch.eye(40, dtype=torch.float64), torch.ones(40), 40)
    found = quantized("gptq", weight, white, grid=grid, group_size=group_size)
    plain = "als" if grid is Grid.TERNARY else "rtn"
    options = {} if grid is Grid.TERNARY else {"grid": grid}
    assert torch.equal(
        found(weight), quantized(plain, weight, None, group_size=group_size, **options)(weight)
    )


def naive_gptq(weight, gram, scale, shift, grid):
    """Optimal Brain Quantisation column by column: H^-1 of the columns that remain, anew each."""
    work, codes = weight.double().clone(), torch.zeros_like(weight)
    for k in range(work.shape[1]):
        inverse = torch.linalg.inv(gram[k:, k:])
        code = nearest(work[:, k : k + 1], scale.double(), shift.double(), grid)
        error = work[:, k] - (scale * code[:, 0] + shift)
        work[:, k:] -= torch.outer(error / inverse[0, 0], inverse[0])
        codes[:, k] = code[:, 0]
    return codes


@pytest.mark.parametrize("grid", list(Grid))
@pytest.mark.parametrize("width", [5, 150])
def test_gptq_rounds_as_optimal_brain_quantisation_does(grid, width):
    # 150 columns are two blocks.
    weight, gram = normal(7, width, seed=6), damped(statistics(inputs(width=width)).gram, 0.01)
    scale, shift = fit_grid(weight, grid, GridFit.LEAST_SQUARES)
    exact = weight.double()
    found = round_columns(exact, inverse_factor(gram, "w"), scale.double(), shift.double(), grid)
    assert torch.equal(found.float(), naive_gptq(weight, gram, scale, shift, grid))


def test_compensation_is_the_best_change_of_the_columns_that_remain():
    weight, gram = normal(3, 12, seed=7).double(), damped(statistics(inputs(width=12)).gram, 0.01)
    seen = []

    def halve(part, span):
        seen.append(part.clone())
        return part / 2 if span.start == 0 else part

    compensate(weight, inverse_factor(gram, "w"), spans(12, 5), halve)
    # Columns 5 to 11 by the normal equations, the first five at half their size.
    error = weight[:, :5] / 2
    best = weight[:, 5:] + torch.linalg.solve(gram[5:, 5:], gram[5:, :5] @ error.T).T
    assert torch.allclose(seen[1], best[:, :5], rtol=1e-6)
    assert torch.allclose(seen[2], best[:, 5:], rtol=1e-6)


@given(st.integers(0, 10_000))
def test_damping_leaves_inputs_that_are_always_zero_invertible(seed):
    x = inputs(tokens=20, width=8, seed=seed)
    x[:, [1, 6]] = 0
    gram = damped(statistics(x).gram, 0.01)
    factor = inverse_factor(gram, "w")
    assert torch.allclose(factor.T @ factor @ gram, torch.eye(8).double(), atol=1e-6)
    # As much as an input of mean size, so that its weights are rounded like any other's.
    mean = statistics(x).gram.diagonal().mean()
    assert gram[1, 1].item() == pytest.approx(1.01 * mean.item())
    assert not gram[1, :1].any()


def test_inputs_that_are_all_zero_give_a_plain_rounding():
    weight = normal(4, 40, seed=8)
    dead = statistics(torch.zeros(50, 40))
    assert torch.equal(
        quantized("gptq", weight, dead)(weight), quantized("als", weight, None)(weight)
    )


# ------------------------------------------------------------------------------------------ PT2-LLM


@given(st.integers(0, 10_000))
def test_alignment_beats_a_fine_grid_of_scales_and_shifts(seed):
    weight = normal(1, 6, seed=seed)
    codes = torch.randint(-1, 2, (1, 6), generator=torch.Generator().manual_seed(seed)).float()
    gram = damped(statistics(inputs(tokens=9, width=6, seed=seed)).gram, 0.01)
    alpha, gamma = align(weight, codes, gram)
    around = torch.linspace(-1, 1, 41)
    pairs = torch.cartesian_prod(alpha + around, gamma + around)
    levels = pairs[:, :1] * codes + pairs[:, 1:]
    least = row_error(weight, alpha[:, None] * codes + gamma[:, None], gram)
    assert (least <= row_error(weight, levels, gram) * (1 + 1e-5) + 1e-9).all()


def test_alignment_on_white_inputs_is_least_squares():
    weight = normal(50, 16, seed=13)
    codes = torch.randint(-1, 2, (50, 16), generator=torch.Generator().manual_seed(0)).float()
    codes[:3] = torch.tensor([[-1.0], [0.0], [1.0]])
    for found, plain in zip(
        align(weight, codes, torch.eye(16).double()), least_squares(weight, codes), strict=True
    ):
        assert torch.allclose(found, plain, atol=1e-6)
    assert not align(weight, codes, torch.eye(16).double())[0][:3].any()


def test_aligned_codes_have_scales_that_are_not_negative():
    weight, gram = normal(9, 16, seed=26), damped(statistics(inputs(width=16)).gram, 0.01)
    turned = -ternarize(weight, "row").trits.float()
    alpha, gamma = align(weight, turned, gram)
    assert (alpha < 0).any()
    codes, scale, shift = align_codes(weight, turned, gram)
    assert (scale >= 0).all()
    wanted = alpha[:, None] * turned + gamma[:, None]
    assert torch.allclose(scale[:, None] * codes + shift[:, None], wanted, atol=4e-3)


def test_pt2_without_compensation_fits_each_group_alone():
    weight, seen = normal(8, 40, seed=14), statistics(inputs())
    whole = quantized("pt2_llm", weight, seen, compensation=False)(weight)
    for span in spans(40, 16):
        # Damping is that of the whole: hand on its H.
        part = damped(seen.gram, 0.01)[span, span]
        fit = ternarize(weight[:, span], "row")
        alpha, gamma = align(weight[:, span], fit.trits.float(), part)
        levels = alpha[:, None] * fit.trits + gamma[:, None]
        assert torch.allclose(whole[:, span], levels, atol=5e-3)


# -------------------------------------------------------------------------------------------- aware


def random_rows(weight, group_size, seed):
    trits = torch.randint(
        -1, 2, weight.shape, generator=torch.Generator().manual_seed(seed)
    ).float()
    groups = len(spans(weight.shape[1], group_size))
    scale, shift = normal(2, len(weight), groups, seed=seed) * 0.3 + 0.5
    return TernaryRows(trits, scale.abs(), shift, group_size)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_refit_is_the_joint_least_squares_answer(group_size):
    weight, gram = normal(300, 40, seed=15), damped(statistics(inputs()).gram, 0.01)
    rows = random_rows(weight, group_size, 1)
    refit(weight, rows, gram.float(), 1e-9)
    error = row_error(weight, rows.levels(), gram)
    root = torch.linalg.cholesky(gram)
    columns = spans(40, group_size)
    for n in (0, 7, 299):  # beyond the first 256 rows, too
        basis = torch.zeros(2, len(columns), 40, dtype=torch.float64)
        for g, span in enumerate(columns):
            basis[0, g, span], basis[1, g, span] = rows.trits[n, span].double(), 1
        design, target = root.T @ basis.flatten(0, 1).T, root.T @ weight[n].double()
        best = torch.linalg.lstsq(design, target, driver="gelsd").solution
        least = (target - design @ best).square().sum()
        assert error[n].item() == pytest.approx(least.item(), rel=1e-4)


def test_refit_copes_with_groups_of_one_trit():
    weight, gram = normal(6, 40, seed=16), damped(statistics(inputs()).gram, 0.01).float()
    rows = random_rows(weight, 20, 2)
    rows.trits[:, :20] = torch.tensor([-1.0, 0.0, 1.0] * 2)[:, None]
    before = row_error(weight, rows.levels(), gram.double())
    refit(weight, rows, gram, 1e-4)
    assert rows.scale.isfinite().all()
    assert (rows.scale >= 0).all()
    assert (row_error(weight, rows.levels(), gram.double()) <= before).all()


@pytest.mark.parametrize("width", [40, 150])
def test_descent_never_raises_the_error_and_ends_where_no_trit_can_lower_it(width):
    weight, gram = normal(20, width, seed=17), damped(statistics(inputs(width=width)).gram, 0.01)
    rows = random_rows(weight, 16, 3)
    errors = []
    for _ in range(40):
        errors.append(row_error(weight, rows.levels(), gram))
        descend(weight, rows, gram.float())
    falls = torch.stack(errors).diff(dim=0)
    assert (falls <= 1e-4 * errors[0]).all()
    assert (falls[0] < 0).all()
    end = row_error(weight, rows.levels(), gram)
    for k, trit in itertools.product(range(width), (-1.0, 0.0, 1.0)):
        other = TernaryRows(rows.trits.clone(), rows.scale, rows.shift, 16)
        other.trits[:, k] = trit
        assert (row_error(weight, other.levels(), gram) >= end * (1 - 1e-5)).all()


def test_each_round_of_aware_lowers_the_error_it_works_on():
    weight, seen = normal(32, 40, seed=18), statistics(inputs())
    gram = damped(seen.gram, method_config("aware", {}).damping)
    errors = [
        output_error(weight, quantized("aware", weight, seen, rounds=rounds)(weight), gram)
        for rounds in (0, 1, 3, 9)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.95 * errors[0]


def test_aware_comes_close_to_the_best_of_all_trits():
    # 3^6 codes, each with its own best scale and shift.
    weight, seen = normal(20, 6, seed=19), statistics(inputs(width=6))
    gram = damped(seen.gram, method_config("aware", {}).damping)
    found = quantized("aware", weight, seen, group_size="row")(weight)
    best = torch.full((20,), torch.inf, dtype=torch.float64)
    for code in itertools.product((-1.0, 0.0, 1.0), repeat=6):
        codes = torch.tensor([code]).expand(20, 6)
        alpha, gamma = align(weight, codes, gram)
        best = best.minimum(row_error(weight, alpha[:, None] * codes + gamma[:, None], gram))
    ratio = row_error(weight, found, gram) / best
    print("aware over best:", ratio.log().mean().exp())
    assert (ratio > 1 - 1e-3).all()
    assert ratio.log().mean().exp() < 2
