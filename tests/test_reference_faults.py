"""`matmul_faults`: the hardware's answers to what software refuses."""

import numpy as np
import pytest

from tern_hw.config import ErrorFlag
from tern_hw.errors import TernError
from tern_hw.matrix import group_count
from tern_hw.reference import matmul, matmul_faults
from tests import naive
from tests.layers import random_activations, random_fp16, random_layer

NAN = {"fp32": 0x7FC00000, "fp16": 0x7E00}
OUTPUTS = ("fp32", "fp16")
N, K = 6, 40


def operands(seed, kind="any", group_size=16):
    rng = np.random.default_rng([19, seed])
    digits = rng.integers(0, 3, (N, K), dtype=np.uint8)
    scale, shift = random_fp16(rng, (2, N, group_count(K, group_size)), "any")
    return random_activations(rng, (3, K), kind), digits, scale, shift


def bits(values):
    return values.view(np.uint32 if values.dtype == np.float32 else np.uint16)


def expected(x, digits, scale, shift, group_size, output):
    """The rules, written out: NaN tokens, NaN rows, and illegal digits as trit 0."""
    wanted = np.empty((len(x), len(digits)), np.uint32)
    for m, token in enumerate(x):
        for n, row in enumerate(digits):
            if not (np.isfinite(token).all() and np.isfinite([*scale[n], *shift[n]]).all()):
                wanted[m, n] = NAN[output]
                continue
            trits = [0 if digit == 3 else int(digit) - 1 for digit in row[:K]]
            exact = naive.exact_row(token, trits, scale[n], shift[n], group_size)
            wanted[m, n] = naive.float_bits(exact, output)
    return wanted


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", ["int8", "any"])
@pytest.mark.parametrize("group_size", [16, "row"])
def test_without_a_fault_it_is_matmul(kind, output, group_size):
    x, _, _, _ = operands(0, kind)
    matrix, _ = random_layer(np.random.default_rng(20), N, K, group_size, "any")
    out, flags = matmul_faults(
        x, matrix.digits(), matrix.scale, matrix.shift, group_size=group_size, output=output
    )
    assert flags == ErrorFlag(0)
    assert np.array_equal(bits(out), bits(matmul(x, matrix, output=output)))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_not_finite_makes_its_token_nan(output, bad):
    x, digits, scale, shift = operands(1)
    x[1, K - 1] = bad
    out, flags = matmul_faults(x, digits, scale, shift, group_size=16, output=output)
    assert flags == ErrorFlag.ACTIVATION_NONFINITE
    assert (bits(out)[1] == NAN[output]).all()
    assert np.array_equal(bits(out), expected(x, digits, scale, shift, 16, output))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("part", ["scale", "shift"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_pair_that_is_not_finite_makes_its_row_nan(output, part, bad):
    x, digits, scale, shift = operands(2, "int8")
    {"scale": scale, "shift": shift}[part][4, 2] = bad
    out, flags = matmul_faults(x, digits, scale, shift, group_size=16, output=output)
    assert flags == ErrorFlag.SCALE_NONFINITE
    assert (bits(out)[:, 4] == NAN[output]).all()
    assert np.array_equal(bits(out), expected(x, digits, scale, shift, 16, output))


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_illegal_digit_counts_as_trit_0(output):
    x, digits, scale, shift = operands(3)
    digits[2, 7:12] = 3
    out, flags = matmul_faults(x, digits, scale, shift, group_size=16, output=output)
    assert flags == ErrorFlag.ILLEGAL_CODE
    assert np.array_equal(bits(out), expected(x, digits, scale, shift, 16, output))
    digits[2, 7:12] = 1
    clean, _ = matmul_faults(x, digits, scale, shift, group_size=16, output=output)
    assert np.array_equal(bits(out), bits(clean))


def test_all_faults_together():
    x, digits, scale, shift = operands(4)
    x[0, 0], scale[1, 1], digits[2, 3] = np.inf, np.nan, 3
    out, flags = matmul_faults(x, digits, scale, shift, group_size=16)
    assert flags == ErrorFlag(0b111)
    assert np.array_equal(bits(out), expected(x, digits, scale, shift, 16, "fp32"))


@pytest.mark.parametrize(("pad", "flags"), [(1, ErrorFlag(0)), (3, ErrorFlag.ILLEGAL_CODE)])
def test_pad_digits_count_for_the_flag_alone(pad, flags):
    x, digits, scale, shift = operands(5)
    wide = np.hstack([digits, np.full((N, 4), pad, np.uint8)])
    out, found = matmul_faults(x, wide, scale, shift, group_size=16)
    assert found == flags
    assert np.array_equal(bits(out), bits(matmul_faults(x, digits, scale, shift, group_size=16)[0]))


def test_one_token_without_its_axis_and_operands_left_alone():
    x, digits, scale, shift = operands(6)
    x[0, 3], scale[1, 1], digits[2, 3] = np.nan, np.nan, 3
    before = [array.tobytes() for array in (x, digits, scale, shift)]
    out, _ = matmul_faults(x[0], digits, scale, shift, group_size=16)
    assert out.shape == (N,)
    assert before == [array.tobytes() for array in (x, digits, scale, shift)]


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda x: x.astype(np.float32), "activations must be int8 or float16"),
        (0, lambda x: x[0, 0], "activations must be int8 or float16"),
        (1, lambda digits: digits[:, 1:], "digits must have at least 40 columns, not 39"),
        (1, lambda digits: digits.astype(np.int8), "digits must be a uint8 matrix, not int8"),
        (1, lambda digits: digits[0], "digits must be a uint8 matrix"),
        (1, lambda digits: digits + np.uint8(2), "digits must be 0 to 3, not 4"),
        (2, lambda scale: scale.astype(np.float32), "scale must be a float16 matrix, not float32"),
        (2, lambda scale: scale[:, 1:], r"shift must have the scale's shape \(6, 2\), not"),
        (3, lambda shift: list(shift), "shift must be a float16 matrix, not list"),
    ],
)
def test_refusals(index, change, message):
    given = list(operands(7))
    given[index] = change(given[index])
    with pytest.raises(TernError, match=message):
        matmul_faults(*given, group_size=16)


def test_pairs_of_other_groups_are_refused():
    x, digits, scale, shift = operands(8)
    with pytest.raises(TernError, match=r"scale must have shape \(6, 5\), not \(6, 3\)"):
        matmul_faults(x, digits, scale, shift, group_size=8)
