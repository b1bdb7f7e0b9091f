"""DLT, dual learnable ternarisation: a trained scale and a trained shift per group.

``D = alpha * T + gamma`` with T by a threshold on the latent weight (TernaryLLM,
arXiv:2406.07177). What the paper's public text leaves open is an option of `DltConfig`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from quant.groups import expand_groups, join_groups, split_groups
from quant.methods.base import LayerMethod, Quantizer
from quant.methods.bits import ternary_bits
from quant.methods.config import MethodConfig
from quant.methods.straight_through import StraightThrough, round_fp16, ternary_levels
from quant.ternary import (
    THRESHOLD_FACTOR,
    TernaryFit,
    check_factor,
    fit_groups,
    least_squares,
    nearest_codes,
    threshold,
    threshold_codes,
    threshold_trits,
)

__all__ = ["Codes", "Dlt", "DltConfig", "DltQuantizer", "Initialisation", "latent_for"]

#: How far inside its trit's cell a moved weight lies, in scales (a cell is one scale wide).
MARGIN: Final = 0.1


class Codes(StrEnum):
    """How a latent weight gets its trit."""

    #: By ``|w| > factor * mean|w|`` of the group, whatever its scale and shift: the paper's rule.
    THRESHOLD = "threshold"
    #: The nearest of gamma - alpha, gamma, gamma + alpha: the levels decide, so scale and shift
    #: move the thresholds too (as PT2-LLM and CAT-Q have it).
    NEAREST = "nearest"


class Initialisation(StrEnum):
    """Where scale and shift start."""

    #: Least squares on the codes; with `Codes.NEAREST` alternating with the codes until they stay
    #: (PT2-LLM, arXiv:2510.03267, eq. 9).
    ALS = "als"
    #: The mean of |w| above the threshold, and 0 (TWN, arXiv:1605.04711).
    TWN = "twn"
    #: The threshold itself, ``factor * mean|w|``, and 0 (a public re-implementation's start).
    MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class DltConfig(MethodConfig):
    """Options of DLT."""

    #: Delta over mean|w|.
    factor: float = THRESHOLD_FACTOR
    codes: Codes = Codes.THRESHOLD
    #: Subtract the group's mean before the threshold.
    center: bool = False
    init: Initialisation = Initialisation.ALS
    ste: StraightThrough = StraightThrough.TTQ
    #: Without it gamma is 0 and stays there: symmetric ternary, equal in all else.
    shift: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factor(self.factor)


class DltQuantizer(Quantizer):
    """Scale and shift of one layer; both are parameters ``[N, groups]``."""

    ternary: ClassVar[bool] = True

    def __init__(self, alpha: Tensor, gamma: Tensor, config: DltConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(alpha)
        # A shift that is held at 0 is no parameter, so that no optimiser moves it.
        if config.shift:
            self.shift = nn.Parameter(gamma)
        else:
            self.register_buffer("shift", gamma)

    def forward(self, weight: Tensor) -> Tensor:
        scale, shift = self._levels()
        trits = self._trits(weight, scale, shift)
        config = self.config
        return ternary_levels(weight, scale, shift, trits, config.group_size, config.ste)

    @torch.no_grad()
    def fit(self, weight: Tensor) -> TernaryFit:
        scale, shift = self._levels()
        trits = self._trits(weight, scale, shift)
        return TernaryFit(trits, scale.half(), shift.half(), self.config.group_size)

    def bits_per_weight(self, weight: Tensor) -> float:
        return ternary_bits(weight.shape, self.config.group_size, shift=self.config.shift)

    def _levels(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift as they are used: binary16 values, the scale not negative."""
        return round_fp16(self.scale.abs()), round_fp16(self.shift)

    @torch.no_grad()
    def _trits(self, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return T, int8 [N, K]."""
        pieces = split_groups(weight, self.config.group_size)
        if self.config.codes is Codes.THRESHOLD:
            factor, center = self.config.factor, self.config.center
            return join_groups([threshold_trits(w, factor, center=center) for w in pieces])
        counts = [groups.shape[1] for groups in pieces]
        levels = zip(pieces, scale.split(counts, 1), shift.split(counts, 1), strict=True)
        return join_groups([nearest_codes(*each).to(torch.int8) for each in levels])


class Dlt(LayerMethod):
    """DLT."""

    name = "dlt"
    source = "TernaryLLM, arXiv:2406.07177"
    config_type = DltConfig
    trainable = True

    def quantizer(self, weight: Tensor, config: DltConfig, name: str) -> DltQuantizer:
        pairs = [
            _initialise(groups, config)
            for groups in split_groups(weight.float(), config.group_size)
        ]
        alpha, gamma = (torch.cat(values, dim=1) for values in zip(*pairs, strict=True))
        return DltQuantizer(alpha, gamma, config)


def latent_for(weight: Tensor, fit: TernaryFit) -> Tensor:
    """Return the weight next to `weight` whose nearest codes are a fit's trits, [N, K].

    A weight well inside its trit's cell stays; another moves to just inside the cell's edge. So
    training finds the weights where the model had them, but for those that a fit to activations
    put elsewhere. Where a scale is 0 all levels are one, and the weight stays.
    """
    scale, shift = (
        expand_groups(part.float(), weight.shape[1], fit.group_size)
        for part in (fit.scale, fit.shift)
    )
    trits = fit.trits.to(weight.dtype)
    place = (weight - shift) / scale
    low = torch.where(trits > -1, trits - (0.5 - MARGIN), -torch.inf)
    high = torch.where(trits < 1, trits + (0.5 - MARGIN), torch.inf)
    stays = (place >= low) & (place <= high) | (scale == 0)
    return torch.where(stays, weight, place.clamp(low, high) * scale + shift)


def _initialise(groups: Tensor, config: DltConfig) -> tuple[Tensor, Tensor]:
    """Return alpha and gamma ``[N, groups]`` of weights ``[N, groups, G]``."""
    codes = threshold_codes(groups, config.factor, center=config.center)
    zero = groups.new_zeros(groups.shape[:-1])
    if config.init is Initialisation.MEAN:
        return threshold(groups, config.factor), zero
    if config.init is Initialisation.TWN:
        return mean_above_threshold(groups, codes), zero
    if not config.shift:
        return _symmetric_least_squares(groups, codes, config), zero
    if config.codes is Codes.NEAREST:
        return fit_groups(groups, config.factor)
    return least_squares(groups, codes)


def mean_above_threshold(groups: Tensor, codes: Tensor) -> Tensor:
    """Return the mean of |w| over the codes that are not 0, ``[...]``; 0 where all are.

    It is the least-squares scale of symmetric codes: ``sum(T * w) / sum(T^2)`` (TWN,
    arXiv:1605.04711).
    """
    return (groups * codes).sum(-1) / codes.square().sum(-1).clamp(min=1)


def _symmetric_least_squares(groups: Tensor, codes: Tensor, config: DltConfig) -> Tensor:
    """Return the best scale where the shift is 0; with nearest codes, alternating with them."""
    zero = groups.new_zeros(groups.shape[:-1])
    alpha = mean_above_threshold(groups, codes).clamp(min=0)
    if config.codes is Codes.NEAREST:
        for _ in range(SYMMETRIC_ROUNDS):
            alpha = mean_above_threshold(groups, nearest_codes(groups, alpha, zero)).clamp(min=0)
    return alpha


#: Rounds of alternating fit of a scale alone, which settles in fewer than these.
SYMMETRIC_ROUNDS = 16
