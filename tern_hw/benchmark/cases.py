"""What is timed: products of one shape by every kernel and every peer that is installed."""

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw import kernels, reference
from tern_hw.kernels import KernelMatrix
from tern_hw.matrix import GroupSize, TernaryMatrix, group_count

__all__ = ["COLD_BYTES", "Contender", "Shape", "cold_contenders", "hot_contenders", "peer_notes"]

#: Matrices that take turns when cold: more bytes than any cache holds.
COLD_BYTES: Final = 320 << 20
#: A ternary peer that is timed where it is installed.
LITESPARK: Final = "litespark_inference"

#: Packings and groups that are timed hot.
HOT: Final[tuple[tuple[str, GroupSize], ...]] = (
    ("2bit", 128),
    ("2bit", 256),
    ("2bit", "row"),
    ("base3", 256),
)


@dataclass(frozen=True)
class Shape:
    """A product: M tokens by a matrix [N, K]."""

    n: int
    k: int
    tokens: int = 1

    @property
    def products(self) -> int:
        """Multiplications, or what stands for them."""
        return self.n * self.k * self.tokens

    def __str__(self) -> str:
        return f"{self.n} x {self.k}, {self.tokens} token{'s' * (self.tokens != 1)}"


@dataclass(frozen=True)
class Contender:
    """Something that multiplies."""

    name: str
    call: Callable[[], Any]
    #: Bytes of the matrix that a call reads.
    nbytes: int
    #: Tells whether the last call's output was right; None: nothing to compare with.
    check: Callable[[], bool] | None = None


def hot_contenders(shape: Shape, seed: int, threads: int, *, peers: bool = True) -> list[Contender]:
    """Return every kernel, the reference and the peers for one shape.

    Operands are random: int8 from -127 to 127 as tokens have them when they are quantised, float
    ones normal. All of 0 and such things that speed a peer up do not occur.
    """
    rng = np.random.default_rng(seed)
    x = np.clip(np.rint(rng.normal(size=(shape.tokens, shape.k)) * 35), -127, 127).astype(np.int8)
    wide = rng.normal(size=(shape.tokens, shape.k)).astype(np.float32)
    found = []
    for packing, group in HOT:
        matrix = random_matrix(rng, shape, group)
        name = f"{packing} G{group}" if group != "row" else f"{packing} row"
        repacked = kernels.repack(matrix, packing)
        pair = _Pair(repacked, matrix, threads)
        found.append(pair.contender(f"int8 {name}", x))
        if (packing, group) == ("2bit", 128):
            found.append(pair.contender(f"fp16 {name}", wide.astype(np.float16)))
            found.append(pair.contender(f"fp32 via int8 {name}", wide))
            if threads == 1:
                found.append(_reference(f"reference {name}", x, matrix))
    if peers:
        found += [_numpy(wide, shape), *_torch(wide, shape), *_litespark(rng, x, shape)]
    return found


def cold_contenders(shape: Shape, seed: int, threads: int) -> list[Contender]:
    """Return the kernels whose matrices take turns, so that each comes from memory."""
    rng = np.random.default_rng(seed)
    x = np.clip(np.rint(rng.normal(size=(shape.tokens, shape.k)) * 35), -127, 127).astype(np.int8)
    found = []
    for packing, group in (("2bit", 128), ("2bit", 256), ("base3", 256)):
        repacked = kernels.repack(random_matrix(rng, shape, group), packing)
        if repacked.stream is None:
            continue
        copies = _copies(repacked, repacked.stream)
        found.append(
            Contender(f"int8 {packing} G{group}", _in_turn(copies, x, threads), repacked.nbytes)
        )
    return found


def peer_notes() -> list[str]:
    """Return a line for each optional peer that is not timed."""
    notes = ["llama-cpp-python: computes whole models only, not timed"]
    if importlib.util.find_spec(LITESPARK) is None:
        notes.insert(0, "litespark-inference: not installed, not timed")
    return notes


def random_matrix(rng: np.random.Generator, shape: Shape, group_size: GroupSize) -> TernaryMatrix:
    """Return a matrix with scales and shifts as training leaves them."""
    groups = group_count(shape.k, group_size)
    return TernaryMatrix.from_digits(
        rng.integers(0, 3, (shape.n, shape.k), dtype=np.uint8),
        (0.02 * rng.uniform(1, 2, (shape.n, groups))).astype(np.float16),
        (0.002 * rng.normal(size=(shape.n, groups))).astype(np.float16),
        group_size=group_size,
    )


