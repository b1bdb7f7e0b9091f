"""The grids of post-training methods: a group's weights give its levels, a weight its code."""

from enum import StrEnum

import torch
from torch import Tensor

from quant.groups import join_groups, split_groups
from quant.methods.fixed import FixedLevelsQuantizer, FixedTernaryQuantizer, GridQuantizer
from quant.methods.straight_through import round_fp16
from quant.ternary import fit_groups, nearest_codes
from tern_hw.matrix import GroupSize

__all__ = ["Grid", "GridFit", "fit_grid", "grid_type", "nearest", "quantize", "spans"]

#: Steps between the lowest and the highest level of a 2-bit grid.
TWO_BIT_STEPS = 3
#: Smallest step, binary16's smallest normal; weights are divided by it.
SMALLEST = 2.0**-14


class Grid(StrEnum):
    """The levels that a group's weights may take."""

    #: Three levels ``alpha * T + gamma``.
    TERNARY = "ternary"
    #: Four levels at equal distances.
    TWO_BIT = "2bit"


class GridFit(StrEnum):
    """Where the levels of a group come from."""

    #: The extremes. Ternary: ``-a, 0, a`` with ``a = max|w|``, so that ``T = round(w / a)``. Two
    #: bits: from min w to max w.
    RANGE = "range"
    #: Least squares, alternating with the codes (ternary only).
    LEAST_SQUARES = "least-squares"


def fit_grid(groups: Tensor, grid: Grid, fit: GridFit) -> tuple[Tensor, Tensor]:
    """Return scale and shift, binary16 values ``[...]``, of groups ``[..., G]`` in float32."""
    if grid is Grid.TWO_BIT:
        low, high = groups.amin(-1), groups.amax(-1)
        scale, shift = ((high - low) / TWO_BIT_STEPS).clamp(min=SMALLEST), low
    elif fit is GridFit.RANGE:
        scale = groups.abs().amax(-1)
        shift = torch.zeros_like(scale)
    else:
        scale, shift = fit_groups(groups)
    return round_fp16(scale), round_fp16(shift)


def nearest(groups: Tensor, scale: Tensor, shift: Tensor, grid: Grid) -> Tensor:
    """Return the codes of the nearest levels: -1 to 1, or 0 to 3; shapes as in `fit_grid`."""
    if grid is Grid.TERNARY:
        return nearest_codes(groups, scale, shift)
    steps = (groups - shift.unsqueeze(-1)) / scale.unsqueeze(-1)
    return steps.round().clamp(0, TWO_BIT_STEPS)


def grid_type(grid: Grid) -> type[GridQuantizer]:
    """Return the class of quantiser that holds the grid's codes."""
    return FixedTernaryQuantizer if grid is Grid.TERNARY else FixedLevelsQuantizer


def quantize(
    weight: Tensor, group_size: GroupSize, grid: Grid, fit: GridFit, name: str
) -> GridQuantizer:
    """Return the quantiser that rounds each weight ``[N, K]`` to the nearest level of its group."""
    pieces = split_groups(weight.detach().float(), group_size)
    levels = [fit_grid(groups, grid, fit) for groups in pieces]
    codes = [nearest(w, *level, grid) for w, level in zip(pieces, levels, strict=True)]
    scale, shift = (torch.cat(values, dim=1) for values in zip(*levels, strict=True))
    symmetric = grid is Grid.TERNARY and fit is GridFit.RANGE
    return grid_type(grid).fitted(
        join_groups(codes), scale, None if symmetric else shift, group_size, name=name
    )


def spans(in_features: int, group_size: GroupSize) -> list[slice]:
    """Return the columns of each group, the short last one included."""
    size = in_features if group_size == "row" else group_size
    return [slice(k, min(k + size, in_features)) for k in range(0, in_features, size)]
