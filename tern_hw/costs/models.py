"""The shape of a language model, from a Hugging Face configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tern_hw.errors import TernError

__all__ = ["FAMILIES", "Linear", "Model", "model_from_config"]

#: Largest count in a configuration: beyond, no product of two of them is meant seriously.
MAX_COUNT: Final = 1 << 24


@dataclass(frozen=True)
class Linear:
    """Linear layers of one shape: one of each block, unless `blocks` says otherwise."""

    #: Name within the block, as "self_attn.q_proj".
    name: str
    #: "attention" or "mlp" for those of the blocks, "projection" beside the embedding.
    kind: str
    n: int
    k: int
    #: How often the layer is there in the model.
    count: int
    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """What decides a decoder-only transformer's cost."""

    name: str
    family: str
    #: Where the shape is from.
    source: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    #: Width of embedding and head; differs from `hidden` in OPT-350M.
    embedding: int
    #: Rows of a learned table of positions; 0 where positions are rotations.
    positions: int
    #: The head shares the embedding's weight.
    tied: bool
    linears: tuple[Linear, ...]
    #: Widths of all norms, and whether each has a bias.
    norms: tuple[int, ...]
    norm_bias: bool
    #: Gate, up and down; else up and down alone.
    gated: bool
    #: Most tokens it was made for.
    max_context: int

    @property
    def block_linears(self) -> tuple[Linear, ...]:
        """Linear layers of the blocks: those that are ternary."""
        return tuple(each for each in self.linears if each.kind != "projection")

    @property
    def parameters(self) -> int:
        """Parameters, a tied head counted once."""
        tables = self.vocabulary * self.embedding * (1 if self.tied else 2)
        weights = sum(each.count * each.n * each.k for each in self.linears)
        return tables + weights + self.small_parameters

    @property
    def ternary_parameters(self) -> int:
        """Weights of the blocks' linear layers."""
        return sum(each.count * each.n * each.k for each in self.block_linears)

    @property
    def small_parameters(self) -> int:
        """Parameters of norms, biases and the table of positions."""
        norms = sum(self.norms) * (2 if self.norm_bias else 1)
        biases = sum(each.count * each.n for each in self.linears if each.bias)
        return norms + biases + self.positions * self.hidden

    @property
    def kv_values(self) -> int:
        """Numbers that a token leaves in a block's KV cache."""
        return 2 * self.kv_heads * self.head_dim

    @property
    def kv_all(self) -> int:
        """The same, of all blocks."""
        return self.layers * self.kv_values


class _Config:
    """A configuration whose members are checked as they are read."""

    def __init__(self, content: Mapping[str, Any], origin: str) -> None:
        self.content = content
        self.origin = origin

    def count(self, key: str, default: int | None = None) -> int:
        value = self.content.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
            raise TernError(
                f"{self.origin}: {key} must be an integer from 1 to {MAX_COUNT}, not {value!r:.60}"
            )
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.content.get(key, default)
        if not isinstance(value, bool):
            raise TernError(f"{self.origin}: {key} must be true or false, not {value!r:.60}")
        return value