def _copies(matrix: KernelMatrix, stream: NDArray[np.uint8]) -> list[KernelMatrix]:
    """Return copies of a matrix, one after the other in memory."""
    count = -(-COLD_BYTES // stream.nbytes)
    size = -(-stream.nbytes // 64) * 64
    memory = np.empty(count * size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copies = []
    for place in range(start, start + count * size, size):
        copy = memory[place : place + stream.nbytes].reshape(stream.shape)
        copy[:] = stream
        copies.append(dataclasses.replace(matrix, stream=copy))
    return copies


def _in_turn(copies: list[KernelMatrix], x: NDArray[np.int8], threads: int) -> Callable[[], None]:
    place = 0

    def call() -> None:
        nonlocal place
        place = (place + 1) % len(copies)
        kernels.matmul(x, copies[place], threads=threads)

    return call


@dataclass(frozen=True, eq=False)
class _Pair:
    """A matrix as the kernels have it, and as the reference does."""

    repacked: KernelMatrix
    matrix: TernaryMatrix
    threads: int

    def contender(self, name: str, x: NDArray[Any]) -> Contender:
        """Return the kernel; its last output is compared, bit for bit, when its time was taken.

        Float32 tokens go through int8.
        """
        ours: Callable[..., NDArray[Any]] = kernels.matmul
        theirs: Callable[..., NDArray[Any]] = reference.matmul
        if x.dtype == np.float32:
            ours, theirs = kernels.matmul_quantized, reference.matmul_quantized
        last: list[Any] = []

        def timed() -> None:
            last[:] = [ours(x, self.repacked, threads=self.threads)]

        def check() -> bool:
            return bool(last[0].tobytes() == theirs(x, self.matrix).tobytes())

        return Contender(name, timed, self.repacked.nbytes, check)


def _reference(name: str, x: NDArray[Any], matrix: TernaryMatrix) -> Contender:
    return Contender(name, lambda: reference.matmul(x, matrix), matrix.packed.nbytes)


def _numpy(x: NDArray[np.float32], shape: Shape) -> Contender:
    weight = np.random.default_rng(1).normal(size=(shape.n, shape.k)).astype(np.float32)
    return Contender("numpy fp32", lambda: x @ weight.T, weight.nbytes)


def _torch(x: NDArray[np.float32], shape: Shape) -> list[Contender]:
    """Return PyTorch's ways, where it is installed: plain, and quantised to int8."""
    if importlib.util.find_spec("torch") is None:
        return []
    import warnings

    import torch

    tokens = torch.from_numpy(x)
    weight = torch.randn(shape.n, shape.k, generator=torch.Generator().manual_seed(1))
    half, half_tokens = weight.bfloat16(), tokens.bfloat16()
    linear = torch.nn.Linear(shape.k, shape.n, bias=False)
    linear.weight.data = weight
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a successor exists, in another package
        dynamic = torch.ao.quantization.quantize_dynamic(
            torch.nn.Sequential(linear), {torch.nn.Linear}, dtype=torch.qint8
        )
    integers = torch.randint(-127, 128, (shape.n, shape.k), dtype=torch.int8)
    integer_tokens = torch.randint(-127, 128, (shape.tokens, shape.k), dtype=torch.int8)
    by_inputs = integers.T.contiguous()

    def product(left: Any, right: Any) -> Callable[[], Any]:
        return lambda: left @ right.T

    return [
        Contender("torch fp32", product(tokens, weight), 4 * shape.n * shape.k),
        Contender("torch bf16", product(half_tokens, half), 2 * shape.n * shape.k),
        Contender("torch int8 dynamic", _without_gradient(dynamic, tokens), shape.n * shape.k),
        Contender(
            "torch int8 _int_mm",
            lambda: torch._int_mm(integer_tokens, integers.T),
            shape.n * shape.k,
        ),
        Contender(
            "torch int8 _int_mm, by inputs",
            lambda: torch._int_mm(integer_tokens, by_inputs),
            shape.n * shape.k,
        ),
    ]


def _without_gradient(model: Any, x: Any) -> Callable[[], Any]:
    import torch

    def call() -> Any:
        with torch.inference_mode():
            return model(x)

    return call


def _litespark(rng: np.random.Generator, x: NDArray[np.int8], shape: Shape) -> list[Contender]:
    """Return litespark-inference's product, of one scale a matrix, where it is installed."""
    if importlib.util.find_spec(LITESPARK) is None or shape.k % 4:
        return []
    kernel = importlib.import_module(f"{LITESPARK}.torchless.kernel")
    matrix = random_matrix(rng, shape, "row")
    # Its packing is ours: four digits a byte, first lowest.
    packed, scales = matrix.packed, np.ones(shape.tokens, np.float32)
    last: list[Any] = []

    def call() -> None:
        if shape.tokens == 1:
            last[:] = [kernel.matmul_packed_m1(x[0], packed, 1.0, 1.0)]
        else:
            last[:] = [kernel.matmul_packed_mT(x, scales, packed, 1.0)]

    def check() -> bool:
        trits = matrix.digits().astype(np.float32) - 1
        return bool(np.allclose(np.atleast_2d(last[0]), x.astype(np.float32) @ trits.T))

    if shape.tokens > 1 and not kernel.has_batched_matmul():
        return []
    return [Contender("litespark-inference", call, packed.nbytes, check)]
