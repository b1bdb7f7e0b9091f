"""quant.models.sources: a model by folder, file, hub id or a name of ours."""

import pytest
import torch

from quant.errors import UnreachableError
from quant.models import sources
from quant.models.sources import find_source
from tern_hw.errors import TernError


def test_folder_is_a_source(llama, llama_folder):
    source = find_source(str(llama_folder))
    assert source.path == llama_folder
    assert source.origin == "local folder llama"
    assert torch.equal(source.model.lm_head.weight, llama.lm_head.weight)
    assert source.tokenizer("whale").input_ids


def test_gguf_file_is_a_source_and_said_to_be_dequantised(llama, llama_gguf):
    source = find_source(str(llama_gguf))
    assert source.origin == "GGUF file llama.gguf, dequantised"
    assert torch.equal(source.model.lm_head.weight, llama.lm_head.weight)


def test_model_is_loaded_once(llama_folder):
    source = find_source(str(llama_folder))
    assert source.model is source.model
    assert source.tokenizer is source.tokenizer


@pytest.mark.parametrize("name", ["./nowhere", "/no/where/at all", "no where", "missing.gguf", ""])
def test_what_is_neither_here_nor_a_hub_id_is_refused(name):
    with pytest.raises(TernError, match="model must be an existing folder or GGUF file, a hub id,"):
        find_source(name)


def test_unreachable_hub_id_is_told_with_what_to_do_instead():
    # HF_HUB_OFFLINE is set: nothing is tried beyond the hub's own cache, which lacks it.
    with pytest.raises(UnreachableError) as caught:
        find_source("tern-hw/no-such-model")
    message = str(caught.value)
    assert "outgoing traffic has been disabled" in message
    assert message.startswith("hub model 'tern-hw/no-such-model' must be reachable or in the hub's")
    assert message.endswith("a local model folder or GGUF file may be given instead")
    assert "\n" not in message


def test_hub_snapshot_is_read_like_a_folder(monkeypatch, llama, llama_folder):
    asked: dict[str, object] = {}

    def snapshot(name, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(llama_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    source = find_source("owner/model")
    assert source.origin == "owner/model, from the hub"
    assert torch.equal(source.model.lm_head.weight, llama.lm_head.weight)
    assert asked == {"name": "owner/model", "patterns": sources.HUB_FILES}
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in sources.HUB_FILES)


@pytest.mark.parametrize("name", ["smollm2", "tiny"])
def test_names_of_ours_are_made_on_demand(monkeypatch, llama_folder, name):
    origin = sources.BUILT_IN[name][1]
    monkeypatch.setitem(sources.BUILT_IN, name, (lambda progress: llama_folder, origin))
    assert find_source(name).path == llama_folder
    assert find_source(name).origin == origin


def test_smollm2_is_called_what_it_is():
    assert "dequantised 4-bit" in sources.BUILT_IN["smollm2"][1]
