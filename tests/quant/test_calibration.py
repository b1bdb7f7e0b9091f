"""quant.methods.calibration: a walk over the blocks shows what the model itself computes there."""

import pytest
import torch

from quant.methods import method_config, named_method, quantized_linears
from quant.methods.calibration import check_windows, walk_blocks
from quant.models.linears import block_linears
from tern_hw.errors import TernError
from tests.quant.families import FAMILIES, family_model
from tests.quant.models import random_llama


def random_windows(windows=3, tokens=12, vocabulary=32):
    return torch.randint(vocabulary, (windows, tokens), generator=torch.Generator().manual_seed(1))


def recorded_inputs(model, linears, windows):
    """What enters each layer when the model itself runs, all windows together."""
    inputs = {}
    handles = [
        linear.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
        for name, linear in linears.items()
    ]
    with torch.no_grad():
        model(input_ids=windows, use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: x.reshape(-1, x.shape[-1]).double() for name, x in inputs.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_are_those_of_the_models_own_inputs(family):
    model, windows = family_model(family), random_windows()
    linears = block_linears(model)
    found = {}
    for block in walk_blocks(model, linears, windows):
        found.update(block.statistics())
    inputs = recorded_inputs(model, linears, windows)
    assert found.keys() == inputs.keys() == linears.keys()
    for name, x in inputs.items():
        assert found[name].tokens == len(x) == 36
        assert torch.allclose(found[name].gram, x.T @ x / 36, rtol=1e-4, atol=1e-5), name
        assert torch.allclose(found[name].magnitude, x.abs().mean(0), rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_sees_what_the_changed_blocks_before_it_make(family):
    model, windows = family_model(family), random_windows()
    linears = block_linears(model)
    found = {}
    for block in walk_blocks(model, linears, windows):
        found.update(block.statistics())
        with torch.no_grad():
            for linear in block.linears.values():
                linear.weight.mul_(0.5)
    # The model's weights are now all halved; only the first block was seen before any was.
    inputs = recorded_inputs(model, linears, windows)
    blocks = sorted({name for name, _ in model.named_modules() if name.endswith((".1", ".2"))})
    entries = [next(n for n in linears if n.startswith(f"{block}.")) for block in blocks]
    assert len(entries) == (1 if family == "llama" else 2)
    for name in entries:
        x = inputs[name]
        assert torch.allclose(found[name].gram, x.T @ x / 36, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_quantised_and_still_runs(family):
    model, windows = family_model(family), random_windows()
    plain = model(input_ids=windows, use_cache=False).logits
    method, config = named_method("pt2_llm"), method_config("pt2_llm", {"group_size": 8})
    method.prepare(model, config, calibration=windows)
    names = [name for name, *_ in quantized_linears(model)]
    assert names == list(block_linears(model))
    logits = model(input_ids=windows, use_cache=False).logits
    assert logits.isfinite().all()
    assert not torch.equal(logits, plain)


def test_a_walk_ends_behind_the_last_block_with_a_layer():
    model = family_model("mistral")
    linears = {n: m for n, m in block_linears(model).items() if ".layers.1.mlp" in n}
    names = [block.name for block in walk_blocks(model, linears, random_windows())]
    assert names == ["model.layers.0", "model.layers.1"]


def test_a_walk_leaves_mode_and_hooks_as_they_were():
    model = family_model("opt").train()
    for _ in walk_blocks(model, block_linears(model), random_windows()):
        assert not model.training
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_layers_that_read_the_same_tensor_share_their_statistics():
    model = family_model("llama")
    block = next(walk_blocks(model, block_linears(model), random_windows()))
    statistics = {name.rpartition(".")[2]: each for name, each in block.statistics().items()}
    assert statistics["q_proj"].magnitude.equal(statistics["v_proj"].magnitude)
    assert statistics["gate_proj"].gram.equal(statistics["up_proj"].gram)
    assert not statistics["o_proj"].gram.equal(statistics["q_proj"].gram)


@pytest.mark.parametrize(
    ("windows", "sentence"),
    [
        (None, r"calibration must be token ids \[windows, tokens\] for gptq, not missing"),
        (torch.zeros(40, dtype=torch.int64), r"must be token ids, .* not int64 \[40\]"),
        (torch.zeros(4, 10), r"must be token ids, .* not float32 \[4, 10\]"),
        ([[1, 2]], r"must be token ids, .* not list"),
        (torch.zeros(1, 31, dtype=torch.int64), "must have at least 32 tokens, not 31"),
        (torch.zeros(0, 64, dtype=torch.int64), "must have at least 32 tokens, not 0"),
        (torch.zeros(1, 65, dtype=torch.int64), "at most the model's context of 64 tokens, not 65"),
        (torch.full((2, 32), 257), "must hold ids from 0 to 256, as the model has, not 257"),
        (torch.full((2, 32), -1), "must hold ids from 0 to 256, as the model has, not -1"),
    ],
)
def test_calibration_is_refused(windows, sentence):
    with pytest.raises(TernError, match=sentence):
        check_windows(random_llama(), windows, "gptq")


def test_inputs_that_overflow_are_refused_by_layer_and_channel():
    model = random_llama()
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[5] = torch.inf
    blocks = walk_blocks(model, block_linears(model), random_windows())
    with pytest.raises(
        TernError, match=r"inputs of model\.layers\.0\.self_attn\.q_proj must be finite .*channel 5"
    ):
        next(blocks).statistics()


def test_an_idle_layer_is_refused():
    model = random_llama()
    model.model.layers[0].spare = torch.nn.Linear(40, 8)
    blocks = walk_blocks(model, block_linears(model), random_windows())
    with pytest.raises(
        TernError, match=r"must take part .*not stay idle as model\.layers\.0\.spare"
    ):
        next(blocks).statistics()


def test_layers_of_two_stacks_are_refused():
    model = random_llama()
    model.other = torch.nn.ModuleList([torch.nn.Linear(4, 4)])
    with pytest.raises(TernError, match="layers must lie in one stack of blocks"):
        next(walk_blocks(model, block_linears(model), random_windows()))


def test_arguments_that_depend_on_the_text_are_refused():
    model = random_llama()
    layer, forward = model.model, model.model.forward

    def with_text(input_ids=None, **named):
        return forward(input_ids=input_ids, text=input_ids, **named)

    layer.forward = with_text
    with pytest.raises(TernError, match="same arguments for every window, not ones that depend"):
        next(walk_blocks(model, block_linears(model), random_windows()))
