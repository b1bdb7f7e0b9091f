"""Scale and shift: exact over a row's groups, for every sign, and NaN until the row's end."""

from itertools import product

import pytest

from tern_hw.config import FP16_MAX_UNITS
from tern_hw.gateware.scale import ScaleShift
from tests.gateware.blocks import observed_latency, randoms, respond, small
from tests.gateware.models import half_units, is_finite

#: +-0, least and largest subnormals, least normal, 1, largest.
CORNER_HALVES = [
    sign | half for sign in (0, 0x8000) for half in (0, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF)
]
INFINITY, NAN, NEGATIVE_NAN = 0x7C00, 0x7C01, 0xFE00
CONFIGS = [
    small(),
    small(group_size=8),
    small(activation="fp16", group_size=16),
    small(lanes=16, group_size=4, max_k=16),
    small(activation="fp16", group_size=16, aligned=16),
    small(activation="fp16", group_size=8, aligned=40),
    small(products=1),
    small(activation="fp16", group_size="row", products=1),
    small(activation="fp16", group_size=16, aligned=16, products=1),
]


def group(dot, inputs, scale, shift, *, last=0, valid=1, scaled=1, **unit):
    """Return one cycle's inputs."""
    return {
        **unit,
        "dot": dot,
        "inputs": inputs,
        "scale": scale,
        "shift": shift,
        "last": last,
        "valid": valid,
        "scaled": scaled,
    }


#: The factors come a cycle before all else.
LATER = dict.fromkeys(("dot", "inputs", "last", "valid", "scaled", "unit"), 1)


def scaled(config, vectors, outputs, *, latency=None):
    """Return a unit's outputs for each of the vectors, `latency` after its sums."""
    dut = ScaleShift(config)
    latency = dut.latency if latency is None else latency
    return respond(dut, vectors, outputs, latency=1 + latency, lag=LATER)


def model(vectors):
    """Return (total, nan) after each vector; None for a total that has no meaning."""
    seen: list[tuple[int | None, bool]] = []
    ended: tuple[int | None, bool] = (0, False)
    part: int | None = 0
    nan = False
    for v in vectors:
        if v["valid"]:
            finite = is_finite(v["scale"]) and is_finite(v["shift"])
            nan = nan or (bool(v["scaled"]) and not finite)
            if not finite or part is None:
                part = None
            else:
                products = v["dot"] * half_units(v["scale"]), v["inputs"] * half_units(v["shift"])
                part += sum(products) << v.get("unit", 0)
            if v["last"]:
                ended = part, nan
                part, nan = 0, False
        seen.append(ended)
    return seen


def apart(config, vectors, **garbage):
    """Return the vectors as fast as the unit takes them: in turn, a bubble after each."""
    if config.products == 2:
        return vectors
    return [each for v in vectors for each in (v, {**v, **garbage, "valid": 0})]


def check(config, vectors):
    seen = scaled(config, vectors, ["total", "nan"])
    for (total, nan), (expected, expected_nan) in zip(seen, model(vectors), strict=True):
        assert nan == expected_nan
        if expected is not None:
            assert total == expected


def unit_of(config, rng):
    """Return the unit of a group, least and largest ones among them, where it is an input."""
    if not config.unit_max:
        return {}
    return {"unit": rng.choice((0, config.unit_max, rng.randint(0, config.unit_max)))}


def largest_sum(config):
    inputs = config.max_k if config.group_size == "row" else config.group_size
    return inputs * config.fixed_max


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_all_signs_and_corners(config):
    largest = largest_sum(config)
    sums = (-largest, -1, 0, 1, largest)
    cases = product(sums, sums, CORNER_HALVES, CORNER_HALVES)
    rng = randoms("corners", config.name)
    vectors = [group(*case, last=1, **unit_of(config, rng)) for case in cases]
    check(config, apart(config, vectors, dot=7, inputs=-7, scale=INFINITY, shift=NAN))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_random_rows_with_bubbles(config):
    """Bubbles carry garbage, `last` and infinities among it."""
    rng = randoms("scale", config.name)
    largest = largest_sum(config)
    vectors = []
    left = config.max_k * config.fixed_max
    for _ in range(1500):
        dot, inputs = (rng.randint(-largest, largest) for _ in range(2))
        halves = [rng.randrange(1 << 16) for _ in range(2)]
        in_turn = config.products == 1 and vectors and vectors[-1]["valid"]
        valid = not in_turn and rng.random() < 0.7
        scaled = rng.random() < 0.9
        if valid and scaled and rng.random() < 0.97:
            halves = [half if is_finite(half) else half ^ 0x0400 for half in halves]
        # As many inputs as a row may have, then another row.
        last = left < 2 * largest or rng.random() < 0.2
        if valid:
            left = config.max_k * config.fixed_max if last else left - largest
        unit = unit_of(config, rng)
        vectors.append(group(dot, inputs, *halves, last=last, valid=valid, scaled=scaled, **unit))
    check(config, vectors)


