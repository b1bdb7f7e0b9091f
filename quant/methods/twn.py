"""TWN, symmetric ternary weights: the scale follows from the weight, nothing else is trained.

Threshold ``0.7 * mean|W|``, scale the mean of |W| above it (Ternary Weight Networks,
arXiv:1605.04711), per group.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from quant.groups import join_groups, split_groups
from quant.methods.base import LayerMethod, Quantizer
from quant.methods.bits import ternary_bits
from quant.methods.config import MethodConfig
from quant.methods.dlt import mean_above_threshold
from quant.methods.straight_through import StraightThrough, round_fp16, ternary_levels
from quant.ternary import THRESHOLD_FACTOR, TernaryFit, check_factor, threshold_trits

__all__ = ["Twn", "TwnConfig", "TwnQuantizer"]


@dataclass(frozen=True, kw_only=True)
class TwnConfig(MethodConfig):
    """Options of TWN."""

    #: Delta over mean|w|.
    factor: float = THRESHOLD_FACTOR
    ste: StraightThrough = StraightThrough.IDENTITY

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factor(self.factor)


class TwnQuantizer(Quantizer):
    """A quantiser without a parameter: codes and scale are functions of the weight."""

    ternary: ClassVar[bool] = True

    def __init__(self, config: TwnConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, weight: Tensor) -> Tensor:
        trits, scale = self._trits_and_scale(weight)
        zero = torch.zeros_like(scale)
        config = self.config
        return ternary_levels(weight, scale, zero, trits, config.group_size, config.ste)

    def fit(self, weight: Tensor) -> TernaryFit:
        trits, scale = self._trits_and_scale(weight)
        zero = torch.zeros_like(scale.half())
        return TernaryFit(trits, scale.half(), zero, self.config.group_size)

    def bits_per_weight(self, weight: Tensor) -> float:
        return ternary_bits(weight.shape, self.config.group_size, shift=False)

    @torch.no_grad()
    def _trits_and_scale(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        pieces = split_groups(weight, self.config.group_size)
        trits = [threshold_trits(groups, self.config.factor) for groups in pieces]
        means = [mean_above_threshold(w, t) for w, t in zip(pieces, trits, strict=True)]
        return join_groups(trits), round_fp16(torch.cat(means, dim=1))


class Twn(LayerMethod):
    """TWN."""

    name = "twn"
    source = "Ternary Weight Networks, arXiv:1605.04711"
    config_type = TwnConfig
    trainable = True

    def quantizer(self, weight: Tensor, config: TwnConfig, name: str) -> TwnQuantizer:
        return TwnQuantizer(config)
