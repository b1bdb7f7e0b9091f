"""Aligned activations: the unit of a group, and every exponent against every unit."""

import pytest

from tern_hw.gateware.align import ActivationAligner, AlignedLoader, UnitFinder
from tests.gateware.blocks import bench, observed_latency, pack, randoms, respond, small, ticks
from tests.gateware.models import half_units, is_finite, row_positions

INFINITY, NAN, ONE, LARGEST = 0x7C00, 0x7E00, 0x3C00, 0x7BFF
WIDTHS = (8, 11, 12, 16, 24, 40)
CONFIGS = [
    small(group_size=16, activation="fp16", aligned=16),
    small(group_size="row", activation="fp16", aligned=8),
    small(lanes=12, group_size=4, activation="fp16", aligned=24),
    small(lanes=9, group_size=9, activation="fp16", aligned=39),
]


def unit_of(halves, bits):
    """Return u of a group: 2**(u - 24) is the least unit in which all fit the bits."""
    u = 0
    while any(max(half >> 10 & 0x1F, 1) - 1 + 11 > bits - 1 + u for half in halves):
        u += 1
    return u


def integer_of(half, u, bits):
    """Return a binary16 as an integer of 2**(u - 24): to nearest, ties away from zero."""
    value = half_units(half)
    twice = 2 * abs(value) + (1 << u)
    count = min(twice >> (u + 1), (1 << (bits - 1)) - 1)
    return -count if value < 0 else count


def any_half(rng, *, highest=30):
    """Return a finite binary16 with an exponent field up to `highest`."""
    return rng.randrange(2) << 15 | rng.randint(0, highest) << 10 | rng.randrange(1 << 10)


def beats_of(config, rng, k, highest):
    """Return K activations, in beats filled up with what must not matter."""
    halves = [any_half(rng, highest=highest) for _ in range(k)]
    filled = halves + [rng.choice((NAN, LARGEST, 0)) for _ in range(-k % config.lanes)]
    return halves, [filled[at : at + config.lanes] for at in range(0, len(filled), config.lanes)]


def groups_of(config, halves):
    """Return the activations group by group."""
    size = len(halves) if config.group_size == "row" else config.group_size
    return [halves[at : at + size] for at in range(0, len(halves), size)]


def begins(config, positions, at):
    """Return whether a beat begins a group, or all of its groups."""
    return at == 0 or config.segments > 1 or positions[at - 1][3]


