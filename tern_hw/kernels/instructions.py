"""Instruction sets: which one runs the kernels here, and its vectors and dot product as LLVM IR."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from llvmlite import binding, ir
from numba import config

from tern_hw.errors import TernError

__all__ = ["INSTRUCTIONS", "PORTABLE", "VARIABLE", "InstructionSet", "available", "call", "chosen"]

#: Environment variable that forces an instruction set by name.
VARIABLE: Final = "TERN_HW_INSTRUCTIONS"
#: The name of what runs anywhere: the reference's own loops.
PORTABLE: Final = "portable"

I8, I16, I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)

#: Takes builder, accumulator i32 [lanes], and two vectors of as many bytes.
DotProduct = Callable[[Any, Any, Any, Any], Any]


@dataclass(frozen=True)
class InstructionSet:
    """How a processor multiplies codes by activations."""

    name: str
    #: Features that LLVM must report of the processor.
    features: tuple[str, ...]
    #: 32-bit lanes of a vector: rows that it holds.
    lanes: int
    #: Vectors of rows side by side, for one or two columns and for more: enough chains in
    #: flight, and no more than the registers hold.
    vectors: tuple[int, int]
    #: Adds four products of codes (u8) and activations (s8), lane by lane.
    dot: DotProduct
    #: Adds two products of 16-bit integers, lane by lane; None: scales are not taken as integers.
    dot_pairs: DotProduct | None
    #: Codes up to 128 may be multiplied: fields need a mask and no shift.
    wide_codes: bool = True
    #: Bytes can be looked up in a table of 128: base-3 codes are decoded so.
    lookup: bool = False
    #: binary16 can be converted by an instruction.
    half: bool = True


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call an intrinsic of LLVM."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def _dot_vnni(builder: Any, total: Any, codes: Any, x: Any) -> Any:
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", total.type, total, codes, x)


def _pairs_vnni(builder: Any, total: Any, a: Any, b: Any) -> Any:
    return call(builder, "llvm.x86.avx512.vpdpwssd.512", total.type, total, a, b)


def _pairs(add: str) -> DotProduct:
    """Return a dot product of pairs: products summed by one instruction, added by another."""

    def dot(builder: Any, total: Any, a: Any, b: Any) -> Any:
        return builder.add(total, call(builder, add, total.type, a, b))

    return dot


def _dot_in_two(multiply: str, add: str) -> DotProduct:
    """Return a dot product in two steps: u8 by s8 to pairs in 16 bits, then pairs to 32.

    The pairs do not saturate: codes are at most 128, and 2 * 128 * 127 and 2 * 128 * -128 fit.
    """

    def dot(builder: Any, total: Any, codes: Any, x: Any) -> Any:
        shorts = ir.VectorType(I16, codes.type.count // 2)
        pairs = call(builder, multiply, shorts, codes, x)
        ones = ir.Constant(shorts, [1] * shorts.count)
        return builder.add(total, call(builder, add, total.type, pairs, ones))

    return dot


def _dot_neon(builder: Any, total: Any, codes: Any, x: Any) -> Any:
    return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, total, codes, x)


#: From the fastest to the one that needs the least.
INSTRUCTIONS: Final = {
    each.name: each
    for each in (
        InstructionSet(
            "avx512vnni",
            ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"),
            16,
            (2, 2),
            _dot_vnni,
            _pairs_vnni,
            lookup=True,
        ),
        InstructionSet(
            "avx2",
            ("avx2", "fma", "f16c"),
            8,
            (2, 1),
            _dot_in_two("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
            _pairs("llvm.x86.avx2.pmadd.wd"),
        ),
        InstructionSet(
            "ssse3",
            ("ssse3",),
            4,
            (2, 1),
            _dot_in_two("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
            _pairs("llvm.x86.sse2.pmadd.wd"),
            half=False,
        ),
        InstructionSet("neon", ("neon", "dotprod"), 4, (4, 2), _dot_neon, None, wide_codes=False),
    )
}


@cache
def _features() -> frozenset[str]:
    """Return the features of the processor that Numba compiles for."""
    if config.CPU_FEATURES is not None:
        words = config.CPU_FEATURES.split(",")
        return frozenset(word[1:] for word in words if word.startswith("+"))
    try:
        return frozenset(name for name, has in binding.get_host_cpu_features().items() if has)
    except RuntimeError:  # the host's features are not known to LLVM
        return frozenset()


def available() -> tuple[str, ...]:
    """Return the names of the instruction sets that this processor has, the fastest first."""
    if config.DISABLE_JIT:
        return (PORTABLE,)
    found = [each.name for each in INSTRUCTIONS.values() if _features().issuperset(each.features)]
    return (*found, PORTABLE)


@cache
def chosen() -> str:
    """Return the name of the instruction set in use: the fastest, or what VARIABLE names.

    Raises
    ------
    TernError
        If the variable names one that this processor lacks.
    """
    names = available()
    name = os.environ.get(VARIABLE, names[0])
    if name not in names:
        raise TernError(f"{VARIABLE} must be one of {', '.join(names)} here, not {name!r}")
    return name
