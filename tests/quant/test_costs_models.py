"""The cost model's shapes are transformers' own: every parameter and every linear layer."""

import tomllib
from collections import Counter

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from quant.models.linears import block_linears
from quant.models.smollm2 import smollm2_folder
from tern_hw.costs.catalogue import CATALOGUE, catalogue, open_model
from tern_hw.costs.models import model_from_config

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def skeleton(content):
    """Return transformers' model of a configuration, without weights."""
    config = AutoConfig.for_model(**content)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def check(content, ours):
    model = skeleton(content)
    assert ours.parameters == parameters(model)
    theirs = Counter(
        (
            name.split(".", 4)[-1] if "decoder" in name else name.split(".", 3)[-1],
            *linear.weight.shape,
        )
        for name, linear in block_linears(model).items()
    )
    assert theirs == {(each.name, each.n, each.k): each.count for each in ours.block_linears}
    assert ours.vocabulary * ours.embedding == model.get_output_embeddings().weight.numel()


@pytest.mark.parametrize("name", catalogue())
def test_catalogue_is_what_transformers_builds(name):
    content = tomllib.loads(CATALOGUE.read_text())[name]["config"]
    check(content, catalogue()[name])


@pytest.mark.parametrize(
    "content",
    [
        {"model_type": "qwen2", **TINY, "tie_word_embeddings": True},
        {"model_type": "mistral", **TINY},
        {"model_type": "llama", **TINY, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
        {"model_type": "bitnet", **TINY},
    ],
    ids=["qwen2", "mistral", "llama-biased", "bitnet-untied"],
)
def test_a_family_is_what_transformers_builds(content):
    check(content, model_from_config(content, "tiny", "a test"))


@pytest.mark.slow
def test_smollm2_s_own_folder_is_the_catalogue_s():
    found = open_model(str(smollm2_folder()))
    known = catalogue()["smollm2-135m"]
    assert found.parameters == known.parameters
    assert found.linears == known.linears
