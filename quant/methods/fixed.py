"""Quantisers of post-training methods: codes, scales and shifts that were fitted once, as buffers.

Their forward pass looks at the layer's weight for its type only. Scales and shifts are float32
tensors of binary16 values, so that what a layer computes with is what a file of binary16 restores.
"""

from typing import ClassVar, Self

import torch
from torch import Tensor

from quant.methods.base import Quantizer
from quant.methods.bits import SCALE_BITS, grouped_bits, ternary_bits
from quant.methods.straight_through import round_fp16
from quant.ternary import TernaryFit, dequantize
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize, group_count

__all__ = [
    "ChannelScaledQuantizer",
    "FixedLevelsQuantizer",
    "FixedTernaryQuantizer",
    "GridQuantizer",
]


class GridQuantizer(Quantizer):
    """Codes int8 ``[N, K]`` on a grid ``scale * code + shift`` of each group, ``[N, groups]``."""

    #: Bits a code takes.
    code_bits: ClassVar[float]
    #: Lowest and highest code.
    codes_range: ClassVar[tuple[int, int]]

    def __init__(
        self, codes: Tensor, scale: Tensor, shift: Tensor | None, group_size: GroupSize
    ) -> None:
        """Keep codes, scales and shifts; without a shift the grid passes through 0."""
        super().__init__()
        self.group_size = group_size
        self.register_buffer("codes", codes.to(torch.int8).contiguous())
        self.register_buffer("scale", round_fp16(scale.float()).contiguous())
        self.register_buffer(
            "shift", None if shift is None else round_fp16(shift.float()).contiguous()
        )

    @classmethod
    def fitted(
        cls,
        codes: Tensor,
        scale: Tensor,
        shift: Tensor | None,
        group_size: GroupSize,
        *,
        name: str,
    ) -> Self:
        """Build the quantiser of layer `name` and refuse values that binary16 cannot hold."""
        for what, values in (("scale", scale), ("shift", shift)):
            if values is not None and not bool(values.half().isfinite().all()):
                row, group = (~values.half().isfinite()).nonzero()[0].tolist()
                raise TernError(
                    f"{what} of {name} (row {row}, group {group}) must be at most 65504 in "
                    f"magnitude, as fp16 holds it, not {float(values[row, group]):g}"
                )
        return cls(codes, scale, shift, group_size)

    @classmethod
    def blank(cls, weight: Tensor, group_size: GroupSize, *, shift: bool = True) -> Self:
        """Return one for a weight ``[N, K]`` whose buffers wait to be loaded."""
        zeros = torch.zeros(len(weight), group_count(weight.shape[1], group_size))
        codes = torch.zeros(weight.shape, dtype=torch.int8)
        quantizer = cls(codes, zeros, zeros.clone() if shift else None, group_size)
        return quantizer.to(weight.device)

    def forward(self, weight: Tensor) -> Tensor:
        return self.levels().to(weight.dtype)

    @torch.no_grad()
    def levels(self) -> Tensor:
        """Return the weights that the codes stand for, float32 [N, K]."""
        return dequantize(self.codes, self.scale, self._shift(), self.group_size)

    def bits_per_weight(self, weight: Tensor) -> float:
        values = 1 if self.shift is None else 2
        return grouped_bits(weight.shape, self.group_size, self.code_bits, values)

    def _shift(self) -> Tensor:
        return torch.zeros_like(self.scale) if self.shift is None else self.shift

    def _check_codes(self) -> None:
        """Refuse codes off the grid, which a file may hold."""
        low, high = self.codes_range
        wrong = (self.codes < low) | (self.codes > high)
        if bool(wrong.any()):
            n, k = wrong.nonzero()[0].tolist()
            raise TernError(
                f"code ({n}, {k}) must be from {low} to {high}, not {int(self.codes[n, k])}"
            )


class FixedTernaryQuantizer(GridQuantizer):
    """Trits with a scale and, but for symmetric methods, a shift a group: it has an artifact."""

    ternary: ClassVar[bool] = True
    codes_range = (-1, 1)

    def bits_per_weight(self, weight: Tensor) -> float:
        return ternary_bits(weight.shape, self.group_size, shift=self.shift is not None)

    def fit(self, weight: Tensor) -> TernaryFit:
        self._check_codes()
        # Clones: what is exported does not change with the model.
        return TernaryFit(
            self.codes.clone(), self.scale.half(), self._shift().half(), self.group_size
        )


class FixedLevelsQuantizer(GridQuantizer):
    """Two-bit codes 0 to 3: levels shift, shift + scale, ..., shift + 3 * scale."""

    code_bits = 2.0
    codes_range = (0, 3)


class ChannelScaledQuantizer(Quantizer):
    """A grid fitted to ``W * s``, with s a value per input channel; the weight is that over s.

    The division leaves the levels of a group in as many places as it has channels: no ternary
    matrix, and so no artifact, even where the codes are trits.
    """

    def __init__(self, grid: GridQuantizer, channels: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("channels", round_fp16(channels.float()).contiguous())

    def forward(self, weight: Tensor) -> Tensor:
        return (self.grid.levels() / self.channels).to(weight.dtype)

    def bits_per_weight(self, weight: Tensor) -> float:
        return self.grid.bits_per_weight(weight) + SCALE_BITS / len(weight)
