"""The multiply-add of binary16: its Verilog, its model and independent oracles, bit for bit."""

import importlib
import importlib.util
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import verilog

from tern_hw.config import OutputFormat
from tern_hw.flows.vectors import Block, run_vectors
from tern_hw.gateware.adders import Adders, Ecp5Adders
from tern_hw.gateware.fp16_mac import BOUNDARIES, Fp16Mac
from tern_hw.gateware.fp16_model import FORMATS, multiply_add
from tests.gateware.blocks import respond
from tests.gateware.float_oracles import (
    by_float64,
    crossed,
    exact,
    exponent_pairs,
    numbers,
    operands,
)

QUICK, MILLIONS = 100_000, 10_000_000
#: Operands of one run through the Verilog.
CHUNK = 2_000_000


def ecp5_cells(folder: Path) -> Path:
    """Write Yosys' models of the carry cell and its tables."""
    spec = importlib.util.find_spec("pyosys")
    assert spec is not None
    assert spec.origin is not None
    share = Path(spec.origin).parent / "share" / "ecp5"
    wanted = ("module LUT4(", "module LUT2(")
    common = (share / "common_sim.vh").read_text().split("endmodule")
    tables = [text for text in common if any(name in text for name in wanted)]
    text = "endmodule\n".join([*tables, (share / "ccu2c_sim.vh").read_text()])
    path = folder / "cells.v"
    path.write_text(text)
    return path


def simulate(mac: Fp16Mac, a, b, c, folder: Path):
    """Return what the emitted Verilog answers, in Verilator."""
    path = folder / "mac.v"
    text = verilog.convert(mac, name="mac", emit_src=False, strip_internal_attrs=True)
    path.write_text(text)
    block = Block(
        verilog=path,
        top="mac",
        inputs={"a": 16, "b": 16, "c": mac.format.bits},
        output="result",
        output_bits=mac.format.bits,
        latency=mac.latency,
        lags={"c": mac.latency - mac.loop},
    )
    models = [ecp5_cells(folder)] if isinstance(mac.adders, Ecp5Adders) else []
    return run_vectors(block, {"a": a, "b": b, "c": c}, models=models)


def differences(found, expected, a, b, c) -> list[str]:
    """Return the first operands where two answers differ."""
    places = np.flatnonzero(found != expected)[:5]
    return [
        f"{a[at]:04x} * {b[at]:04x} + {c[at]:x} = {expected[at]:x}, not {found[at]:x}"
        for at in places
    ]


# --------------------------------------------------------------------------- the model


@pytest.mark.parametrize("accumulator", OutputFormat)
def test_model_is_the_nearest_number_to_the_exact_value(accumulator):
    """No neighbour is nearer, and of two that are as near the even one is taken."""
    form = FORMATS[accumulator]
    rng = np.random.default_rng(1)
    a, b, c = (column.tolist() for column in operands(rng, 2000, form))
    half = FORMATS[OutputFormat.FP16]
    checked = 0
    for x, y, z in zip(a, b, c, strict=True):
        bits = multiply_add(x, y, z, form)
        magnitude = bits & ~(1 << form.bits - 1)
        if magnitude >= form.infinity - 1:
            continue
        values = [_fraction(v, f) for v, f in ((x, half), (y, half), (z, form))]
        value = values[0] * values[1] + values[2]
        error = abs(_fraction(bits, form) - value)
        for neighbour in (bits + 1, bits - 1 if magnitude else bits ^ (1 << form.bits - 1) | 1):
            other = abs(_fraction(neighbour, form) - value)
            assert error < other or (error == other and bits % 2 == 0)
        checked += 1
    assert checked > 1000


def _fraction(bits: int, form) -> Fraction:
    sign, significand, exponent = form.split(bits)
    return Fraction((-1) ** sign * significand << exponent - 1, 1 << form.least_power)


