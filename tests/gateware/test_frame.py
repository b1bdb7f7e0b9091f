"""The packet gate: TLAST in place, early and late, and a ready that does not wait for valid."""

import pytest

from tern_hw.gateware.frame import PacketGate
from tests.gateware.blocks import bench, randoms, respond

INPUTS = ("start", "tvalid", "tlast", "take", "final")
OUTPUTS = ["tready", "present", "closed", "misframed"]


def model(vectors):
    """Return the outputs of every cycle, and the states that it went through."""
    state, seen, states = "closed", [], []
    for v in vectors:
        tready = state == "drain" or (state == "open" and v["take"])
        taken = v["tvalid"] and tready
        present = state == "open" and v["tvalid"]
        misframed = taken and state == "open" and v["tlast"] != v["final"]
        seen.append([tready, present, state == "closed", misframed])
        states.append(state)
        if v["start"]:
            state = "open"
        elif taken and v["tlast"]:
            state = "closed"
        elif taken and v["final"]:
            state = "drain"
    return seen, states


def packet(beats, expected, *, length=None):
    """Return the cycles of a packet of `beats` beats where `expected` were, taken at once."""
    cycles = [{"start": 1, "tvalid": 0, "tlast": 0, "take": 0, "final": 0}]
    for index in range(beats):
        cycles.append(
            {
                "start": 0,
                "tvalid": 1,
                "tlast": index == beats - 1,
                "take": 1,
                "final": index == expected - 1,
            }
        )
    return cycles


def outputs(cycles, name):
    values = respond(PacketGate(), cycles, [name], latency=0)
    return [int(value) for (value,) in values]


AFTER = {"start": 0, "tvalid": 1, "tlast": 0, "take": 1, "final": 0}


def test_tlast_in_place_closes():
    cycles = [*packet(3, 3), AFTER]
    assert outputs(cycles, "present") == [0, 1, 1, 1, 0]
    assert outputs(cycles, "closed") == [1, 0, 0, 0, 1]
    assert outputs(cycles, "tready") == [0, 1, 1, 1, 0]
    assert outputs(cycles, "misframed") == [0] * 5


def test_early_tlast_closes_and_is_told_once():
    cycles = [*packet(2, 4), AFTER]
    assert outputs(cycles, "misframed") == [0, 0, 1, 0]
    assert outputs(cycles, "closed") == [1, 0, 0, 1]


def test_late_tlast_discards_the_rest_and_is_told_once():
    cycles = [*packet(5, 2), AFTER]
    assert outputs(cycles, "misframed") == [0, 0, 1, 0, 0, 0, 0]
    assert outputs(cycles, "present") == [0, 1, 1, 0, 0, 0, 0]
    assert outputs(cycles, "tready") == [0, 1, 1, 1, 1, 1, 0]
    assert outputs(cycles, "closed") == [1, 0, 0, 0, 0, 0, 1]


def test_nothing_passes_before_a_start_and_the_gate_opens_again():
    cycles = [AFTER, AFTER, *packet(1, 1), AFTER, *packet(2, 2), AFTER]
    assert outputs(cycles, "present") == [0, 0, 0, 1, 0, 0, 1, 1, 0]
    assert outputs(cycles, "closed") == [1, 1, 1, 0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_random_handshakes(seed):
    rng = randoms("frame", seed)
    odds = {"start": 0.05, "tvalid": 0.7, "tlast": 0.15, "take": 0.7, "final": 0.15}
    vectors = [{name: rng.random() < odds[name] for name in INPUTS} for _ in range(2000)]
    expected, states = model(vectors)
    assert set(states) == {"closed", "open", "drain"}
    assert respond(PacketGate(), vectors, OUTPUTS, latency=0) == expected


@pytest.mark.parametrize(("state", "to_state"), [("open", 0), ("drain", 1)])
def test_ready_does_not_depend_on_valid(state, to_state):
    gate = PacketGate()
    seen = []

    async def drive(ctx):
        ctx.set(gate.start, 1)
        await ctx.tick()
        ctx.set(gate.start, 0)
        ctx.set(gate.take, 1)
        ctx.set(gate.final, 1)
        for _ in range(to_state):
            ctx.set(gate.tvalid, 1)
            await ctx.tick()
        for tvalid, tlast in ((0, 0), (1, 0), (1, 1), (0, 1)):
            ctx.set(gate.tvalid, tvalid)
            ctx.set(gate.tlast, tlast)
            seen.append(ctx.get(gate.tready))

    bench(gate, drive)
    assert seen == [1, 1, 1, 1], state
