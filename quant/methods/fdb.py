"""FDB, flexible dual binarisation: two planes of {0, 1}, each with a trained scale per group.

``W_q = a1 * b1 + a2 * b2``: four levels {0, a1, a2, a1 + a2}, at the start {-s, 0, s, 2s}
(DB-LLM, arXiv:2402.11960, as a review and an independent implementation give it). Two bits a
weight: it has no ternary artifact.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from quant.groups import join_groups, split_groups
from quant.methods.base import LayerMethod, Quantizer
from quant.methods.bits import grouped_bits
from quant.methods.config import MethodConfig
from quant.methods.straight_through import round_fp16

__all__ = ["Fdb", "FdbConfig", "FdbQuantizer", "Start", "dual_planes"]


class Start(StrEnum):
    """What s is at the start."""

    #: Of a few fractions of max|w| / 2 (the start of an independent implementation) the one of
    #: the lowest squared error; ours, since the paper's own text was not to be had.
    SEARCH = "search"
    #: ``max|w| / 2``.
    MAX = "max"


@dataclass(frozen=True, kw_only=True)
class FdbConfig(MethodConfig):
    """Options of FDB."""

    start: Start = Start.SEARCH
    #: Mirror a group whose long tail is negative, so that the level 2s serves the longer side.
    mirror: bool = True


def dual_planes(groups: Tensor, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the planes b1 and b2 ``[..., G]`` in {0, 1} for scales a1, a2 ``[...]``.

    ``b1 = H(w - (a1 + a2) / 2)``, ``b2 = H(-(w - a1 * b1 - a2 / 2))`` (DB-LLM) for
    a1 > 0 > a2: the nearest of the four levels. A mirrored group has both signs turned.
    """
    sign = torch.where(high < 0, -1.0, 1.0).unsqueeze(-1)
    high, low = high.unsqueeze(-1), low.unsqueeze(-1)
    first = (sign * (groups - (high + low) / 2) > 0).to(groups.dtype)
    second = (sign * (groups - high * first - low / 2) < 0).to(groups.dtype)
    return first, second


class _Dual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, groups: Tensor, high: Tensor, low: Tensor) -> Tensor:
        first, second = dual_planes(groups, high, low)
        ctx.save_for_backward((first + 2 * second).to(torch.int8))
        return high.unsqueeze(-1) * first + low.unsqueeze(-1) * second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (planes,) = ctx.saved_tensors
        to_high = (gradient * (planes & 1)).sum(-1)
        to_low = (gradient * (planes >> 1)).sum(-1)
        # Straight through both steps: the weight takes the whole gradient.
        return gradient, to_high, to_low


class FdbQuantizer(Quantizer):
    """The two scales of one layer, parameters ``[N, groups]``."""

    def __init__(self, high: Tensor, low: Tensor, config: FdbConfig) -> None:
        super().__init__()
        self.config = config
        self.scale_high = nn.Parameter(high)
        self.scale_low = nn.Parameter(low)

    def forward(self, weight: Tensor) -> Tensor:
        levels = [_Dual.apply(*each) for each in self._pieces(weight)]
        return join_groups(levels)

    @torch.no_grad()
    def planes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return b1 and b2, ``[N, K]`` in {0, 1}."""
        pairs = [dual_planes(*each) for each in self._pieces(weight)]
        first, second = (join_groups(list(planes)) for planes in zip(*pairs, strict=True))
        return first, second

    def bits_per_weight(self, weight: Tensor) -> float:
        return grouped_bits(weight.shape, self.config.group_size, 2, 2)

    def _pieces(self, weight: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        pieces = split_groups(weight, self.config.group_size)
        counts = [groups.shape[1] for groups in pieces]
        high = round_fp16(self.scale_high).split(counts, dim=1)
        low = round_fp16(self.scale_low).split(counts, dim=1)
        return list(zip(pieces, high, low, strict=True))


class Fdb(LayerMethod):
    """FDB."""

    name = "fdb"
    source = "DB-LLM, arXiv:2402.11960"
    config_type = FdbConfig
    trainable = True

    def quantizer(self, weight: Tensor, config: FdbConfig, name: str) -> FdbQuantizer:
        pieces = split_groups(weight.float(), config.group_size)
        step = torch.cat([_start(groups, config) for groups in pieces], dim=1)
        return FdbQuantizer(2 * step, -step, config)


#: Fractions of max|w| / 2 among which `Start.SEARCH` chooses.
FRACTIONS = tuple(fraction / 20 for fraction in range(6, 21))


def _start(groups: Tensor, config: FdbConfig) -> Tensor:
    """Return s of each group ``[N, groups]``; negative where the group is mirrored."""
    largest = groups.abs().amax(-1) / 2
    fractions = FRACTIONS if config.start is Start.SEARCH else (1.0,)
    signs = (1.0, -1.0) if config.mirror else (1.0,)
    best = torch.full_like(largest, torch.inf)
    chosen = largest.clone()
    for factor in (sign * fraction for sign in signs for fraction in fractions):
        step = factor * largest
        first, second = dual_planes(groups, 2 * step, -step)
        levels = 2 * step.unsqueeze(-1) * first - step.unsqueeze(-1) * second
        error = (groups - levels).square().sum(-1)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, step, chosen)
    return chosen
