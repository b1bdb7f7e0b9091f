"""Re-beating: every byte of a stream is where the port's definition puts it."""

import itertools

import numpy as np
import pytest

from tern_hw.beats import (
    activation_beats,
    digits_from_weight_beats,
    plain_weight_beats,
    results_from_bytes,
    scale_beats,
    weight_beats,
)
from tern_hw.config import Activation, ArrayConfig, GroupSize, OutputFormat, Packing
from tern_hw.errors import TernError
from tern_hw.matrix import TernaryMatrix, group_count
from tern_hw.packing import unpack

PORTS: list[tuple[int, int, Packing, GroupSize]] = [
    (8, 1, Packing.BITS2, "row"),
    (8, 3, Packing.BASE3, 16),
    (13, 2, Packing.BASE3, 13),
    (13, 2, Packing.BITS2, 26),
    (64, 4, Packing.BASE3, 16),
    (64, 4, Packing.BITS2, 128),
]
CONFIGS = [
    ArrayConfig(lanes=lanes, rows=rows, packing=packing, group_size=group)
    for lanes, rows, packing, group in PORTS
]
SHAPES = [(1, 1), (3, 8), (4, 64), (5, 130), (7, 129)]
CASES = list(itertools.product(CONFIGS, SHAPES))


def random_matrix(n, k, group_size, packing="2bit", seed=3):
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 3, (n, k), dtype=np.uint8)
    pairs = rng.normal(size=(2, n, group_count(k, group_size))).astype(np.float16)
    return TernaryMatrix.from_digits(digits, *pairs, group_size=group_size, packing=packing)


@pytest.mark.parametrize(("config", "shape"), CASES)
@pytest.mark.parametrize("packing", ["2bit", "base3"])
def test_every_digit_of_the_weight_stream(config, shape, packing):
    n, k = shape
    matrix = random_matrix(n, k, config.group_size, packing)
    digits = matrix.digits()
    beats = weight_beats(matrix, config)
    assert beats.shape == (config.row_blocks(n) * config.chunks(k), config.weight_beat_bytes)
    fields = config.row_beat_bytes * config.packing.digits_per_byte
    for b, c in itertools.product(range(config.row_blocks(n)), range(config.chunks(k))):
        beat = beats[b * config.chunks(k) + c]
        for r in range(config.rows):
            row = beat[r * config.row_beat_bytes : (r + 1) * config.row_beat_bytes]
            carried = unpack(row, fields, config.packing)
            for i in range(fields):
                at_n, at_k = b * config.rows + r, c * config.lanes + i
                real = i < config.lanes and at_n < n and at_k < k
                assert carried[i] == (digits[at_n, at_k] if real else 1)


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_every_pair_of_the_scale_stream(config, shape):
    n, k = shape
    matrix = random_matrix(n, k, config.group_size)
    beats = scale_beats(matrix, config)
    groups = config.groups(k)
    assert beats.shape == (config.row_blocks(n) * groups, config.scale_beat_bytes)
    for b, g in itertools.product(range(config.row_blocks(n)), range(groups)):
        word = int.from_bytes(beats[b * groups + g].tobytes(), "little")
        for r in range(config.rows):
            pair = word >> 32 * r & 0xFFFFFFFF
            at_n = b * config.rows + r
            wanted = (0, 0)
            if at_n < n:
                wanted = matrix.scale[at_n, g].view(np.uint16), matrix.shift[at_n, g].view("u2")
            assert (pair & 0xFFFF, pair >> 16) == wanted


@pytest.mark.parametrize(
    ("activation", "dtype"), [(Activation.INT8, np.int8), (Activation.FP16, np.float16)]
)
@pytest.mark.parametrize("k", [1, 7, 8, 9, 40])
def test_every_lane_of_the_activation_stream(activation, dtype, k):
    config = ArrayConfig(lanes=8, activation=activation)
    x = np.random.default_rng(4).integers(-128, 128, k).astype(dtype)
    beats = activation_beats(x, config)
    assert beats.shape == (config.chunks(k), config.activation_beat_bytes)
    lanes = beats.reshape(-1).view(dtype)
    assert np.array_equal(lanes[:k], x)
    assert not lanes[k:].any()


def test_activations_that_are_not_finite_pass():
    config = ArrayConfig(lanes=8, activation=Activation.FP16)
    x = np.array([np.nan, np.inf, -np.inf, -0.0], np.float16)
    assert activation_beats(x, config)[0, :8].tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("output", "values"),
    [
        (OutputFormat.FP32, np.array([1.5, -0.0, np.inf], np.float32)),
        (OutputFormat.FP16, np.array([1.5, -0.0, 6e-8], np.float16)),
    ],
)
def test_results_from_bytes(output, values):
    config = ArrayConfig(output=output)
    for raw in (values.tobytes(), values.view(np.uint8)):
        results = results_from_bytes(raw, config)
        assert results.dtype == values.dtype
        assert results.tobytes() == values.tobytes()
    with pytest.raises(TernError, match=f"result bytes must be a multiple of {values.itemsize}"):
        results_from_bytes(values.tobytes()[:-1], config)


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_weight_beats_give_their_digits_back(config, shape):
    n, k = shape
    matrix = random_matrix(n, k, config.group_size)
    digits = digits_from_weight_beats(weight_beats(matrix, config), config, out_features=n)
    assert np.array_equal(digits[:, :k], matrix.digits())
    assert (digits[:, k:] == 1).all()


