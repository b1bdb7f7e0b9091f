"""Exports of prepared models: their own trits, their making, their tokenizer."""

import json

import numpy as np
import pytest
import torch

from quant.exports.convert import export_model
from quant.methods import METHODS, convert, method_config, named_method, quantized_linears
from quant.methods.base import latent_weight
from quant.models.checkpoints import load_folder, load_tokenizer
from quant.models.prepared import load_prepared
from quant.models.tiny import byte_tokenizer
from tern_hw.artifact import load_artifact
from tests.quant.exports import LAYER, command, prepared_folder, torch_bytes
from tests.quant.models import random_llama


@pytest.mark.parametrize("method", ["dlt", "twn", "seq", "absmean"])
def test_artifact_of_a_prepared_model_holds_its_quantisers_trits(tmp_path, method):
    folder = prepared_folder(tmp_path / "p", method)
    assert command(folder, "--output", tmp_path / "a", "--packing", "2bit") == 0
    artifact, prepared = load_artifact(tmp_path / "a"), load_prepared(folder)
    layers = list(quantized_linears(prepared.model))
    assert artifact.layers == tuple(name for name, _, _ in layers)
    for name, linear, quantizer in layers:
        matrix, fit = artifact.layer(name), quantizer.fit(latent_weight(linear))
        assert (matrix.group_size, matrix.packing) == (16, "2bit")
        assert np.array_equal(matrix.digits(), fit.digits.numpy())
        assert matrix.scale.tobytes() == fit.scale.numpy().tobytes()
        assert matrix.shift.tobytes() == fit.shift.numpy().tobytes()
        # And those are what the model computes with.
        assert torch.equal(fit.dequantize(), linear.weight)


def test_other_tensors_of_a_prepared_model_are_its_own(tmp_path):
    folder = prepared_folder(tmp_path / "p", model=random_llama(attention_bias=True))
    assert command(folder, "--output", tmp_path / "a") == 0
    artifact, state = load_artifact(tmp_path / "a"), load_folder(folder).state_dict()
    assert set(artifact.tensors) == set(state) - {f"{name}.weight" for name in artifact.layers}
    assert "model.layers.0.self_attn.q_proj.bias" in artifact.tensors
    for name in artifact.tensors:
        assert artifact.tensor(name).data.tobytes() == torch_bytes(state[name])


