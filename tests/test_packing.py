"""Packing: every code, legal and illegal, and every refusal by its sentence."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tern_hw.errors import TernError
from tern_hw.packing import (
    check_packed,
    pack,
    pack_2bit_u8,
    pack_base3_u8,
    packed_row_bytes,
    unpack,
    unpack_2bit_u8,
    unpack_base3_u8,
)

ALL_BYTES = np.arange(256, dtype=np.uint8)
DIGITS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=23), elements=st.integers(0, 2)
)
PACKINGS = st.sampled_from(["2bit", "base3"])


def base3_code(digits):
    """The base-3 code by its definition, in Python integers."""
    value = 0
    for digit in digits:
        value = 3 * value + digit
    return -(-value * 256 // 243)


def test_base3_byte_of_all_243_digit_strings():
    strings = list(itertools.product(range(3), repeat=5))
    codes = [base3_code(string) for string in strings]
    assert len(set(codes)) == 243
    assert pack_base3_u8(np.array(strings, np.uint8))[:, 0].tolist() == codes


def test_base3_roundtrip_all_243_codes():
    strings = np.array(list(itertools.product(range(3), repeat=5)), np.uint8)
    assert np.array_equal(unpack_base3_u8(pack_base3_u8(strings), 5), strings)


def test_base3_illegal_bytes_are_the_13_that_no_digits_give():
    legal = {base3_code(string) for string in itertools.product(range(3), repeat=5)}
    illegal = sorted(set(range(256)) - legal)
    assert len(illegal) == 13
    for byte in range(256):
        packed = np.array([[byte]], np.uint8)
        lenient = unpack_base3_u8(packed, 5, strict=False)
        if byte in legal:
            assert np.array_equal(unpack_base3_u8(packed, 5), lenient)
            assert lenient.max() <= 2
        else:
            assert lenient.tolist() == [[3] * 5]
            with pytest.raises(TernError, match=f"legal base3 codes, not {byte:#04x}"):
                unpack_base3_u8(packed, 5)


def test_2bit_all_256_bytes():
    for byte in range(256):
        packed = np.array([[byte]], np.uint8)
        fields = [byte >> shift & 3 for shift in (0, 2, 4, 6)]
        assert unpack_2bit_u8(packed, 4, strict=False).tolist() == [fields]
        if 3 in fields:
            with pytest.raises(TernError, match=f"legal 2bit codes, not {byte:#04x}"):
                unpack_2bit_u8(packed, 4)
        else:
            assert unpack_2bit_u8(packed, 4).tolist() == [fields]
            assert pack_2bit_u8(np.array([fields], np.uint8)).tolist() == [[byte]]


@given(DIGITS, PACKINGS)
def test_roundtrip(digits, packing):
    k = digits.shape[-1]
    packed = pack(digits, packing)
    assert packed.shape == (*digits.shape[:-1], packed_row_bytes(k, packing))
    assert np.array_equal(unpack(packed, k, packing), digits)
    assert np.array_equal(unpack(packed, k, packing, strict=False), digits)


@given(DIGITS, PACKINGS)
def test_pad_digits_are_1(digits, packing):
    packed = pack(digits, packing)
    whole = packed.shape[-1] * {"2bit": 4, "base3": 5}[packing]
    assert (unpack(packed, whole, packing)[..., digits.shape[-1] :] == 1).all()


@pytest.mark.parametrize("packing", ["2bit", "base3"])
@pytest.mark.parametrize("pad", [0, 2])
def test_wrong_pad_digit_is_refused_only_when_strict(packing, pad):
    digits = np.ones((4, 12), np.uint8)
    digits[2, 11] = pad
    packed = pack(digits, packing)
    with pytest.raises(TernError, match=r"w must hold pad digits of 1 after digit 10.*row 2, byte"):
        unpack(packed, 11, packing, name="w")
    assert (unpack(packed, 11, packing, strict=False) == 1).all()


@pytest.mark.parametrize(("packing", "byte"), [("2bit", 0x0C), ("base3", 20)])
def test_illegal_code_is_named_by_tensor_row_and_byte(packing, byte):
    packed = pack(np.ones((6, 40), np.uint8), packing)
    packed[4, 7] = byte
    message = f"^q_proj must hold legal {packing} codes, not {byte:#04x} at row 4, byte 7$"
    with pytest.raises(TernError, match=message):
        check_packed(packed, 40, packing, name="q_proj")


def test_rows_of_a_stack_are_counted_through():
    packed = pack(np.ones((2, 3, 8), np.uint8), "2bit")
    packed[1, 1, 1] = 0xFF
    with pytest.raises(TernError, match="row 4, byte 1"):
        unpack(packed, 8, "2bit")


@pytest.mark.parametrize("value", [3, 255])
def test_pack_refuses_what_is_no_digit(value):
    digits = np.zeros((2, 3), np.uint8)
    digits[1, 2] = value
    with pytest.raises(TernError, match=rf"^digits must be 0, 1 or 2, not {value} at \[1, 2\]$"):
        pack(digits, "2bit")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack(np.zeros((2, 3), np.int8), "2bit"), "digits must be a uint8 array"),
        (lambda: pack(np.array(1, np.uint8), "2bit"), "digits must be a uint8 array"),
        (lambda: pack(np.zeros((2, 0), np.uint8), "2bit"), "must be a positive number, not 0"),
        (lambda: pack(np.zeros(3, np.uint8), "1bit"), "packing must be one of 2bit, base3"),
        (lambda: pack(np.zeros(3, np.uint8), ""), "packing must be one of 2bit, base3, not ''"),
        (lambda: unpack(np.zeros((2, 3), np.uint8), 13, "2bit"), "must have 4 bytes a row .* 3$"),
        (lambda: unpack(np.zeros((2, 3), np.uint8), 8, "2bit"), "must have 2 bytes a row .* 3$"),
        (lambda: unpack(np.zeros((2, 3), np.int16), 12, "2bit"), "packed must be a uint8 array"),
        (lambda: unpack(np.array(3, np.uint8), 4, "2bit"), "packed must be a uint8 array"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(TernError, match=message):
        call()
