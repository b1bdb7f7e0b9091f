"""Netlists compute what their Verilog does, and every toggle is counted: against three others."""

import random
import re

import numpy as np
import pytest

from tern_hw.errors import TernError
from tern_hw.flows.icarus import icarus_installed
from tern_hw.flows.netlist import gate_netlist
from tern_hw.flows.process import run_tool
from tern_hw.flows.yosys import run_script
from tern_hw.gates.cmos import CMOS
from tern_hw.gates.liberty import read_liberty
from tern_hw.gates.netlist import read_netlist
from tern_hw.gates.simulator import simulate
from tests.gates.netlists import COUNTER, LIBERTY, naive_toggles, number

#: Every generic gate, an adder, a state that starts at 1.
MIXED = """
module mixed(input clk, input rst, input [5:0] a, input [5:0] b, output reg [6:0] sum,
             output reg odd, output [5:0] any);
  initial begin sum = 5; odd = 1; end
  assign any = (a & b) | ~(a ^ sum[5:0]);
  always @(posedge clk) begin
    odd <= rst ? 1 : odd ^ (^a) ^ any[2];
    sum <= rst ? 5 : (a[0] ? a - b : a + sum[5:0]);
  end
endmodule
"""
CYCLES = 60
#: A cycle in which all states are known, where they have no reset value, too.
SETTLED = 2


def streams(count, cycles=CYCLES, *, reset=2):
    """Return random inputs of `mixed`, one stream longer than a word where count is 65."""
    rng = np.random.default_rng(7)
    rst = (rng.random((count, cycles, 1)) < 0.05).astype(int)
    rst[:, :reset] = 1
    return {"rst": rst} | {name: rng.integers(0, 64, (count, cycles, 1)) for name in "ab"}


@pytest.fixture(scope="module")
def liberty(tmp_path_factory):
    path = tmp_path_factory.mktemp("liberty") / "tiny.lib"
    path.write_text(LIBERTY)
    return path


@pytest.fixture(scope="module")
def mapped(liberty):
    """`mixed` as (module, cells), by kind of cells."""
    cells = read_liberty(liberty)
    options = {"constraint": cells.constraint, "delay_ps": 5000, "unused": cells.unused}
    return {
        "generic": (gate_netlist(MIXED, top="mixed"), CMOS),
        "liberty": (gate_netlist(MIXED, top="mixed", liberty=liberty, **options), cells),
    }


@pytest.mark.parametrize("kind", ["generic", "liberty"])
def test_toggles_and_outputs_are_a_naive_simulators(mapped, kind):
    module, cells = mapped[kind]
    netlist = read_netlist(module, cells)
    stimulus = streams(2, 25)
    activity = simulate(netlist, stimulus, warm_up=3)
    assert activity.cycles == 2 * 22
    total: dict = {}
    for stream in range(2):
        one = {name: array[stream, :, 0].tolist() for name, array in stimulus.items()}
        changes, outputs = naive_toggles(module, cells, one, 3)
        for name, values in outputs.items():
            assert number(activity.outputs[name][stream]).tolist() == values
        total = {bit: total.get(bit, 0) + count for bit, count in changes.items()}
    compared = 0
    for name, slots in netlist.names.items():
        for bit, slot in zip(module["netnames"][name]["bits"], slots, strict=True):
            if bit in total and name not in ("clk",):
                assert activity.toggles[slot] == total[bit], name
                compared += 1
    assert compared > 60


def test_streams_beyond_a_word_count_like_any_other(mapped):
    netlist = read_netlist(*mapped["generic"])
    stimulus = streams(65)
    alone = [
        simulate(netlist, {name: array[at : at + 1] for name, array in stimulus.items()}).toggles
        for at in range(65)
    ]
    assert (simulate(netlist, stimulus).toggles == sum(alone)).all()


