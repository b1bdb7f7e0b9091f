"""quant.models.checkpoints: what a folder or GGUF file gives, and which of them are refused."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, LlamaForCausalLM, T5Config

from quant.models.checkpoints import (
    convert_gguf,
    load_folder,
    load_gguf,
    load_skeleton,
    load_tokenizer,
)
from tern_hw.errors import TernError


def same_tensors(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name])
        for name in ours
    )


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_folder_gives_the_stored_tensors(llama, llama_folder):
    model = load_folder(llama_folder)
    assert same_tensors(model, llama)
    assert not model.training


def test_folder_keeps_the_stored_dtype(llama, tmp_path):
    llama.bfloat16().save_pretrained(tmp_path / "bf16")
    assert same_tensors(load_folder(tmp_path / "bf16"), llama)


@pytest.mark.parametrize("stated", ["bfloat16", "float16", "float32"])
def test_no_stored_value_is_rounded_whatever_the_config_says(llama, llama_folder, stated):
    path = llama_folder / "model.safetensors"
    weights = {
        name: tensor if "norm" in name else tensor.bfloat16()
        for name, tensor in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    edit_config(llama_folder, dtype=stated)
    state = load_folder(llama_folder).state_dict()
    assert all(torch.equal(state[name], weights[name].float()) for name in weights)


def test_gguf_gives_the_tensors_it_was_written_from(llama, llama_gguf):
    model = load_gguf(llama_gguf)
    assert same_tensors(model, llama)
    ids = torch.arange(24)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, llama(ids).logits)


def test_gguf_converts_to_a_folder_that_gives_the_same(llama, llama_gguf, tmp_path):
    convert_gguf(llama_gguf, tmp_path / "converted")
    assert same_tensors(load_folder(tmp_path / "converted"), llama)
    for source in (llama_gguf, tmp_path / "converted"):
        ids = load_tokenizer(source)("the whale").input_ids
        assert (ids[0], len(ids)) == (256, 8), "the file's one merge makes t and h one token"


@pytest.mark.parametrize("share", [0, 0.0005, 0.02, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_truncated_gguf_is_refused(llama_gguf, share):
    content = llama_gguf.read_bytes()
    llama_gguf.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TernError, match=r"llama\.gguf must be a whole GGUF file .*\(.+\)"):
        load_gguf(llama_gguf)


def test_another_file_is_not_a_gguf(tmp_path):
    path = tmp_path / "text.gguf"
    path.write_text("Call me Ishmael. " * 100)
    with pytest.raises(TernError, match=r"text\.gguf must be a whole GGUF file"):
        load_gguf(path)


def test_folder_without_config_is_refused(tmp_path):
    with pytest.raises(TernError, match=r"model folder must hold a config\.json"):
        load_folder(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "unheard-of"}'])
def test_config_that_names_no_model_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TernError, match=r"config\.json must describe a model .* knows \(.+\)"):
        load_folder(tmp_path)


def test_config_with_a_wrong_type_is_refused(llama_folder):
    edit_config(llama_folder, hidden_size="wide")
    with pytest.raises(TernError, match=r"config\.json must describe"):
        load_folder(llama_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 0}, r"config\.json must describe a model .*\(.*zero.*\)$"),
        ({"dtype": "nope"}, r"config\.json must describe a model .*\(.*nope.*\)$"),
        ({"quantization_config": [1]}, r"config\.json must describe a model .*\(.+\)$"),
        ({"hidden_act": "zzz"}, r"config\.json must describe a model .*\(there is no 'zzz'\)$"),
        ({"hidden_size": -40}, r"config\.json must describe a model .*\(.*-40.*\)$"),
        ({"architectures": [5]}, r"architectures of .* must be a list of names, not \[5\]$"),
        ({"architectures": 5}, r"architectures of .* must be a list of names, not 5$"),
    ],
)
def test_wrong_config_is_refused_as_such(llama_folder, changes, message):
    edit_config(llama_folder, **changes)
    with pytest.raises(TernError, match=message):
        load_folder(llama_folder)


def test_lack_of_memory_is_not_the_files_fault(llama_folder, monkeypatch):
    def exhausted(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("quant.models.checkpoints.AutoConfig.from_pretrained", exhausted)
    with pytest.raises(MemoryError):
        load_folder(llama_folder)


def test_pickled_checkpoint_is_refused_unread(llama_folder):
    weights = load_file(llama_folder / "model.safetensors")
    (llama_folder / "model.safetensors").unlink()
    torch.save(weights, llama_folder / "pytorch_model.bin")
    with pytest.raises(TernError, match=r"must hold safetensors .* pickled .*pytorch_model\.bin"):
        load_folder(llama_folder)


def test_folder_without_weights_is_refused(llama_folder):
    (llama_folder / "model.safetensors").unlink()
    with pytest.raises(TernError, match=r"must hold safetensors weights, not only .*config\.json"):
        load_folder(llama_folder)


@pytest.mark.parametrize("keep", [0, 3, 100, 5000])
def test_truncated_safetensors_is_refused(llama_folder, keep):
    path = llama_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TernError, match="must hold a whole safetensors checkpoint"):
        load_folder(llama_folder)


def test_missing_tensor_is_named(llama_folder):
    path = llama_folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(TernError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        load_folder(llama_folder)


def test_tensor_of_another_shape_is_refused(llama_folder):
    edit_config(llama_folder, intermediate_size=80)
    message = (
        r"model\.layers\.0\.mlp\.down_proj\.weight must have shape \[40, 80\], .* not \[40, 72\]$"
    )
    with pytest.raises(TernError, match=message):
        load_folder(llama_folder)


def test_gguf_with_damaged_text_is_not_called_a_config_file(llama_gguf):
    content = llama_gguf.read_bytes()
    llama_gguf.write_bytes(content.replace(b"llama", b"ll\xffma", 1))
    with pytest.raises(TernError, match=r"must be a whole GGUF file .*text that is not UTF-8\)$"):
        load_gguf(llama_gguf)


def test_skeleton_has_the_names_without_the_weights(llama, llama_folder, llama_gguf):
    (llama_folder / "model.safetensors").unlink()
    for source in (llama_folder, llama_gguf):
        skeleton = load_skeleton(source)
        assert skeleton.state_dict().keys() == llama.state_dict().keys()
        assert all(parameter.is_meta for parameter in skeleton.parameters())


def test_reading_and_converting_show_no_bars(llama_folder, llama_gguf, tmp_path, capfd):
    load_folder(llama_folder)
    convert_gguf(llama_gguf, tmp_path / "converted")
    assert capfd.readouterr() == ("", "")


def test_model_that_is_not_causal_is_refused(tmp_path):
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(TernError, match="must be a causal language model, not t5"):
        load_folder(tmp_path)


def test_head_of_another_task_is_refused(tmp_path):
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 8}
    BertForMaskedLM(BertConfig(num_hidden_layers=1, **shape)).save_pretrained(tmp_path)
    with pytest.raises(TernError, match="must be a causal language model, not BertForMaskedLM"):
        load_folder(tmp_path)


def test_quantised_checkpoint_is_refused(llama_folder):
    edit_config(llama_folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(TernError, match="must hold plain weights, not ones quantised by gptq"):
        load_folder(llama_folder)


def test_missing_tokenizer_is_told(llama, tmp_path):
    llama.save_pretrained(tmp_path)
    with pytest.raises(TernError, match="must hold a tokenizer"):
        load_tokenizer(tmp_path)


def test_refusals_are_one_line(tmp_path, llama_folder):
    edit_config(llama_folder, hidden_size=41)
    with pytest.raises(TernError) as caught:
        load_folder(llama_folder)
    assert re.fullmatch(r"[^\n]+", str(caught.value))


def test_a_defect_of_ours_is_not_taken_for_the_users(monkeypatch, llama_folder):
    monkeypatch.setattr("quant.models.checkpoints._check_safetensors", lambda folder: [][0])
    with pytest.raises(IndexError):
        load_folder(llama_folder)


def test_loaded_class_is_the_checkpoints_own(llama_folder):
    assert type(load_folder(llama_folder)) is LlamaForCausalLM
