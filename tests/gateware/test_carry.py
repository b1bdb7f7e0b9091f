"""ECP5's carry chains: the tree's contract, shown with Yosys' model of the cell."""

from itertools import combinations, product
from math import ceil, log2

import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.runner import Simulator
from tern_hw.gateware.carry import CarryChains, fused_add
from tests.gateware.blocks import activations, pack, randoms, small
from tests.gateware.cell_blocks import respond
from tests.simulations import needs

CORNERS = (-128, -1, 0, 1, 127)
TRITS = (-1, 0, 1)
#: One chain of 8, chains of unequal lengths, two and more of them, a tree with a lane left over.
LANES = [8, 9, 11, 16, 23, 63]


class FusedAdd(wiring.Component):
    """`fused_add` of an activation of 3 bits to a sum of 4, in 5 bits."""

    latency = 0

    def __init__(self):
        super().__init__(
            {
                "total": In(signed(4)),
                "x": In(signed(3)),
                "nonzero": In(1),
                "negative": In(1),
                "carry": In(1),
                "result": Out(signed(5)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        controls = self.nonzero, self.negative, self.carry
        result = fused_add(m, self.total, self.x, *controls, width=5, name="sum")
        m.d.comb += self.result.eq(result)
        return m


@pytest.mark.parametrize("simulator", Simulator)
def test_a_row_of_cells_adds_every_operand_of_every_trit(simulator, tmp_path):
    needs(simulator)
    cases = list(product(range(-8, 8), range(-4, 4), TRITS, (0, 1)))
    vectors = [
        {"total": total, "x": x, "nonzero": trit != 0, "negative": trit < 0, "carry": carry}
        for total, x, trit, carry in cases
    ]
    seen = respond(
        FusedAdd(), vectors, ["result"], family="ecp5", simulator=simulator, folder=tmp_path
    )
    expected = [total + trit * x - (trit < 0) + carry for total, x, trit, carry in cases]
    assert [result for (result,) in seen] == expected


def cases_of(config):
    """Return cases of (activations, trits): extremes in all lanes, corners by pairs, random."""
    lanes, rng = config.lanes, randoms("carry", config.name)
    most = config.fixed_max - (config.fixed_max == 128)
    cases = [([x] * lanes, [trit] * lanes) for x in (-config.fixed_max, most) for trit in TRITS]
    if lanes == 8 and config.fixed_max == 128:
        for first, second in combinations(range(8), 2):
            for one, other, trit, other_trit in product(CORNERS, CORNERS, TRITS, TRITS):
                x, trits = [-128] * 8, [(-1) ** lane for lane in range(8)]
                x[first], x[second] = one, other
                trits[first], trits[second] = trit, other_trit
                cases.append((x, trits))
    for _ in range(400):
        cases.append((activations(config, rng, lanes), [rng.choice(TRITS) for _ in range(lanes)]))
    return cases


def check(config, simulator, folder):
    cases = cases_of(config)
    vectors = [
        {
            "x": pack(x, config.fixed_bits),
            "nonzero": pack([trit != 0 for trit in trits], 1),
            "negative": pack([trit < 0 for trit in trits], 1),
        }
        for x, trits in cases
    ]
    seen = respond(
        CarryChains(config),
        vectors,
        ["total", "carry"],
        family="ecp5",
        simulator=simulator,
        folder=folder,
    )
    expected = [sum(a * b for a, b in zip(x, trits, strict=True)) for x, trits in cases]
    assert [total + carry for total, carry in seen] == expected


@pytest.mark.parametrize("lanes", LANES)
def test_dot_products(lanes, tmp_path):
    """-1 x -128 = +128 in every lane among them; each at the latency that the block states."""
    needs(Simulator.ICARUS)
    check(small(lanes=lanes, dot="carry"), Simulator.ICARUS, tmp_path)


@pytest.mark.parametrize("simulator", Simulator)
def test_dot_products_of_converted_halves(simulator, tmp_path):
    needs(simulator)
    check(small(lanes=13, activation="fp16", dot="carry"), simulator, tmp_path)


# A block that nobody elaborates is the point here.
@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
@pytest.mark.parametrize("lanes", [*range(8, 130), 1023, 1024])
def test_latency_is_that_of_the_longest_chain_and_of_the_tree(lanes):
    chains = ceil(lanes / 8)
    longest = max(lanes * (at + 1) // chains - lanes * at // chains for at in range(chains))
    expected = longest - 1 + ceil(log2(chains))
    assert CarryChains(small(lanes=lanes, dot="carry")).latency == expected
