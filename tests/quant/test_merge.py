"""quant.exports.merge: a prepared model becomes a plain folder that transformers loads."""

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from quant.exports.merge import export_merged
from quant.methods import quantized_linears
from quant.methods.base import latent_weight
from quant.models.tiny import byte_tokenizer
from tern_hw.errors import TernError
from tests.quant.exports import prepared
from tests.quant.models import random_llama

TOKENS = torch.arange(24).reshape(2, 12) * 7 % 257


def plain_load(folder):
    """Load as anyone would who has never heard of us."""
    return AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)


@pytest.mark.parametrize("method", ["dlt", "twn", "seq", "fdb"])
def test_logits_are_the_fake_quantised_models_to_the_bit(tmp_path, method):
    model = prepared(method)
    with torch.no_grad():
        expected = model.model(TOKENS).logits
    export_merged(model, tmp_path / "m")
    loaded, _ = plain_load(tmp_path / "m")
    with torch.no_grad():
        found = loaded(TOKENS).logits
    assert found.dtype == torch.float32
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


def test_no_tensor_is_missing_none_is_ours(tmp_path):
    names = set(random_llama().state_dict())
    export_merged(prepared(), tmp_path / "m")
    loaded, info = plain_load(tmp_path / "m")
    assert not any(info.values()), info
    assert set(loaded.state_dict()) == names
    with safe_open(tmp_path / "m" / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == names
    assert json.loads((tmp_path / "m" / "config.json").read_text())["architectures"] == [
        "LlamaForCausalLM"
    ]


def test_tied_head_stays_tied_and_is_stored_once(tmp_path):
    report = export_merged(prepared(model=random_llama(tie_word_embeddings=True)), tmp_path / "m")
    assert report.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    with safe_open(tmp_path / "m" / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in set(file.keys())
    loaded, info = plain_load(tmp_path / "m")
    assert not any(info.values()), info
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize(
    ("method", "options", "dtype", "exact"),
    [
        ("twn", {}, "fp16", True),
        ("dlt", {"shift": False}, "fp16", True),
        ("dlt", {}, "fp16", False),
        ("twn", {}, "bf16", False),
        ("dlt", {}, "fp32", True),
    ],
)
def test_report_says_whether_the_type_rounds_levels(tmp_path, method, options, dtype, exact):
    model = prepared(method, **options)
    levels = {name: linear.weight.clone() for name, linear, _ in quantized_linears(model.model)}
    report = export_merged(model, tmp_path / "m", dtype=dtype)
    loaded, _ = plain_load(tmp_path / "m")
    changed = total = 0
    for name, exact_weight in levels.items():
        stored = loaded.get_submodule(name).weight
        assert stored.dtype == {"fp32": torch.float32, "fp16": torch.float16}.get(
            dtype, torch.bfloat16
        )
        changed += int((stored.float() != exact_weight).sum())
        total += stored.numel()
    assert report.rounded == changed / total
    assert (report.rounded == 0) is exact


def test_report_is_of_what_was_written(tmp_path):
    model = prepared("fdb")
    latent = {
        name: latent_weight(linear).clone() for name, linear, _ in quantized_linears(model.model)
    }
    report = export_merged(model, tmp_path / "m", dtype="bf16")
    loaded, _ = plain_load(tmp_path / "m")
    assert [layer.name for layer in report.layers] == list(latent)
    for layer in report.layers:
        stored, wanted = loaded.get_submodule(layer.name).weight.double(), latent[layer.name]
        assert layer.bits_per_weight == 16
        assert layer.zeros == pytest.approx((stored == 0).double().mean().item())
        error = (stored - wanted).square().sum() / wanted.double().square().sum()
        assert layer.error == pytest.approx(error.item())
    assert "model.norm.weight" in report.kept
    assert len(report.kept) + len(report.layers) == len(loaded.state_dict())


def test_zeros_of_a_ternary_layer_are_its_trits(tmp_path):
    model = prepared("dlt")
    _, linear, quantizer = next(quantized_linears(model.model))
    trits = quantizer.fit(latent_weight(linear)).trits
    report = export_merged(model, tmp_path / "m")
    # With a shift no stored weight is 0.
    assert report.layers[0].zeros == pytest.approx((trits == 0).float().mean().item())
    assert report.layers[0].zeros > 0.1


def test_tokenizer_and_making_lie_beside_the_model(tmp_path):
    model = prepared(training={"steps": 3})
    export_merged(model, tmp_path / "m", tokenizer=byte_tokenizer())
    words = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert words("then").input_ids == byte_tokenizer()("then").input_ids
    made = json.loads((tmp_path / "m" / "tern_hw.json").read_text())
    assert (made["method"], made["options"]["group_size"]) == ("dlt", 16)
    assert (made["origin"], made["training"], made["dtype"]) == ("random", {"steps": 3}, "fp32")


# ------------------------------------------------------------------------------------- refusals


def test_only_a_merged_folder_is_replaced(tmp_path):
    random_llama().save_pretrained(tmp_path / "other")
    before = (tmp_path / "other" / "model.safetensors").read_bytes()
    with pytest.raises(TernError, match="output must be a new path or a merged model to replace"):
        export_merged(prepared(), tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == before
    export_merged(prepared(), tmp_path / "m")
    with pytest.raises(TernError, match="output must be a new path"):
        export_merged(prepared(), tmp_path / "m")
    export_merged(prepared(), tmp_path / "m", dtype="fp16", overwrite=True)
    assert json.loads((tmp_path / "m" / "tern_hw.json").read_text())["dtype"] == "fp16"


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.input_layernorm.weight"])
def test_value_beyond_the_type_is_refused_by_name(tmp_path, name):
    model = prepared("twn")
    with torch.no_grad():
        model.model.get_parameter(name)[0] = 1e6
    with pytest.raises(TernError, match=f"--dtype must be one that holds {name}, .* not float16"):
        export_merged(model, tmp_path / "m", dtype="fp16")
    assert list(tmp_path.iterdir()) == []


def test_scale_that_diverged_is_refused_by_its_layer(tmp_path):
    model = prepared()
    name, _, quantizer = next(quantized_linears(model.model))
    with torch.no_grad():
        quantizer.scale[2, 1] = float("nan")
    with pytest.raises(TernError, match=rf"{name}\.weight\[2, 16\] must be finite, not nan"):
        export_merged(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, error):
    def full(model, folder, **options):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise error

    model = prepared()
    monkeypatch.setattr(type(model.model), "save_pretrained", full)
    with pytest.raises(TernError, match=r"output must be writable, not .*m \(.*No space left"):
        export_merged(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
