"""Post-training methods on one layer, against their definitions: grids, codes, AWQ, PB-LLM."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant.methods import METHODS, method_config
from quant.methods.awq import channel_scales
from quant.methods.calibration import Statistics
from quant.methods.fixed import FixedTernaryQuantizer
from quant.methods.grids import Grid, GridFit, quantize, spans
from quant.methods.hessian import damped, output_error
from quant.methods.pb_llm import salient_weights
from quant.ternary import ternarize
from tern_hw.errors import TernError
from tests.quant.layers import inputs, normal, quantized, statistics

#: Ternary methods with a shift.
SHIFTED = ("als", "gptq", "pt2_llm", "aware")
GROUP_SIZES = [16, 20, 200, "row"]


# -------------------------------------------------------------------------------------- grids, RTN


@given(st.lists(st.integers(-64, 64).map(lambda i: i / 16), min_size=1, max_size=9))
def test_ternary_rtn_is_absmax_rounding(weights):
    quantizer = quantized("rtn", torch.tensor([weights]), None, group_size="row")
    largest = max(map(abs, weights))
    expected = [largest * round(w / largest) if largest else 0 for w in weights]
    assert quantizer(torch.zeros(1)).tolist() == [expected]
    assert quantizer.shift is None


@given(st.lists(st.integers(-60, 60), min_size=2, max_size=9), st.sampled_from([1.0, 2**-10]))
def test_two_bit_rtn_takes_the_nearest_of_four_levels_between_the_extremes(weights, unit):
    group = torch.tensor([weights]) * 3 * unit
    quantizer = quantized("rtn", group, None, grid="2bit", group_size="row")
    low, high = float(group.min()), float(group.max())
    levels = torch.tensor([low + i * (high - low) / 3 for i in range(4)])
    distance = (group.T - levels).abs().amin(1)
    assert torch.allclose((quantizer(group) - group).abs()[0], distance, atol=4e-2 * unit)
    assert quantizer.codes.min() >= 0
    assert quantizer.codes.max() <= 3
    assert quantizer.bits_per_weight(group) == 2 + 32 / len(weights)


@pytest.mark.parametrize("name", ["rtn", "gptq", "awq", "omniquant"])
@pytest.mark.parametrize("grid", list(Grid))
@pytest.mark.parametrize("value", [0.0, -0.75])
def test_equal_weights_are_kept(name, grid, value):
    weight = torch.full((3, 40), value)
    found = quantized(name, weight, statistics(inputs()), grid=grid)(weight)
    # OmniQuant starts by cutting 1.8 % off the range.
    assert torch.allclose(found, weight, atol=2e-2 if name == "omniquant" else 2e-3)


def test_als_is_ternarize_and_has_the_lowest_weight_error():
    weight, seen = normal(24, 40, seed=1) * 0.1 + 0.02, statistics(inputs())
    als = quantized("als", weight, None).fit(weight)
    assert torch.equal(als.trits, ternarize(weight, 16).trits)
    errors = {
        name: quantized(name, weight, seen).fit(weight).relative_error(weight)
        for name in ("rtn", "twn", "absmean", "gptq", "pt2_llm", "aware")
    }
    assert als.relative_error(weight) < min(errors.values()), errors


# --------------------------------------------------------------------------------- codes as buffers


def test_a_fixed_quantiser_heeds_nothing_of_the_weight_but_its_type():
    weight = normal(5, 40, seed=2)
    quantizer = quantized("als", weight, None)
    assert not list(quantizer.parameters())
    assert torch.equal(quantizer(weight), quantizer(torch.zeros_like(weight)))
    assert quantizer(weight.bfloat16()).dtype == torch.bfloat16
    assert not quantizer(weight.requires_grad_()).requires_grad


@pytest.mark.parametrize("name", ["rtn", *SHIFTED])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_fake_quantised_is_the_dequantised_fit_to_the_bit(name, group_size):
    weight = normal(6, 40, seed=3)
    quantizer = quantized(name, weight, statistics(inputs()), group_size=group_size)
    fit = quantizer.fit(weight)
    assert quantizer.ternary
    assert torch.equal(quantizer(weight), fit.dequantize())
    assert (fit.scale >= 0).all()
    assert set(fit.trits.unique().tolist()) <= {-1, 0, 1}
    groups = len(spans(40, group_size))
    values = 1 if name == "rtn" else 2
    assert quantizer.bits_per_weight(weight) == pytest.approx(1.6 + 16 * values * groups / 40)


def test_codes_off_the_grid_are_refused():
    quantizer = FixedTernaryQuantizer.blank(torch.zeros(2, 8), 4)
    quantizer.codes[1, 3] = 2
    with pytest.raises(TernError, match=r"code \(1, 3\) must be from -1 to 1, not 2"):
        quantizer.fit(torch.zeros(2, 8))


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.calibrated])
def test_weights_beyond_fp16_are_refused(name):
    weight = normal(4, 40, seed=4) * 1e6
    with pytest.raises(TernError, match=r"layer.* must be at most 65504 in magnitude"):
        quantized(name, weight, statistics(inputs()))


# ------------------------------------------------------------------------------ output error, order


@pytest.mark.parametrize("seed", range(3))
def test_output_errors_on_other_tokens_fall_in_the_order_of_what_methods_know(seed):
    weight = normal(64, 40, seed=9 + seed)
    x = inputs(tokens=2000, seed=seed)
    seen, other = statistics(x[:1000]), statistics(x[1000:]).gram
    errors = {
        name: output_error(weight, quantized(name, weight, seen)(weight), other)
        for name in ("rtn", "twn", "als", "gptq", "pt2_llm", "aware")
    }
    print(errors)
    assert errors["aware"] < min(errors["gptq"], errors["pt2_llm"])
    assert max(errors["gptq"], errors["pt2_llm"]) < errors["als"] < errors["rtn"]


@pytest.mark.parametrize("grid", list(Grid))
def test_gptq_lowers_the_output_error_of_rounding(grid):
    weight, seen = normal(64, 40, seed=12), statistics(inputs())
    plain, other = (
        quantized("rtn", weight, seen, grid=grid),
        quantized("gptq", weight, seen, grid=grid),
    )
    assert output_error(weight, other(weight), seen.gram) < output_error(
        weight, plain(weight), seen.gram
    )


# -------------------------------------------------------------------------------------- AWQ, PB-LLM


@given(st.integers(0, 20), st.integers(0, 10_000))
def test_channel_scales_are_a_power_of_the_magnitude(i, seed):
    magnitude = normal(9, seed=seed).exp().double()
    scales = channel_scales(magnitude, i / 20)
    ratio = scales / scales[0]
    assert torch.allclose(ratio, (magnitude / magnitude[0]).pow(i / 20), rtol=2e-3)
    assert (scales.max() * scales.min()).item() == pytest.approx(1, rel=2e-3)


@pytest.mark.parametrize(
    ("grid", "fit", "plain"),
    [("2bit", "range", "rtn"), ("ternary", "range", "rtn"), ("ternary", "least-squares", "als")],
)
def test_awq_on_inputs_of_one_size_is_plain_rounding(grid, fit, plain):
    # Whatever the exponent, every scale is 1.
    weight, seen = normal(8, 40, seed=20), statistics(inputs())
    even = Statistics(seen.gram, torch.full((40,), 3.0).double(), 400)
    found = quantized("awq", weight, even, grid=grid, fit=fit)
    options = {"grid": grid} if plain == "rtn" else {}
    other = quantized(plain, weight, None, **options)
    assert torch.equal(found(weight), other(weight))
    assert found.bits_per_weight(weight) == other.bits_per_weight(weight) + 16 / 8
    assert not found.ternary


@pytest.mark.parametrize("grid", list(Grid))
def test_awq_takes_the_exponent_of_the_least_output_error(grid):
    weight, seen = normal(16, 40, seed=21), statistics(inputs())
    found = quantized("awq", weight, seen, grid=grid, steps=5)
    errors = []
    for i in range(6):
        scales = channel_scales(seen.magnitude, i / 5).float()
        scaled = quantize(weight * scales, 16, grid, GridFit.LEAST_SQUARES, "w")
        errors.append(output_error(weight, scaled(weight) / scales, seen.gram))
    assert len(set(errors)) == 6
    assert output_error(weight, found(weight), seen.gram) == min(errors)
    assert torch.equal(
        found.channels,
        channel_scales(seen.magnitude, errors.index(min(errors)) / 5).float(),
    )


@pytest.mark.parametrize("salience", ["hessian", "magnitude"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_pb_llm_keeps_the_most_salient_in_8_bits_and_counts_every_part(salience, share):
    weight, seen = normal(10, 40, seed=22), statistics(inputs())
    quantizer = quantized("pb_llm", weight, seen, salient=share, salience=salience)
    mask, found = quantizer.salient, quantizer(weight)
    assert int(mask.sum()) == round(400 * share)
    inverse = torch.linalg.inv(damped(seen.gram, 0.01)).diagonal()
    score = weight.abs() if salience == "magnitude" else weight**2 / inverse.float() ** 2
    if share:
        assert score[mask].min() >= score[~mask].max() * (1 - 1e-5)
        step = (weight * mask).abs().amax(1, keepdim=True) / 127
        assert ((found - weight).abs() <= step * 0.52).masked_select(mask).all()
    for span in spans(40, 16):
        w, rest = weight[:, span], ~mask[:, span]
        scale = (w.abs() * rest).sum(1, keepdim=True) / rest.sum(1, keepdim=True).clamp(min=1)
        binary = (scale.half().float() * torch.where(w < 0, -1, 1)) * rest
        assert torch.allclose(found[:, span] * rest, binary, rtol=1e-3, atol=1e-6)
    counted = 8 * share + (1 - share) + 1 + 16 * (3 + 1) / 40
    assert quantizer.bits_per_weight(weight) == pytest.approx(counted)


def test_pb_llm_with_compensation_has_less_output_error():
    # Channels of one size: what is salient then is what is large, and binary the rest.
    x = inputs(width=64)
    weight, seen = normal(64, 64, seed=23), statistics(x / x.std(0))
    plain, other = (
        quantized("pb_llm", weight, seen, compensation=on)(weight) for on in (False, True)
    )
    assert output_error(weight, other, seen.gram) < output_error(weight, plain, seen.gram)


def test_pb_llm_on_white_inputs_has_nothing_to_compensate():
    weight, white = normal(8, 40, seed=25), Statistics(torch.eye(40).double(), torch.ones(40), 40)
    plain, other = (
        quantized("pb_llm", weight, white, compensation=on)(weight) for on in (False, True)
    )
    assert torch.equal(plain, other)


def test_salient_weights_are_none_or_as_many_as_asked():
    weight = normal(3, 7, seed=24)
    factor = torch.eye(7).double()
    for share in (0.0, 0.04, 1 / 21, 0.99):
        config = method_config("pb_llm", {"salient": share, "salience": "magnitude"})
        assert int(salient_weights(weight, factor, config).sum()) == round(21 * share)


# ------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("gptq", {"damping": 0}, "damping must be above 0 and at most 1, not 0.0"),
        ("gptq", {"grid": "3bit"}, "grid must be one of ternary, 2bit, not '3bit'"),
        ("pt2_llm", {"damping": float("nan")}, "damping must be above 0 and at most 1, not nan"),
        ("awq", {"steps": 0}, "steps must be 1 or more, not 0"),
        ("omniquant", {"epochs": -1}, "epochs must be 0 or more, not -1"),
        ("omniquant", {"learning_rate": 0}, "learning_rate must be between 0 and 1, not 0.0"),
        ("pb_llm", {"salient": 1}, "salient must be at least 0 and below 1, not 1.0"),
        ("aware", {"rounds": -1}, "rounds must be 0 or more, not -1"),
        ("aware", {"ridge": 0}, "ridge must be above 0 and at most 1, not 0.0"),
        ("aware", {"rounds": 2.5}, "rounds must be an integer, not 2.5"),
    ],
)
def test_options_are_refused(name, options, sentence):
    with pytest.raises(TernError, match=sentence):
        method_config(name, options)
