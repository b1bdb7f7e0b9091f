"""Energy adds up: closed forms on netlists made by hand, and sums by gate and by block."""

import numpy as np
import pytest

from tern_hw.errors import TernError
from tern_hw.gates.blocks import blocks_of_gates
from tern_hw.gates.cells import Instance
from tern_hw.gates.cmos import CMOS, INVERTER_FF, SUPPLY_V
from tern_hw.gates.energy import CLOCK, INPUTS, measure, total_energy
from tern_hw.gates.liberty import read_liberty
from tern_hw.gates.netlist import read_netlist
from tern_hw.gates.simulator import simulate
from tests.gates.netlists import COUNTER, LIBERTY

#: Two blocks: a register, and an inverted one behind a gate of the first's.
NESTED = """
module part(input clk, input [7:0] d, output reg [7:0] q);
  initial q = 0;
  always @(posedge clk) q <= ~d ^ {d[0], d[7:1]};
endmodule
module nested(input clk, input [7:0] a, output [7:0] y, output any);
  wire [7:0] middle;
  part first(.clk(clk), .d(a), .q(middle));
  part second(.clk(clk), .d(middle), .q(y));
  assign any = |y;
endmodule
"""


def random_bytes(streams=4, cycles=50):
    return np.random.default_rng(3).integers(0, 256, (streams, cycles, 1))


@pytest.fixture
def liberty(tmp_path):
    path = tmp_path / "tiny.lib"
    path.write_text(LIBERTY)
    return path


def module_of(cells, ports):
    """Return a module of Yosys' JSON: cells (type, pins), ports name -> (direction, bit)."""
    found = {name: {"direction": way, "bits": [bit]} for name, (way, bit) in ports.items()}
    return {
        "ports": found,
        "cells": {
            f"c{at}": {"type": kind, "connections": {pin: [bit] for pin, bit in pins.items()}}
            for at, (kind, pins) in enumerate(cells)
        },
        "netnames": {
            name: {"bits": port["bits"], "attributes": {}} for name, port in found.items()
        },
    }


def toggling(cycles=101):
    return {"a": (np.arange(cycles) % 2)[None, :, None]}


def test_two_inverters_take_what_their_capacitances_say():
    cells = [("$_NOT_", {"A": 2, "Y": 3}), ("$_NOT_", {"A": 3, "Y": 4})]
    module = module_of(cells, {"a": ("input", 2), "y": ("output", 4)})
    netlist = read_netlist(module, CMOS)
    energy = total_energy(netlist, CMOS, simulate(netlist, toggling()))
    # A toggle a cycle of three nets: input 1; input 1 and drains 1; drains 1: four inverters.
    unit = INVERTER_FF * SUPPLY_V**2 / 2 * 1e-3
    assert energy.pj_per_cycle.value == pytest.approx(4 * unit)
    # Half the drains less, half of them more.
    assert energy.pj_per_cycle.low == pytest.approx(3 * unit)
    assert energy.pj_per_cycle.high == pytest.approx(5 * unit)
    assert energy.by_gate[INPUTS].value == pytest.approx(unit)
    assert energy.toggle_rate == 1


def test_liberty_takes_its_internal_power_at_load_and_transition(liberty):
    cells = read_liberty(liberty)
    module = module_of(
        [("INV", {"A": 2, "Y": 3}), ("INV", {"A": 3, "Y": 4}), ("INV", {"A": 3, "Y": 5})],
        {"a": ("input", 2), "y": ("output", 4), "z": ("output", 5)},
    )
    netlist = read_netlist(module, cells)
    energy = total_energy(netlist, cells, simulate(netlist, toggling()))
    inside = cells.cells["INV"].outputs["Y"]
    first = inside.slew_ns.at(20, cells.input_slew_ns).value
    internal = inside.internal_fj.at(20, cells.input_slew_ns).value
    internal += 2 * inside.internal_fj.at(0, first).value
    # 10 fF and 20 fF at 2 V.
    switched = (10 + 20) * 2.0**2 / 2
    assert energy.pj_per_cycle.value == pytest.approx((internal + switched) * 1e-3)
    assert energy.leakage_nw == pytest.approx(1.5)
    assert energy.area == 30


