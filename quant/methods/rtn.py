"""Post-training without data: round to nearest on a grid of extremes, or on the best-fitting one.

`Rtn` takes each group's levels from its extreme weights; `Als` is DLT's form fitted without
training, scale and shift by alternating least squares (PT2-LLM's iterative ternary fitting,
arXiv:2510.03267, eq. 9): of the ternary methods, the one of lowest weight error.
"""

from dataclasses import dataclass

from torch import Tensor

from quant.methods.base import LayerMethod, Quantizer
from quant.methods.config import MethodConfig
from quant.methods.fixed import FixedTernaryQuantizer
from quant.methods.grids import Grid, GridFit, grid_type, quantize
from quant.ternary import THRESHOLD_FACTOR, ternarize

__all__ = ["Als", "AlsConfig", "Rtn", "RtnConfig"]


@dataclass(frozen=True, kw_only=True)
class RtnConfig(MethodConfig):
    """Options of RTN."""

    #: Ternary: ``max|w| * round(w / max|w|)``. Two bits: four levels from min w to max w; the
    #: lowest is stored as a binary16 shift where integer kernels would take a zero point.
    grid: Grid = Grid.TERNARY


class Rtn(LayerMethod):
    """RTN."""

    name = "rtn"
    source = "round to nearest, the baseline of GPTQ, arXiv:2210.17323"
    config_type = RtnConfig

    def quantizer(self, weight: Tensor, config: RtnConfig, name: str) -> Quantizer:
        return quantize(weight, config.group_size, config.grid, GridFit.RANGE, name)

    def blank(self, weight: Tensor, config: RtnConfig) -> Quantizer:
        shift = config.grid is not Grid.TERNARY
        return grid_type(config.grid).blank(weight, config.group_size, shift=shift)


@dataclass(frozen=True, kw_only=True)
class AlsConfig(MethodConfig):
    """Options of ALS."""

    #: Delta over mean|w| of the codes to start from.
    factor: float = THRESHOLD_FACTOR


class Als(LayerMethod):
    """ALS."""

    name = "als"
    source = "PT2-LLM's iterative ternary fitting, arXiv:2510.03267, eq. 9, on DLT's form"
    config_type = AlsConfig

    def quantizer(self, weight: Tensor, config: AlsConfig, name: str) -> Quantizer:
        fit = ternarize(weight, config.group_size, factor=config.factor, name=name)
        return FixedTernaryQuantizer(fit.trits, fit.scale, fit.shift, config.group_size)

    def blank(self, weight: Tensor, config: AlsConfig) -> Quantizer:
        return FixedTernaryQuantizer.blank(weight, config.group_size)