@pytest.mark.parametrize("accumulator", OutputFormat)
def test_model_equals_the_processors_arithmetic(accumulator):
    """A second oracle, which shares nothing with the integers: binary64, rounded to odd."""
    form = FORMATS[accumulator]
    for a, b, c in (crossed(form), operands(np.random.default_rng(2), QUICK // 2, form)):
        assert differences(exact(a, b, c, form), by_float64(a, b, c, form), a, b, c) == []


@pytest.mark.parametrize("accumulator", OutputFormat)
def test_model_without_a_product_or_a_sum_is_numpys_own_arithmetic(accumulator):
    """1 * b + c is a sum, and a * b - 0 a product, of the format's own rounding in numpy."""
    form = FORMATS[accumulator]
    a, b, c = operands(np.random.default_rng(3), QUICK // 5, form)
    one, zero = np.full_like(a, 0x3C00), np.full_like(c, 1 << form.bits - 1)
    dtype = numbers(c, form).dtype
    half = FORMATS[OutputFormat.FP16]
    with np.errstate(all="ignore"):
        left, right = (numbers(side, half).astype(dtype) for side in (a, b))
        sums, products = right + numbers(c, form), left * right
    for found, expected in (
        (exact(one, b, c, form), sums),
        (exact(a, b, zero, form), products),
    ):
        found = numbers(found, form)
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        real = ~np.isnan(expected)
        # An exact zero of a product keeps its sign beside -0 only where it is negative itself.
        assert np.array_equal(found[real], expected[real])


def test_model_equals_berkeley_softfloat():
    """The arithmetic that Berkeley TestFloat tests others against, in its own code."""
    sf = importlib.import_module("softfloatpy")
    half, single = FORMATS[OutputFormat.FP16], FORMATS[OutputFormat.FP32]
    for form in (half, single):
        columns = [crossed(form), operands(np.random.default_rng(4), QUICK // 5, form)]
        a, b, c = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        found = np.empty_like(a)
        for at, (x, y, z) in enumerate(zip(a.tolist(), b.tolist(), c.tolist(), strict=True)):
            sides = [sf.Float16.from_bytes(v.to_bytes(2, "big")) for v in (x, y)]
            if form is half:
                answer = sf.f16_mul_add(*sides, sf.Float16.from_bytes(z.to_bytes(2, "big")))
            else:
                wide = [sf.f16_to_f32(side) for side in sides]
                answer = sf.f32_mul_add(*wide, sf.Float32.from_bytes(z.to_bytes(4, "big")))
            found[at] = int.from_bytes(answer.to_bytes(), "big")
        found[(found & ~np.uint32(1 << form.bits - 1)) > form.infinity] = form.nan
        assert differences(exact(a, b, c, form), found, a, b, c) == []


# ------------------------------------------------------------------------- the gateware


# Between them, the two formats and both kinds of adders; the long runs take every combination.
@pytest.mark.parametrize(
    ("accumulator", "adders"), [(OutputFormat.FP16, Ecp5Adders), (OutputFormat.FP32, Adders)]
)
def test_specials_exponents_ties_and_random_operands(accumulator, adders, tmp_path):
    mac = Fp16Mac(accumulator, adders=adders())
    rng = np.random.default_rng(5)
    kinds = (crossed(mac.format), exponent_pairs(rng, mac.format, 6))
    columns = [*kinds, operands(rng, QUICK, mac.format)]
    a, b, c = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    found = simulate(mac, a, b, c, tmp_path)
    assert differences(found, by_float64(a, b, c, mac.format), a, b, c) == []


@pytest.mark.parametrize("registers", [4, len(BOUNDARIES)])
def test_pipeline_has_its_latency_and_a_result_a_cycle(registers):
    mac = Fp16Mac(registers=registers)
    a, b, c = operands(np.random.default_rng(6), 40, mac.format)
    triples = list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    vectors = [dict(zip("abc", triple, strict=True)) for triple in triples]
    seen = respond(mac, vectors, ["result"], lag={"c": mac.latency - mac.loop})
    assert [value for (value,) in seen] == [mac.model(*triple) for triple in triples]


def test_registers_beyond_the_boundaries_are_refused():
    with pytest.raises(ValueError, match="registers must be 0 to 9, not 10"):
        Fp16Mac(registers=10)


@pytest.mark.slow
@pytest.mark.parametrize("accumulator", OutputFormat)
def test_ten_million_operands_against_integers(accumulator, tmp_path):
    mac = Fp16Mac(accumulator)
    rng = np.random.default_rng(7)
    for _ in range(MILLIONS // CHUNK):
        a, b, c = operands(rng, CHUNK, mac.format)
        found = simulate(mac, a, b, c, tmp_path)
        assert differences(found, exact(a, b, c, mac.format), a, b, c) == []
        assert differences(found, by_float64(a, b, c, mac.format), a, b, c) == []


def test_product_left_to_synthesis_is_the_same():
    mac = Fp16Mac(registers=2, dsp=True)
    a, b, c = operands(np.random.default_rng(9), 200, mac.format)
    triples = list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    vectors = [dict(zip("abc", triple, strict=True)) for triple in triples]
    seen = respond(mac, vectors, ["result"], lag={"c": mac.latency - mac.loop})
    assert [value for (value,) in seen] == [mac.model(*triple) for triple in triples]


@pytest.mark.slow
@pytest.mark.parametrize("adders", [Adders, Ecp5Adders])
@pytest.mark.parametrize("registers", [0, 1, 3, 5, 7, 9])
@pytest.mark.parametrize("accumulator", OutputFormat)
def test_every_variant_against_the_processor(accumulator, registers, adders, tmp_path):
    mac = Fp16Mac(accumulator, registers=registers, adders=adders())
    rng = np.random.default_rng([8, registers])
    columns = [crossed(mac.format), operands(rng, 2 * QUICK, mac.format)]
    a, b, c = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    found = simulate(mac, a, b, c, tmp_path)
    assert differences(found, by_float64(a, b, c, mac.format), a, b, c) == []
