"""Aware: ternary levels for the least error at a layer's output, without training.

Our own composition, of parts with known names. For each row w of a layer and ``H = X^T X`` of its
inputs it lowers ``(w - D) H (w - D)^T`` over all trits, scales and shifts of the row together:

1. a start by GPTQ's compensation: each group fitted and aligned as in `quant.methods.pt2_llm`, its
   columns then rounded in order, and aligned once more;
2. all 2 * groups scales and shifts of a row by one least-squares system, trits given;
3. trits by coordinate descent, levels given: each takes the value of least error, all others held
   (as QuantEase does on uniform grids, arXiv:2309.01885);
4. 2 and 3 in turn; neither can raise the error. At last 3 alone, on levels rounded to binary16.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quant.groups import expand_groups
from quant.methods.base import Quantizer
from quant.methods.calibrated import CalibratedMethod, HessianConfig
from quant.methods.calibration import Statistics
from quant.methods.fixed import FixedTernaryQuantizer
from quant.methods.gptq import round_columns
from quant.methods.grids import Grid, spans
from quant.methods.hessian import compensated_groups, damped, inverse_factor
from quant.methods.pt2_llm import align_codes, fit_aligned
from quant.methods.straight_through import round_fp16
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize

__all__ = ["Aware", "AwareConfig", "TernaryRows", "descend", "refit"]

#: Columns whose trits are settled before the errors of all others are brought up to date.
BLOCK: Final = 128
#: Rows whose least-squares systems are built at once, which bounds memory.
ROWS: Final = 256


@dataclass(frozen=True, kw_only=True)
class AwareConfig(HessianConfig):
    """Options of Aware."""

    #: What is added to H's diagonal, over its mean. More than GPTQ's 1 %, since more is fitted:
    #: on text that was not calibrated on the error is lower for it.
    damping: float = 0.05
    #: Times that levels and trits are improved in turn; 0 leaves the start as it is.
    rounds: int = 6
    #: What holds a row's levels to those before, over the diagonal of their system.
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 0:
            raise TernError(f"rounds must be 0 or more, not {self.rounds}")
        if not 0 < self.ridge <= 1:
            raise TernError(f"ridge must be above 0 and at most 1, not {self.ridge!r}")


@dataclass
class TernaryRows:
    """Trits ``[N, K]`` with scale and shift ``[N, groups]``, all in one floating-point type."""

    trits: Tensor
    scale: Tensor
    shift: Tensor
    group_size: GroupSize

    def levels(self) -> Tensor:
        """Return ``alpha * T + gamma``, [N, K]."""
        return self.steps() * self.trits + self._expand(self.shift)

    def steps(self) -> Tensor:
        """Return the scale of each weight, [N, K]."""
        return self._expand(self.scale)

    def _expand(self, values: Tensor) -> Tensor:
        return expand_groups(values, self.trits.shape[1], self.group_size)


class Aware(CalibratedMethod):
    """Aware."""

    name = "aware"
    source = "this project: joint least squares and coordinate descent on X^T X"
    config_type = AwareConfig

    def quantizer(
        self, weight: Tensor, statistics: Statistics, config: AwareConfig, name: str
    ) -> Quantizer:
        gram = damped(statistics.gram, config.damping)
        rows = _start(weight, gram, config, name)
        gram = gram.to(weight.dtype)
        for _ in range(config.rounds):
            refit(weight, rows, gram, config.ridge)
            descend(weight, rows, gram)
        rows.scale, rows.shift = round_fp16(rows.scale), round_fp16(rows.shift)
        descend(weight, rows, gram)
        return FixedTernaryQuantizer.fitted(
            rows.trits, rows.scale, rows.shift, config.group_size, name=name
        )

    def blank(self, weight: Tensor, config: AwareConfig) -> Quantizer:
        return FixedTernaryQuantizer.blank(weight, config.group_size)


def _start(weight: Tensor, gram: Tensor, config: AwareConfig, name: str) -> TernaryRows:
    """Return rows made group by group: fit, align, round columns in order, align again."""
    factor = inverse_factor(gram, name).to(weight.dtype)

    def fit(groups: Tensor, span: slice) -> tuple[Tensor, Tensor, Tensor]:
        _, scale, shift = fit_aligned(groups, gram[span, span])
        codes = round_columns(groups, factor[span, span], scale, shift, Grid.TERNARY)
        return align_codes(groups, codes, gram[span, span])

    return TernaryRows(
        *compensated_groups(weight, factor, config.group_size, fit), config.group_size
    )


def refit(weight: Tensor, rows: TernaryRows, gram: Tensor, ridge: float) -> None:
    """Move all scales and shifts of each row at once to less output error, trits given.

    Parameters
    ----------
    weight : Tensor, [N, K]
    rows : TernaryRows
        Changed in place: its scales and shifts, and the trits of a group whose scale would turn
        negative, which are turned instead.
    gram : Tensor, [K, K]
    ridge : float

    Notes
    -----
    A row's levels are ``theta B`` with theta its scales, then its shifts, and B ``[2 groups, K]``:
    group g's trits in g's columns and 0 elsewhere, then ones in the same way. With e = w - D the
    step ``theta += (A + ridge * diag A)^-1 B H e^T``, ``A = B H B^T``, is the least-squares answer
    but for the ridge, and lowers the error for any ridge: A is not definite where a group's trits
    are all equal.
    """
    columns = spans(weight.shape[1], rows.group_size)
    pull = (weight - rows.levels()) @ gram
    for first in range(0, len(weight), ROWS):
        part = slice(first, first + ROWS)
        trits = rows.trits[part]
        step = _solve(_system(trits, gram, columns), _project(pull[part], trits, columns), ridge)
        scale, shift = step.chunk(2, dim=1)
        rows.scale[part] += scale
        rows.shift[part] += shift
    rows.trits = torch.where(rows.steps() < 0, -rows.trits, rows.trits)
    rows.scale = rows.scale.abs()


def _project(values: Tensor, trits: Tensor, columns: list[slice]) -> Tensor:
    """Return ``B v^T`` of each row: values ``[..., N, K]`` to ``[..., N, 2 groups]``."""
    weighted = values * trits
    parts = [weighted[..., span].sum(-1) for span in columns]
    return torch.stack(parts + [values[..., span].sum(-1) for span in columns], dim=-1)


def _system(trits: Tensor, gram: Tensor, columns: list[slice]) -> Tensor:
    """Return ``A = B H B^T`` of each row, [N, 2 groups, 2 groups]."""
    through = [trits[:, span] @ gram[span] for span in columns]
    ones = [gram[span].sum(0).expand_as(trits) for span in columns]
    return torch.stack([_project(each, trits, columns) for each in through + ones], dim=1)


def _solve(system: Tensor, pull: Tensor, ridge: float) -> Tensor:
    system, pull = system.double(), pull.double()
    diagonal = system.diagonal(dim1=1, dim2=2)
    # A group of trits 0 has no say on its scale.
    diagonal += torch.where(diagonal > 0, ridge * diagonal, 1.0)
    return torch.linalg.solve(system, pull).float()


def descend(weight: Tensor, rows: TernaryRows, gram: Tensor) -> None:
    """Give each trit in turn the value of least output error, all else held; rows are changed.

    Parameters
    ----------
    weight : Tensor, [N, K]
    rows : TernaryRows
    gram : Tensor, [K, K]

    Notes
    -----
    With e = w - D and r = e H, a trit that moves by d changes the error by
    ``-2 d alpha r_k + (d alpha)^2 H_kk``: least at ``d = r_k / (alpha H_kk)``, and among trits at
    the one nearest to that. r follows every move.
    """
    steps = rows.steps().T.contiguous()
    pull = ((weight - rows.levels()) @ gram).T.contiguous()
    trits = rows.trits.T.contiguous()
    for span in spans(weight.shape[1], BLOCK):
        moves = _settle(trits[span], steps[span], pull[span], gram[span, span])
        pull -= gram[:, span] @ moves
    rows.trits = trits.T.contiguous()


def _settle(trits: Tensor, steps: Tensor, pull: Tensor, gram: Tensor) -> Tensor:
    """Settle the trits of some columns ``[G, N]`` in place; return by how much D moved."""
    moves = torch.zeros_like(trits)
    pull = pull.clone()
    for k in range(len(trits)):
        # Where the scale is 0 any trit gives the same weight: it stays.
        ideal = pull[k] / torch.where(steps[k] > 0, steps[k] * gram[k, k], torch.inf)
        settled = (trits[k] + ideal).round().clamp(-1, 1)
        moves[k] = (settled - trits[k]) * steps[k]
        trits[k] = settled
        pull[k + 1 :].addr_(gram[k + 1 :, k], moves[k], alpha=-1)
    return moves
