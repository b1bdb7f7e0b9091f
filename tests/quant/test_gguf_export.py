"""quant.exports.gguf_export: what the format's own package and transformers read back, exactly."""

import json

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers as cuts

from quant import export
from quant.exports.gguf_export import export_gguf, ternary_blocks
from quant.exports.gguf_tokens import LLAMA3_SPLIT
from quant.exports.merge import export_merged
from quant.methods import quantized_linears
from quant.methods.base import latent_weight
from quant.models.checkpoints import load_gguf, load_tokenizer
from quant.models.prepared import save_prepared
from quant.ternary import TernaryFit
from tests.quant.ggufs import prepared, tokenizer, wide_llama
from tests.quant.models import gguf_name

HEADS = {"q_proj": 4, "k_proj": 2}
KINDS = ["tq1_0", "tq2_0"]


def zero_some_groups(model):
    """Make groups without any level but 0, and such of tiny weights, beside the others."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[3, :256] = 0
            layer.mlp.down_proj.weight[4] = 0
            layer.self_attn.q_proj.weight[5] = 1e-9  # its scale rounds to 0 in binary16
            layer.self_attn.k_proj.weight[6] *= 1e-6  # a subnormal scale
    return model


def permuted(name, weight):
    """Order q's and k's rows as GGUF does, by the definition: row 2i + h of a head is its h, i."""
    for part, heads in HEADS.items():
        if part in name:
            size = len(weight) // heads
            rows = [
                head * size + half * (size // 2) + i
                for head in range(heads)
                for i in range(size // 2)
                for half in range(2)
            ]
            return weight[rows]
    return weight


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


# ------------------------------------------------------------------------------------ read back


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dlt", {}),
        ("dlt", {"group_size": "row"}),
        ("twn", {"group_size": 512}),
        ("seq", {}),
        ("absmean", {"group_size": 128, "per_tensor": True}),
    ],
)
def test_the_formats_own_dequantiser_returns_every_level_to_the_bit(
    tmp_path, kind, method, options
):
    model = prepared(method, zero_some_groups(wide_llama()), **options)
    report = export_gguf(model, tmp_path / "m.gguf", tokenizer(), kind=kind)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    seen = 0
    for name, linear, quantizer in quantized_linears(model.model):
        levels = quantizer.fit(latent_weight(linear)).dequantize().numpy()
        stored = tensors[gguf_name(f"{name}.weight")]
        assert stored.tensor_type.name == kind.upper()
        assert list(stored.shape) == [levels.shape[1], levels.shape[0]]
        found = gguf.quants.dequantize(stored.data, stored.tensor_type)
        assert np.array_equal(bits(found), bits(permuted(name, levels)))
        seen += 1
    assert seen == len(report.layers) == 14
    size = {"tq1_0": 54, "tq2_0": 66}[kind]
    assert {layer.bits_per_weight for layer in report.layers} == {8 * size / 256}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("changes", [{}, {"head_dim": 128}, {"num_key_value_heads": 4}])
def test_transformers_reads_the_merged_model_back_to_the_bit(tmp_path, tied, changes):
    def fresh():
        rope = {"rope_type": "default", "rope_theta": 5e5}
        model = wide_llama(tie_word_embeddings=tied, rope_parameters=rope, **changes)
        return prepared(model=model)

    report = export_gguf(fresh(), tmp_path / "m.gguf", tokenizer())
    merged = fresh()
    export_merged(merged, tmp_path / "m")
    loaded = load_gguf(tmp_path / "m.gguf")
    state = merged.model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor.view(torch.int32), state[name].view(torch.int32)), name
    tokens = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, merged.model(tokens).logits)
    assert bool(report.tied) is tied
    assert loaded.config.tie_word_embeddings is tied


def test_transformers_reads_the_tokenizer_back(tmp_path):
    words = tokenizer()
    export_gguf(prepared(), tmp_path / "m.gguf", words)
    found = load_tokenizer(tmp_path / "m.gguf")
    text = "the thing <think> is\n\n1234 über<|end|>"
    assert found(text).input_ids == words(text).input_ids
    assert found.eos_token_id == words.eos_token_id == 257


def test_every_id_has_its_token_and_type(tmp_path):
    export_gguf(prepared(), tmp_path / "m.gguf", tokenizer())
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    types = fields["tokenizer.ggml.token_type"].contents()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens[256:] == ["th", "<|end|>", "<think>", "[PAD259]", "[PAD260]", "[PAD261]"]
    assert [gguf.TokenType(kind).name for kind in types[255:]] == [
        *("NORMAL", "NORMAL", "CONTROL", "USER_DEFINED", "UNUSED", "UNUSED", "UNUSED"),
    ]


def test_file_says_what_made_it(tmp_path):
    export_gguf(prepared("twn"), tmp_path / "m.gguf", tokenizer(), kind="tq2_0")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    made = json.loads(fields["tern_hw.making"].contents())
    assert (made["method"], made["options"]["group_size"]) == ("twn", 256)
    assert fields["general.architecture"].contents() == "llama"
    assert fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_TQ2_0
    assert fields["llama.rope.freq_base"].contents() == 10000.0


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")])
def test_other_matrices_take_the_type_asked_for_and_norms_stay(tmp_path, dtype, kind):
    model = prepared(layers=["*.0.mlp.*"])
    export_gguf(model, tmp_path / "m.gguf", tokenizer(), dtype=dtype)
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert types["token_embd.weight"] == types["blk.1.ffn_up.weight"] == kind
    assert types["blk.0.ffn_up.weight"] == "TQ1_0"
    assert types["output_norm.weight"] == types["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("pre_tokenizer", "name"),
    [
        (cuts.ByteLevel(add_prefix_space=False), "gpt-2"),
        (
            cuts.Sequence(
                [cuts.Digits(individual_digits=True), cuts.ByteLevel(add_prefix_space=False)]
            ),
            "smollm",
        ),
        (cuts.ByteLevel(add_prefix_space=False, use_regex=False), None),
        (cuts.Sequence([cuts.Digits(), cuts.ByteLevel(add_prefix_space=False)]), None),
    ],
)
def test_known_ways_to_cut_text_are_named(tmp_path, pre_tokenizer, name):
    report = export_gguf(prepared(), tmp_path / "m.gguf", tokenizer(pre_tokenizer))
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert report.pre_tokenizer == name
    assert fields["tokenizer.ggml.pre"].contents() == (name or "default")


def test_llama3_tokenizer_is_named_and_read_back_as_it_cuts(tmp_path):
    from tokenizers import Regex

    split = cuts.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    bytewise = cuts.ByteLevel(add_prefix_space=False, use_regex=False)
    words = tokenizer(cuts.Sequence([split, bytewise]))
    assert export_gguf(prepared(), tmp_path / "m.gguf", words).pre_tokenizer == "llama-bpe"
    found = load_tokenizer(tmp_path / "m.gguf")
    cut = found.backend_tokenizer.pre_tokenizer.pre_tokenize_str("It'S 12345 über\n\n x")
    assert cut == words.backend_tokenizer.pre_tokenizer.pre_tokenize_str("It'S 12345 über\n\n x")


def test_a_scale_below_zero_and_signed_zeros_read_back():
    trits = torch.zeros(3, 256, dtype=torch.int8)
    trits[:, :3] = torch.tensor([1, -1, 0])
    scale = torch.tensor([[-0.5], [0.0], [2.0**-24]]).half()
    fit = TernaryFit(trits, scale, torch.zeros_like(scale), 256)
    for kind in KINDS:
        packed = ternary_blocks(fit, kind, "layer")
        found = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind.upper()])
        assert np.array_equal(bits(found), bits(fit.dequantize().numpy()))
        assert found[0, :3].tolist() == [-0.5, 0.5, 0]


def test_a_zero_below_zero_is_written_as_zero():
    trits, scale = -torch.ones(1, 256, dtype=torch.int8), torch.zeros(1, 1).half()
    fit = TernaryFit(trits, scale, -scale, 256)
    assert np.signbit(fit.dequantize().numpy()).all()
    packed = ternary_blocks(fit, "tq1_0", "layer")
    found = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.TQ1_0)
    assert np.array_equal(bits(found), bits(np.zeros((1, 256), np.float32)))


def test_groups_without_a_level_do_not_part_a_block():
    trits = torch.ones(1, 512, dtype=torch.int8)
    trits[0, 128:256] = 0
    scale = torch.tensor([[0.5, 3.0, 0.25, 0.25]]).half()
    fit = TernaryFit(trits, scale, torch.zeros_like(scale), 128)
    found = gguf.quants.dequantize(
        ternary_blocks(fit, "tq1_0", "layer"), gguf.GGMLQuantizationType.TQ1_0
    )
    assert np.array_equal(bits(found), bits(fit.dequantize().numpy()))


@pytest.mark.parametrize("plain", [False, True])
def test_command_writes_a_gguf(tmp_path, capsys, plain):
    if plain:
        wide_llama().save_pretrained(tmp_path / "model")
        tokenizer().save_pretrained(tmp_path / "model")
        method = ["--method", "twn", "--group-size", "256"]
    else:
        made = prepared("twn")
        names = {"method": "twn", "config": made.config, "origin": "random"}
        save_prepared(tmp_path / "model", made.model, tokenizer(), **names)
        method = []
    output = tmp_path / "m.gguf"
    arguments = ["--output", output, "--format", "gguf", "--gguf-type", "tq2_0", "--json", *method]
    assert export.main([str(each) for each in (tmp_path / "model", *arguments)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["gguf_bytes"] == output.stat().st_size
    assert report["stored"] == {"dtype": "fp32", "gguf_type": "tq2_0"}
    assert report["ternary"]["bits_per_weight"] == 2.0625
    merged = prepared("twn")
    export_merged(merged, tmp_path / "m")
    loaded = load_gguf(output)
    for name, tensor in merged.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