def test_a_counters_bits_toggle_half_as_often_each():
    netlist = read_netlist(gate_netlist(COUNTER, top="counter"), CMOS)
    # Three streams of a word's 64; the others would count, too.
    activity = simulate(netlist, {"hold": np.zeros((3, 129, 1), int)}, warm_up=1)
    assert [activity.toggles[slot] for slot in netlist.outputs["q"]] == [
        3 * 128 // 2**at for at in range(4)
    ]
    assert number(activity.outputs["q"])[0].tolist() == [cycle % 16 for cycle in range(129)]


@pytest.mark.skipif(not icarus_installed(), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("kind", ["generic", "liberty"])
def test_toggles_are_those_of_icarus_value_change_dump(mapped, kind, liberty, tmp_path):
    """Icarus runs the netlist as Verilog, and its VCD is counted: no line of ours in between."""
    module, cells = mapped[kind]
    stimulus = streams(1)
    counted, names = vcd_toggles(tmp_path, module, stimulus, liberty if kind == "liberty" else None)
    netlist = read_netlist(module, cells)
    activity = simulate(netlist, stimulus, warm_up=SETTLED + 1)
    compared = 0
    for name, slots in netlist.names.items():
        if name in names and name != "clk":
            for at, slot in enumerate(slots):
                assert counted[name, at] == activity.toggles[slot], (name, at)
                compared += 1
    assert compared > 60
    assert sum(counted.values()) > 1000


def vcd_toggles(folder, module, stimulus, liberty):
    """Run a netlist in Icarus; return the changes of (net, bit) after `SETTLED`, and names."""
    import json

    source = folder / "netlist.json"
    creator = {"creator": "test", "modules": {"mixed": module}}
    source.write_text(json.dumps(creator))
    simple = [f'read_json "{source}"']
    if liberty:
        # The library's cells as Verilog, by Yosys' own reader.
        simple += [f'read_liberty "{liberty}"']
    simple += [f'write_verilog -noattr -norename "{folder}/netlist.v"']
    status, log = run_script(simple)
    assert status == 0, log
    bench = ["`timescale 1ns/1ns", "module bench;", "reg clk = 0, rst; reg [5:0] a, b;"]
    bench += ["mixed dut(.clk(clk), .rst(rst), .a(a), .b(b));", "initial begin"]
    cycles = stimulus["rst"].shape[1]
    for cycle in range(cycles):
        values = " ".join(f"{name} = {array[0, cycle, 0]};" for name, array in stimulus.items())
        # Inputs change with the edge that begins the cycle.
        bench.append(f"{values} #5 clk = 0; #5 clk = 1;")
        if cycle == SETTLED:
            bench[-1] = f'$dumpfile("{folder}/waves.vcd"); ' + bench[-1].replace(
                "#5 clk = 0;", "#1 $dumpvars(1, dut); #4 clk = 0;"
            )
    # The last edge begins a cycle that is not counted.
    bench[-1] = bench[-1].replace("#5 clk = 1;", "#4 $finish;")
    bench += ["end", "endmodule"]
    (folder / "bench.v").write_text("\n".join(bench))
    run_tool(
        ["iverilog", "-g2005", "-o", folder / "run", folder / "bench.v", folder / "netlist.v"],
        timeout_s=60,
    )
    run_tool(["vvp", folder / "run"], timeout_s=60)
    return counted_changes((folder / "waves.vcd").read_text())


def counted_changes(text):
    codes: dict = {}
    for width, code, name in re.findall(r"\$var \w+ (\d+) (\S+) (\S+)(?: \[[^\]]*\])? \$end", text):
        codes.setdefault(code, []).append((name.removeprefix("\\"), int(width)))
    values: dict = {}
    changes: dict = {}
    for line in text[text.index("$enddefinitions") :].splitlines()[1:]:
        if match := re.fullmatch(r"b([01xz]+) (\S+)|([01xz])(\S+)", line):
            raw, code = match.group(1) or match.group(3), match.group(2) or match.group(4)
            for name, width in codes[code]:
                fill = "0" if raw[0] in "01" else raw[0]
                bits = raw.rjust(width, fill)[::-1]
                for at in range(width):
                    old = values.get((name, at), bits[at])
                    changes[name, at] = changes.get((name, at), 0) + (old != bits[at])
                    values[name, at] = bits[at]
    return changes, {name for found in codes.values() for name, _ in found}


def test_ports_may_be_cut_into_fields(mapped):
    module, cells = mapped["generic"]
    netlist = read_netlist(module, cells)
    whole = streams(2)
    halves = whole | {"a": np.concatenate([whole["a"] & 7, whole["a"] >> 3], axis=2)}
    first, second = (simulate(netlist, each).toggles for each in (whole, halves))
    assert (first == second).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"c": np.zeros((1, 9, 1), int)}, "stimulus port must be one of rst, a, b, not 'c'"),
        ({"a": np.zeros((1, 9, 4), int)}, "a must have fields that divide 6 bits"),
        ({"a": np.zeros((1, 8, 1), int)}, "equally long"),
        ({"a": np.zeros((1, 9), int)}, r"arrays \[streams, cycles, fields\]"),
    ],
)
def test_stimulus_that_fits_no_port_is_refused(mapped, change, sentence):
    netlist = read_netlist(*mapped["generic"])
    stimulus = {name: np.zeros((1, 9, 1), int) for name in ("rst", "a", "b")} | change
    with pytest.raises(TernError, match=sentence):
        simulate(netlist, stimulus)


