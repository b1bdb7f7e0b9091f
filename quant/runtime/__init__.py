"""A ternary artifact as a transformers model whose linear layers are the kernels."""

from quant.runtime.linear import TernaryLinear, kernel_layers
from quant.runtime.loading import load

__all__ = ["TernaryLinear", "kernel_layers", "load"]
