"""PB-LLM: a few salient weights in 8 bits, all others their sign times a scale.

(arXiv:2310.00034.) Four numbers a layer: which weights are salient, their integers, a scale a row
for them, and a scale a group for the signs.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor

from quant.groups import expand_groups
from quant.methods.base import Quantizer
from quant.methods.bits import SCALE_BITS
from quant.methods.calibrated import CalibratedMethod, HessianConfig
from quant.methods.calibration import Statistics
from quant.methods.grids import spans
from quant.methods.hessian import compensate, damped, inverse_factor
from quant.methods.straight_through import round_fp16
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize, group_count

__all__ = ["PartlyBinaryQuantizer", "PbLlm", "PbLlmConfig", "Salience"]

#: Largest integer of a salient weight.
INT8_MAX: Final = 127


class Salience(StrEnum):
    """What makes a weight salient."""

    #: ``w^2 / (H^-1_kk)^2``, what it costs to lose it (as the method's own code has it).
    HESSIAN = "hessian"
    #: |w|.
    MAGNITUDE = "magnitude"


@dataclass(frozen=True, kw_only=True)
class PbLlmConfig(HessianConfig):
    """Options of PB-LLM."""

    #: Share of the layer's weights that stay in 8 bits, at least 0 and below 1.
    salient: float = 0.1
    salience: Salience = Salience.HESSIAN
    #: Make up for each column's error in the columns after it, as GPTQ does.
    compensation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.salient < 1:
            raise TernError(f"salient must be at least 0 and below 1, not {self.salient!r}")


class PartlyBinaryQuantizer(Quantizer):
    """Salient weights ``code * row_scale``, others ``code * scale`` with a code of -1 or 1."""

    def __init__(
        self,
        codes: Tensor,
        salient: Tensor,
        row_scale: Tensor,
        scale: Tensor,
        group_size: GroupSize,
    ) -> None:
        """Keep int8 codes and bool mask ``[N, K]``, scales ``[N, 1]`` and ``[N, groups]``."""
        super().__init__()
        self.group_size = group_size
        self.register_buffer("codes", codes.to(torch.int8).contiguous())
        self.register_buffer("salient", salient.contiguous())
        self.register_buffer("row_scale", round_fp16(row_scale.float()).contiguous())
        self.register_buffer("scale", round_fp16(scale.float()).contiguous())

    def forward(self, weight: Tensor) -> Tensor:
        binary = expand_groups(self.scale, self.codes.shape[1], self.group_size)
        levels = self.codes * torch.where(self.salient, self.row_scale, binary)
        return levels.to(weight.dtype)

    def bits_per_weight(self, weight: Tensor) -> float:
        """Return 8 bits a salient weight, 1 a binary one, 1 for the mask, and the scales."""
        share = float(self.salient.float().mean())
        values = 1 + group_count(weight.shape[1], self.group_size)
        return 8 * share + (1 - share) + 1 + SCALE_BITS * values / weight.shape[1]


class PbLlm(CalibratedMethod):
    """PB-LLM."""

    name = "pb_llm"
    source = "PB-LLM, arXiv:2310.00034"
    config_type = PbLlmConfig

    def quantizer(
        self, weight: Tensor, statistics: Statistics, config: PbLlmConfig, name: str
    ) -> Quantizer:
        factor = inverse_factor(damped(statistics.gram, config.damping), name)
        mask = salient_weights(weight, factor, config)
        row_scale = round_fp16((weight * mask).abs().amax(1, keepdim=True) / INT8_MAX)
        factor = factor.to(weight.dtype)
        codes, scales = torch.empty_like(weight), []

        def quantize(groups: Tensor, span: slice) -> Tensor:
            scale = _binary_scale(groups, mask[:, span])
            scales.append(scale)
            steps = torch.where(mask[:, span], row_scale, scale)

            def settle(part: Tensor, inner: slice) -> Tensor:
                chosen = _codes(part, mask[:, span][:, inner], row_scale)
                codes[:, span][:, inner] = chosen
                return chosen * steps[:, inner]

            if not config.compensation:
                return settle(groups, slice(None))
            return compensate(groups, factor[span, span], spans(groups.shape[1], 1), settle)

        columns = spans(weight.shape[1], config.group_size)
        if config.compensation:
            compensate(weight, factor, columns, quantize)
        else:
            for span in columns:
                quantize(weight[:, span], span)
        scale = torch.cat(scales, dim=1)
        _check_scales(row_scale, scale, name)
        return PartlyBinaryQuantizer(codes, mask, row_scale, scale, config.group_size)

    def blank(self, weight: Tensor, config: PbLlmConfig) -> Quantizer:
        zeros = torch.zeros(weight.shape, device=weight.device)
        scale = zeros.new_zeros(len(weight), group_count(weight.shape[1], config.group_size))
        return PartlyBinaryQuantizer(zeros, zeros > 0, zeros[:, :1], scale, config.group_size)


def salient_weights(weight: Tensor, factor: Tensor, config: PbLlmConfig) -> Tensor:
    """Return which weights are salient, bool [N, K]: `config.salient` of them, of all rows."""
    if config.salience is Salience.HESSIAN:
        # H^-1 = U^T U: its diagonal is that of the squared columns of U.
        score = weight.square() / factor.square().sum(0).square().to(weight.dtype)
    else:
        score = weight.abs()
    mask = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    mask[score.flatten().topk(round(config.salient * score.numel())).indices] = True
    return mask.view_as(weight)


def _binary_scale(groups: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of |w| over a group's weights that are not salient, [N, 1].

    With their signs it is the least-squares scale.
    """
    rest = groups.abs() * ~mask
    return round_fp16(rest.sum(1, keepdim=True) / (~mask).sum(1, keepdim=True).clamp(min=1))


def _codes(groups: Tensor, mask: Tensor, row_scale: Tensor) -> Tensor:
    """Return codes ``[N, G]``: integers for salient weights, -1 or 1 for the others."""
    step = torch.where(row_scale > 0, row_scale, torch.inf)
    integers = (groups / step).round().clamp(-INT8_MAX, INT8_MAX)
    return torch.where(mask, integers, torch.where(groups < 0, -1.0, 1.0))


def _check_scales(row_scale: Tensor, scale: Tensor, name: str) -> None:
    if not bool(row_scale.isfinite().all() and scale.isfinite().all()):
        raise TernError(f"scales of {name} must be at most 65504 in magnitude, as fp16 holds them")
