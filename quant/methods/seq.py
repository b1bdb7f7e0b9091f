"""SEQ, the stretched elastic quantiser of ParetoQ: ternary levels ``a * {-2/3, 0, 2/3}``.

``W_q = a * round(1.5 * clip(W / a, -1 + e, 1 - e)) / 1.5`` with a learned range a per group,
started at max|W|, and LSQ's gradients (ParetoQ, arXiv:2502.02631; LSQ, arXiv:1902.08153).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from quant.groups import join_groups, split_groups
from quant.methods.base import LayerMethod, Quantizer
from quant.methods.bits import ternary_bits
from quant.methods.config import MethodConfig
from quant.methods.straight_through import round_fp16
from quant.ternary import TernaryFit

__all__ = ["Seq", "SeqConfig", "SeqQuantizer"]

#: Where W / a is clipped: a little inside 1, so that no weight rounds beyond the outer level.
CLIP = 1 - 1e-2
#: Half the number of levels.
HALF_LEVELS = 1.5


@dataclass(frozen=True, kw_only=True)
class SeqConfig(MethodConfig):
    """Options of SEQ.

    The range's gradient is scaled by ``1 / sqrt(G)``, as LSQ does with the number of weights that
    share a step. ParetoQ has one range a row; a group's is ours.
    """


class _Stretched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, groups: Tensor, outer: Tensor) -> Tensor:
        outer = outer.unsqueeze(-1)
        relative = groups / (outer * HALF_LEVELS)
        codes = _codes(relative)
        ctx.save_for_backward(relative, codes)
        return codes * outer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        relative, codes = ctx.saved_tensors
        inside = relative.abs() <= CLIP
        # d(W_q)/da: the sign beyond the clip, else code / 1.5 - W / a.
        slope = torch.where(inside, codes / HALF_LEVELS - relative, relative.sign())
        gain = 1 / relative.shape[-1] ** 0.5
        # The parameter here is the outer level 2a/3, so its gradient is that of a, times 1.5.
        to_outer = (gradient * slope).sum(-1) * (gain * HALF_LEVELS)
        return gradient * inside, to_outer


def _codes(relative: Tensor) -> Tensor:
    return (relative.clamp(-CLIP, CLIP) * HALF_LEVELS).round()


class SeqQuantizer(Quantizer):
    """One layer's outer levels ``2a/3``, a parameter ``[N, groups]``.

    The outer level is what the artifact stores as its scale; a itself is 1.5 times that.
    """

    ternary: ClassVar[bool] = True

    def __init__(self, outer: Tensor, config: SeqConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(outer)

    def forward(self, weight: Tensor) -> Tensor:
        pieces = split_groups(weight, self.config.group_size)
        scales = self._levels().split([groups.shape[1] for groups in pieces], dim=1)
        return join_groups(
            [_Stretched.apply(w, scale) for w, scale in zip(pieces, scales, strict=True)]
        )

    @torch.no_grad()
    def fit(self, weight: Tensor) -> TernaryFit:
        pieces = split_groups(weight, self.config.group_size)
        scale = self._levels()
        parts = scale.split([groups.shape[1] for groups in pieces], dim=1)
        codes = [
            _codes(w / (part.unsqueeze(-1) * HALF_LEVELS))
            for w, part in zip(pieces, parts, strict=True)
        ]
        trits = join_groups(codes).to(torch.int8)
        return TernaryFit(
            trits, scale.half(), torch.zeros_like(scale.half()), self.config.group_size
        )

    def bits_per_weight(self, weight: Tensor) -> float:
        return ternary_bits(weight.shape, self.config.group_size, shift=False)

    def _levels(self) -> Tensor:
        return round_fp16(self.scale.abs().clamp(min=SMALLEST))


#: Smallest outer level, binary16's smallest normal: the weight is divided by it.
SMALLEST = 2.0**-14


class Seq(LayerMethod):
    """SEQ."""

    name = "seq"
    source = "ParetoQ, arXiv:2502.02631"
    config_type = SeqConfig
    trainable = True

    def quantizer(self, weight: Tensor, config: SeqConfig, name: str) -> SeqQuantizer:
        pieces = split_groups(weight.float(), config.group_size)
        largest = torch.cat([groups.abs().amax(-1) for groups in pieces], dim=1)
        return SeqQuantizer(largest / HALF_LEVELS, config)
