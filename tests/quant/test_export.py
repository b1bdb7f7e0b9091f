"""quant.export and quant.exports.convert: a model to an artifact and back, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from quant.exports.artifact import kept_tensors
from quant.exports.convert import convert_layers, export_model
from quant.methods import method_config, named_method, quantized_linears
from quant.models.linears import block_linears
from quant.models.prepared import save_prepared
from quant.models.tiny import byte_tokenizer
from quant.ternary import ternarize
from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tern_hw.reference import matmul
from tests.quant.exports import LAYER, command, prepared_folder, torch_bytes
from tests.quant.models import random_llama

# ---------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("group_size", [16, 128, "row"])
@pytest.mark.parametrize("packing", ["base3", "2bit"])
def test_artifact_holds_the_fitted_codes_of_every_block_linear(
    llama, tmp_path, group_size, packing
):
    output = tmp_path / "artifact"
    export_model(llama, output, origin="random", group_size=group_size, packing=packing)
    artifact = load_artifact(output)
    linears = block_linears(llama)
    assert artifact.layers == tuple(linears)
    for name, linear in linears.items():
        matrix, fit = artifact.layer(name), ternarize(linear.weight, group_size)
        assert (matrix.packing, matrix.group_size) == (packing, group_size)
        assert np.array_equal(matrix.digits(), fit.digits.numpy())
        assert matrix.scale.tobytes() == fit.scale.numpy().tobytes()
        assert matrix.shift.tobytes() == fit.shift.numpy().tobytes()


def test_reloaded_layer_computes_with_the_dequantised_weight(llama, tmp_path):
    export_model(llama, tmp_path / "a", origin="random", group_size=16)
    matrix = load_artifact(tmp_path / "a").layer(LAYER)
    weight = ternarize(llama.get_submodule(LAYER).weight, 16).dequantize().double().numpy()
    x = np.random.default_rng(3).integers(-128, 128, (5, 40), dtype=np.int8)
    # Sums of 40 products of 12-bit levels with int8 are exact in float64.
    assert np.array_equal(matmul(x, matrix), (x.astype(np.float64) @ weight.T).astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_tensors_stay_as_they_were(llama, tmp_path, dtype):
    llama.to(dtype)
    report = export_model(llama, tmp_path / "a", origin="random", group_size=16)
    artifact = load_artifact(tmp_path / "a")
    state = llama.state_dict()
    expected = set(state) - {f"{name}.weight" for name in artifact.layers}
    assert set(artifact.tensors) == set(report.kept) == expected
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= expected
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    for name in artifact.tensors:
        tensor = artifact.tensor(name)
        assert tensor.dtype == names[dtype]
        assert tensor.shape == tuple(state[name].shape)
        assert tensor.data.tobytes() == torch_bytes(state[name])


def test_biases_are_kept(tmp_path):
    model = random_llama(attention_bias=True)
    report = export_model(model, tmp_path / "a", origin="random")
    name = "model.layers.0.self_attn.q_proj.bias"
    assert name in report.kept
    raw = load_artifact(tmp_path / "a").tensor(name)
    assert raw.data.tobytes() == torch_bytes(model.get_parameter(name))


def test_tied_head_is_stored_once_and_stated(tmp_path):
    model = random_llama(tie_word_embeddings=True)
    report = export_model(model, tmp_path / "a", origin="random")
    artifact = load_artifact(tmp_path / "a")
    assert report.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert artifact.info.metadata["tied"] == report.tied
    assert "lm_head.weight" not in artifact.tensors
    assert "model.embed_tokens.weight" in artifact.tensors


def test_export_leaves_the_model_as_it_was(llama, tmp_path):
    before = {name: torch_bytes(tensor) for name, tensor in llama.state_dict().items()}
    export_model(llama, tmp_path / "a", origin="random")
    assert before == {name: torch_bytes(tensor) for name, tensor in llama.state_dict().items()}


def test_two_exports_are_the_same_bytes(llama, tmp_path):
    for name in "ab":
        export_model(llama, tmp_path / name, origin="random")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_config_is_the_models_own_with_the_making_beside_it(llama, tmp_path):
    export_model(llama, tmp_path / "a", origin="random weights", packing="2bit")
    info = load_artifact(tmp_path / "a").info
    assert info.model_config["model_type"] == "llama"
    assert info.model_config["hidden_size"] == 40
    assert info.model_config["architectures"] == ["LlamaForCausalLM"]
    assert info.metadata["origin"] == "random weights"
    assert info.metadata["method"] == "als"
    assert info.metadata["options"]["group_size"] == 128
    assert info.metadata["versions"]["torch"] == torch.__version__


def test_only_the_layers_asked_for_are_ternary(llama, tmp_path):
    report = export_model(llama, tmp_path / "a", origin="r", layers=["*.1.mlp.*", "*.0.*.q_proj"])
    artifact = load_artifact(tmp_path / "a")
    assert set(artifact.layers) == {
        "model.layers.0.self_attn.q_proj",
        *(f"model.layers.1.mlp.{part}_proj" for part in ("gate", "up", "down")),
    }
    assert "model.layers.0.mlp.up_proj.weight" in artifact.tensors
    assert [layer.name for layer in report.layers] == list(artifact.layers)


def test_report_states_what_the_artifact_holds(llama, tmp_path):
    report = export_model(llama, tmp_path / "a", origin="random", group_size=16, packing="2bit")
    artifact = load_artifact(tmp_path / "a")
    for layer in report.layers:
        matrix, weight = artifact.layer(layer.name), llama.get_submodule(layer.name).weight.detach()
        stored = sum(array.nbytes for array in (matrix.packed, matrix.scale, matrix.shift))
        difference = weight - ternarize(weight, 16).dequantize()
        assert layer.shape == tuple(weight.shape)
        assert layer.bits_per_weight == pytest.approx(8 * stored / weight.numel())
        assert layer.zeros == pytest.approx((matrix.digits() == 1).mean())
        assert layer.error == pytest.approx(
            (difference.square().sum() / weight.square().sum()).item()
        )


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("form", ["artifact", "gguf"])
@pytest.mark.parametrize("prepared", [False, True])
def test_method_that_is_not_ternary_is_refused(llama_folder, tmp_path, capsys, form, prepared):
    output = tmp_path / "a.gguf"
    model = [prepared_folder(tmp_path / "p", "fdb")] if prepared else [llama_folder]
    options = [] if prepared else ["--method", "fdb"]
    assert command(*model, "--output", output, "--format", form, *options) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: format must be merged, the only one for method fdb, whose weights are not ternary, "
        f"not {form}"
    )
    assert not output.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--method", "twn"),
        ("--set", "factor=0.7"),
        ("--group-size", "8"),
        ("--layers", "*"),
        ("--text", "brown"),
    ],
)
def test_prepared_model_takes_no_option_of_a_method(tmp_path, capsys, option, value):
    folder = prepared_folder(tmp_path / "p")
    assert command(folder, "--output", tmp_path / "a", option, value) == 2
    expected = f"{option} must be left out for a prepared model, which was quantised by dlt"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["quantizers.safetensors", "model.safetensors"])
def test_damaged_prepared_folder_is_refused(tmp_path, capsys, name):
    folder = prepared_folder(tmp_path / "p")
    raw = bytearray((folder / name).read_bytes())
    raw[-1] ^= 1
    (folder / name).write_bytes(raw)
    assert command(folder, "--output", tmp_path / "a") == 2
    assert f"{name} must have sha256" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_scale_that_diverged_is_refused_by_its_layer(tmp_path, capsys):
    model = random_llama()
    named_method("dlt").prepare(model, method_config("dlt", {"group_size": 16}))
    name, _, quantizer = next(quantized_linears(model))
    with torch.no_grad():
        quantizer.scale[2, 1] = 1e6  # beyond binary16
    config = method_config("dlt", {"group_size": 16})
    save_prepared(
        tmp_path / "p", model, byte_tokenizer(), method="dlt", config=config, origin="random"
    )
    assert command(tmp_path / "p", "--output", tmp_path / "a") == 2
    assert f"{name}.scale" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("form", ["merged", "gguf"])
def test_output_in_a_prepared_models_folder_is_refused_in_every_format(tmp_path, capsys, form):
    folder = prepared_folder(tmp_path / "p")
    output = folder / "inside.gguf"
    assert command(folder, "--output", output, "--format", form) == 2
    assert "--output must lie apart from the model at" in capsys.readouterr().err
    assert not output.exists()


def test_weights_shared_by_two_linears_are_refused(llama, tmp_path):
    llama.model.layers[1].mlp.up_proj.weight = llama.model.layers[0].mlp.up_proj.weight
    message = r"0\.mlp\.up_proj\.weight must be a tensor of its own, not .*1\.mlp\.up_proj\.weight"
    with pytest.raises(TernError, match=message):
        export_model(llama, tmp_path / "a", origin="random")
    assert not (tmp_path / "a").exists()


def test_linear_tied_to_an_embedding_is_refused(llama):
    model = nn.ModuleDict({"embed": nn.Embedding(6, 4), "layers": nn.ModuleList([nn.Linear(4, 6)])})
    model["layers"][0].weight = model["embed"].weight
    with pytest.raises(TernError, match=r"layers\.0\.weight must be .* shared with embed\.weight"):
        convert_layers(model, block_linears(model), group_size=4, packing="2bit")


def test_shared_weight_that_stays_is_no_obstacle(llama, tmp_path):
    llama.model.layers[1].mlp.up_proj.weight = llama.model.layers[0].mlp.up_proj.weight
    export_model(llama, tmp_path / "a", origin="random", layers=["*q_proj"])
    kept, tied = kept_tensors(llama, {})
    assert tied == {"model.layers.1.mlp.up_proj.weight": "model.layers.0.mlp.up_proj.weight"}
    assert "model.layers.0.mlp.up_proj.weight" in kept


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_non_finite_weight_is_refused_by_name_and_index(llama, tmp_path, value):
    with torch.no_grad():
        llama.get_submodule(LAYER).weight[3, 5] = float(value)
    with pytest.raises(TernError, match=rf"gate_proj\.weight\[3, 5\] must be finite, not {value}"):
        export_model(llama, tmp_path / "a", origin="random")
    assert list(tmp_path.iterdir()) == []


def test_weight_too_large_for_fp16_scales_is_refused_by_name(llama, tmp_path):
    with torch.no_grad():
        llama.get_submodule(LAYER).weight[3] *= 1e9
    with pytest.raises(TernError, match=rf"scale of {LAYER}\.weight \(row 3, group 0\) must be at"):
        export_model(llama, tmp_path / "a", origin="random")
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused_and_left_alone(llama, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(TernError, match="output must be a new path"):
            export_model(llama, tmp_path / "a", origin="random", overwrite=overwrite)
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_interrupted_export_leaves_nothing(llama, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tern_hw.artifact.store.write_tensors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(llama, tmp_path / "a", origin="random")
    assert list(tmp_path.iterdir()) == []
