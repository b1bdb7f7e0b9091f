"""Pack digits (trit + 1) four or five to a byte, and back; an illegal code is told by its place."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError

__all__ = [
    "DIGITS_PER_BYTE",
    "ILLEGAL_DIGIT",
    "PAD_DIGIT",
    "check_packed",
    "pack",
    "pack_2bit_u8",
    "pack_base3_u8",
    "packed_row_bytes",
    "unpack",
    "unpack_2bit_u8",
    "unpack_base3_u8",
]

#: Digits in one byte, by the packing's name.
DIGITS_PER_BYTE: Final = {"2bit": 4, "base3": 5}
#: The digit that fills the last byte of a row: trit 0.
PAD_DIGIT: Final = 1
#: What a lenient unpack returns for a digit of an illegal code.
ILLEGAL_DIGIT: Final = 3

#: Codes of five base-3 digits: 3**5 of a byte's 256 values are legal.
BASE3_CODES: Final = 243
#: Bit offsets of a byte's four 2-bit fields, first digit lowest.
FIELD_SHIFTS: Final = np.array([0, 2, 4, 6], np.uint8)
#: Weights of a byte's five base-3 digits, first digit most significant.
PLACE_VALUES: Final = np.array([81, 27, 9, 3, 1], np.uint8)


def packed_row_bytes(k: int, packing: str) -> int:
    """Return the bytes that a row of `k` digits takes."""
    if k < 1:
        raise TernError(f"digits of a row must be a positive number, not {k}")
    return -(-k // _digits_per_byte(packing))


def pack(digits: NDArray[np.uint8], packing: str) -> NDArray[np.uint8]:
    """Pack the last axis of `digits`; pad digits are 1.

    Parameters
    ----------
    digits : uint8 [..., K]
        Values 0, 1, 2 (trit + 1).
    packing : str
        "2bit" (four digits a byte) or "base3" (five).

    Returns
    -------
    uint8 [..., packed_row_bytes(K, packing)]

    Raises
    ------
    TernError
        If a digit is not 0, 1 or 2, the dtype is not uint8, or the packing is unknown.

    Notes
    -----
    2-bit: digit i of a byte in bits 2i, 2i + 1. Base-3: v = the five digits in base 3, first most
    significant, byte = ceil(v * 256 / 243): the byte code of llama.cpp's TQ1_0.
    """
    per_byte = _digits_per_byte(packing)
    _check_digits(digits)
    k = digits.shape[-1]
    width = packed_row_bytes(k, packing)
    padded = np.full((*digits.shape[:-1], width * per_byte), PAD_DIGIT, np.uint8)
    padded[..., :k] = digits
    fields = padded.reshape(*digits.shape[:-1], width, per_byte)
    return _join_2bit(fields) if packing == "2bit" else _join_base3(fields)


def unpack(
    packed: NDArray[np.uint8], k: int, packing: str, *, strict: bool = True, name: str = "packed"
) -> NDArray[np.uint8]:
    """Unpack `k` digits from the last axis of `packed`.

    Parameters
    ----------
    packed : uint8 [..., packed_row_bytes(k, packing)]
    k : int
        Digits of a row.
    packing : str
        "2bit" or "base3".
    strict : bool
        Refuse illegal codes and pad digits other than 1; if False, digits of an illegal code (a
        2-bit field of 3; all five digits of an illegal base-3 byte) are 3 and pad digits are free.
    name : str
        What an error calls the tensor.

    Returns
    -------
    uint8 [..., k]

    Raises
    ------
    TernError
        If the shape or dtype does not fit, or (strict) a code is illegal; row and byte are named.
    """
    if strict:
        check_packed(packed, k, packing, name=name)
    else:
        _check_width(packed, k, packing, name)
    fields = _split_2bit(packed) if packing == "2bit" else _split_base3(packed)
    return fields.reshape(*packed.shape[:-1], -1)[..., :k]


def pack_2bit_u8(digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack digits four to a byte, first digit in the low bits; see `pack`."""
    return pack(digits, "2bit")


