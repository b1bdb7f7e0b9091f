"""`kernels.matmul` against the reference: the same bits, whatever the instructions and operands."""

import copy
import gc
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw import kernels, reference
from tern_hw.errors import TernError
from tern_hw.kernels import activations, layout, product
from tests.kernels import WAYS, assert_same, trained_layer
from tests.layers import layer, random_activations, random_layer

#: Most of the layers: groups of a length that no step divides, short last groups, one column.
SHAPES = [(1, 1, 1), (33, 7, 5), (40, 130, 32), (70, 200, 64), (32, 513, 128), (65, 300, 256)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 8, 9])
def test_trained_layers_by_every_way(way, tokens):
    rng = np.random.default_rng([51, tokens])
    for n, k, group_size in SHAPES:
        matrix = trained_layer(rng, n, k, group_size)
        repacked = kernels.repack(matrix, way[1], instructions=way[0])
        assert repacked.units is not None
        assert_same(random_activations(rng, (tokens, k), "int8"), matrix, repacked)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tokens", [1, 2, 4, 11])
def test_scales_that_are_no_small_integers(way, tokens):
    rng = np.random.default_rng([52, tokens])
    for n, k, group_size in [*SHAPES, (40, 600, "row"), (40, 600, 300)]:
        matrix = trained_layer(rng, n, k, group_size, spread=3000.0, shift=2000.0)
        repacked = kernels.repack(matrix, way[1], instructions=way[0])
        assert repacked.stream is not None
        assert repacked.units is None or n * k < 300
        assert_same(random_activations(rng, (tokens, k), "int8"), matrix, repacked)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("output", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["normal", "any", "subnormal", "edges", "least"])
def test_activations_of_every_kind(way, output, kind):
    rng = np.random.default_rng(53)
    for group_size in (128, "row"):
        matrix = trained_layer(rng, 40, 300, group_size)
        repacked = kernels.repack(matrix, way[1], instructions=way[0])
        for tokens in (1, 3, 12):
            assert_same(random_activations(rng, (tokens, 300), kind), matrix, repacked, output)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32),
    st.integers(1, 70),
    st.integers(1, 150),
    st.one_of(st.just("row"), st.integers(1, 160)),
    st.sampled_from(["int8", "least", "any", "normal", "subnormal", "edges", "large"]),
    st.sampled_from(["any", "normal", "subnormal", "edges", "large"]),
    st.sampled_from(["fp32", "fp16"]),
    st.sampled_from(["2bit", "base3"]),
)
def test_any_operands(seed, n, k, group_size, activation, scale, output, packing):
    rng = np.random.default_rng(seed)
    matrix, _ = random_layer(rng, n, k, group_size, scale)
    x = random_activations(rng, (int(rng.integers(1, 5)), k), activation)
    assert_same(x, matrix, kernels.repack(matrix, packing), output)


# ------------------------------------------------------------------- at the edges of the proofs


@pytest.mark.parametrize("way", WAYS)
def test_largest_integer_scales_take_their_groups_in_runs(way):
    # scale 32767 * 2**-24: two groups of the largest sums of |x| fill 32 bits.
    trits = np.ones((32, 2048), int)
    trits[1::2] = -1
    scale = np.full((32, 16), 1023 * 2**-24)
    scale[:, 1] = 32752 * 2**-24
    shift = np.full((32, 16), -(2**-24))
    matrix, _ = layer(trits, scale, shift, 128)
    repacked = kernels.repack(matrix, way[1], instructions=way[0])
    for value in (127, -128):
        x = np.full((1, 2048), value, np.int8)
        assert activations._run(128 * abs(value), repacked.scale_limit, 16) < 16
        assert_same(x, matrix, repacked)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shift", [32752 * 2.0**-9, 2.0**-10, -(2.0**-10)])
def test_largest_shifts_and_rests_take_their_groups_in_runs(way, shift):
    # One unit, 2**-9, is the scale; the shift is 32752 of them, or half a unit that is all rest.
    trits = np.random.default_rng(67).integers(-1, 2, (32, 4224))
    matrix, _ = layer(trits, np.full((32, 33), 2.0**-9), np.full((32, 33), shift), 128)
    repacked = kernels.repack(matrix, way[1], instructions=way[0])
    assert repacked.units is not None
    for value in (127, -127):
        assert_same(np.full((3, 4224), value, np.int8), matrix, repacked)


def test_a_run_is_even_and_no_longer_than_its_proof():
    for limit in range(1, 1 << 16, 997):
        for largest in (0, 1, 127, 4001, 32767):
            run = activations._run(np.int64(largest), limit, 33)
            assert run % 2 == 0
            assert run <= 34
            assert run * limit * largest < 1 << 31
    assert activations._run(np.int64(32768), 1, 33) == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("threads", [1, 2])
