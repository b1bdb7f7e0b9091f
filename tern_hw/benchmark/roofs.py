"""What the machine itself allows: products of its dot-product instruction, bytes of its memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numba
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from tern_hw.kernels.atomics import pointer
from tern_hw.kernels.instructions import I8, INSTRUCTIONS, PORTABLE
from tern_hw.kernels.job import KERNEL
from tern_hw.kernels.team import run_job
from tern_hw.kernels.vectors import I64, POINTER, Vectors, offset

__all__ = ["Roof", "dot_products", "machine_roofs", "stream_reader"]

#: Chains of dot products in flight: more than their latency needs.
CHAINS: Final = 16
#: Steps of a block, and blocks of a thread: together about a millisecond.
STEPS: Final = 12_500
BLOCKS: Final = 16
#: Two vectors of operands, and the sums.
OPERAND_BYTES: Final = 128 + 64 * CHAINS
#: Bytes that a thread reads at a time.
CHUNK: Final = 1 << 18


@dataclass(frozen=True)
class Roof:
    """Something that the machine does as fast as it can."""

    call: Callable[[], None]
    #: Bytes, or multiply-accumulates, that a call stands for.
    amount: int


def machine_roofs(instructions: str, size: int, threads: int) -> dict[str, Roof]:
    """Return the roofs of so many threads, by name.

    Parameters
    ----------
    instructions : str
        One that has kernels, or "portable".
    size : int
        Bytes to read: more than the caches hold.
    threads : int

    Returns
    -------
    dict
        "read_gb_s", and where there are kernels "gmacs".
    """
    roofs = {"read_gb_s": Roof(stream_reader(size, threads), size)}
    if instructions != PORTABLE:
        roofs["gmacs"] = Roof(*dot_products(instructions, threads))
    return roofs


@intrinsic
def _dots(typing_context: Any, kernel: Any, operands: Any, steps: Any) -> Any:
    """Do CHAINS dot products a step, on operands that stay in registers."""
    if not isinstance(kernel, types.StringLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(operands)(context, builder, arguments[1])
        data = builder.bitcast(array.data, POINTER)
        vectors = Vectors(builder, kernel.literal_value)
        codes = vectors.load(data, 0, I8, vectors.bytes)
        x = vectors.load(data, 64, I8, vectors.bytes)

        def body(step: Any, sums: list[Any]) -> list[Any]:
            return [vectors.instructions.dot(builder, total, codes, x) for total in sums]

        sums = vectors.loop(arguments[2], [vectors.integer(chain) for chain in range(CHAINS)], body)
        for chain, total in enumerate(sums):
            vectors.store(total, offset(builder, data, I64(128 + 64 * chain), I8))
        return context.get_dummy_value()

    return types.void(kernel, operands, types.intp), generate


def dot_products(instructions: str, threads: int) -> tuple[Callable[[], None], int]:
    """Return what does nothing but dot products, on all threads at once, and how many they are.

    Parameters
    ----------
    instructions : str
        One that has kernels.
    threads : int
        They need not be as many cores: a hypervisor may run two on one, and then there are fewer.
    """
    blocks = threads * BLOCKS
    operands = np.ones(blocks * OPERAND_BYTES, np.uint8)
    numbers = np.array([operands.ctypes.data, operands.nbytes])
    job = _dot_job(instructions)

    def call() -> None:
        run_job(job, numbers, blocks, threads)
        # Its name here keeps the memory alive: the job has its address alone.
        assert len(operands)

    lanes = INSTRUCTIONS[instructions].lanes
    return call, blocks * STEPS * CHAINS * lanes * 4


@cache
def _dot_job(instructions: str) -> int:
    """Return the address of a job of dot products: numbers are its operands' address and bytes."""
    kernel = f"{instructions}/2bit/1"

    def dots(job: Any, first: int, last: int) -> None:
        operands = carray(pointer(job[0]), (job[1],), np.uint8)
        for block in range(first, last):
            _dots(kernel, operands[block * OPERAND_BYTES : (block + 1) * OPERAND_BYTES], STEPS)

    return int(numba.cfunc(KERNEL)(dots).address)


@cache
def _reader() -> int:
    """Return the address of a job that reads memory: numbers are its address, bytes and sums."""

    def read(job: Any, first: int, last: int) -> None:
        size = job[1] // 8
        words = carray(pointer(job[0]), (size,), np.int64)
        sums = carray(pointer(job[2]), (job[3],), np.int64)
        for block in range(first, last):
            part = words[block * (CHUNK // 8) : (block + 1) * (CHUNK // 8)]
            total = 0
            for i in range(len(part)):
                total += part[i]
            sums[block] = total

    return int(numba.cfunc(KERNEL)(read).address)


def stream_reader(size: int, threads: int) -> Callable[[], None]:
    """Return what reads so many bytes of memory once, in order."""
    # No two pages alike: a hypervisor may keep like ones once, in a cache.
    memory = np.arange(size // 8, dtype=np.int64)
    blocks = -(-memory.nbytes // CHUNK)
    sums = np.zeros(blocks, np.int64)
    numbers = np.array([memory.ctypes.data, memory.nbytes, sums.ctypes.data, blocks])

    def call() -> None:
        run_job(_reader(), numbers, blocks, threads)
        # Its name here keeps the memory alive: the job has its address alone.
        assert sums.sum() == len(memory) * (len(memory) - 1) // 2

    return call
