"""AbsMean, the weights of BitNet b1.58: ``clip(round(W / s), -1, 1) * s`` with ``s = mean|W|``.

(The Era of 1-bit LLMs, arXiv:2402.17764.) There s is one number a matrix; here it is
one a group, and the whole matrix is a group where `per_tensor` says so.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from quant.groups import join_groups, split_groups
from quant.methods.base import LayerMethod, Quantizer
from quant.methods.bits import ternary_bits
from quant.methods.config import MethodConfig
from quant.methods.straight_through import StraightThrough, round_fp16, ternary_levels
from quant.ternary import TernaryFit, nearest_codes

__all__ = ["AbsMean", "AbsMeanConfig", "AbsMeanQuantizer"]


@dataclass(frozen=True, kw_only=True)
class AbsMeanConfig(MethodConfig):
    """Options of AbsMean."""

    #: One scale a matrix, as in the paper; the artifact then repeats it for each group.
    per_tensor: bool = False


class AbsMeanQuantizer(Quantizer):
    """A quantiser without a parameter: codes and scale are functions of the weight."""

    ternary: ClassVar[bool] = True

    def __init__(self, config: AbsMeanConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, weight: Tensor) -> Tensor:
        trits, scale = self._trits_and_scale(weight)
        zero = torch.zeros_like(scale)
        size = self.config.group_size
        return ternary_levels(weight, scale, zero, trits, size, StraightThrough.IDENTITY)

    def fit(self, weight: Tensor) -> TernaryFit:
        trits, scale = self._trits_and_scale(weight)
        zero = torch.zeros_like(scale.half())
        return TernaryFit(trits, scale.half(), zero, self.config.group_size)

    def bits_per_weight(self, weight: Tensor) -> float:
        if self.config.per_tensor:
            return ternary_bits((1, weight.numel()), "row", shift=False)
        return ternary_bits(weight.shape, self.config.group_size, shift=False)

    @torch.no_grad()
    def _trits_and_scale(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        trits, scales = [], []
        for groups in split_groups(weight, self.config.group_size):
            mean = weight.abs().mean() if self.config.per_tensor else groups.abs().mean(-1)
            scale = round_fp16(mean.expand(groups.shape[:-1]))
            codes = nearest_codes(groups, scale, torch.zeros_like(scale))
            trits.append(codes.to(torch.int8))
            scales.append(scale)
        return join_groups(trits), torch.cat(scales, dim=1)


class AbsMean(LayerMethod):
    """AbsMean."""

    name = "absmean"
    source = "BitNet b1.58, arXiv:2402.17764"
    config_type = AbsMeanConfig
    trainable = True

    def quantizer(self, weight: Tensor, config: AbsMeanConfig, name: str) -> AbsMeanQuantizer:
        return AbsMeanQuantizer(config)