def test_only_what_does_not_fit_is_left_to_the_reference(way, threads, monkeypatch):
    monkeypatch.setattr(product, "PRODUCTS_PER_THREAD", 1)
    rng = np.random.default_rng(68)
    matrix, _ = layer(-np.ones((3, 256), int), [[0.5]] * 3, [[0.25]] * 3, 256)
    repacked = kernels.repack(matrix, way[1], instructions=way[0])
    x = random_activations(rng, (70, 256), "int8")
    x[[0, 40, 69]] = -128
    assert_same(x, matrix, repacked, threads=threads)
    assert_same(x[:1], matrix, repacked, threads=threads)


def test_groups_whose_sums_need_more_than_16_bits_have_binary16_scales():
    rng = np.random.default_rng(70)
    for group_size, integers in ((256, True), (257, False), ("row", False)):
        repacked = kernels.repack(trained_layer(rng, 33, 600, group_size))
        assert (repacked.units is not None) is (integers and bool(WAYS))


def test_base3_codes_need_an_instruction_that_looks_them_up():
    matrix = trained_layer(np.random.default_rng(69), 33, 40, 16)
    for name, _ in WAYS:
        repacked = kernels.repack(matrix, "base3", instructions=name)
        assert repacked.packing == ("base3" if name == "avx512vnni" else "2bit")


@pytest.mark.parametrize("way", WAYS)
def test_sums_beyond_16_bits_are_left_to_the_reference(way):
    matrix, _ = layer(-np.ones((3, 256), int), [[0.5]] * 3, [[0.25]] * 3, 256)
    repacked = kernels.repack(matrix, way[1], instructions=way[0])
    assert repacked.units is not None
    # S = 2**15.
    assert_same(np.full((1, 256), -128, np.int8), matrix, repacked)
    assert_same(np.full((2, 256), 127, np.int8), matrix, repacked)


def test_rests_of_shifts_are_exact():
    rng = np.random.default_rng(54)
    scale = np.full((64, 5), 0.25)
    shift = rng.normal(size=(64, 5)) * 2.0 ** rng.integers(-24, -3, (64, 5))
    matrix, _ = layer(rng.integers(-1, 2, (64, 150)), scale, shift, 32)
    for name, packing in WAYS:
        repacked = kernels.repack(matrix, packing, instructions=name)
        assert repacked.units is not None
        assert_same(random_activations(rng, (3, 150), "int8"), matrix, repacked)


def test_sums_that_float64_does_not_hold_are_left_to_the_reference():
    rng = np.random.default_rng(55)
    trits = rng.integers(-1, 2, (4, 128))
    # 2**29 / (128 * 128) = 2**15: beyond it a row's sum might need more than 53 bits.
    for scale, exact in ((32752.0, True), (32768.0, False)):
        matrix, _ = layer(trits, [[scale]] * 4, [[0]] * 4, 128)
        assert layout.is_exact(matrix) is exact
        repacked = kernels.repack(matrix)
        assert (repacked.stream is not None) is (exact and bool(WAYS))
        assert_same(random_activations(rng, (1, 128), "int8"), matrix, repacked)
        assert_same(random_activations(rng, (1, 128), "any"), matrix, repacked)


def test_groups_beyond_the_accumulator_are_left_to_the_reference(monkeypatch):
    monkeypatch.setattr(layout, "MAX_GROUP", 99)
    matrix = trained_layer(np.random.default_rng(56), 3, 100, "row")
    assert kernels.repack(matrix).stream is None
    assert_same(
        random_activations(np.random.default_rng(1), (1, 100), "int8"),
        matrix,
        kernels.repack(matrix),
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_longest_group_fits_its_accumulator(way):
    k = layout.MAX_GROUP
    digits = np.full((1, k), 1)
    matrix, _ = layer(digits, [[0.5]], [[0.001]], "row")
    repacked = kernels.repack(matrix, way[1], instructions=way[0])
    assert repacked.stream is not None
    for value in (127, -128):
        assert_same(np.full((1, k), value, np.int8), matrix, repacked)


# --------------------------------------------------------------------------- arguments


def test_operands_of_any_layout_and_number():
    rng = np.random.default_rng(57)
    matrix = trained_layer(rng, 33, 40, 16)
    repacked = kernels.repack(matrix)
    wide = random_activations(rng, (40, 6), "int8")
    assert_same(wide.T[::2], matrix, repacked)
    assert_same(np.asfortranarray(wide.T), matrix, repacked)
    assert_same(wide[:, 0], matrix, repacked)
    for kind in ("int8", "normal"):
        for tokens in (0, 31, 32, 33, 70):
            assert_same(random_activations(rng, (tokens, 40), kind), matrix, repacked)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 39), np.int8), r"activations must be int8 or float16 of shape \[M, 40\]"),
        (np.zeros((1, 40), np.int16), "not int16"),
        ([1, 2], "not list"),
        (np.full((2, 40), np.nan, np.float16), r"activations must be finite, not nan at \[0, 0\]"),
    ],
)
def test_operands_that_do_not_fit_are_refused(x, message):
    repacked = kernels.repack(trained_layer(np.random.default_rng(58), 3, 40, 16))
    with pytest.raises(TernError, match=message):
        kernels.matmul(x, repacked)


