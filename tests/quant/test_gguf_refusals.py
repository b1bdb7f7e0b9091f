"""quant.exports.gguf_export: what GGUF cannot hold, or its readers would misread, is refused."""

import errno

import gguf
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from quant.exports.gguf_export import export_gguf
from quant.models.tiny import byte_tokenizer
from tern_hw.errors import TernError
from tests.quant.ggufs import prepared, tokenizer, wide_llama

KINDS = ["tq1_0", "tq2_0"]


def refused(tmp_path, model, message, words=None, **options):
    with pytest.raises(TernError, match=message):
        export_gguf(model, tmp_path / "m.gguf", words or tokenizer(), **options)
    assert list(tmp_path.iterdir()) == []


def test_shift_is_refused_by_layer_with_what_to_do_instead(tmp_path):
    message = (
        r"model\.layers\.0\.self_attn\.q_proj must have no shift in GGUF's TQ1_0, which holds a "
        r"scale alone, not one of .* \(row 0, group 0\); --format merged holds it, .*shift=off"
    )
    refused(tmp_path, prepared(shift=True), message)


def test_smollm2s_576_inputs_are_refused(tmp_path):
    model = wide_llama(hidden_size=576, num_attention_heads=9, num_key_value_heads=3)
    message = r"q_proj must have a multiple of 256 inputs, the block of GGUF's TQ2_0, not 576"
    refused(tmp_path, prepared("twn", model), message, kind="tq2_0")


def test_groups_below_a_block_are_refused_with_their_scales(tmp_path):
    message = (
        r"q_proj must have one scale for each 256 inputs in GGUF's TQ1_0, not \S+ and \S+ "
        r"\(row 0, block 0\) as groups of 128 have; group_size must be \"row\" or a multiple"
    )
    refused(tmp_path, prepared("twn", group_size=128), message)


def test_groups_that_cross_blocks_are_refused(tmp_path):
    message = r"down_proj must have one scale .* as groups of 384 have"
    refused(tmp_path, prepared("twn", group_size=384, layers=["*down_proj"]), message)


def test_method_that_is_not_ternary_is_refused_by_name(tmp_path):
    message = r"format must be merged, the only one for method fdb, whose .* not gguf"
    refused(tmp_path, prepared("fdb"), message)


def test_other_architectures_are_refused(tmp_path):
    config = GPTNeoXConfig(
        vocab_size=262,
        hidden_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=512,
    )
    model = prepared("twn", GPTNeoXForCausalLM(config))
    refused(tmp_path, model, "model must be a LLaMA to become GGUF here, not gpt_neox; --format")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "attention_bias of a LLaMA must be False .*, not True"),
        ({"mlp_bias": True}, "mlp_bias of a LLaMA must be False .*, not True"),
        ({"hidden_act": "gelu"}, "hidden_act of a LLaMA must be silu .*, not gelu"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rope_type of a LLaMA must be default .*, not linear",
        ),
    ],
)
def test_what_readers_would_misread_is_refused(tmp_path, changes, message):
    refused(tmp_path, prepared("twn", wide_llama(**changes)), message)


def test_tokenizers_of_other_kinds_are_refused(tmp_path):
    wordy = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")), unk_token="a"
    )
    for words in (wordy, byte_tokenizer()):
        refused(tmp_path, prepared(), "tokenizer must be a byte-level BPE with merges", words)


def test_tokenizer_larger_than_the_model_is_refused(tmp_path):
    message = "tokenizer must have at most the model's 258 tokens, not 259"
    refused(tmp_path, prepared(model=wide_llama(vocab_size=258)), message)


def test_value_beyond_fp16_is_refused_by_name(tmp_path):
    model = prepared()
    with torch.no_grad():
        model.model.model.embed_tokens.weight[0, 0] = 1e6
    message = r"--dtype must be one that holds model\.embed_tokens\.weight, not fp16"
    refused(tmp_path, model, message, dtype="fp16")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), None])
def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, error):
    def full(writer, **options):
        # As numpy has it, which writes the tensors: no number, no file.
        raise error or OSError("65536 requested and 4096 written")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    message = r"output must be writable, not .*m\.gguf \((No space left|65536 requested)"
    refused(tmp_path, prepared(), message)


def test_only_a_gguf_file_is_replaced(tmp_path):
    other = tmp_path / "other.gguf"
    other.write_text("mine")
    with pytest.raises(TernError, match="output must be a new path or a GGUF file to replace"):
        export_gguf(prepared(), other, tokenizer(), overwrite=True)
    assert other.read_text() == "mine"
    output = tmp_path / "m.gguf"
    export_gguf(prepared(), output, tokenizer())
    size = output.stat().st_size
    with pytest.raises(TernError, match=r"output must be a new path, or --overwrite given"):
        export_gguf(prepared(), output, tokenizer())
    export_gguf(prepared(), output, tokenizer(), kind="tq2_0", overwrite=True)
    assert output.stat().st_size > size
    assert {path.name for path in tmp_path.iterdir()} == {"other.gguf", "m.gguf"}


@pytest.mark.parametrize(
    ("place", "message"),
    [("folder", "must be a file that ends in .gguf"), ("nowhere/m.gguf", "must lie in a folder")],
)
def test_bad_output_is_refused(tmp_path, place, message):
    with pytest.raises(TernError, match=f"output {message}"):
        export_gguf(prepared(), tmp_path / place, tokenizer())