def _heads(config: _Config, kv_key: bool) -> tuple[int, int, int]:
    """Return heads, KV heads and a head's width."""
    hidden = config.count("hidden_size")
    heads = config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", heads) if kv_key else heads
    if heads % kv_heads:
        raise TernError(
            f"{config.origin}: num_key_value_heads must divide num_attention_heads (= {heads}), "
            f"not {kv_heads}"
        )
    if config.content.get("head_dim") is None and hidden % heads:
        raise TernError(
            f"{config.origin}: num_attention_heads must divide hidden_size (= {hidden}), "
            f"not {heads}"
        )
    return heads, kv_heads, config.count("head_dim", hidden // heads) if kv_key else hidden // heads


def _opt(config: _Config, name: str, source: str) -> Model:
    hidden, ffn = config.count("hidden_size"), config.count("ffn_dim")
    layers = config.count("num_hidden_layers")
    heads, kv_heads, head_dim = _heads(config, kv_key=False)
    embedding = config.count("word_embed_proj_dim", hidden)
    context = config.count("max_position_embeddings")
    linears = [
        *(
            Linear(f"self_attn.{each}", "attention", hidden, hidden, layers, bias=True)
            for each in ("q_proj", "k_proj", "v_proj", "out_proj")
        ),
        Linear("fc1", "mlp", ffn, hidden, layers, bias=True),
        Linear("fc2", "mlp", hidden, ffn, layers, bias=True),
    ]
    if embedding != hidden:
        linears.append(Linear("project_in", "projection", hidden, embedding, 1))
        linears.append(Linear("project_out", "projection", embedding, hidden, 1))
    final = config.flag("do_layer_norm_before", True)
    return Model(
        name=name,
        family="opt",
        source=source,
        hidden=hidden,
        intermediate=ffn,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=config.count("vocab_size"),
        embedding=embedding,
        positions=context + 2,  # OPT's table begins at 2
        tied=config.flag("tie_word_embeddings", True),
        linears=tuple(linears),
        norms=(hidden,) * (2 * layers + final),
        norm_bias=True,
        gated=False,
        max_context=context,
    )


def _llama(config: _Config, name: str, source: str) -> Model:
    family = config.content["model_type"]
    hidden, ffn = config.count("hidden_size"), config.count("intermediate_size")
    layers = config.count("num_hidden_layers")
    heads, kv_heads, head_dim = _heads(config, kv_key=True)
    bias = config.flag("attention_bias", False)
    qkv_bias = bias or family == "qwen2"
    mlp_bias = config.flag("mlp_bias", False)
    queries, keys = heads * head_dim, kv_heads * head_dim
    linears = (
        Linear("self_attn.q_proj", "attention", queries, hidden, layers, qkv_bias),
        Linear("self_attn.k_proj", "attention", keys, hidden, layers, qkv_bias),
        Linear("self_attn.v_proj", "attention", keys, hidden, layers, qkv_bias),
        Linear("self_attn.o_proj", "attention", hidden, queries, layers, bias),
        Linear("mlp.gate_proj", "mlp", ffn, hidden, layers, mlp_bias),
        Linear("mlp.up_proj", "mlp", ffn, hidden, layers, mlp_bias),
        Linear("mlp.down_proj", "mlp", hidden, ffn, layers, mlp_bias),
    )
    norms = [hidden] * (2 * layers + 1)
    if family == "bitnet":  # a norm before the output projection and one before down_proj
        norms += [hidden, ffn] * layers
    return Model(
        name=name,
        family=family,
        source=source,
        hidden=hidden,
        intermediate=ffn,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=config.count("vocab_size"),
        embedding=hidden,
        positions=0,
        tied=config.flag("tie_word_embeddings", False),
        linears=linears,
        norms=tuple(norms),
        norm_bias=False,
        gated=True,
        max_context=config.count("max_position_embeddings", 2048),
    )


#: Families whose blocks are known, by the model_type of their configuration.
FAMILIES: Final = {
    "opt": _opt,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "bitnet": _llama,
}


def model_from_config(content: Mapping[str, Any], name: str, source: str) -> Model:
    """Return the shape that a Hugging Face configuration describes.

    Parameters
    ----------
    content : mapping
        Of config.json.
    name, source : str
        What reports call the model, and where the configuration is from.

    Raises
    ------
    TernError
        If the model_type is none of `FAMILIES`, or a size is missing or out of range.
    """
    kind = content.get("model_type")
    if kind not in FAMILIES:
        raise TernError(
            f"{source}: model_type must be one of {', '.join(FAMILIES)}, not {kind!r:.60}"
        )
    return FAMILIES[kind](_Config(content, source), name, source)