@pytest.mark.parametrize("warm_up", [0, 9, -1])
def test_warm_up_leaves_a_cycle_to_count(mapped, warm_up):
    netlist = read_netlist(*mapped["generic"])
    with pytest.raises(TernError, match="warm_up must be from 1 to cycles - 1"):
        simulate(netlist, {"a": np.zeros((1, 9, 1), int)}, warm_up=warm_up)


def chain(*cells):
    """Return a module of Yosys' JSON without ports: (type, pins) each."""
    made = {
        f"c{at}": {"type": kind, "connections": {pin: [bit] for pin, bit in pins.items()}}
        for at, (kind, pins) in enumerate(cells)
    }
    ports = {"x": {"direction": "input", "bits": [2]}, "k": {"direction": "input", "bits": [3]}}
    names = {name: {"bits": port["bits"], "attributes": {}} for name, port in ports.items()}
    return {"ports": ports, "cells": made, "netnames": names}


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([("$_MUX_", {})], "cell must be one of generic CMOS's 8, not '\\$_MUX_'"),
        ([("$_NOT_", {"A": 4, "Y": 5}), ("$_NOT_", {"A": 5, "Y": 4})], "free of loops, not have 2"),
        (
            [("$_DFF_P_", {"C": 2, "D": 9, "Q": 4}), ("$_DFF_P_", {"C": 3, "D": 9, "Q": 5})],
            "one clock, an input of its own, not 2",
        ),
        ([("$_NOT_", {"A": 2, "Y": 9}), ("$_DFF_P_", {"C": 9, "D": 2, "Q": 4})], "an input of its"),
    ],
)
def test_netlist_that_cannot_be_simulated_is_refused(cells, sentence):
    with pytest.raises(TernError, match=sentence):
        read_netlist(chain(*cells), CMOS)


def test_gates_in_any_order_are_put_in_order():
    cells = [("$_NOT_", {"A": 3 + at, "Y": 4 + at}) for at in range(20)]
    random.Random(1).shuffle(cells)
    netlist = read_netlist(chain(*cells), CMOS)
    order = [gate.pins["A"] for gate in netlist.gates]
    produced = set(netlist.inputs["k"])
    for gate in netlist.gates:
        assert gate.pins["A"] in produced
        produced.add(gate.pins["Y"])
    assert len(order) == 20


def test_design_that_yosys_refuses_is_one_sentence():
    with pytest.raises(TernError, match=r"top must be synthesisable to gates: .*syntax error"):
        gate_netlist("module top(input a output b); endmodule", top="top")
