"""GPTQ: round column after column, each column's error made up for by those after it.

(arXiv:2210.17323, algorithm 1.) Columns keep their order: no activation ordering.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quant.methods.base import Quantizer
from quant.methods.calibrated import CalibratedMethod, HessianConfig
from quant.methods.calibration import Statistics
from quant.methods.grids import Grid, GridFit, fit_grid, grid_type, nearest, spans
from quant.methods.hessian import compensate, compensated_groups, damped, inverse_factor

__all__ = ["Gptq", "GptqConfig", "round_columns"]

#: Columns whose updates of the columns after them are made together; changes time, no result.
BLOCK: Final = 128


@dataclass(frozen=True, kw_only=True)
class GptqConfig(HessianConfig):
    """Options of GPTQ."""

    #: Ternary levels by alternating least squares, 2-bit ones from min w to max w; either from
    #: the group's weights as they are when it is reached.
    grid: Grid = Grid.TERNARY


class Gptq(CalibratedMethod):
    """GPTQ."""

    name = "gptq"
    source = "GPTQ, arXiv:2210.17323"
    config_type = GptqConfig

    def quantizer(
        self, weight: Tensor, statistics: Statistics, config: GptqConfig, name: str
    ) -> Quantizer:
        factor = inverse_factor(damped(statistics.gram, config.damping), name).to(weight.dtype)

        def fit(groups: Tensor, span: slice) -> tuple[Tensor, Tensor, Tensor]:
            scale, shift = fit_grid(groups, config.grid, GridFit.LEAST_SQUARES)
            part = factor[span, span]
            return round_columns(groups, part, scale, shift, config.grid), scale, shift

        fitted = compensated_groups(weight, factor, config.group_size, fit)
        return grid_type(config.grid).fitted(*fitted, config.group_size, name=name)

    def blank(self, weight: Tensor, config: GptqConfig) -> Quantizer:
        return grid_type(config.grid).blank(weight, config.group_size)


def round_columns(
    groups: Tensor, factor: Tensor, scale: Tensor, shift: Tensor, grid: Grid
) -> Tensor:
    """Return the codes ``[N, G]`` of one group, its columns rounded in order.

    Parameters
    ----------
    groups : Tensor, [N, G]
        The group's weights as they are when it is reached.
    factor : Tensor, [G, G]
        The group's part of U, see `quant.methods.hessian.inverse_factor`.
    scale, shift : Tensor, [N]
    grid : Grid
    """
    codes = torch.empty_like(groups)

    def quantize(part: Tensor, span: slice) -> Tensor:
        codes[:, span] = _round_part(part, factor[span, span], scale, shift, grid)
        return scale.unsqueeze(-1) * codes[:, span] + shift.unsqueeze(-1)

    compensate(groups, factor, spans(groups.shape[1], BLOCK), quantize)
    return codes


def _round_part(part: Tensor, factor: Tensor, scale: Tensor, shift: Tensor, grid: Grid) -> Tensor:
    # Transposed, so that a column is contiguous.
    work = part.T.contiguous()
    codes = torch.empty_like(work)
    for k in range(len(work)):
        codes[k] = nearest(work[k].unsqueeze(-1), scale, shift, grid).squeeze(-1)
        error = (work[k] - scale * codes[k] - shift) / factor[k, k]
        work[k + 1 :].addr_(factor[k, k + 1 :], error, alpha=-1)
    return codes.T