def pack_base3_u8(digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack digits five to a byte, first digit most significant; see `pack`."""
    return pack(digits, "base3")


def unpack_2bit_u8(
    packed: NDArray[np.uint8], k: int, *, strict: bool = True, name: str = "packed"
) -> NDArray[np.uint8]:
    """Unpack digits packed four to a byte; see `unpack`."""
    return unpack(packed, k, "2bit", strict=strict, name=name)


def unpack_base3_u8(
    packed: NDArray[np.uint8], k: int, *, strict: bool = True, name: str = "packed"
) -> NDArray[np.uint8]:
    """Unpack digits packed five to a byte; see `unpack`."""
    return unpack(packed, k, "base3", strict=strict, name=name)


def check_packed(packed: NDArray[np.uint8], k: int, packing: str, *, name: str = "packed") -> None:
    """Refuse a wrong shape or dtype, an illegal code, or a pad digit other than 1.

    Raises
    ------
    TernError
        Naming the tensor and, for a code, its row and byte.
    """
    _check_width(packed, k, packing, name)
    illegal = _illegal_2bit(packed) if packing == "2bit" else ~_legal_base3(packed)
    if illegal.any():
        raise _bad_byte(packed, illegal, name, f"legal {packing} codes")
    used = k % DIGITS_PER_BYTE[packing]
    if used:
        last = packed[..., -1:]
        fields = _split_2bit(last) if packing == "2bit" else _split_base3(last)
        wrong = np.zeros(packed.shape, bool)
        wrong[..., -1] = (fields[..., 0, used:] != PAD_DIGIT).any(axis=-1)
        if wrong.any():
            raise _bad_byte(packed, wrong, name, f"pad digits of {PAD_DIGIT} after digit {k - 1}")


def _join_2bit(fields: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.bitwise_or.reduce(fields << FIELD_SHIFTS, axis=-1)


def _split_2bit(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (packed[..., None] >> FIELD_SHIFTS) & np.uint8(3)


def _illegal_2bit(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    # A field is 3 where its two bits are both set.
    return (packed & (packed >> np.uint8(1)) & np.uint8(0x55)) != 0


def _join_base3(fields: NDArray[np.uint8]) -> NDArray[np.uint8]:
    value = (fields * PLACE_VALUES).sum(axis=-1, dtype=np.uint16)
    return ((value * np.uint16(256) + np.uint16(BASE3_CODES - 1)) // BASE3_CODES).astype(np.uint8)


def _split_base3(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    fields = np.empty((*packed.shape, 5), np.uint8)
    rest = packed
    for place in range(5):
        tripled = rest * np.uint16(3)
        fields[..., place] = tripled >> np.uint16(8)
        rest = tripled.astype(np.uint8)
    fields[~_legal_base3(packed)] = ILLEGAL_DIGIT
    return fields


def _legal_base3(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    # byte = ceil(v * 256 / 243) for some v, exactly when (243 * byte) mod 256 < 243.
    return packed * np.uint8(BASE3_CODES) < BASE3_CODES


def _digits_per_byte(packing: str) -> int:
    try:
        return DIGITS_PER_BYTE[packing]
    except (KeyError, TypeError):
        choices = ", ".join(DIGITS_PER_BYTE)
        raise TernError(f"packing must be one of {choices}, not {packing!r}") from None


def _check_bytes(array: Any, name: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim < 1:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else array
        raise TernError(f"{name} must be a uint8 array of one axis or more, not {found!s:.80}")


def _check_digits(digits: NDArray[np.uint8]) -> None:
    _check_bytes(digits, "digits")
    wrong = digits > 2
    if wrong.any():
        index = np.unravel_index(int(wrong.argmax()), digits.shape)
        place = ", ".join(map(str, index))
        raise TernError(f"digits must be 0, 1 or 2, not {digits[index]} at [{place}]")


def _check_width(packed: NDArray[np.uint8], k: int, packing: str, name: str) -> None:
    width = packed_row_bytes(k, packing)
    _check_bytes(packed, name)
    if packed.shape[-1] != width:
        raise TernError(
            f"{name} must have {width} bytes a row for {k} {packing} digits, not {packed.shape[-1]}"
        )


def _bad_byte(
    packed: NDArray[np.uint8], wrong: NDArray[np.bool_], name: str, rule: str
) -> TernError:
    row, byte = divmod(int(wrong.argmax()), packed.shape[-1])
    value = packed.reshape(-1, packed.shape[-1])[row, byte]
    return TernError(f"{name} must hold {rule}, not {value:#04x} at row {row}, byte {byte}")
