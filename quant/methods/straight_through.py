"""Ternary fake quantisation with a gradient: ``D = alpha * T + gamma``, group by group.

The codes T are constants to the gradient. The scale's and the shift's gradients are then the chain
rule, exactly; the weight's is a choice, since a step function has none: straight through, by one of
`StraightThrough`'s rules.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quant.groups import split_groups
from tern_hw.matrix import GroupSize

__all__ = ["StraightThrough", "round_fp16", "ternary_levels"]


class StraightThrough(StrEnum):
    """What of the gradient of D reaches the weight."""

    #: alpha times it where T is not 0, all of it where T is 0 (Trained Ternary Quantization,
    #: arXiv:1612.01064; the rule that TernaryLLM is understood to use).
    TTQ = "ttq"
    #: All of it.
    IDENTITY = "identity"
    #: All of it between the outer levels, none beyond them (LSQ, arXiv:1902.08153).
    CLIPPED = "clipped"


class _RoundFp16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.half().to(values.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def round_fp16(values: Tensor) -> Tensor:
    """Round to binary16, as the artifact stores scales and shifts; the gradient passes as it is."""
    return _RoundFp16.apply(values)


class _TernaryLevels(torch.autograd.Function):
    # Over the whole weight, not over its pieces: cutting and joining would be passes of their own.

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        alpha: Tensor,
        gamma: Tensor,
        trits: Tensor,
        group_size: GroupSize,
        rule: StraightThrough,
    ) -> Tensor:
        levels = torch.empty_like(weight)
        for out, codes, scale, shift in _pieces(group_size, levels, trits, alpha, gamma):
            torch.mul(codes, scale, out=out)
            out.add_(shift)
        ctx.group_size, ctx.rule = group_size, rule
        # Only the clipped rule asks again where the weight lies; the others need not keep it.
        kept = weight if rule is StraightThrough.CLIPPED else None
        ctx.save_for_backward(trits, alpha, gamma, kept)
        return levels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        trits, alpha, gamma, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        plain = ctx.rule is StraightThrough.IDENTITY
        to_weight = gradient if plain else torch.empty_like(gradient)
        to_alpha, to_gamma = [], []
        for part, out, codes, scale, shift, place in _pieces(
            ctx.group_size, gradient, to_weight, trits, alpha, gamma, weight
        ):
            product = part * codes
            to_alpha.append(product.sum(-1))
            to_gamma.append(part.sum(-1))
            if ctx.rule is StraightThrough.TTQ:
                # g * (1 + (alpha - 1) * |T|)
                torch.addcmul(part, product.mul_(codes), scale - 1, out=out)
            elif place is not None:
                torch.mul(part, (place - shift).abs_() <= scale.abs(), out=out)
        return to_weight, torch.cat(to_alpha, 1), torch.cat(to_gamma, 1), None, None, None


def _pieces(group_size: GroupSize, *tensors: Tensor | None) -> list[Sequence[Any]]:
    """Cut matrices ``[N, K]`` and the values of their groups ``[N, groups]`` alike.

    Returns
    -------
    list
        For the full groups, and for the short ones, each tensor's part: ``[N, groups, G]``, and
        ``[N, groups, 1]`` of those that hold one value a group. None stays None.
    """
    first = tensors[0]
    assert first is not None
    counts = [groups.shape[1] for groups in split_groups(first, group_size)]
    cut: list[Sequence[Any]] = []
    for tensor in tensors:
        if tensor is None:
            cut.append([None] * len(counts))
        elif tensor.shape == first.shape:
            cut.append(split_groups(tensor, group_size))
        else:
            cut.append([part.unsqueeze(-1) for part in tensor.split(counts, dim=1)])
    return list(zip(*cut, strict=True))


def ternary_levels(
    weight: Tensor,
    alpha: Tensor,
    gamma: Tensor,
    trits: Tensor,
    group_size: GroupSize,
    rule: StraightThrough,
) -> Tensor:
    """Return ``alpha * T + gamma`` with gradients for weights, scales and shifts.

    Parameters
    ----------
    weight : Tensor, [N, K]
        Only its gradient and, with `CLIPPED`, its place among the levels matter.
    alpha, gamma : Tensor, [N, groups]
    trits : Tensor, int8 [N, K]
        T in {-1, 0, +1}.
    group_size : int or "row"
        More than 1: a group of one weight is no group.
    rule : StraightThrough

    Returns
    -------
    Tensor, [N, K]

    Notes
    -----
    ``dL/dalpha = sum(g * T)``, ``dL/dgamma = sum(g)`` with g the gradient of D (TernaryLLM,
    arXiv:2406.07177); dL/dW by the rule. With alpha and gamma binary16 values the product is exact
    and D has one rounding, as in `quant.ternary.dequantize`: the two agree to the bit.
    """
    return _TernaryLevels.apply(weight, alpha, gamma, trits, group_size, rule)
