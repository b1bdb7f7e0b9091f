"""`TernaryMatrix`: packed trits with their scales and shifts, validated once and never changed."""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.packing import check_packed, pack, packed_row_bytes, unpack

__all__ = ["MAX_IN_FEATURES", "GroupSize", "TernaryMatrix", "group_count"]

#: Inputs per scale and shift; "row" is one group for the whole row.
GroupSize = int | Literal["row"]

#: Most inputs of a row: the reference's group sums are proved to fit for these.
MAX_IN_FEATURES: Final = 1 << 22
#: Most rows, so that a mislabelled shape is refused before anything is allocated.
MAX_OUT_FEATURES: Final = 1 << 24


@dataclass(frozen=True, kw_only=True, eq=False)
class TernaryMatrix:
    """A weight matrix W[n, k] = scale[n, g] * trit[n, k] + shift[n, g], with g = k // group_size.

    The arrays are read-only; writable ones are copied. Equality is identity.

    Raises
    ------
    TernError
        If a shape, dtype or group size does not fit, a scale or shift is not finite, a code is
        illegal, or a pad digit is not 1.
    """

    #: Packed digits, uint8 [N, packed_row_bytes(K, packing)].
    packed: NDArray[np.uint8]
    #: Scale (alpha) of each row's groups, float16 [N, groups].
    scale: NDArray[np.float16]
    #: Shift (gamma) of each row's groups, float16 [N, groups].
    shift: NDArray[np.float16]
    #: Inputs of a row (K); 1 to MAX_IN_FEATURES.
    in_features: int
    #: Consecutive inputs that share a scale and shift; the last group may be short.
    group_size: GroupSize
    #: "2bit" or "base3".
    packing: str
    #: What errors call the matrix.
    name: str = "weight"

    def __post_init__(self) -> None:
        _check_integer(f"{self.name}.in_features", self.in_features, MAX_IN_FEATURES)
        _check_group_size(self.name, self.group_size)
        object.__setattr__(self, "packing", str(self.packing))
        packed_row_bytes(self.in_features, self.packing)  # refuses an unknown packing
        for field, dtype in (("packed", np.uint8), ("scale", np.float16), ("shift", np.float16)):
            object.__setattr__(self, field, self._settled(field, dtype))
        check_packed(self.packed, self.in_features, self.packing, name=f"{self.name}.packed")

    def _settled(self, field: str, dtype: type[np.generic]) -> NDArray[Any]:
        """Return the field's array, checked and read-only."""
        array, name = getattr(self, field), f"{self.name}.{field}"
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 2:
            raise TernError(f"{name} must be a {np.dtype(dtype)} matrix, not {_described(array)}")
        shape = (self._rows(), self._columns(field))
        if array.shape != shape:
            raise TernError(f"{name} must have shape {shape}, not {array.shape}")
        if field != "packed" and not np.isfinite(array).all():
            row, group = np.argwhere(~np.isfinite(array))[0]
            raise TernError(
                f"{name} must be finite, not {array[row, group]} at row {row}, group {group}"
            )
        return _read_only(array)

    def _rows(self) -> int:
        rows = len(self.packed)
        _check_integer(f"{self.name}.out_features", rows, MAX_OUT_FEATURES)
        return rows

    def _columns(self, field: str) -> int:
        if field == "packed":
            return packed_row_bytes(self.in_features, self.packing)
        return self.groups

    @property
    def out_features(self) -> int:
        """Rows (N)."""
        return len(self.packed)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.out_features, self.in_features

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return group_count(self.in_features, self.group_size)

    @property
    def group_inputs(self) -> int:
        """Inputs of a full group: the group size, or K where one group holds the row."""
        if self.group_size == "row":
            return self.in_features
        return min(self.group_size, self.in_features)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits a weight, with scales and shifts."""
        stored = self.packed.nbytes + self.scale.nbytes + self.shift.nbytes
        return 8 * stored / (self.out_features * self.in_features)

    def digits(self) -> NDArray[np.uint8]:
        """Return the digits (trit + 1), uint8 [N, K]."""
        # The codes were checked at construction.
        return unpack(self.packed, self.in_features, self.packing, strict=False)

    @classmethod
    def from_digits(
        cls,
        digits: NDArray[np.uint8],
        scale: NDArray[np.float16],
        shift: NDArray[np.float16],
        *,
        group_size: GroupSize,
        packing: str = "2bit",
        name: str = "weight",
    ) -> Self:
        """Build a matrix from unpacked digits.

        Parameters
        ----------
        digits : uint8 [N, K]
            Values 0, 1, 2 (trit + 1).
        scale, shift : float16 [N, groups]
        group_size : int or "row"
        packing : str
            "2bit" or "base3".
        name : str
            What errors call the matrix.
        """
        if not isinstance(digits, np.ndarray) or digits.ndim != 2:
            raise TernError(f"{name}.digits must be a uint8 matrix, not {_described(digits)}")
        packed = pack(digits, packing)
        packed.setflags(write=False)
        return cls(
            packed=packed,
            scale=scale,
            shift=shift,
            in_features=digits.shape[1],
            group_size=group_size,
            packing=packing,
            name=name,
        )


def group_count(k: int, group_size: GroupSize) -> int:
    """Return the groups of a row of `k` inputs."""
    return 1 if group_size == "row" else -(-k // group_size)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array itself where nobody can write through it, else a read-only copy."""
    if array.flags.writeable or not array.flags.c_contiguous or not array.flags.aligned:
        array = array.copy(order="C")
        array.setflags(write=False)
    return array


def _check_integer(name: str, value: Any, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
        raise TernError(f"{name} must be an integer from 1 to {high}, not {value!r}")


def _check_group_size(name: str, value: Any) -> None:
    if value == "row":
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TernError(f'{name}.group_size must be "row" or a positive integer, not {value!r}')


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
