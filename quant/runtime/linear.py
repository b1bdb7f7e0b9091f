"""A linear layer that multiplies by packed trits, never by weights."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tern_hw.errors import TernError
from tern_hw.kernels import KernelMatrix, matmul, matmul_quantized

__all__ = ["ACTIVATIONS", "TernaryLinear", "kernel_layers"]

#: What activations are rounded to before the exact product.
ACTIVATIONS: Final = ("int8", "fp16")


class TernaryLinear(nn.Module):
    """``y = W x + b`` with W a ternary matrix: for inference alone.

    Parameters
    ----------
    matrix : KernelMatrix [N, K]
    bias : Tensor [N], optional
    activation : str
        "int8": a token is rounded to 8 bits by a scale of its own, and the result scaled back.
        "fp16": to binary16; three to six times the work.
    threads : int, optional
        At most so many; None: as many as there are processors.

    Notes
    -----
    What follows the rounding is exact but for one rounding to float32 (with int8 a second, by the
    token's scale), so the same bits come from any processor and any number of threads.
    """

    def __init__(
        self,
        matrix: KernelMatrix,
        bias: Tensor | None = None,
        *,
        activation: str = "int8",
        threads: int | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            choices = ", ".join(ACTIVATIONS)
            raise TernError(f"activation must be one of {choices}, not {activation!r}")
        self.matrix = matrix
        self.activation = activation
        self.threads = threads
        self.out_features, self.in_features = matrix.shape
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's outputs [..., N], in the type of x, [..., K]."""
        tokens = x.detach().reshape(-1, self.in_features).float().numpy()
        result = torch.from_numpy(self._product(tokens)).view(*x.shape[:-1], self.out_features)
        if self.bias is not None:
            result += self.bias
        return result.to(x.dtype)

    def _product(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.activation == "int8":
            return matmul_quantized(tokens, self.matrix, threads=self.threads)
        with np.errstate(over="ignore", under="ignore"):
            halves = tokens.astype(np.float16)
        return matmul(halves, self.matrix, threads=self.threads)

    def extra_repr(self) -> str:
        """Return what `print(model)` says of the layer."""
        n, k = self.matrix.shape
        return f"in_features={k}, out_features={n}, bits={8 * self.matrix.nbytes / (n * k):.2f}"


def kernel_layers(model: nn.Module) -> Iterator[tuple[str, TernaryLinear]]:
    """Yield name and layer of each that the kernels compute, in order."""
    for name, module in model.named_modules():
        if isinstance(module, TernaryLinear):
            yield name, module
