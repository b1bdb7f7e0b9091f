"""Packed codes to trits: every byte of both packings, legal or not, masks and `ones`."""

from itertools import product
from math import ceil

import pytest

from tern_hw.gateware.decode import TritDecoder
from tests.gateware.blocks import observed_latency, pack, randoms, respond, small

#: The five digits of each legal base-3 byte, first digit most significant.
BASE3 = {
    ceil(sum(digit * 3 ** (4 - at) for at, digit in enumerate(digits)) * 256 / 243): digits
    for digits in product(range(3), repeat=5)
}
OUTPUTS = ["nonzero", "negative", "illegal"]
CASES = [("2bit", 8), ("2bit", 9), ("2bit", 11), ("base3", 10), ("base3", 8), ("base3", 11)]
#: A byte whose every trit is -1.
MINUS_ONES = 0


def trits_of(packing: str, byte: int) -> tuple[list[int], list[bool]]:
    """Return a byte's trits and whether it holds an illegal code."""
    if packing == "base3":
        return [digit - 1 for digit in BASE3.get(byte, (1,) * 5)], [byte not in BASE3]
    fields = [byte >> shift & 3 for shift in (0, 2, 4, 6)]
    bad = [3 in fields[:2], 3 in fields[2:]]
    return [0 if field == 3 else field - 1 for field in fields], bad


def model(config, *, codes, mask=-1, ones=0):
    """Return what the decoder gives for a beat's bytes."""
    decoded = [trits_of(config.packing, byte) for byte in codes]
    trits = [trit for byte_trits, _ in decoded for trit in byte_trits][: config.lanes]
    seen = [(1 if ones else trit) if mask >> lane & 1 else 0 for lane, trit in enumerate(trits)]
    return [
        pack([trit != 0 for trit in seen], 1),
        pack([trit < 0 for trit in seen], 1),
        pack([flag for _, flags in decoded for flag in flags], 1),
    ]


def check(config, beats):
    everything = (1 << config.lanes) - 1
    vectors = [{"mask": everything, **beat, "codes": pack(beat["codes"], 8)} for beat in beats]
    decoder = TritDecoder(config)
    late = decoder.latency - 1
    seen = respond(decoder, vectors, OUTPUTS, lag={"mask": late, "ones": late})
    assert seen == [model(config, **beat) for beat in beats]


def test_base3_has_243_legal_bytes():
    assert len(BASE3) == 243
    assert all((243 * byte % 256 < 243) == (byte in BASE3) for byte in range(256))


@pytest.mark.parametrize(("packing", "lanes"), CASES)
def test_all_bytes_in_all_places(packing, lanes):
    config = small(lanes=lanes, packing=packing)
    count = config.row_beat_bytes
    beats = [
        {"codes": [byte if at == place else MINUS_ONES for at in range(count)]}
        for place in range(count)
        for byte in range(256)
    ]
    check(config, beats)


@pytest.mark.parametrize(("packing", "lanes"), CASES)
def test_random_beats(packing, lanes):
    config = small(lanes=lanes, packing=packing)
    rng = randoms("decode", packing, lanes)
    count = config.row_beat_bytes
    beats = [
        {"codes": [rng.randrange(256) for _ in range(count)], "ones": rng.random() < 0.2}
        for _ in range(500)
    ]
    check(config, beats)


@pytest.mark.parametrize(("packing", "lanes"), CASES)
def test_only_the_lanes_of_the_mask_count(packing, lanes):
    config = small(lanes=lanes, packing=packing)
    rng = randoms("masks", packing, lanes)
    beats = [
        {
            "codes": [rng.randrange(256) for _ in range(config.row_beat_bytes)],
            "mask": rng.randrange(1 << lanes),
            "ones": rng.random() < 0.3,
        }
        for _ in range(500)
    ]
    check(config, beats)


def lawless(packing: str) -> int:
    """Return a byte that holds an illegal code."""
    return next(byte for byte in range(256) if any(trits_of(packing, byte)[1]))


@pytest.mark.parametrize(("packing", "cycles"), [("2bit", 1), ("base3", 2)])
@pytest.mark.parametrize(
    ("output", "change"),
    [
        ("nonzero", "codes"),
        ("negative", "codes"),
        ("illegal", "codes"),
        ("nonzero", "ones"),
        ("nonzero", "mask"),
    ],
)
def test_latency_is_as_stated(packing, cycles, output, change):
    decoder = TritDecoder(small(packing=packing))
    assert decoder.latency == cycles
    # All trits 0, or, where the mask changes, all trits -1.
    before = {"codes": 0 if change == "mask" else 0x5555 if packing == "2bit" else 0x8080}
    before |= {"mask": 0xFF}
    after = {"codes": lawless(packing) if output == "illegal" else 0, "ones": 1, "mask": 0}
    late = 0 if change == "codes" else cycles - 1
    assert observed_latency(decoder, before, {change: after[change]}, output) == cycles - late