def test_idle_block_takes_its_clock_alone(liberty):
    for library, per_flop in ((None, None), (liberty, 2 * (30 * 2.0**2 / 2))):
        stimulus = {"rst": np.zeros((1, 20, 1), int), "hold": np.ones((1, 20, 1), int)}
        energy = measure(COUNTER, "counter", stimulus, library, warm_up=2)
        assert energy.pj_per_cycle == pytest.approx(energy.by_gate[CLOCK])
        assert energy.flops == 4
        if per_flop is None:
            # Two edges of 14 widths.
            per_flop = 2 * 14 / 3 * INVERTER_FF * SUPPLY_V**2 / 2
        else:
            cells = read_liberty(library)
            inside = cells.cells["DFF"].input_fj["CK"].at(0, cells.input_slew_ns).value
            per_flop += 2 * inside
        assert energy.pj_per_cycle.value == pytest.approx(4 * per_flop * 1e-3)


@pytest.mark.parametrize("generic", [True, False])
def test_shares_by_gate_and_by_block_are_the_whole(liberty, generic):
    library = None if generic else liberty
    energy = measure(NESTED, "nested", {"a": random_bytes()}, library, warm_up=3)
    for shares in (energy.by_gate, energy.by_block):
        for at in range(3):
            total = sum(share[at] for share in shares.values())
            assert total == pytest.approx(energy.pj_per_cycle[at])
    assert energy.pj_per_cycle.low <= energy.pj_per_cycle.value <= energy.pj_per_cycle.high
    assert energy.flops == 16


@pytest.mark.parametrize("generic", [True, False])
def test_gates_belong_to_the_block_whose_registers_they_feed(liberty, generic):
    library = None if generic else liberty
    energy = measure(NESTED, "nested", {"a": random_bytes()}, library, warm_up=3)
    assert set(energy.by_block) == {"", "first", "second"}
    first, second = energy.by_block["first"].value, energy.by_block["second"].value
    # The same logic; the second's registers drive the top's gate, too, and the first's inputs
    # are the top's.
    assert 0.5 < first / second < 2
    idle = measure(NESTED, "nested", {"a": 0 * random_bytes()}, library, warm_up=9)
    assert idle.by_block["first"].value == pytest.approx(idle.by_block["second"].value)
    assert idle.by_block[""].value == 0


def test_gate_that_feeds_several_blocks_belongs_to_what_holds_them():
    inverter, flop = CMOS.cells["$_NOT_"], CMOS.cells["$_DFF_P_"]
    gates = [Instance(f"g{at}", inverter, {"A": at, "Y": 10 + at}) for at in range(4)]
    # g3 behind g0; g0 to a.x and, by g3, to a.y; g1 to a.x and b; g2 to no register.
    gates[3] = Instance("g3", inverter, {"A": 10, "Y": 13})
    flops = [
        Instance(f"f{at}", flop, {"C": 0, "D": slot, "Q": 20 + at}, block)
        for at, (slot, block) in enumerate([(10, "a.x"), (13, "a.y"), (11, "a.x"), (11, "b")])
    ]
    found = {gate.name: gate.block for gate in blocks_of_gates(gates, flops)}
    assert found == {"g0": "a", "g1": "", "g2": "", "g3": "a.y"}


def test_more_activity_takes_more_energy():
    calm, busy = random_bytes() & 1, random_bytes()
    energies = [
        measure(NESTED, "nested", {"a": each}, warm_up=3).pj_per_cycle.value
        for each in (calm, busy)
    ]
    assert energies[0] < 0.9 * energies[1]


def test_energy_a_mac_is_a_share_of_a_cycles():
    energy = measure(COUNTER, "counter", {"hold": np.zeros((1, 20, 1), int)})
    assert energy.per(4).value == pytest.approx(energy.pj_per_cycle.value / 4)


def test_missing_top_is_one_sentence():
    with pytest.raises(TernError, match="other must be synthesisable to gates: "):
        measure(COUNTER, "other", {})
