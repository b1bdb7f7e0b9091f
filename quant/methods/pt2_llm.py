"""PT2-LLM: ternary levels fitted to the weights, then aligned to the activations.

Per group: iterative ternary fitting (alternating least squares), then activation-aware grid
alignment with the codes frozen, inside GPTQ's compensation (arXiv:2510.03267). Its reordering of
columns by structural similarity is left out: groups here are consecutive inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quant.methods.base import Quantizer
from quant.methods.calibrated import CalibratedMethod, HessianConfig
from quant.methods.calibration import Statistics
from quant.methods.fixed import FixedTernaryQuantizer
from quant.methods.hessian import compensated_groups, damped, inverse_factor
from quant.methods.straight_through import round_fp16
from quant.ternary import fit_groups, nearest_codes

__all__ = ["Pt2Llm", "Pt2LlmConfig", "align", "align_codes", "fit_aligned"]


@dataclass(frozen=True, kw_only=True)
class Pt2LlmConfig(HessianConfig):
    """Options of PT2-LLM."""

    #: Make up for each group's error in the groups after it, as GPTQ does.
    compensation: bool = True


class Pt2Llm(CalibratedMethod):
    """PT2-LLM."""

    name = "pt2_llm"
    source = "PT2-LLM, arXiv:2510.03267"
    config_type = Pt2LlmConfig

    def quantizer(
        self, weight: Tensor, statistics: Statistics, config: Pt2LlmConfig, name: str
    ) -> Quantizer:
        gram = damped(statistics.gram, config.damping)
        # An identity has nothing to hand on.
        factor = (
            inverse_factor(gram, name) if config.compensation else torch.eye(len(gram)).to(gram)
        )
        fitted = compensated_groups(
            weight, factor, config.group_size, lambda w, span: fit_aligned(w, gram[span, span])
        )
        return FixedTernaryQuantizer.fitted(*fitted, config.group_size, name=name)

    def blank(self, weight: Tensor, config: Pt2LlmConfig) -> Quantizer:
        return FixedTernaryQuantizer.blank(weight, config.group_size)


def fit_aligned(groups: Tensor, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return trits ``[N, G]``, scale and shift ``[N]`` (binary16 values) of one group."""
    return align_codes(groups, nearest_codes(groups, *fit_groups(groups)), gram)


def align_codes(groups: Tensor, trits: Tensor, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return trits, scale and shift as `fit_aligned` does, for trits that are given."""
    scale, shift = align(groups, trits, gram)
    # A scale below 0 is one above 0 with the trits turned.
    trits = torch.where(scale.unsqueeze(-1) < 0, -trits, trits)
    return trits, round_fp16(scale.abs()), round_fp16(shift)


def align(groups: Tensor, codes: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and shift that minimise ``||X (w - alpha * T - gamma)||^2``, codes given.

    Parameters
    ----------
    groups, codes : Tensor, [N, G]
        Weights w and trits T.
    gram : Tensor, float64 [G, G]
        The group's part of H, symmetric and positive definite.

    Returns
    -------
    alpha, gamma : Tensor, [N]
        Where all codes of a row are equal only ``alpha * T + gamma`` is determined: alpha is 0.

    Notes
    -----
    The error is the quadratic form ``e H e^T`` with ``e = w - alpha * T - gamma * 1``. Its
    derivatives by alpha and gamma vanish where

    ``[ T H T^T  T H 1^T ] [alpha]   [ T H w^T ]``
    ``[ T H 1^T  1 H 1^T ] [gamma] = [ 1 H w^T ]``

    so with a = T H T', b = T H 1', c = 1 H 1', p = T H w', q = 1 H w':
    ``alpha = (c p - b q) / (a c - b^2)`` and ``gamma = (q - alpha b) / c``. By Cauchy and Schwarz
    the determinant is positive unless T is a multiple of 1. For H = I this is
    `quant.ternary.least_squares`.
    """
    exact, trits = groups.double(), codes.double()
    ones = gram.sum(0)
    through = trits @ gram
    a, b, c = (through * trits).sum(-1), trits @ ones, ones.sum()
    p, q = (through * exact).sum(-1), exact @ ones
    determinant = a * c - b.square()
    mixed = codes.amax(-1) > codes.amin(-1)
    alpha = torch.where(mixed, (c * p - b * q) / torch.where(mixed, determinant, 1.0), 0.0)
    gamma = (q - alpha * b) / c
    return alpha.to(groups.dtype), gamma.to(groups.dtype)
