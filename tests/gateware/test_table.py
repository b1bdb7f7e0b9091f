"""The table's dot product: exact sums, in Amaranth's simulator and as a 7-series netlist."""

from itertools import product

import pytest

from sim.runner import Simulator
from tern_hw.flows.synthesis import SynthesisOptions, synthesize
from tern_hw.flows.targets import TARGETS
from tern_hw.gateware.blocks import emit_block
from tern_hw.gateware.table import GROUP, TableDot
from tests.gateware import cell_blocks
from tests.gateware.blocks import activations, pack, randoms, respond, small
from tests.simulations import needs

TRITS = (-1, 0, 1)


def code(trits):
    return sum((trit + 1) * 3**lane for lane, trit in enumerate(trits))


def load(dut, x):
    """Return the vectors that write every word for these activations."""
    x = [*x, *[0] * (-len(x) % GROUP)]
    groups = [x[at : at + GROUP] for at in range(0, len(x), GROUP)]
    for trits in product(TRITS, repeat=GROUP):
        sums = [sum(map(int.__mul__, group, trits)) for group in groups]
        words = pack([total + (1 << dut.bits - 1) for total in sums], dut.bits)
        yield {"write": 1, "entry": code(trits), "words": words, "codes": 0}


def look_up(trits):
    trits = [*trits, *[0] * (-len(trits) % GROUP)]
    codes = [code(trits[at : at + GROUP]) for at in range(0, len(trits), GROUP)]
    return {"write": 0, "entry": 0, "words": 0, "codes": pack(codes, 5)}


def cases(dut, lanes):
    """Return vectors, and the sums that those which look up have to give."""
    rng = randoms("table", lanes)
    vectors, expected = [], []
    config = small(lanes=lanes)
    for x in ([-128] * lanes, activations(config, rng, lanes), activations(config, rng, lanes)):
        rows = [[trit] * lanes for trit in TRITS]
        rows += [[rng.choice(TRITS) for _ in range(lanes)] for _ in range(40)]
        vectors += load(dut, x)
        expected += [None] * 27
        vectors += map(look_up, rows)
        expected += [sum(map(int.__mul__, x, row)) for row in rows]
    return vectors, expected


def check(seen, expected):
    assert len(seen) == len(expected)
    wrong = [
        (at, total, want)
        for at, ((total,), want) in enumerate(zip(seen, expected, strict=True))
        if want is not None and total != want
    ]
    assert wrong == []


@pytest.mark.parametrize("lanes", [8, 12, 24, 64])
def test_sums_are_exact(lanes):
    dut = TableDot(small(lanes=lanes))
    vectors, expected = cases(dut, lanes)
    check(respond(dut, vectors, ["total"]), expected)


def test_netlist_of_distributed_ram_gives_the_same(tmp_path):
    needs(Simulator.ICARUS)
    config = small(lanes=13)
    module, text = emit_block(config, "table")
    synthesis = synthesize(text, module, SynthesisOptions(target=TARGETS["xc7"], dsp=False))
    # Six bits of a table in each of them.
    assert synthesis.counts.cells["RAM32M"] == 2 * 5
    assert synthesis.counts.block_ram == synthesis.counts.dsp == 0
    netlist = synthesis.netlist_verilog.read_text().replace(f"module {module}(", "module block(")
    dut = TableDot(config)
    vectors, expected = cases(dut, 13)
    seen = cell_blocks.respond(
        dut,
        vectors,
        ["total"],
        family="xc7",
        simulator=Simulator.ICARUS,
        folder=tmp_path,
        netlist=netlist,
    )
    check(seen, expected)
