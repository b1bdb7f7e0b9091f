"""What a model does for a token: products with weights, attention on its cache, and the rest."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from tern_hw.costs.models import Linear, Model
from tern_hw.errors import TernError

__all__ = ["KINDS", "WIDE_BYTES", "Phase", "Work", "decode", "prefill"]

#: Kinds of work in the order of a report.
KINDS: Final = (
    "attention linears",
    "mlp linears",
    "projections",
    "lm_head",
    "attention",
    "norms and glue",
    "embedding",
)
#: Kind of work of each kind of linear layer.
LINEAR: Final = {
    "attention": "attention linears",
    "mlp": "mlp linears",
    "projection": "projections",
}
#: Bytes of a number outside the ternary layers: fp16 or bf16.
WIDE_BYTES: Final = 2
#: Multiplications and additions of an exponential: a polynomial of degree 6 and a scaling.
EXP_MULS: Final = 7
EXP_ADDS: Final = 6
#: Multiplications and additions for each number: of a norm (square, scale; sum), of a residual,
#: of SiLU (exponential, reciprocal as two Newton steps, product), of a rotation, of softmax
#: (exponential; maximum and sum), of quantising to int8 and scaling back.
NORM: Final = (2, 1)
RESIDUAL: Final = (0, 1)
SILU: Final = (EXP_MULS + 5, EXP_ADDS + 3)
RELU: Final = (0, 1)
GATE: Final = (1, 0)
ROTATION: Final = (2, 1)
SOFTMAX: Final = (EXP_MULS + 1, EXP_ADDS + 2)
QUANTIZE: Final = (1, 1)


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of work of one phase."""

    kind: str
    #: Products with a weight: the layer, and how many tokens enter it; `ternary` may be.
    linear: Linear | None = None
    tokens: int = 0
    ternary: bool = False
    #: Multiplications and additions elsewhere, in fp32 sums of fp16 products or in fp32.
    macs: int = 0
    muls: int = 0
    adds: int = 0
    #: Bytes moved between the memory and the chip, besides a linear's weights.
    kv_bytes: int = 0
    other_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Phase:
    """All work of a decoding step or of reading a prompt."""

    name: Literal["decode", "prefill"]
    model: Model
    #: Tokens in each sequence's cache at its end; sequences; tokens that come in, of all.
    context: int
    batch: int
    tokens: int
    works: tuple[Work, ...]


def decode(
    model: Model, context: int, batch: int = 1, ternary: Mapping[str, int] | None = None
) -> Phase:
    """Return the work of one more token for each of `batch` sequences.

    Parameters
    ----------
    model : Model
    context : int
        Tokens that the new one attends to, itself included.
    batch : int
    ternary : mapping, optional
        How many of the blocks' layers of each name are ternary; all if None.
    """
    _check(model, context)
    pairs = batch * context
    works = _blocks(model, tokens=batch, pairs=pairs, heads_out=batch, ternary=ternary)
    return Phase(
        name="decode", model=model, context=context, batch=batch, tokens=batch, works=works
    )


def prefill(
    model: Model, context: int, batch: int = 1, ternary: Mapping[str, int] | None = None
) -> Phase:
    """Return the work of reading a prompt of `context` tokens, for each of `batch` sequences.

    Each token is a job of its own, as the array has it: it streams all weights and reads the
    cache of the tokens before it. Only the last token passes the head.
    """
    _check(model, context)
    pairs = batch * context * (context + 1) // 2
    tokens = batch * context
    works = _blocks(model, tokens=tokens, pairs=pairs, heads_out=batch, ternary=ternary)
    return Phase(
        name="prefill", model=model, context=context, batch=batch, tokens=tokens, works=works
    )


def _check(model: Model, context: int) -> None:
    if context > model.max_context:
        raise TernError(
            f"context must be at most {model.max_context} tokens for {model.name}, not {context}"
        )


def _blocks(
    model: Model,
    *,
    tokens: int,
    pairs: int,
    heads_out: int,
    ternary: Mapping[str, int] | None,
) -> tuple[Work, ...]:
    works = []
    for layer in model.linears:
        count = layer.count if ternary is None else ternary.get(layer.name, 0)
        count = 0 if layer.kind == "projection" else count
        for is_ternary, times in ((True, count), (False, layer.count - count)):
            if times:
                some = dataclasses.replace(layer, count=times)
                works.append(
                    Work(kind=LINEAR[layer.kind], linear=some, tokens=tokens, ternary=is_ternary)
                )
    head = Linear("lm_head", "head", model.vocabulary, model.embedding, 1)
    works.append(Work(kind="lm_head", linear=head, tokens=heads_out))
    works.append(_attention(model, tokens, pairs))
    works.append(_glue(model, tokens, pairs))
    row = WIDE_BYTES * model.embedding + (WIDE_BYTES * model.hidden if model.positions else 0)
    works.append(Work(kind="embedding", other_bytes=tokens * row))
    return tuple(works)


def _attention(model: Model, tokens: int, pairs: int) -> Work:
    """Return scores and weighted sums over the cache, which is read once and added to."""
    return Work(
        kind="attention",
        macs=2 * model.layers * model.heads * model.head_dim * pairs,
        kv_bytes=WIDE_BYTES * model.layers * model.kv_values * (pairs + tokens),
    )


def _glue(model: Model, tokens: int, pairs: int) -> Work:
    """Return norms, residuals, activation functions, rotations, softmax, quantising to int8."""
    rotated = 0 if model.positions else (model.heads + model.kv_heads) * model.head_dim
    entering = sum(each.count * each.k for each in model.block_linears)
    leaving = sum(each.count * each.n for each in model.block_linears)
    each_token = (
        (NORM, sum(model.norms)),
        (RESIDUAL, 2 * model.layers * model.hidden),
        (SILU if model.gated else RELU, model.layers * model.intermediate),
        (GATE, model.layers * model.intermediate if model.gated else 0),
        (ROTATION, model.layers * rotated),
        (QUANTIZE, entering),
        (GATE, leaving),
    )
    muls = tokens * sum(cost[0] * numbers for cost, numbers in each_token)
    adds = tokens * sum(cost[1] * numbers for cost, numbers in each_token)
    small = model.small_parameters - model.positions * model.hidden
    softmaxes = model.layers * model.heads * pairs
    return Work(
        kind="norms and glue",
        muls=muls + SOFTMAX[0] * softmaxes,
        adds=adds + SOFTMAX[1] * softmaxes,
        other_bytes=WIDE_BYTES * small,  # norms and biases, once for all tokens
    )