def test_metadata_names_method_options_origin_and_training(tmp_path, capsys):
    training = {"steps": 7, "data": "brown"}
    folder = prepared_folder(tmp_path / "p", training=training, ste="identity")
    assert command(folder, "--output", tmp_path / "a", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    metadata = load_artifact(tmp_path / "a").info.metadata
    for told in (metadata, report):
        assert told["method"] == "dlt"
        assert told["options"]["ste"] == "identity"
        assert told["origin"] == "random weights"
        assert told["training"] == training
    assert (
        report["error_against"] == "the latent weights that training left, not the original model's"
    )
    assert report["method_bits_per_weight"] == pytest.approx(report["ternary"]["bits_per_weight"])


def test_error_of_a_prepared_model_is_against_its_latent_weights(tmp_path, capsys):
    folder = prepared_folder(tmp_path / "p")
    assert command(folder, "--output", tmp_path / "a", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["error_against"] == "the model's own weights"
    layers = {layer["name"]: layer for layer in report["layers"]}
    for name, linear, _ in quantized_linears(load_prepared(folder).model):
        latent = latent_weight(linear)
        error = (latent - linear.weight).square().sum() / latent.square().sum()
        assert layers[name]["error"] == pytest.approx(error.item(), rel=1e-5)


def test_artifact_brings_its_tokenizer_along(llama_folder, tmp_path):
    assert command(llama_folder, "--output", tmp_path / "a") == 0
    artifact = load_artifact(tmp_path / "a")
    assert "tokenizer.json" in artifact.files
    assert load_tokenizer(artifact.path)("then").input_ids == byte_tokenizer()("then").input_ids


def test_model_without_a_tokenizer_is_exported_and_says_so(llama, tmp_path, capsys):
    llama.save_pretrained(tmp_path / "model")
    assert command(tmp_path / "model", "--output", tmp_path / "a") == 0
    assert load_artifact(tmp_path / "a").files == ()
    assert "No tokenizer was written: " in capsys.readouterr().out


def test_default_method_is_the_fit_that_export_model_makes(llama, llama_folder, tmp_path):
    export_model(llama, tmp_path / "a", origin="random", group_size=16)
    assert command(llama_folder, "--output", tmp_path / "b", "--group-size", "16") == 0
    one, other = load_artifact(tmp_path / "a"), load_artifact(tmp_path / "b")
    assert one.layers == other.layers
    for name in one.layers:
        for part in ("packed", "scale", "shift"):
            first, second = (getattr(each.layer(name), part) for each in (one, other))
            assert first.tobytes() == second.tobytes()
    assert other.info.metadata["method"] == "als"


def test_plain_model_is_quantised_by_the_method_asked_for(llama, llama_folder, tmp_path):
    method = ("--method", "twn", "--set", "factor=0.75", "--set", "group_size=row")
    assert command(llama_folder, "--output", tmp_path / "a", *method) == 0
    artifact = load_artifact(tmp_path / "a")
    config = method_config("twn", {"factor": 0.75, "group_size": "row"})
    named_method("twn").prepare(llama, config)
    for name, linear, quantizer in quantized_linears(llama):
        fit = quantizer.fit(latent_weight(linear))
        assert np.array_equal(artifact.layer(name).digits(), fit.digits.numpy())
    assert artifact.info.metadata["options"] == config.to_json() | {"layers": ["*"]}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_model_is_fitted_in_float32_and_kept_as_it_is(llama, tmp_path, dtype):
    llama.to(dtype).save_pretrained(tmp_path / "model")
    arguments = ("--output", tmp_path / "a", "--method", "twn", "--group-size", "16")
    assert command(tmp_path / "model", *arguments) == 0
    artifact = load_artifact(tmp_path / "a")
    weight = llama.get_submodule(LAYER).weight.detach().float()
    fit = (
        METHODS["twn"].quantizer(weight, method_config("twn", {"group_size": 16}), "w").fit(weight)
    )
    assert np.array_equal(artifact.layer(LAYER).digits(), fit.digits.numpy())
    assert (
        artifact.tensor("model.norm.weight").dtype == {"bf": "BF16", "fl": "F16"}[str(dtype)[6:8]]
    )


def test_merged_and_gguf_are_formats_of_the_command(tmp_path, capsys):
    folder = prepared_folder(tmp_path / "p", training={"steps": 7})
    arguments = ("--output", tmp_path / "m", "--format", "merged", "--dtype", "bf16", "--json")
    assert command(folder, *arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["merged"]) == ("merged", str(tmp_path / "m"))
    files = [path.stat().st_size for path in (tmp_path / "m").iterdir()]
    assert report["merged_bytes"] == sum(files)
    assert report["ternary"]["bits_per_weight"] == 16
    parameters = sum(parameter.numel() for parameter in random_llama().parameters())
    assert report["bits_per_parameter"] == pytest.approx(8 * sum(files) / parameters)
    assert report["notes"][0].startswith("bf16 rounds ")
    prepared = load_prepared(folder).model
    convert(prepared)
    state = load_folder(tmp_path / "m").state_dict()
    assert all(torch.equal(state[n], t.bfloat16()) for n, t in prepared.state_dict().items())
    assert load_tokenizer(tmp_path / "m")("then").input_ids == [83, 71, 68, 77]
    # K = 40 has no GGUF form.
    arguments = ("--output", tmp_path / "m.gguf", "--format", "gguf")
    assert command(prepared_folder(tmp_path / "q", "twn"), *arguments) == 2
    error = capsys.readouterr().err
    assert "tokenizer must be a byte-level BPE with merges" in error
    assert not (tmp_path / "m.gguf").exists()


def test_merged_form_of_a_plain_model_needs_no_training(llama_folder, tmp_path, capsys):
    arguments = ("--output", tmp_path / "m", "--format", "merged", "--method", "fdb")
    assert command(llama_folder, *arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "quantised by fdb" in out
    assert "fp32 holds every quantised weight exactly." in out
    assert "Error is |W - D|^2 / |W|^2 against the model's own weights." in out
