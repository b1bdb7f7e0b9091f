"""Multiply-adds with their sums fed back: alone, and side by side in the opponent's array."""

import pytest

from sim.runner import Simulator
from tern_hw.config import ArrayConfig
from tern_hw.gateware.adders import Ecp5Adders
from tern_hw.gateware.fp16_mac import Fp16Mac
from tern_hw.gateware.int8_mac import Int8Mac
from tern_hw.gateware.mac_array import MacArray
from tern_hw.gateware.mac_loop import MacLoop
from tests.gateware.blocks import pack, randoms
from tests.gateware.cell_blocks import respond
from tests.simulations import needs

MACS = {
    "fp16": lambda: Fp16Mac("fp16"),
    "fp16 pipelined, ecp5": lambda: Fp16Mac("fp16", registers=9, adders=Ecp5Adders()),
    "fp32 with a multiplier": lambda: Fp16Mac("fp32", dsp=True),
    "int8": Int8Mac,
    "int8 pipelined, ecp5": lambda: Int8Mac(registers=2, adders=Ecp5Adders()),
}


def sums(mac, steps, contexts):
    """Return the sum after each step of (a, b, first), of outputs that take turns."""
    found: list[int] = []
    for at, (a, b, first) in enumerate(steps):
        before = 0 if first or at < contexts else found[at - contexts]
        found.append(mac.model(a, b, before))
    return found


def half(rng):
    """Return a binary16 of middling size, so that sums neither drown nor overflow."""
    return rng.getrandbits(1) << 15 | rng.randrange(10, 20) << 10 | rng.getrandbits(10)


@pytest.mark.parametrize("name", MACS)
def test_every_sum_of_one_multiply_add(name, tmp_path):
    needs(Simulator.ICARUS)
    loop, rng = MacLoop(MACS[name]()), randoms("mac loop", name)
    draw = (lambda: rng.randint(-128, 127)) if "int8" in name else (lambda: half(rng))
    operands = [(draw(), draw()) for _ in range(150)]
    lasts = [rng.random() < 0.1 for _ in operands]
    seen = respond(
        loop,
        [{"a": a, "b": b, "last": last} for (a, b), last in zip(operands, lasts, strict=True)],
        ["sum"],
        family="ecp5",
        simulator=Simulator.ICARUS,
        folder=tmp_path,
    )
    firsts = [True] * loop.contexts + lasts
    steps = [(a, b, first) for (a, b), first in zip(operands, firsts, strict=False)]
    assert [value for (value,) in seen] == sums(loop.mac, steps, loop.contexts)


@pytest.mark.parametrize("dot", ["tree", "carry"])
def test_every_sum_of_the_opponents_array(dot, tmp_path):
    """With `dot` "carry" its adders are the ECP5's cells, as the dot products' are."""
    needs(Simulator.ICARUS)
    config = ArrayConfig(lanes=8, rows=1, activation="fp16", weights="fp16", output="fp16", dot=dot)
    array, rng = MacArray(config), randoms("mac array", dot)
    assert isinstance(array.macs[0].adders, Ecp5Adders) == (dot == "carry")
    contexts = config.mac_contexts
    firsts = [at < contexts or rng.random() < 0.1 for at in range(40)]
    xs = [half(rng) for _ in firsts]
    weights = [[half(rng) for _ in range(8)] for _ in firsts]
    vectors = [
        {"x": x, "weights": pack(row, 16), "first": first, "advance": 1}
        for x, row, first in zip(xs, weights, firsts, strict=True)
    ]
    seen = respond(
        array,
        vectors,
        ["sums"],
        family="ecp5",
        simulator=Simulator.ICARUS,
        folder=tmp_path,
    )
    lanes = [
        sums(array.macs[0], [*zip(xs, column, firsts, strict=True)], contexts)
        for column in zip(*weights, strict=True)
    ]
    assert [value for (value,) in seen] == [pack(row, 16) for row in zip(*lanes, strict=True)]
