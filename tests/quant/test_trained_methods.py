"""Methods that train: forward passes by definition, gradients by closed form, exact exports."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quant.methods import METHODS, convert, method_config, named_method, quantized_linears
from quant.methods.base import LayerMethod, latent_weight
from quant.methods.dlt import DltConfig
from quant.methods.fdb import dual_planes
from quant.methods.straight_through import StraightThrough, ternary_levels
from quant.models.prepared import load_prepared, save_prepared
from quant.models.tiny import byte_tokenizer
from quant.ternary import nearest_codes, threshold_codes
from tern_hw.errors import TernError
from tests.quant.models import random_llama

TRAINED = [name for name, method in METHODS.items() if method.trainable]
TERNARY = [name for name in TRAINED if name != "fdb"]
#: K = 40 in groups of 16: two full ones and a short one.
WEIGHT = torch.randn(6, 40, generator=torch.Generator().manual_seed(4)) * 0.1 + 0.02


def quantizer(name: str, weight: Tensor = WEIGHT, **options: object) -> Any:
    method = named_method(name)
    assert isinstance(method, LayerMethod)
    return method.quantizer(weight, method_config(name, {"group_size": 16, **options}), "w")


def groups_of(weight: Tensor) -> list[Tensor]:
    return list(weight.split(16, dim=1))


# ------------------------------------------------------------------------------- shared promises


@pytest.mark.parametrize("name", TERNARY)
def test_fake_quantised_equals_dequantised_to_the_bit(name: str):
    each = quantizer(name)
    assert torch.equal(each(WEIGHT), each.fit(WEIGHT).dequantize())


@pytest.mark.parametrize("options", [{"codes": "nearest"}, {"center": True}, {"shift": False}])
def test_every_form_of_dlt_equals_its_export_to_the_bit(options: dict[str, object]):
    each = quantizer("dlt", **options)
    with torch.no_grad():  # as training leaves them: on no grid, a scale even negative
        for parameter in each.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        each.scale[0, 0] = -0.05
    fit = each.fit(WEIGHT)
    assert torch.equal(each(WEIGHT), fit.dequantize())
    assert (fit.scale >= 0).all()


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_and_the_weight_have_a_gradient(name: str):
    model = random_llama()
    named_method(name).prepare(model, method_config(name, {"group_size": 16}))
    tokens = torch.arange(32).reshape(2, 16)
    model(tokens, labels=tokens).loss.backward()
    for layer, linear, each in quantized_linears(model):
        for parameter in (latent_weight(linear), *each.parameters()):
            assert parameter.grad is not None, layer
            assert parameter.grad.any(), layer


@pytest.mark.parametrize("name", TRAINED)
def test_prepared_saved_loaded_and_converted_models_answer_alike(name: str, tmp_path):
    model, tokens = random_llama(), torch.arange(32).reshape(2, 16)
    config = method_config(name, {"group_size": 16})
    plain = model(tokens).logits
    named_method(name).prepare(model, config)
    expected = model(tokens).logits
    assert not torch.equal(plain, expected)
    folder = tmp_path / "prepared"
    save_prepared(folder, model, byte_tokenizer(), method=name, config=config, origin="random")
    loaded = load_prepared(folder)
    assert loaded.config == config
    assert torch.equal(loaded.model(tokens).logits, expected)
    convert(model)
    assert torch.equal(model(tokens).logits, expected)
    assert model.state_dict().keys() == random_llama().state_dict().keys()


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("dlt", 1.6 + 2 * 3 * 16 / 40),
        ("symmetric dlt", 1.6 + 3 * 16 / 40),
        ("twn", 1.6 + 3 * 16 / 40),
        ("seq", 1.6 + 3 * 16 / 40),
        ("absmean", 1.6 + 3 * 16 / 40),
        ("fdb", 2 + 2 * 3 * 16 / 40),
    ],
)
def test_bits_count_scales_and_shifts(name: str, bits: float):
    options = {"shift": False} if name.startswith("symmetric") else {}
    each = quantizer(name.split()[-1], **options)
    assert each.bits_per_weight(WEIGHT) == pytest.approx(bits)


# ---------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("rule", list(StraightThrough))
def test_ternary_gradients_are_the_closed_form(rule: StraightThrough):
    w = torch.tensor([[0.9, 0.1, -0.5, -2.0]], requires_grad=True)
    alpha = torch.tensor([[0.5]], requires_grad=True)
    gamma = torch.tensor([[0.125]], requires_grad=True)
    trits = torch.tensor([[1, 0, -1, -1]], dtype=torch.int8)
    g = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    ternary_levels(w, alpha, gamma, trits, "row", rule).backward(g)
    assert alpha.grad.item() == 1 - 100 - 1000
    assert gamma.grad.item() == 1111
    expected = {
        StraightThrough.IDENTITY: [1, 10, 100, 1000],
        StraightThrough.TTQ: [0.5, 10, 50, 500],
        StraightThrough.CLIPPED: [0, 10, 0, 0],  # -0.5 lies 0.625 from gamma, beyond alpha
    }
    assert w.grad.tolist() == [expected[rule]]


def test_seq_gradient_is_lsqs():
    each = quantizer("seq", WEIGHT[:1, :16].contiguous())
    w = WEIGHT[:1, :16].clone().requires_grad_()
    with torch.no_grad():
        each.scale.mul_(0.7)  # so that some weights lie beyond the range
    g = torch.arange(16.0)[None] + 1
    each(w).backward(g)
    a = (each.scale.detach().half().float() * 1.5).item()
    relative = w.detach()[0] / a
    inside = relative.abs() <= 0.99
    codes = (relative.clamp(-0.99, 0.99) * 1.5).round()
    slope = torch.where(inside, codes / 1.5 - relative, relative.sign())
    assert not inside.all()
    torch.testing.assert_close(w.grad[0], g[0] * inside)
    torch.testing.assert_close(each.scale.grad.sum(), (g[0] * slope).sum() / 16**0.5 * 1.5)


def test_fdb_gradient_of_a_scale_is_its_planes_sum():
    each = quantizer("fdb", WEIGHT[:1, :16].contiguous())
    w = WEIGHT[:1, :16].clone().requires_grad_()
    g = torch.arange(16.0)[None] + 1
    each(w).backward(g)
    first, second = each.planes(w.detach())
    assert each.scale_high.grad.item() == (g * first).sum().item()
    assert each.scale_low.grad.item() == (g * second).sum().item()
    assert torch.equal(w.grad, g)


# -------------------------------------------------------------------------------------- definitions


def test_dlt_starts_at_the_least_squares_of_its_own_codes():
    each = quantizer("dlt")
    for place, groups in enumerate(groups_of(WEIGHT)):
        codes = threshold_codes(groups)
        for row in range(len(WEIGHT)):
            line = torch.stack([codes[row], torch.ones_like(codes[row])], dim=1)
            best = torch.linalg.lstsq(line, groups[row].unsqueeze(1)).solution[:, 0]
            torch.testing.assert_close(each.scale[row, place].detach(), best[0])
            torch.testing.assert_close(each.shift[row, place].detach(), best[1])


def test_dlt_starts_by_name():
    above = [
        (groups.abs() * (threshold_codes(groups) != 0)).sum(1)
        / (threshold_codes(groups) != 0).sum(1)
        for groups in groups_of(WEIGHT)
    ]
    torch.testing.assert_close(quantizer("dlt", init="twn").scale.detach(), torch.stack(above, 1))
    means = torch.stack([0.7 * groups.abs().mean(1) for groups in groups_of(WEIGHT)], 1)
    torch.testing.assert_close(quantizer("dlt", init="mean").scale.detach(), means)
    assert not quantizer("dlt", init="mean").shift.any()


def test_dlt_without_shift_has_no_shift_to_train():
    each = quantizer("dlt", shift=False)
    assert [name for name, _ in each.named_parameters()] == ["scale"]
    assert not each.fit(WEIGHT).shift.any()


def test_nearest_codes_follow_the_trained_levels():
    each = quantizer("dlt", codes="nearest")
    before = each.fit(WEIGHT).trits
    with torch.no_grad():
        each.scale.mul_(3)
    after = each.fit(WEIGHT).trits
    assert (after == 0).sum() > (before == 0).sum()
    assert torch.equal(quantizer("dlt").fit(WEIGHT).trits, _thresholded(WEIGHT))


def _thresholded(weight: Tensor) -> Tensor:
    return torch.cat([threshold_codes(groups) for groups in groups_of(weight)], 1).to(torch.int8)


def test_twn_scale_is_the_mean_above_the_threshold():
    fit = quantizer("twn").fit(WEIGHT)
    for place, groups in enumerate(groups_of(WEIGHT)):
        for row, w in enumerate(groups):
            above = w[w.abs() > 0.7 * w.abs().mean()].abs()
            torch.testing.assert_close(fit.scale[row, place], above.mean().half())


def test_absmean_rounds_in_units_of_the_mean():
    fit = quantizer("absmean").fit(WEIGHT)
    for place, groups in enumerate(groups_of(WEIGHT)):
        scale = groups.abs().mean(1, keepdim=True).half().float()
        assert torch.equal(fit.scale[:, place, None].float(), scale)
        expected = (groups / scale).round().clamp(-1, 1)
        assert torch.equal(
            fit.trits[:, place * 16 : place * 16 + groups.shape[1]].float(), expected
        )


def test_absmean_per_tensor_has_one_scale():
    each = quantizer("absmean", per_tensor=True)
    assert len(each.fit(WEIGHT).scale.unique()) == 1
    assert each.bits_per_weight(WEIGHT) == pytest.approx(1.6 + 16 / WEIGHT.numel())


def test_seq_levels_are_two_thirds_of_the_range():
    levels = quantizer("seq")(WEIGHT).detach()
    for groups, out in zip(groups_of(WEIGHT), groups_of(levels), strict=True):
        outer = (groups.abs().amax(1, keepdim=True) * 2 / 3).half().float()
        expected = torch.where(groups.abs() > outer / 2, outer * groups.sign(), 0.0)
        torch.testing.assert_close(out, expected, atol=0, rtol=0)


weights = st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=12)


@given(values=weights, step=st.floats(0.0625, 1, width=16), mirrored=st.booleans())
@settings(max_examples=60, deadline=None)
def test_fdb_planes_pick_the_nearest_of_four_levels(
    values: list[float], step: float, mirrored: bool
):
    sign = -1.0 if mirrored else 1.0
    high, low = torch.tensor(2 * step * sign), torch.tensor(-step * sign)
    w = torch.tensor(values)
    first, second = dual_planes(w, high, low)
    levels = high * first + low * second
    grid = torch.tensor([0.0, high, low, high + low])
    nearest = (w[:, None] - grid).abs().amin(1)
    torch.testing.assert_close((w - levels).abs(), nearest)


def test_fdb_with_opposite_scales_is_symmetric_ternary():
    first, second = dual_planes(WEIGHT, torch.tensor(0.1).expand(6), torch.tensor(-0.1).expand(6))
    levels = 0.1 * first - 0.1 * second
    codes = nearest_codes(WEIGHT, torch.full((6,), 0.1), torch.zeros(6))
    torch.testing.assert_close(levels, codes * 0.1, atol=0, rtol=0)


@pytest.mark.parametrize("mirror", [True, False])
def test_fdb_search_takes_the_step_of_least_error(mirror: bool):
    chosen = quantizer("fdb", mirror=mirror)
    for place, groups in enumerate(groups_of(WEIGHT)):
        errors = {}
        for sign in (1, -1) if mirror else (1,):
            for twentieths in range(6, 21):
                step = sign * twentieths / 20 * groups.abs().amax(1) / 2
                first, second = dual_planes(groups, 2 * step, -step)
                levels = step[:, None] * (2 * first - second)
                errors[sign * twentieths] = (groups - levels).square().sum(1)
        least = torch.stack(list(errors.values())).amin(0)
        high, low = chosen.scale_high[:, place].detach(), chosen.scale_low[:, place].detach()
        first, second = dual_planes(groups, high, low)
        levels = high[:, None] * first + low[:, None] * second
        torch.testing.assert_close((groups - levels).square().sum(1), least)


# ---------------------------------------------------------------------------------------- bad input


def test_options_are_refused_in_a_sentence():
    with pytest.raises(TernError, match="ste must be one of ttq, identity, clipped, not 'x'"):
        DltConfig(ste="x")
    with pytest.raises(TernError, match="factor must be a number, not 'x'"):
        DltConfig(factor="x")
    with pytest.raises(TernError, match='group_size must be "row" or a positive integer, not 0'):
        DltConfig(group_size=0)
    with pytest.raises(TernError, match=r"method must be one of dlt, .*, not 'dlr'"):
        named_method("dlr")


def test_a_model_is_prepared_once():
    model = random_llama()
    named_method("dlt").prepare(model, DltConfig(group_size=16))
    with pytest.raises(TernError, match="must be a plain linear layer, not one prepared before"):
        named_method("twn").prepare(model, method_config("twn", {}))


def test_a_weight_that_is_not_finite_is_named():
    model = random_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = torch.inf
    with pytest.raises(
        TernError, match=r"layers.1.mlp.up_proj.weight\[2, 3\] must be finite, not inf"
    ):
        named_method("dlt").prepare(model, DltConfig(group_size=16))


def test_a_damaged_prepared_folder_is_refused(tmp_path):
    model, config = random_llama(), DltConfig(group_size=16)
    named_method("dlt").prepare(model, config)
    folder = tmp_path / "p"
    save_prepared(folder, model, byte_tokenizer(), method="dlt", config=config, origin="random")
    path = folder / "quantizers.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        TernError, match=r"quantizers.safetensors must have sha256 .*, as recorded, not"
    ):
        load_prepared(folder)
    path.unlink()
    with pytest.raises(TernError, match=r"must hold quantizers.safetensors, which is missing"):
        load_prepared(folder)
