"""The adder tree: `total + carry` is the dot product, whatever the number of lanes."""

from itertools import combinations, product
from math import ceil, log2

import pytest

from tern_hw.gateware.tree import AdderTree
from tests.gateware.blocks import activations, observed_latency, pack, randoms, respond, small

LANES = [8, 9, 11, 12, 16, 63]
CORNERS = (-128, -1, 0, 1, 127)
TRITS = (-1, 0, 1)


def check(config, cases):
    """Compare the tree with the plain sum, for cases of (activations, trits)."""
    vectors = [
        {
            "x": pack(x, config.fixed_bits),
            "nonzero": pack([trit != 0 for trit in trits], 1),
            "negative": pack([trit < 0 for trit in trits], 1),
        }
        for x, trits in cases
    ]
    seen = respond(AdderTree(config), vectors, ["total", "carry"])
    expected = [sum(a * b for a, b in zip(x, trits, strict=True)) for x, trits in cases]
    assert [total + carry for total, carry in seen] == expected


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("activation", ["int8", "fp16"])
def test_random_dot_products(lanes, activation):
    config = small(lanes=lanes, activation=activation)
    rng = randoms("tree", lanes, activation)
    cases = [
        (activations(config, rng, lanes), [rng.choice(TRITS) for _ in range(lanes)])
        for _ in range(150 if lanes == 63 else 400)
    ]
    check(config, cases)


def test_all_corners_in_every_pair_of_lanes():
    config = small(lanes=8)
    cases = []
    for first, second in combinations(range(8), 2):
        for one, other, trit, other_trit in product(CORNERS, CORNERS, TRITS, TRITS):
            x, trits = [-128] * 8, [(-1) ** lane for lane in range(8)]
            x[first], x[second] = one, other
            trits[first], trits[second] = trit, other_trit
            cases.append((x, trits))
    check(config, cases)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("activation", ["int8", "fp16"])
def test_extremes_fit(lanes, activation):
    """-1 x -128 = +128 in every lane, and the other three ends."""
    config = small(lanes=lanes, activation=activation)
    most = config.fixed_max - (activation == "int8")
    cases = [([x] * lanes, [t] * lanes) for x in (-config.fixed_max, most) for t in (-1, 1)]
    check(config, cases)


@pytest.mark.parametrize("lanes", LANES)
def test_latency_is_as_stated(lanes):
    tree = AdderTree(small(lanes=lanes))
    assert tree.latency == ceil(log2(lanes))
    before = {"x": 0, "nonzero": (1 << lanes) - 1, "negative": 0}
    last_lane = {"x": 1 << 8 * (lanes - 1)}
    assert observed_latency(tree, before, last_lane, "total") == tree.latency


@pytest.mark.parametrize("lanes", LANES)
def test_carry_comes_with_its_total(lanes):
    tree = AdderTree(small(lanes=lanes))
    ones = (1 << lanes) - 1
    change = observed_latency(tree, {"nonzero": ones, "negative": 0}, {"negative": ones}, "carry")
    assert change == tree.latency