def fields_of(config, word):
    """Return the units of a word, segment by segment."""
    bits = config.unit_max.bit_length()
    return [word >> bits * at & ((1 << bits) - 1) for at in range(config.segments)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_units_of_random_groups_with_bubbles(config):
    rng = randoms("units", config.name)
    vectors, expected = [], []
    for _ in range(40):
        k = rng.randint(1, config.max_k)
        halves, beats = beats_of(config, rng, k, rng.choice((0, 1, 5, 12, 30)))
        positions = [each for each in row_positions(config, k) if each[1] == 0]
        units = [unit_of(group, config.aligned) for group in groups_of(config, halves)]
        for at, beat in enumerate(beats):
            for valid in [*[0] * rng.randrange(2), 1]:
                left = k - at * config.lanes if valid else config.lanes
                other = [rng.choice((NAN, LARGEST)) for _ in beat]
                vectors.append(
                    {
                        "beat": pack(beat if valid else other, 16),
                        "last": left - 1,
                        "valid": valid,
                        "first": begins(config, positions, at) if valid else rng.randrange(2),
                    }
                )
                first = at * config.segments if config.segments > 1 else positions[at][2]
                done = valid and (config.segments > 1 or positions[at][3])
                expected.append(units[first : first + config.segments] if done else None)
    seen = respond(UnitFinder(config), vectors, ["units", "nonfinite"])
    assert any(expected)
    for (word, nonfinite), wanted in zip(seen, expected, strict=True):
        assert not nonfinite
        if wanted is not None:
            assert fields_of(config, word)[: len(wanted)] == wanted


@pytest.mark.parametrize("half", [INFINITY, INFINITY | 0x8000, NAN, 0xFFFF])
@pytest.mark.parametrize("config", CONFIGS[2:], ids=lambda config: config.name)
def test_nonfinite_is_told_for_each_real_lane_of_a_beat(config, half):
    lanes = config.lanes
    cases = [
        (lane, left, valid)
        for lane in range(lanes)
        for left in range(1, lanes + 3)
        for valid in (0, 1)
    ]
    vectors = [
        {"beat": half << 16 * lane | ONE << 16 * ((lane + 4) % lanes), "last": left - 1}
        | {"valid": valid, "first": 1}
        for lane, left, valid in cases
    ]
    seen = respond(UnitFinder(config), vectors, ["nonfinite"])
    assert seen == [[lane < left and valid] for lane, left, valid in cases]


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_exponent_in_every_unit(bits):
    config = small(lanes=32, activation="fp16", aligned=bits)
    rng = randoms("align", bits)
    words, units = [], []
    for largest in range(1, 31):
        fractions = (0, 1, 511, 512, 1023, rng.randrange(1024))
        halves = [
            sign << 15 | field << 10 | fraction
            for field in range(largest + 1)
            for fraction in fractions
            for sign in (0, 1)
        ]
        for at in range(0, len(halves), 32):
            word = halves[at : at + 32]
            words.append(word + [0] * (32 - len(word)))
            units.append(unit_of([largest << 10], bits))
    vectors = [
        {"word": pack(word, 16), "last": 31, "units": u}
        for word, u in zip(words, units, strict=True)
    ]
    seen = respond(ActivationAligner(config), vectors, ["fixed"])
    for word, u, (fixed,) in zip(words, units, seen, strict=True):
        assert fixed == pack([integer_of(half, u, bits) for half in word], bits)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_lanes_beyond_k_are_zero_and_segments_have_units_of_their_own(config):
    rng = randoms("beyond", config.name)
    lanes, size = config.lanes, config.step_inputs
    vectors, expected = [], []
    for remaining in [*range(1, lanes + 3), *(rng.randint(1, lanes) for _ in range(40))]:
        word = [any_half(rng) for _ in range(lanes)]
        units = [unit_of(word[at : at + size], config.aligned) for at in range(0, lanes, size)]
        word[remaining:] = [rng.choice((NAN, LARGEST, INFINITY)) for _ in word[remaining:]]
        vectors.append(
            {
                "word": pack(word, 16),
                "last": remaining - 1,
                "units": pack(units, config.unit_max.bit_length()),
            }
        )
        kept = [
            integer_of(half, units[lane // size], config.aligned) if lane < remaining else 0
            for lane, half in enumerate(word)
        ]
        expected.append([pack(kept, config.fixed_bits)])
    assert respond(ActivationAligner(config), vectors, ["fixed"]) == expected


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_words_come_back_aligned_and_units_stay(config):
    rng = randoms("loader", config.name)
    loader = AlignedLoader(config)
    k = config.max_k - 3
    halves, beats = beats_of(config, rng, k, 30)
    positions = row_positions(config, k)
    units = [unit_of(group, config.aligned) for group in groups_of(config, halves)]
    wanted = [
        integer_of(half, units[0 if config.group_size == "row" else at // config.group_size], bits)
        for bits in [config.aligned]
        for at, half in enumerate(halves)
    ]
    wanted += [0] * (-k % config.lanes)

    def place(ctx, port, position):
        for name, value in zip(("chunk", "segment", "group"), position, strict=False):
            ctx.set(getattr(port, name), value)

    async def drive(ctx):
        for position in (each for each in positions if each[1] == 0):
            chunk, _, _, last, *_ = position
            ctx.set(loader.beat, pack(beats[chunk], 16))
            ctx.set(loader.last, k - chunk * config.lanes - 1)
            ctx.set(loader.chunk, chunk)
            place(ctx, loader.step, position)
            ctx.set(loader.step.group_last, last)
            ctx.set(loader.step.valid, 1)
            await ctx.tick()
        ctx.set(loader.step.valid, 0)
        await ticks(ctx, config.unit_cycles)
        for position in reversed([each for each in positions if each[1] == 0]):
            chunk = position[0]
            ctx.set(loader.chunk, chunk)
            ctx.set(loader.last, k - chunk * config.lanes - 1)
            place(ctx, loader.step, position)
            ctx.set(loader.align, 1)
            await ctx.tick()
            ctx.set(loader.align, 0)
            await ticks(ctx, loader.latency - 1)
            word = wanted[chunk * config.lanes : (chunk + 1) * config.lanes]
            assert ctx.get(loader.fixed) == pack(word, config.fixed_bits)
        for position in positions:
            place(ctx, loader.used, position)
            await ctx.tick()
            place(ctx, loader.used, (0, 0, 0))
            assert ctx.get(loader.unit) == units[position[2]]
        assert len(set(units)) > 1 or config.group_size == "row"

    bench(loader, drive)


@pytest.mark.parametrize("bits", WIDTHS)
def test_latency_is_as_stated(bits):
    config = small(activation="fp16", aligned=bits)
    finder, aligner = UnitFinder(config), ActivationAligner(config)
    assert finder.latency == config.unit_cycles == 12
    assert aligner.latency == 5
    assert AlignedLoader(config).latency == config.conversion_cycles == 6
    before = {"beat": ONE, "last": 7, "valid": 1, "first": 1}
    assert observed_latency(finder, before, {"beat": LARGEST}, "units") == 12
    assert observed_latency(UnitFinder(config), before, {"beat": NAN}, "nonfinite") == 12
    top = 16 * 7
    before = {"word": LARGEST << top, "last": 7, "units": config.unit_max}
    for change in ({"word": (LARGEST ^ 0x8000) << top}, {"last": 0}):
        assert observed_latency(ActivationAligner(config), before, change, "fixed") == 5
    assert is_finite(LARGEST)
