"""quant.models.capture: the rows are what the layer really saw."""

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from quant.models.capture import capture_inputs
from quant.models.tiny import byte_tokenizer
from quant.text.excerpt import excerpt
from tern_hw.errors import TernError

LAYERS = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]


@pytest.mark.parametrize("layer", LAYERS)
def test_captured_rows_are_the_layers_inputs_in_a_full_forward_pass(llama, layer):
    seen = []
    module = llama.get_submodule(layer)
    hook = module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    ids = byte_tokenizer()(excerpt(), return_tensors="pt").input_ids[:, :32]
    with torch.no_grad():
        llama(ids)
    hook.remove()

    captured = capture_inputs(llama, byte_tokenizer(), layer, excerpt(), tokens=32)
    assert captured.dtype == np.float32
    assert captured.shape == (32, module.in_features)
    assert np.array_equal(captured, seen[0][0].numpy())
    assert np.ptp(captured) > 0


def test_capture_of_a_bfloat16_model_is_its_values_in_float32(llama):
    captured = capture_inputs(llama.bfloat16(), byte_tokenizer(), LAYERS[1], excerpt(), tokens=5)
    assert captured.dtype == np.float32
    rounded = torch.from_numpy(captured).bfloat16().float().numpy()
    assert np.array_equal(rounded, captured)


def test_capture_leaves_the_model_as_it_was(llama):
    before = {name: len(module._forward_pre_hooks) for name, module in llama.named_modules()}
    capture_inputs(llama, byte_tokenizer(), LAYERS[0], excerpt(), tokens=3)
    after = {name: len(module._forward_pre_hooks) for name, module in llama.named_modules()}
    assert before == after
    ids = torch.arange(8)[None]
    assert llama(ids).logits.shape == (1, 8, 257)


def test_nothing_runs_beyond_the_layer(llama, monkeypatch):
    monkeypatch.setattr(llama.model.layers[0].mlp.up_proj, "forward", None)
    assert capture_inputs(llama, byte_tokenizer(), LAYERS[0], excerpt(), tokens=3).any()


def test_special_tokens_are_left_out(llama):
    tokenizer = byte_tokenizer()
    plain = capture_inputs(llama, tokenizer, LAYERS[0], excerpt(), tokens=3)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="! $A", special_tokens=[("!", 0)]
    )
    assert tokenizer("sea").input_ids[0] == 0
    assert np.array_equal(capture_inputs(llama, tokenizer, LAYERS[0], excerpt(), tokens=3), plain)


def test_hook_goes_even_when_the_forward_pass_fails(llama, monkeypatch):
    monkeypatch.setattr(llama.model, "embed_tokens", None)
    monkeypatch.setattr(llama, "get_input_embeddings", lambda: torch.nn.Embedding(257, 1))
    with pytest.raises(TypeError):
        capture_inputs(llama, byte_tokenizer(), LAYERS[0], excerpt(), tokens=3)
    assert not llama.get_submodule(LAYERS[0])._forward_pre_hooks


def test_unknown_layer_is_refused(llama):
    with pytest.raises(TernError, match="layer must be a linear layer of a block, not 'lm_head'"):
        capture_inputs(llama, byte_tokenizer(), "lm_head", excerpt(), tokens=3)


def test_short_text_is_refused(llama):
    with pytest.raises(TernError, match="text must have at least 10 tokens, not 3"):
        capture_inputs(llama, byte_tokenizer(), LAYERS[0], "sea", tokens=10)


def test_window_beyond_the_context_is_refused(llama):
    with pytest.raises(TernError, match="at most the model's context of 64, not 65"):
        capture_inputs(llama, byte_tokenizer(), LAYERS[0], excerpt(), tokens=65)


@pytest.mark.parametrize("tokens", [0, -3, True, 2.0])
def test_tokens_must_be_a_positive_integer(llama, tokens):
    with pytest.raises(TernError, match="tokens must be a positive integer, not"):
        capture_inputs(llama, byte_tokenizer(), LAYERS[0], excerpt(), tokens=tokens)


def test_tokenizer_of_another_model_is_refused(llama):
    llama.resize_token_embeddings(20)
    with pytest.raises(TernError, match="tokenizer must give ids below 20, as the model has, not"):
        capture_inputs(llama, byte_tokenizer(), LAYERS[0], excerpt(), tokens=3)


def test_excerpt_is_the_text_its_source_note_states():
    text = excerpt()
    assert text.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")
    assert text.rstrip().endswith("like a snow hill in the air.")
    assert len(text.encode()) == 12262