@pytest.mark.parametrize(
    ("activation", "aligned"), [("int8", None), ("fp16", None), ("fp16", 8), ("fp16", 24)]
)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("products", "group_size"), [(1, 16), (2, 8)])
def test_a_row_of_extremes_fits(activation, aligned, sign, products, group_size):
    config = small(activation=activation, aligned=aligned, group_size=group_size, products=products)
    largest = sign * largest_sum(config)
    count = config.groups(config.max_k)
    unit = {"unit": config.unit_max} if config.unit_max else {}
    ends = [index == count - 1 for index in range(count)]
    vectors = [group(largest, -largest, 0x7BFF, 0xFBFF, last=end, **unit) for end in ends]
    total, nan = scaled(config, apart(config, vectors), ["total", "nan"])[-1]
    most = config.fixed_max << config.unit_max
    assert total == sign * 2 * FP16_MAX_UNITS * most * config.max_k
    assert not nan


@pytest.mark.parametrize("half", [INFINITY, INFINITY | 0x8000, NAN, NEGATIVE_NAN, 0x7FFF])
@pytest.mark.parametrize("where", ["scale", "shift"])
def test_nonfinite_lasts_to_the_end_of_its_row(half, where):
    plain = group(3, 5, 0x3C00, 0xBC00)
    end = {**plain, "last": 1}
    bad = {**plain, where: half}
    bubble = {**bad, "valid": 0, "last": 1}
    unscaled = {**bad, "scaled": 0, "last": 1}
    vectors = [plain, bubble, end, plain, bad, plain, end, bubble, plain, end]
    vectors += [unscaled, {**bad, "last": 1}, plain, unscaled, end]
    nans = scaled(small(), vectors, ["nan"])
    assert [nan for (nan,) in nans] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    flags = scaled(small(), vectors, ["nonfinite"], latency=1)
    assert [at for at, (flag,) in enumerate(flags) if flag] == [4, 11]


@pytest.mark.parametrize("half", [INFINITY, NEGATIVE_NAN])
@pytest.mark.parametrize(("where", "late"), [("scale", 0), ("shift", 1)])
def test_nonfinite_in_turn_lasts_to_the_end_of_its_row(half, where, late):
    config = small(products=1)
    plain = group(3, 5, 0x3C00, 0xBC00)
    end = {**plain, "last": 1}
    bad = {**plain, where: half}
    unscaled = {**bad, "scaled": 0, "last": 1}
    vectors = apart(config, [plain, bad, plain, end, unscaled, end, {**bad, "last": 1}, end])
    # What comes between is not looked at, whatever else it says.
    vectors = [{**bad, "valid": 0, "last": 1} if at % 2 else v for at, v in enumerate(vectors)]
    nans = scaled(config, vectors, ["nan"])
    assert [nan for (nan,) in nans[::2]] == [0, 0, 0, 1, 0, 0, 1, 0]
    flags = scaled(config, vectors, ["nonfinite"], latency=1)
    assert [at for at, (flag,) in enumerate(flags) if flag] == [2 + late, 12 + late]


@pytest.mark.parametrize("products", [1, 2])
def test_total_stays_between_rows(products):
    row = group(7, -9, 0xC200, 0x0001, last=1)
    other = group(99, 99, 0x7BFF, 0x7BFF)
    bubble = {**other, "valid": 0, "last": 1}
    vectors = [row, *[bubble, other] * 6]
    seen = scaled(small(products=products), vectors, ["total"])
    assert seen == [[7 * half_units(0xC200) - 9]] * 13


@pytest.mark.parametrize(("name", "value"), [("dot", 2), ("inputs", 2), ("scale", 0), ("shift", 0)])
def test_latency_is_as_stated(name, value):
    scale = ScaleShift(small())
    assert scale.latency == scale.config.scale_cycles == 8
    before = group(1, 1, 0x3C00, 0x3C00, last=1)
    ahead = 1 - LATER.get(name, 0)
    assert observed_latency(scale, before, {name: value}, "total") == ahead + scale.latency


def test_latency_in_turn_is_as_stated():
    scale = ScaleShift(small(products=1))
    assert scale.latency == scale.config.scale_cycles == 8
    quiet = group(0, 0, 0, 0, valid=0)
    row = group(7, -9, 0xC200, 0x0001, last=1)
    seen = respond(scale, [quiet] * 12 + [row] + [quiet] * 12, ["total"], latency=1, lag=LATER)
    # Looked at from the factors on, which come a cycle before the sums.
    total = 7 * half_units(0xC200) - 9
    assert next(at - 12 for at, (value,) in enumerate(seen) if value == total) == scale.latency


def test_latency_of_the_unit_is_as_stated():
    scale = ScaleShift(small(activation="fp16", group_size=16, aligned=16))
    before = group(1, 1, 0x3C00, 0x3C00, last=1, unit=0)
    assert observed_latency(scale, before, {"unit": 1}, "total") == scale.latency


@pytest.mark.parametrize(("output", "cycles"), [("nan", 9), ("nonfinite", 2)])
def test_latency_of_nan_is_as_stated(output, cycles):
    """From the factor, which comes a cycle before its sums."""
    before = group(1, 1, 0x3C00, 0x3C00, last=1)
    assert observed_latency(ScaleShift(small()), before, {"scale": NAN}, output) == cycles
