"""OmniQuant's learnable weight clipping: how far each group's range is cut, learned block by block.

``low = sigmoid(b) * min w``, ``high = sigmoid(c) * max w``, levels at equal distances between them;
b and c of all groups of a block are trained on the block's output (arXiv:2308.13137, eq. 1 and 2).
Its equivalent transformation, which moves activations, is left out: weights alone are quantised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from quant.groups import join_groups, split_groups
from quant.methods.base import Quantizer, attach
from quant.methods.calibrated import CalibratedMethod, detach
from quant.methods.calibration import Block, Statistics, walk_blocks
from quant.methods.config import MethodConfig
from quant.methods.grids import SMALLEST, TWO_BIT_STEPS, Grid, grid_type
from quant.methods.straight_through import round_fp16
from tern_hw.errors import TernError

__all__ = ["ClippedQuantizer", "OmniQuant", "OmniQuantConfig"]

#: Start of both strengths: sigmoid(4) = 0.982, the start of the method's own code.
START: Final = 4.0


@dataclass(frozen=True, kw_only=True)
class OmniQuantConfig(MethodConfig):
    """Options of OmniQuant."""

    grid: Grid = Grid.TWO_BIT
    #: Passes over the calibration windows, each window a step; 0 leaves the start as it is.
    epochs: int = 20
    #: AdamW's, for the clipping strengths (the method's own code; no weight decay).
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 0:
            raise TernError(f"epochs must be 0 or more, not {self.epochs}")
        if not 0 < self.learning_rate < 1:
            raise TernError(f"learning_rate must be between 0 and 1, not {self.learning_rate!r}")


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class ClippedQuantizer(Quantizer):
    """The quantiser while its clipping strengths are learned, parameters ``[N, groups]``."""

    def __init__(self, weight: Tensor, config: OmniQuantConfig) -> None:
        """Keep the extremes of a weight's groups."""
        super().__init__()
        self.config = config
        self.last_code = TWO_BIT_STEPS if config.grid is Grid.TWO_BIT else 2
        pieces = split_groups(weight.float(), config.group_size)
        self.counts = [groups.shape[1] for groups in pieces]
        self.register_buffer("lowest", torch.cat([groups.amin(-1) for groups in pieces], dim=1))
        self.register_buffer("highest", torch.cat([groups.amax(-1) for groups in pieces], dim=1))
        self.low = nn.Parameter(torch.full_like(self.lowest, START))
        self.high = nn.Parameter(torch.full_like(self.highest, START))

    def forward(self, weight: Tensor) -> Tensor:
        scale, shift = self.levels()
        levels = [
            _Round.apply(self._position(w, a, b)) * a.unsqueeze(-1) + b.unsqueeze(-1)
            for w, a, b in self._groups(weight, scale, shift)
        ]
        return join_groups(levels).to(weight.dtype)

    def bits_per_weight(self, weight: Tensor) -> float:
        return self.settled(weight, "weight").bits_per_weight(weight)

    def levels(self) -> tuple[Tensor, Tensor]:
        """Return the distance of the levels and the lowest one, binary16 values ``[N, groups]``."""
        low, high = self.low.sigmoid() * self.lowest, self.high.sigmoid() * self.highest
        return round_fp16(((high - low) / self.last_code).clamp(min=SMALLEST)), round_fp16(low)

    @torch.no_grad()
    def settled(self, weight: Tensor, name: str) -> Quantizer:
        """Return the fixed quantiser of the strengths as they are.

        Ternary codes are counted from the middle level, so the shift is that one, rounded once
        more to binary16.
        """
        scale, shift = self.levels()
        middle = 1 if self.config.grid is Grid.TERNARY else 0
        codes = join_groups(
            [self._position(*each).round() - middle for each in self._groups(weight, scale, shift)]
        )
        grid = grid_type(self.config.grid)
        shift = shift + middle * scale
        return grid.fitted(codes, scale, shift, self.config.group_size, name=name)

    def _groups(
        self, weight: Tensor, scale: Tensor, shift: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        pieces = split_groups(weight.detach().float(), self.config.group_size)
        parts = scale.split(self.counts, dim=1), shift.split(self.counts, dim=1)
        return list(zip(pieces, *parts, strict=True))

    def _position(self, groups: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return where each weight lies among the levels, 0 to the last code."""
        position = (groups - shift.unsqueeze(-1)) / scale.unsqueeze(-1)
        return position.clamp(0, self.last_code)


class OmniQuant(CalibratedMethod):
    """OmniQuant, learnable weight clipping only."""

    name = "omniquant"
    source = "OmniQuant, arXiv:2308.13137"
    config_type = OmniQuantConfig

    def quantizer(
        self, weight: Tensor, statistics: Statistics, config: OmniQuantConfig, name: str
    ) -> Quantizer:
        """Return the quantiser of the strengths at the start: there is no block to learn from."""
        return ClippedQuantizer(weight, config).settled(weight, name)

    def blank(self, weight: Tensor, config: OmniQuantConfig) -> Quantizer:
        return grid_type(config.grid).blank(weight, config.group_size)

    def quantize_model(
        self,
        model: nn.Module,
        linears: dict[str, nn.Linear],
        windows: Tensor,
        config: OmniQuantConfig,
        advance: Callable[[int], None],
    ) -> None:
        exact: Tensor | None = None
        for block in walk_blocks(model, linears, windows):
            # The unquantised model's own path: the block as it was, on inputs as they were.
            exact = block.outputs(block.inputs if exact is None else exact)
            _learn(block, exact, config)
            advance(len(block.linears))


def _learn(block: Block, wanted: Tensor, config: OmniQuantConfig) -> None:
    """Attach a quantiser to each of a block's layers, its strengths learned on the output."""
    if not block.linears:
        return
    learners = {
        name: ClippedQuantizer(linear.weight.detach(), config)
        for name, linear in block.linears.items()
    }
    strengths = [strength for learner in learners.values() for strength in learner.parameters()]
    start = [strength.detach().clone() for strength in strengths]
    before = _settle(block, wanted, learners)
    if not config.epochs or not before:
        return
    _descend(block, wanted, learners, config, before)
    # A block that learning made no better, or whose loss overflowed, keeps its start.
    finite = all(bool(strength.isfinite().all()) for strength in strengths)
    if not finite or not _settle(block, wanted, learners) <= before:
        with torch.no_grad():
            for strength, first in zip(strengths, start, strict=True):
                strength.copy_(first)
        _settle(block, wanted, learners)


def _settle(block: Block, wanted: Tensor, learners: dict[str, ClippedQuantizer]) -> float:
    """Attach the fixed quantisers of the strengths as they are; return the block's error."""
    for name, linear in block.linears.items():
        detach(linear)
        attach(linear, learners[name].settled(linear.weight.detach(), name))
    return float((block.outputs() - wanted).double().square().mean())


def _descend(
    block: Block,
    wanted: Tensor,
    learners: dict[str, ClippedQuantizer],
    config: OmniQuantConfig,
    before: float,
) -> None:
    """Learn the strengths by the mean squared error of each window's output in turn.

    The error is taken over that at the start, `before`: AdamW heeds a loss's size only through its
    epsilon, which the gradients of small errors would come near to.
    """
    for name, linear in block.linears.items():
        detach(linear)
        attach(linear, learners[name])
    strengths = [strength for learner in learners.values() for strength in learner.parameters()]
    optimizer = torch.optim.AdamW(strengths, lr=config.learning_rate, weight_decay=0.0)
    for _ in range(config.epochs):
        for window, target in zip(block.inputs.split(1), wanted.split(1), strict=True):
            with torch.enable_grad():
                loss = (block(window) - target).float().square().mean() / before
                # Of the strengths alone: the model's own parameters get no gradient.
                gradients = torch.autograd.grad(loss, strengths)
            for strength, gradient in zip(strengths, gradients, strict=True):
                strength.grad = gradient
            optimizer.step()