def test_an_illegal_byte_comes_back_as_digits_of_3():
    config = ArrayConfig(lanes=8, rows=2, packing=Packing.BASE3, group_size="row")
    matrix = random_matrix(3, 16, "row")
    beats = weight_beats(matrix, config)
    # Row block 1, chunk 1, row 0, second byte: row 2's inputs 13, 14, 15 and two fill digits.
    beats[3, 1] = 20
    digits = digits_from_weight_beats(beats, config, out_features=3)
    wrong = np.argwhere(digits == 3).tolist()
    assert wrong == [[2, 13], [2, 14], [2, 15], [2, 18], [2, 19]]


def test_rows_beyond_n_bring_no_illegal_digit():
    config = ArrayConfig(lanes=8, rows=2, group_size="row")
    beats = weight_beats(random_matrix(3, 16, "row"), config)
    beats[2:, 2:] = 0xFF
    assert digits_from_weight_beats(beats, config, out_features=3).max() <= 2


@pytest.mark.parametrize(
    ("mine", "arrays", "k", "fits"),
    [
        (128, 128, 300, True),
        ("row", "row", 300, True),
        ("row", 128, 128, True),
        (128, "row", 100, True),
        (300, 128, 100, True),
        ("row", 128, 129, False),
        (128, "row", 129, False),
        (64, 128, 129, False),
        (64, 128, 65, False),
    ],
)
def test_groups_fit_where_they_cut_alike(mine, arrays, k, fits):
    config = ArrayConfig(group_size=arrays)
    matrix = random_matrix(4, k, mine)
    for beats in (weight_beats, scale_beats):
        if fits:
            assert len(beats(matrix, config))
        else:
            message = f"weight.group_size must be the array's {arrays!r}, not {mine!r}"
            with pytest.raises(TernError, match=message):
                beats(matrix, config)


def test_sizes_beyond_the_arrays_are_refused():
    config = ArrayConfig(lanes=8, group_size="row", max_k=16, max_n=4)
    assert len(weight_beats(random_matrix(4, 16, "row"), config)) == 2
    with pytest.raises(TernError, match="in_features must be from 1 to the array's 16, not 17"):
        weight_beats(random_matrix(4, 17, "row"), config)
    with pytest.raises(TernError, match="out_features must be from 1 to the array's 4, not 5"):
        scale_beats(random_matrix(5, 16, "row"), config)
    with pytest.raises(TernError, match=r"K .inputs. must be from 1 to the array's 16, not 17"):
        activation_beats(np.zeros(17, np.int8), config)
    with pytest.raises(TernError, match=r"K .inputs. must be from 1 to the array's 16, not 0"):
        activation_beats(np.zeros(0, np.int8), config)


@pytest.mark.parametrize(
    "x", [np.zeros(8, np.float16), np.zeros(8, np.uint8), np.zeros((1, 8), np.int8), [0] * 8]
)
def test_activations_of_another_type_or_shape_are_refused(x):
    with pytest.raises(TernError, match=r"^activations must be int8 of shape \[K\], not "):
        activation_beats(x, ArrayConfig())


def test_binary16_weights_go_by_input_then_context():
    config = ArrayConfig(lanes=8, rows=2, activation="fp16", weights="fp16", max_k=9, max_n=200)
    weights = np.arange(130 * 5).reshape(130, 5).astype(np.float16)
    beats = plain_weight_beats(weights, config).view("<f2")
    contexts, at_once = config.mac_contexts, 16
    assert beats.shape == (2 * 5 * contexts, at_once)
    for n, k in itertools.product(range(130), range(5)):
        block, place = divmod(n, contexts * at_once)
        context, column = divmod(place, at_once)
        assert beats[(block * 5 + k) * contexts + context, column] == weights[n, k]
    assert not beats[5 * contexts + 1 :: contexts, 2:].any()


def test_weights_of_the_other_kind_are_refused():
    plain = ArrayConfig(lanes=8, activation="fp16", weights="fp16")
    with pytest.raises(TernError, match="weights must be fp16 here, not ternary"):
        plain_weight_beats(np.zeros((2, 2), np.float16), ArrayConfig())
    matrix = TernaryMatrix.from_digits(
        np.ones((2, 2), np.uint8),
        np.ones((2, 1), np.float16),
        np.ones((2, 1), np.float16),
        group_size="row",
    )
    with pytest.raises(TernError, match="weights must be ternary here, not fp16"):
        weight_beats(matrix, plain)
    with pytest.raises(TernError, match="from 1 to the array's 65536, not 65537"):
        plain_weight_beats(np.zeros((65537, 1), np.float16), plain)
