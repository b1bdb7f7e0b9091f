"""AWQ: scale each input channel by its activations before rounding, to spare the salient weights.

``D = Q(W * s) / s`` with ``s = mean|x|^a`` and a by grid search (arXiv:2306.00978, eq. 4 and 5).
The weight clipping of its code is left out. There, scales that the layer before can take cost
nothing; here each layer has its own, they are stored and counted, and the layer has no artifact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quant.methods.base import Quantizer
from quant.methods.calibrated import CalibratedMethod
from quant.methods.calibration import Statistics
from quant.methods.config import MethodConfig
from quant.methods.fixed import ChannelScaledQuantizer
from quant.methods.grids import Grid, GridFit, grid_type, quantize
from quant.methods.hessian import output_error
from quant.methods.straight_through import round_fp16
from tern_hw.errors import TernError

__all__ = ["Awq", "AwqConfig", "channel_scales"]

#: Smallest mean |x| and smallest scale, as in the method's own code.
SMALLEST = 1e-4


@dataclass(frozen=True, kw_only=True)
class AwqConfig(MethodConfig):
    """Options of AWQ."""

    grid: Grid = Grid.TWO_BIT
    #: Levels of a ternary grid; two bits take the range either way.
    fit: GridFit = GridFit.LEAST_SQUARES
    #: Exponents 0, 1 / steps, ..., 1 are tried.
    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise TernError(f"steps must be 1 or more, not {self.steps}")


class Awq(CalibratedMethod):
    """AWQ."""

    name = "awq"
    source = "AWQ, arXiv:2306.00978"
    config_type = AwqConfig

    def quantizer(
        self, weight: Tensor, statistics: Statistics, config: AwqConfig, name: str
    ) -> Quantizer:
        best, lowest = None, torch.inf
        for i in range(config.steps + 1):
            scales = channel_scales(statistics.magnitude, i / config.steps).to(weight.dtype)
            grid = quantize(weight * scales, config.group_size, config.grid, config.fit, name)
            quantizer = ChannelScaledQuantizer(grid, scales)
            error = output_error(weight, quantizer(weight), statistics.gram)
            if best is None or error < lowest:
                best, lowest = quantizer, error
        assert best is not None
        return best

    def blank(self, weight: Tensor, config: AwqConfig) -> Quantizer:
        shift = config.grid is Grid.TWO_BIT or config.fit is GridFit.LEAST_SQUARES
        grid = grid_type(config.grid).blank(weight, config.group_size, shift=shift)
        return ChannelScaledQuantizer(grid, torch.ones(weight.shape[1], device=weight.device))


def channel_scales(magnitude: Tensor, exponent: float) -> Tensor:
    """Return ``mean|x|^a`` over the root of its largest times its smallest, binary16 values [K].

    An exponent of 0 gives ones. An input that is always 0 counts as one of `SMALLEST`.
    """
    scales = magnitude.clamp(min=SMALLEST).pow(exponent).clamp(min=SMALLEST)
    return round_fp16(scales / (scales.max() * scales.min()).sqrt())
