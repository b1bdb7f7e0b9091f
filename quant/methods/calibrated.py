"""Methods that look at what enters a layer, while text runs through the model block by block."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant.methods.base import Method, Quantizer, attach, check_finite
from quant.methods.calibration import Block, Statistics, check_windows, walk_blocks
from quant.methods.config import MethodConfig
from quant.progress import Progress, silent
from tern_hw.errors import TernError

__all__ = ["CalibratedMethod", "HessianConfig", "detach"]


@dataclass(frozen=True, kw_only=True)
class HessianConfig(MethodConfig):
    """Options of methods that use ``H = X^T X``."""

    #: What is added to H's diagonal, over its mean (GPTQ's 1 %).
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping <= 1:
            raise TernError(f"damping must be above 0 and at most 1, not {self.damping!r}")


class CalibratedMethod(Method):
    """A method that quantises block after block, each with the inputs that really reach it."""

    calibrated: ClassVar[bool] = True

    @abstractmethod
    def quantizer(
        self, weight: Tensor, statistics: Statistics, config: Any, name: str
    ) -> Quantizer:
        """Return the quantiser of a weight ``[N, K]``, float32; `name` is for messages."""

    def prepare(
        self,
        model: nn.Module,
        config: MethodConfig,
        *,
        calibration: Tensor | None = None,
        progress: Progress = silent,
    ) -> None:
        linears = self.select(model, config)
        for name, linear in linears.items():
            check_finite(linear.weight.detach(), f"{name}.weight")
        windows = check_windows(model, calibration, self.name)
        try:
            with progress(f"{self.name}: quantising layers", len(linears)) as advance:
                self.quantize_model(model, linears, windows, config, advance)
        except BaseException:
            # A model that is quantised up to some layer is of no use to anyone.
            for linear in linears.values():
                detach(linear)
            raise

    def quantize_model(
        self,
        model: nn.Module,
        linears: dict[str, nn.Linear],
        windows: Tensor,
        config: Any,
        advance: Callable[[int], None],
    ) -> None:
        """Attach a quantiser to each of the layers; `advance` counts them."""
        for block in walk_blocks(model, linears, windows):
            self.quantize_block(block, config, advance)

    @torch.no_grad()
    def quantize_block(self, block: Block, config: Any, advance: Callable[[int], None]) -> None:
        """Quantise a block's layers, all with the inputs that the unquantised block gives them."""
        if not block.linears:
            return
        statistics = block.statistics()
        for name, linear in block.linears.items():
            weight = linear.weight.detach().float()
            attach(linear, self.quantizer(weight, statistics[name], config, name))
            advance(1)


def detach(linear: nn.Linear) -> None:
    """Take a layer's quantiser away, if it has one, and leave the weight as it was."""
    if parametrize.is_parametrized(linear, "weight"):
        parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)
