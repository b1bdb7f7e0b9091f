"""quant.models.capture and quant.capture: the rows are what the layers really saw."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from tokenizers.processors import TemplateProcessing

from quant import capture
from quant.export import main as export
from quant.models.capture import capture_all_inputs, capture_inputs
from quant.models.linears import block_linears
from quant.models.opening import open_model
from quant.models.tiny import byte_tokenizer
from quant.text.excerpt import excerpt
from quant.text.loading import tokenize
from tern_hw import simulate
from tern_hw.cli import run
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


# --------------------------------------------------------------------- many layers


def test_one_pass_gives_what_single_captures_give(llama):
    layers = [*reversed(block_linears(llama))]
    together = capture_all_inputs(llama, byte_tokenizer(), layers, excerpt(), tokens=6)
    assert list(together) == layers
    for layer, inputs in together.items():
        alone = capture_inputs(llama, byte_tokenizer(), layer, excerpt(), tokens=6)
        assert inputs.dtype == np.float32
        assert np.array_equal(inputs, alone)


def test_many_layers_take_one_forward_pass(llama):
    passes = []
    llama.model.embed_tokens.register_forward_pre_hook(lambda module, inputs: passes.append(inputs))
    capture_all_inputs(llama, byte_tokenizer(), [*block_linears(llama)], excerpt(), tokens=3)
    assert len(passes) == 1


def test_token_ids_stand_for_their_text(llama):
    ids = tokenize(excerpt(), byte_tokenizer())
    by_text, by_ids = (
        capture_all_inputs(llama, byte_tokenizer(), LAYERS, text, tokens=4)
        for text in (excerpt(), ids)
    )
    assert all(np.array_equal(by_text[layer], by_ids[layer]) for layer in LAYERS)


def test_idle_layer_is_refused_by_its_name(llama, monkeypatch):
    monkeypatch.setattr(llama.model.layers[1].mlp, "forward", lambda hidden: hidden)
    with pytest.raises(TernError, match=f"not stay idle as {LAYERS[1]} does"):
        capture_all_inputs(llama, byte_tokenizer(), LAYERS, excerpt(), tokens=3)
    assert not any(module._forward_pre_hooks for module in llama.modules())


# -------------------------------------------------------------------- command line


def command(*arguments):
    """Run the verb in this process; returns its status as the shell would see it."""
    try:
        return run(lambda: capture.main([str(argument) for argument in arguments]))
    except SystemExit as stopped:
        return stopped.code


def test_command_writes_every_layer_with_its_origin(llama, llama_folder, tmp_path, capsys):
    output = tmp_path / "x.safetensors"
    assert command(llama_folder, "--tokens", 3, "--output", output, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    layers = [*block_linears(llama)]
    expected = capture_all_inputs(llama, byte_tokenizer(), layers, excerpt(), tokens=3)
    written = load_file(output)
    assert sorted(written) == sorted(layers)
    assert all(np.array_equal(written[layer], expected[layer]) for layer in layers)
    with safe_open(output, framework="np") as file:
        assert file.metadata() == {
            "format": "tern_hw.activations",
            "version": "1",
            "model": "local folder llama",
            "kind": "full precision",
            "text": "chapter 1 of Moby-Dick",
            "tokens": "3",
        }
    assert [facts["layer"] for facts in report["layers"]] == layers
    assert report["layers"][0]["largest_magnitude"] == np.abs(expected[layers[0]]).max()
    assert report["bytes"] == output.stat().st_size


def test_command_takes_a_text_and_some_layers(llama, llama_folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a whale, a whale")
    output = tmp_path / "x.safetensors"
    options = ["--text", tmp_path / "text.txt", "--layers", "*.up_proj", "--tokens", 9]
    assert command(llama_folder, *options, "--output", output) == 0
    written = load_file(output)
    assert sorted(written) == [f"model.layers.{block}.mlp.up_proj" for block in (0, 1)]
    inputs = capture_inputs(llama, byte_tokenizer(), min(written), "a whale, a whale", tokens=9)
    assert np.array_equal(written[min(written)], inputs)
    table = capsys.readouterr().out
    assert "│ mlp.up_proj │     2 │ 9 x 40 │" in table


def test_activations_of_an_artifact_are_its_own_models(llama_folder, tmp_path, capsys):
    folder, output = tmp_path / "model", tmp_path / "x.safetensors"
    assert export([str(llama_folder), "--output", str(folder), "--group-size", "16"]) == 0
    assert command(folder, "--tokens", 2, "--output", output) == 0
    opened = open_model(str(folder))
    plain, ternary = (
        capture_inputs(model, byte_tokenizer(), LAYERS[1], excerpt(), tokens=2)
        for model in (open_model(str(llama_folder)).model, opened.model)
    )
    assert np.array_equal(load_file(output)[LAYERS[1]], ternary)
    assert not np.array_equal(plain, ternary)


def test_every_layer_of_an_artifact_runs_through_the_verilog(llama_folder, tmp_path, capsys):
    folder, output = tmp_path / "model", tmp_path / "x.safetensors"
    assert export([str(llama_folder), "--output", str(folder), "--group-size", "16"]) == 0
    assert command(folder, "--tokens", 2, "--output", output) == 0
    capsys.readouterr()
    array = ["--lanes", "8", "--rows", "2"]
    options = ["--activations", str(output), *array, "--json"]
    assert simulate.main([str(folder), "*", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["layers"]) == report["totals"]["layers"] == 14
    assert report["totals"]["results"] == 2 * 2 * (40 + 20 + 20 + 40 + 72 + 72 + 40)
    assert report["totals"]["mismatches"] == 0
    assert report["totals"]["cycles"] == report["totals"]["expected_cycles"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "{here}/x.pt"], "--output must be a file that ends in .safetensors, not"),
        (["--output", "{here}/a/x.safetensors"], "--output must lie in a folder that exists"),
        (["--output", "{here}/old.safetensors"], "--output must be a new file, or --overwrite"),
        (["--tokens", "0", *(new := ["--output", "{here}/x.safetensors"])], "--tokens must be a"),
        (["--tokens", "65", *new], "tokens must be at most the model's context of 64, not 65"),
        (["--layers", "lm_head", *new], "layers must match the name of a linear layer, not 'lm_"),
        (["--text", "{here}/none", *new], "text must be a file, hf:NAME, or one of brown"),
        ([], "--output must be given"),
    ],
)
def test_a_mistake_takes_one_sentence(llama_folder, tmp_path, capsys, options, message):
    (tmp_path / "old.safetensors").write_text("old")
    before = sorted(tmp_path.iterdir())
    assert command(llama_folder, *(option.format(here=tmp_path) for option in options)) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert captured.out == ""
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.safetensors").read_text() == "old"


def test_overwrite_replaces_a_file(llama_folder, tmp_path):
    output = tmp_path / "x.safetensors"
    output.write_text("old")
    assert command(llama_folder, "--output", output, "--overwrite") == 0
    assert len(load_file(output)) == 14


def test_help_loads_no_torch():
    code = (
        "import contextlib, sys\nfrom quant.capture import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "python -m quant.capture model/" in child.stdout
