"""quant.models.linears: which layers of a model are quantised."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM as Auto
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, OPTConfig, Qwen2Config

from quant.models.linears import block_linears, named_linear, select_linears
from tern_hw.errors import TernError

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}
PARTS = {
    "llama": ("model.layers", "self_attn.{q,k,v,o}_proj mlp.{gate,up,down}_proj"),
    "qwen2": ("model.layers", "self_attn.{q,k,v,o}_proj mlp.{gate,up,down}_proj"),
    "opt": ("model.decoder.layers", "self_attn.{q,k,v,out}_proj fc{1,2}"),
    "gpt_neox": (
        "gpt_neox.layers",
        "attention.query_key_value attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h",
    ),
}


def expanded(pattern):
    """Expand the one {a,b} of a pattern."""
    head, brace, rest = pattern.partition("{")
    options, _, tail = rest.partition("}")
    return [head + option + tail for option in options.split(",")] if brace else [pattern]


def expected_names(family):
    blocks, parts = PARTS[family]
    names = [name for part in parts.split() for name in expanded(part)]
    return {f"{blocks}.{i}.{name}" for i in range(2) for name in names}


def family_model(family, llama):
    if family == "llama":
        return llama
    config = {
        "qwen2": Qwen2Config(**SMALL, num_key_value_heads=1, intermediate_size=24),
        # Width and embedding differ, so that OPT has its projections around the blocks.
        "opt": OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=8),
        "gpt_neox": GPTNeoXConfig(**SMALL, intermediate_size=24),
    }[family]
    return Auto.from_config(config)


@pytest.mark.parametrize("family", PARTS)
def test_block_linears_are_all_linears_of_the_blocks_and_no_others(family, llama):
    model = family_model(family, llama)
    linears = block_linears(model)
    assert set(linears) == expected_names(family)
    assert all(linear is model.get_submodule(name) for name, linear in linears.items())


def test_block_linears_come_in_the_models_order(llama):
    names = list(block_linears(llama))
    assert names[0] == "model.layers.0.self_attn.q_proj"
    assert names[-1] == "model.layers.1.mlp.down_proj"


def test_model_whose_blocks_hold_no_linears_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=16))
    with pytest.raises(TernError, match=r"must have linear layers .* not none as GPT2LMHeadModel"):
        block_linears(model)


def test_select_takes_what_any_glob_matches(llama):
    linears = block_linears(llama)
    chosen = select_linears(linears, ["*.0.mlp.*", "*q_proj", "model.layers.0.mlp.up_proj"])
    assert list(chosen) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.self_attn.q_proj",
    ]
    assert all(chosen[name] is linears[name] for name in chosen)


def test_glob_that_matches_nothing_is_refused_with_a_hint(llama):
    linears = block_linears(llama)
    with pytest.raises(TernError, match=r"not 'model\.layers\.0\.mlp\.gate' \(there is model\.lay"):
        select_linears(linears, ["*q_proj", "model.layers.0.mlp.gate"])


def test_named_linear_is_found_or_refused_with_the_closest_name(llama):
    name = "model.layers.1.mlp.down_proj"
    assert named_linear(llama, name) is llama.get_submodule(name)
    with pytest.raises(TernError, match=rf"layer must be .* not .*downproj' \(there is {name}\)"):
        named_linear(llama, "model.layers.1.mlp.downproj")
    with pytest.raises(TernError, match="layer must be a linear layer of a block, not 'lm_head'"):
        named_linear(llama, "lm_head")


def test_a_module_list_inside_a_block_counts():
    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
            self.router = nn.Linear(2, 2)

    model = nn.ModuleDict({"layers": nn.ModuleList([Mixture()]), "head": nn.Linear(2, 2)})
    names = ["layers.0.experts.0", "layers.0.experts.1", "layers.0.router"]
    assert list(block_linears(model)) == names
    assert torch.is_tensor(block_linears(model)["layers.0.router"].weight)
