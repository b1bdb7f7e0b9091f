"""Post-training methods on whole models: prepared, saved, loaded, converted."""

import functools

import pytest
import torch

from quant.methods import (
    METHODS,
    convert,
    method_config,
    named_method,
    omniquant,
    quantized_linears,
)
from quant.methods.calibration import walk_blocks
from quant.methods.omniquant import ClippedQuantizer
from quant.models.linears import block_linears
from quant.models.prepared import load_prepared, save_prepared
from quant.models.tiny import byte_tokenizer
from tern_hw.errors import TernError
from tests.quant.models import random_llama

#: Every post-training method with each of its grids: options that differ from the defaults.
CASES = {
    "rtn": {"grid": "ternary"},
    "rtn-2bit": {"grid": "2bit"},
    "als": {},
    "gptq": {"grid": "ternary"},
    "gptq-2bit": {"grid": "2bit"},
    "awq": {"grid": "2bit", "steps": 3},
    "awq-range": {"grid": "ternary", "fit": "range", "steps": 3},
    "omniquant": {"grid": "2bit", "epochs": 1},
    "omniquant-ternary": {"grid": "ternary", "epochs": 1},
    "pb_llm": {"salient": 0.2},
    "pt2_llm": {},
    "aware": {"rounds": 2},
}
WINDOWS = torch.randint(257, (3, 20), generator=torch.Generator().manual_seed(5))


def prepared(case, model=None, **options):
    """A model prepared by a case's method, the method's name and its options."""
    model = model or random_llama()
    name = case.partition("-")[0]
    config = method_config(name, {"group_size": 16, **CASES[case], **options})
    named_method(name).prepare(model, config, calibration=WINDOWS)
    return model, name, config


@functools.cache
def shared(case):
    """A prepared model that no test changes."""
    return prepared(case)


def logits(model):
    with torch.no_grad():
        return model(input_ids=WINDOWS, use_cache=False).logits


def test_every_post_training_method_has_a_case():
    names = {case.partition("-")[0] for case in CASES}
    assert names == {"rtn", "als", *(name for name, method in METHODS.items() if method.calibrated)}
    assert not any(METHODS[name].trainable for name in names)


@pytest.mark.parametrize("case", CASES)
def test_a_prepared_model_is_saved_and_loaded_to_the_bit(case, tmp_path):
    model, name, config = shared(case)
    wanted = logits(model)
    save_prepared(
        tmp_path / "m", model, byte_tokenizer(), method=name, config=config, origin="random"
    )
    loaded = load_prepared(tmp_path / "m")
    assert torch.equal(logits(loaded.model), wanted)
    assert loaded.config == config
    bits = [quantizer.bits_per_weight(m.weight) for _, m, quantizer in quantized_linears(model)]
    again = [q.bits_per_weight(m.weight) for _, m, q in quantized_linears(loaded.model)]
    assert bits == again


@pytest.mark.parametrize("case", ["als", "gptq-2bit", "awq", "omniquant", "pb_llm"])
def test_converted_models_are_plain_and_compute_the_same(case):
    plain = random_llama()
    before = logits(plain)
    model, *_ = prepared(case)
    wanted = logits(model)
    assert not torch.equal(wanted, before)
    assert torch.equal(logits(plain), before)
    convert(model)
    assert torch.equal(logits(model), wanted)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert {type(m) for m in model.modules()} == {type(m) for m in plain.modules()}
    assert not list(quantized_linears(model))


@pytest.mark.parametrize("case", CASES)
def test_ternary_layers_dequantise_to_what_they_compute_with(case):
    model, *_ = shared(case)
    for name, linear, quantizer in quantized_linears(model):
        if quantizer.ternary:
            assert torch.equal(quantizer.fit(linear.weight).dequantize(), linear.weight), name
        else:
            with pytest.raises(TernError, match="must be ternary"):
                quantizer.fit(linear.weight)


@pytest.mark.parametrize("case", ["gptq", "omniquant", "awq"])
def test_only_the_chosen_layers_are_quantised_and_counted(case):
    model, counts = random_llama(), []

    class Counting:
        def __init__(self, description, total):
            assert total == 3

        def __enter__(self):
            return counts.append

        def __exit__(self, *_):
            pass

    name = case.partition("-")[0]
    globs = ("*.0.mlp.up_proj", "*.1.self_attn.[qk]_proj")
    config = method_config(name, {"group_size": 16, **CASES[case], "layers": globs})
    named_method(name).prepare(model, config, calibration=WINDOWS, progress=Counting)
    found = [name for name, *_ in quantized_linears(model)]
    assert found == [
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
    ]
    assert sum(counts) == 3


@pytest.mark.parametrize("case", ["gptq", "omniquant"])
def test_calibrating_leaves_the_models_weights_and_gradients_alone(case):
    plain, (model, *_) = random_llama(), prepared(case)
    originals = {
        n.replace("parametrizations.weight.original", "weight"): p
        for n, p in model.named_parameters()
    }
    assert originals.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        assert torch.equal(originals[name], parameter), name
        assert originals[name].grad is None
        assert originals[name].requires_grad


