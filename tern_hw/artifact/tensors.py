"""Tensors as raw bytes with a type name, and the safetensors file that holds them."""

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, TensorSpec, safe_open, serialize_file

from tern_hw.errors import TernError

__all__ = ["RawTensor", "TensorFile", "write_tensors"]

#: Type names of a safetensors header: bytes of an element, the library's name, numpy's or None.
DTYPES: Final[dict[str, tuple[int, str, str | None]]] = {
    "BOOL": (1, "bool", "?"),
    "U8": (1, "uint8", "u1"),
    "I8": (1, "int8", "i1"),
    "U16": (2, "uint16", "<u2"),
    "I16": (2, "int16", "<i2"),
    "U32": (4, "uint32", "<u4"),
    "I32": (4, "int32", "<i4"),
    "U64": (8, "uint64", "<u8"),
    "I64": (8, "int64", "<i8"),
    "F16": (2, "float16", "<f2"),
    "F32": (4, "float32", "<f4"),
    "F64": (8, "float64", "<f8"),
    "BF16": (2, "bfloat16", None),
    "F8_E4M3": (1, "float8_e4m3fn", None),
    "F8_E5M2": (1, "float8_e5m2", None),
}
NUMPY_NAMES: Final = {np.dtype(kind): name for name, (_, _, kind) in DTYPES.items() if kind}


@dataclass(frozen=True, eq=False)
class RawTensor:
    """A tensor as its little-endian bytes, whatever its type: also those that numpy lacks.

    Raises
    ------
    TernError
        If the type is unknown, the shape is not one, or the bytes do not fill it.
    """

    #: The safetensors name: "F16", "BF16", "U8", ...
    dtype: str
    #: Length of each axis.
    shape: tuple[int, ...]
    #: The elements, row-major: bytes, a memoryview, or a flat uint8 array; kept, not copied.
    data: Any

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise TernError(f"tensor type must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        object.__setattr__(self, "shape", tuple(self.shape))
        if not all(isinstance(length, int) and length >= 0 for length in self.shape):
            raise TernError(f"tensor shape must be of non-negative integers, not {self.shape}")
        data = np.frombuffer(self.data, np.uint8) if len(self.data) else np.empty(0, np.uint8)
        object.__setattr__(self, "data", data)
        wanted = math.prod(self.shape) * DTYPES[self.dtype][0]
        if data.size != wanted:
            raise TernError(
                f"tensor data must be {wanted} bytes for {self.dtype} {list(self.shape)}, "
                f"not {data.size}"
            )

    @classmethod
    def of(cls, array: NDArray[Any]) -> Self:
        """Return a numpy array's raw form; the bytes are shared where they are in order."""
        little = np.asarray(array, order="C")
        little = little.astype(little.dtype.newbyteorder("<"), copy=False)
        if little.dtype not in NUMPY_NAMES:
            raise TernError(f"tensor type must be one of {', '.join(DTYPES)}, not {array.dtype}")
        return cls(NUMPY_NAMES[little.dtype], array.shape, little.reshape(-1).view(np.uint8))

    def array(self) -> NDArray[Any]:
        """Return the tensor as a numpy array that shares the bytes.

        Raises
        ------
        TernError
            If numpy has no such type.
        """
        kind = DTYPES[self.dtype][2]
        if kind is None:
            raise TernError(f"tensor type must be one that numpy has, not {self.dtype}")
        return self.data.view(kind).reshape(self.shape)

    def sha256(self) -> str:
        """Return the checksum of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, RawTensor], *, shown: Path) -> None:
    """Write a safetensors file straight from the tensors' own memory.

    Parameters
    ----------
    path : Path
    tensors : mapping of str to RawTensor
    shown : Path
        What errors call the file: it may yet be moved to its place.

    Raises
    ------
    TernError
        If the file cannot be written.
    """
    specs = {
        name: TensorSpec(
            dtype=DTYPES[tensor.dtype][1],
            shape=tensor.shape,
            data_ptr=tensor.data.ctypes.data,
            data_len=tensor.data.size,
        )
        for name, tensor in tensors.items()
    }
    try:
        serialize_file(specs, path)
    except (SafetensorError, OSError) as error:
        raise TernError(f"{shown} must be writable ({error})") from None


class TensorFile:
    """A safetensors file, mapped into memory: tensors are read where they lie.

    Parameters
    ----------
    path : Path

    Raises
    ------
    TernError
        If the file is not whole safetensors, or holds a type that is not in `DTYPES`.
    """

    def __init__(self, path: Path) -> None:
        try:
            # The library checks the header, its length, and that the tensors tile the file.
            with safe_open(path, framework="np"):
                pass
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (SafetensorError, OSError, ValueError) as error:
            raise TernError(f"{path} must be a whole safetensors file ({error})") from None
        length = int.from_bytes(self._bytes[:8], "little")
        self._start = 8 + length
        header = json.loads(self._bytes[8 : self._start])
        header.pop("__metadata__", None)
        self._header: dict[str, dict[str, Any]] = header

    def names(self) -> set[str]:
        """Return the names of the tensors."""
        return set(self._header)

    def described(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return a tensor's type and shape."""
        entry = self._header[name]
        return entry["dtype"], tuple(entry["shape"])

    def raw(self, name: str) -> RawTensor:
        """Return a tensor; its bytes are the file's, read-only."""
        dtype, shape = self.described(name)
        first, last = self._header[name]["data_offsets"]
        view = memoryview(self._bytes)[self._start + first : self._start + last]
        return RawTensor(dtype, shape, view)
