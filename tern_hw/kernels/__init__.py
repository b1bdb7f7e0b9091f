"""The reference's products at the speed of the machine: SIMD kernels with the same bits."""

from tern_hw.kernels.activations import quantize_tokens
from tern_hw.kernels.instructions import available, chosen
from tern_hw.kernels.layout import KernelMatrix, repack
from tern_hw.kernels.product import matmul, matmul_quantized

__all__ = [
    "KernelMatrix",
    "available",
    "chosen",
    "matmul",
    "matmul_quantized",
    "quantize_tokens",
    "repack",
]