def test_a_failure_leaves_the_model_as_it_was():
    model = random_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e8)
    before = logits(model)
    with pytest.raises(TernError, match=r"layers\.1\.mlp\.down_proj .*must be at most 65504"):
        prepared("gptq", model)
    assert not list(quantized_linears(model))
    assert torch.equal(logits(model), before)


def test_bad_weights_and_missing_text_are_refused():
    model = random_llama()
    config = method_config("gptq", {})
    with pytest.raises(TernError, match=r"calibration must be token ids .* for gptq, not missing"):
        named_method("gptq").prepare(model, config)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    with pytest.raises(TernError, match=r"up_proj\.weight\[3, 4\] must be finite, not nan"):
        named_method("gptq").prepare(model, config, calibration=WINDOWS)


def test_two_methods_at_once_are_refused():
    model, *_ = prepared("als")
    with pytest.raises(TernError, match="must be a plain linear layer, not one prepared before"):
        prepared("gptq", model)


def test_bfloat16_models_are_quantised_in_their_own_type():
    model, *_ = prepared("aware", random_llama().bfloat16())
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert logits(model).isfinite().all()


# ---------------------------------------------------------------------------------------- OmniQuant


#: The first block alone.
FIRST = {"layers": ("*.0.*",)}


def block_errors(model, plain):
    """Mean squared error of the first block's output."""
    blocks = [
        next(walk_blocks(each, linears, WINDOWS))
        for each, linears in ((model, prepared_linears(model)), (plain, block_linears(plain)))
    ]
    return (blocks[0].outputs() - blocks[1].outputs()).square().mean().item()


def prepared_linears(model):
    return {name: linear for name, linear, _ in quantized_linears(model)}


@pytest.mark.parametrize("grid", ["2bit", "ternary"])
def test_learned_clipping_lowers_the_blocks_error(grid):
    plain = random_llama()
    errors = {
        epochs: block_errors(
            prepared("omniquant", grid=grid, epochs=epochs, learning_rate=0.1, **FIRST)[0], plain
        )
        for epochs in (0, 8)
    }
    rtn, *_ = prepared("rtn", grid=grid, **FIRST)
    print(errors, block_errors(rtn, plain))
    assert errors[8] < 0.95 * errors[0]
    assert errors[8] < block_errors(rtn, plain)


@pytest.mark.parametrize("value", [-8.0, float("nan")])
def test_learning_that_makes_a_block_worse_is_taken_back(value, monkeypatch):
    def throw(block, wanted, learners, config, before):
        for learner in learners.values():
            learner.high.data.fill_(value)

    start = logits(prepared("omniquant", epochs=0)[0])
    monkeypatch.setattr(omniquant, "_descend", throw)
    thrown = logits(prepared("omniquant", epochs=1)[0])
    assert torch.equal(thrown, start)


@pytest.mark.parametrize("grid", ["2bit", "ternary"])
def test_clipping_strengths_get_the_gradient_of_their_levels(grid):
    config = method_config("omniquant", {"grid": grid, "group_size": "row"})
    weight = torch.randn(3, 24, generator=torch.Generator().manual_seed(8))
    quantizer = ClippedQuantizer(weight, config)
    outer = torch.randn(3, 24, generator=torch.Generator().manual_seed(9))
    (quantizer(weight) * outer).sum().backward()
    # By hand: D = low + scale * round(p) with p = (w - low) / scale, straight through the rounding,
    # so that a weight inside has dD/dscale = code - p and dD/dlow = 0, one outside code and 1.
    last = 3 if grid == "2bit" else 2
    sigmoid = torch.tensor(4.0).sigmoid()
    with torch.no_grad():
        scale, low = (each[:, :1] for each in quantizer.levels())
        position = (weight - low) / scale
        code = position.clamp(0, last).round()
        outside = (position < 0) | (position > last)
        to_scale = (outer * torch.where(outside, code, code - position)).sum(1, keepdim=True)
        to_low = (outer * outside).sum(1, keepdim=True)
        slope = sigmoid * (1 - sigmoid)
        low_gradient = (to_low - to_scale / last) * slope * quantizer.lowest
        high_gradient = to_scale / last * slope * quantizer.highest
    assert torch.allclose(quantizer.low.grad, low_gradient, rtol=1e-3, atol=1e-5)
    assert torch.allclose(quantizer.high.grad, high_gradient, rtol=1e-3, atol=1e-5)


def test_omniquant_learns_towards_the_unquantised_models_own_outputs(monkeypatch):
    wanted, learn = [], omniquant._learn

    def spy(block, target, config):
        wanted.append(target.clone())
        learn(block, target, config)

    monkeypatch.setattr(omniquant, "_learn", spy)
    prepared("omniquant", epochs=0)
    plain = random_llama()
    outputs = [block.outputs() for block in walk_blocks(plain, block_linears(plain), WINDOWS)]
    assert len(wanted) == 2
    assert all(torch.equal(*pair) for pair in zip(wanted, outputs, strict=True))
