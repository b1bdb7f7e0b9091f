"""`TernaryMatrix`: what it holds, what it refuses, and that nobody changes it afterwards."""

import dataclasses

import numpy as np
import pytest

from tern_hw.errors import TernError
from tern_hw.matrix import MAX_IN_FEATURES, TernaryMatrix, group_count
from tern_hw.packing import pack, packed_row_bytes

N, K, G = 5, 300, 128


def fields(**changes):
    """The arguments of a good matrix, with changes."""
    digits = np.random.default_rng(1).integers(0, 3, (N, K), dtype=np.uint8)
    good = {
        "packed": pack(digits, "2bit"),
        "scale": np.full((N, 3), 0.5, np.float16),
        "shift": np.full((N, 3), -0.25, np.float16),
        "in_features": K,
        "group_size": G,
        "packing": "2bit",
        "name": "q_proj",
    }
    return good | changes


def with_value(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize("packing", ["2bit", "base3"])
@pytest.mark.parametrize("group_size", [1, 3, 128, 299, 300, 301, "row"])
def test_from_digits_keeps_digits_scales_and_shifts(packing, group_size):
    rng = np.random.default_rng(2)
    digits = rng.integers(0, 3, (N, K), dtype=np.uint8)
    groups = group_count(K, group_size)
    scale, shift = rng.normal(size=(2, N, groups)).astype(np.float16)
    matrix = TernaryMatrix.from_digits(digits, scale, shift, group_size=group_size, packing=packing)
    assert np.array_equal(matrix.digits(), digits)
    assert np.array_equal(matrix.scale, scale)
    assert np.array_equal(matrix.shift, shift)
    assert matrix.shape == (N, K)
    assert matrix.groups == groups
    assert matrix.group_inputs == (K if group_size == "row" else min(K, group_size))


@pytest.mark.parametrize(
    ("k", "group_size", "groups"),
    [(300, 128, 3), (256, 128, 2), (1, 128, 1), (7, 1, 7), (7, 3, 3), (7, "row", 1)],
)
def test_group_count(k, group_size, groups):
    assert group_count(k, group_size) == groups


def test_bits_per_weight_counts_scales_and_shifts():
    digits = np.ones((2, 640), np.uint8)
    pairs = np.ones((2, 5), np.float16)
    matrix = TernaryMatrix.from_digits(digits, pairs, pairs, group_size=128, packing="base3")
    assert matrix.bits_per_weight == 8 / 5 + 32 / 128


def test_arrays_are_read_only_and_apart_from_the_callers():
    given = fields()
    matrix = TernaryMatrix(**given)
    before = matrix.digits()
    given["packed"][:] = 0
    given["scale"][:] = 7
    assert np.array_equal(matrix.digits(), before)
    assert (matrix.scale == np.float16(0.5)).all()
    for array in (matrix.packed, matrix.scale, matrix.shift):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        matrix.group_size = 64  # type: ignore[misc]


def test_read_only_arrays_are_not_copied():
    given = fields()
    for name in ("packed", "scale", "shift"):
        given[name].setflags(write=False)
    matrix = TernaryMatrix(**given)
    assert all(getattr(matrix, name) is given[name] for name in ("packed", "scale", "shift"))


GOOD = fields()
REFUSED = {
    "packed dtype": ({"packed": GOOD["packed"].astype(np.int8)}, "q_proj.packed must be a uint8"),
    "packed not an array": ({"packed": [[1]]}, "q_proj.packed must be a uint8 matrix, not list"),
    "packed one axis": ({"packed": GOOD["packed"][0]}, "q_proj.packed must be a uint8 matrix"),
    "packed width": ({"packed": GOOD["packed"][:, 1:]}, r"q_proj.packed must have shape \(5, 75\)"),
    "no rows": ({"packed": GOOD["packed"][:0]}, "q_proj.out_features must be an integer from 1"),
    "illegal code": (
        {"packed": with_value(GOOD["packed"], (3, 7), 0xFF)},
        "^q_proj.packed must hold legal 2bit codes, not 0xff at row 3, byte 7$",
    ),
    "wrong pad": (
        {"in_features": 299, "packed": with_value(GOOD["packed"], (slice(None), 74), 0)},
        "q_proj.packed must hold pad digits of 1 after digit 298, not 0x00 at row 0, byte 74",
    ),
    "scale dtype": ({"scale": GOOD["scale"].astype(np.float32)}, "q_proj.scale must be a float16"),
    "scale shape": ({"scale": GOOD["scale"][:, :2]}, r"q_proj.scale must have shape \(5, 3\), not"),
    "scale rows": ({"scale": GOOD["scale"][:4]}, r"q_proj.scale must have shape \(5, 3\), not"),
    "scale nan": (
        {"scale": with_value(GOOD["scale"], (2, 1), np.nan)},
        "^q_proj.scale must be finite, not nan at row 2, group 1$",
    ),
    "shift inf": (
        {"shift": with_value(GOOD["shift"], (4, 2), -np.inf)},
        "^q_proj.shift must be finite, not -inf at row 4, group 2$",
    ),
    "shift shape": ({"shift": GOOD["shift"].T}, r"q_proj.shift must have shape \(5, 3\), not"),
    "no inputs": ({"in_features": 0}, "q_proj.in_features must be an integer from 1 to"),
    "inputs beyond": (
        {"in_features": MAX_IN_FEATURES + 1},
        f"q_proj.in_features must be an integer from 1 to {MAX_IN_FEATURES}, not",
    ),
    "inputs bool": ({"in_features": True}, "q_proj.in_features must be an integer"),
    "group 0": ({"group_size": 0}, 'q_proj.group_size must be "row" or a positive integer, not 0'),
    "group text": ({"group_size": "col"}, "q_proj.group_size must be"),
    "group bool": ({"group_size": True}, "q_proj.group_size must be"),
    "group float": ({"group_size": 128.0}, "q_proj.group_size must be"),
    "packing": ({"packing": "3bit"}, "packing must be one of 2bit, base3, not '3bit'"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(changes, message):
    assert TernaryMatrix(**fields()).shape == (N, K)
    with pytest.raises(TernError, match=message):
        TernaryMatrix(**fields(**changes))


def test_the_longest_row_is_taken():
    pairs = np.ones((1, 1), np.float16)
    matrix = TernaryMatrix(
        packed=np.full((1, MAX_IN_FEATURES // 4), 0x55, np.uint8),
        scale=pairs,
        shift=pairs,
        in_features=MAX_IN_FEATURES,
        group_size="row",
        packing="2bit",
    )
    assert matrix.shape == (1, MAX_IN_FEATURES)


def test_base3_codes_are_checked():
    packed = pack(np.ones((2, 10), np.uint8), "base3")
    packed[1, 1] = 20
    assert packed_row_bytes(10, "base3") == 2
    pairs = np.ones((2, 1), np.float16)
    with pytest.raises(
        TernError, match=r"weight.packed must hold legal base3 codes.*row 1, byte 1$"
    ):
        TernaryMatrix(
            packed=packed,
            scale=pairs,
            shift=pairs,
            in_features=10,
            group_size="row",
            packing="base3",
        )


@pytest.mark.parametrize("digits", [np.ones(4, np.uint8), [[1, 1]], np.full((1, 4), 3, np.uint8)])
def test_from_digits_refuses_what_are_no_digits(digits):
    pairs = np.ones((1, 1), np.float16)
    with pytest.raises(TernError, match="digits must be"):
        TernaryMatrix.from_digits(digits, pairs, pairs, group_size="row")