def test_options_that_do_not_exist_are_refused():
    matrix = trained_layer(np.random.default_rng(59), 3, 40, 16)
    x = np.zeros(40, np.int8)
    with pytest.raises(TernError, match="packing must be one of 2bit, base3, not 'ascii'"):
        kernels.repack(matrix, "ascii")
    with pytest.raises(TernError, match=r"instructions must be one of .*portable here, not 'mmx'"):
        kernels.repack(matrix, instructions="mmx")
    with pytest.raises(TernError, match="output must be one of fp32, fp16, not 'fp64'"):
        kernels.matmul(x, kernels.repack(matrix), output="fp64")
    for threads in (0, -1, 1.5, True):
        with pytest.raises(TernError, match="threads must be a positive integer"):
            kernels.matmul(x, kernels.repack(matrix), threads=threads)


def test_quantised_tokens_as_the_reference():
    rng = np.random.default_rng(60)
    matrix = trained_layer(rng, 40, 100, 32)
    x = rng.normal(size=(3, 100)).astype(np.float32)
    x[1] = 0
    repacked = kernels.repack(matrix)
    for tokens in (x, x[0], x[:1], x.repeat(5, 0), x[:, ::-1], x[:0]):
        got, wanted = (
            kernels.matmul_quantized(tokens, repacked),
            reference.matmul_quantized(tokens, matrix),
        )
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("exponent", "group_size"), [(-149, 32), (-130, 32), (127, 32), (0, "row")]
)
def test_quantised_tokens_of_any_size(exponent, group_size):
    rng = np.random.default_rng(64)
    matrix = trained_layer(rng, 40, 100, group_size)
    x = np.ldexp(rng.uniform(-1, 1, (2, 100)), exponent).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = reference.matmul_quantized(x, matrix)
    assert kernels.matmul_quantized(x, kernels.repack(matrix)).tobytes() == wanted.tobytes()


def test_quantised_tokens_that_are_none_are_refused():
    repacked = kernels.repack(trained_layer(np.random.default_rng(65), 3, 40, 16))
    bad = np.ones((2, 40), np.float32)
    bad[1, 3] = np.inf
    with pytest.raises(TernError, match=r"activations must be finite, not inf at \[1, 3\]"):
        kernels.matmul_quantized(bad, repacked)
    for x in (np.ones((2, 39), np.float32), np.ones((2, 40)), "x"):
        with pytest.raises(TernError, match="activations must be"):
            kernels.matmul_quantized(x, repacked)


def test_a_repacked_matrix_cannot_be_written():
    repacked = kernels.repack(trained_layer(np.random.default_rng(61), 3, 40, 16))
    if repacked.stream is not None:
        with pytest.raises(ValueError, match="read-only"):
            repacked.stream[:] = 0
        assert repacked.stream.ctypes.data % 64 == 0
        assert repacked.nbytes == repacked.stream.nbytes + 8 * 32


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spread", [2.0, 3000.0])
def test_a_repacked_matrix_holds_all_of_it(way, spread):
    rng = np.random.default_rng(62)
    for n, k, group_size in [*SHAPES, (40, 600, "row")]:
        matrix = trained_layer(rng, n, k, group_size, spread=spread)
        found = kernels.repack(matrix, way[1], instructions=way[0]).matrix()
        assert (found.shape, found.group_size) == (matrix.shape, matrix.group_size)
        for part in ("scale", "shift"):
            assert np.array_equal(getattr(found, part), getattr(matrix, part))
        assert np.array_equal(found.digits(), matrix.digits())


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies_stand_on_their_own(copied):
    rng = np.random.default_rng(66)
    matrix = trained_layer(rng, 40, 300, 128)
    x = random_activations(rng, (1, 300), "int8")
    first = kernels.repack(matrix)
    assert_same(x, matrix, first)  # the addresses are known by now
    second = copied(first)
    if first.stream is not None:
        assert "numbers" not in vars(second)
    del first
    gc.collect()
    assert_same(x, matrix, second)


def test_without_a_stream_the_matrix_is_kept():
    matrix = trained_layer(np.random.default_rng(63), 3, 40, 16)
    assert kernels.repack(matrix, instructions="portable").matrix() is matrix
