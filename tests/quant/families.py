"""A small random model of each family that training and calibration are tested on."""

import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import GPTNeoXConfig, MistralConfig, OPTConfig, Qwen2Config

from tests.quant.models import random_llama

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 32}
GATED = {**SMALL, "intermediate_size": 24, "num_key_value_heads": 1, "max_position_embeddings": 64}
CONFIGS = {
    "opt": OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=8, max_position_embeddings=64),
    "qwen2": Qwen2Config(**GATED),
    "qwen2-sliding": Qwen2Config(
        **GATED, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "mistral": MistralConfig(**GATED, sliding_window=5),
    "gpt_neox": GPTNeoXConfig(**SMALL, intermediate_size=24, max_position_embeddings=64),
}
FAMILIES = ["llama", *CONFIGS]


def family_model(family):
    if family == "llama":
        return random_llama()
    torch.manual_seed(3)
    model = Auto.from_config(CONFIGS[family])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + 0.05)
    return model.eval()
