"""The bit-accurate software reference: exact sums, one rounding (Numba)."""

from tern_hw.reference.aligned import align
from tern_hw.reference.faults import matmul_faults
from tern_hw.reference.layout import PreparedMatrix, prepare
from tern_hw.reference.product import matmul
from tern_hw.reference.sequential import matmul_rounded, multiply_add
from tern_hw.reference.tokens import matmul_quantized, quantize_tokens

__all__ = [
    "PreparedMatrix",
    "align",
    "matmul",
    "matmul_faults",
    "matmul_quantized",
    "matmul_rounded",
    "multiply_add",
    "prepare",
    "quantize_tokens",
]
