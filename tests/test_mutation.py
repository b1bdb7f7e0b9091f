"""Mutants: drawn as fixed, broken one at a time, noticed by a bench, and excused by proof alone."""

import dataclasses
import json
from pathlib import Path

import pytest

from sim import mutate
from sim.mutation.equivalence import prove_equivalent
from sim.mutation.mutants import (
    SOURCE,
    Mutant,
    array_verilog,
    draw_mutants,
    mutated_verilog,
    one_mutant,
)
from sim.mutation.report import facts
from sim.mutation.store import Outcome, Store
from sim.mutation.trials import Trial, block_properties, decide_on
from tern_hw.flows.icarus import icarus_installed
from tern_hw.formal.properties import properties as all_properties
from tests.simulations import verilog_text

CONFIG = mutate.CONFIG
RECORDED = Path(__file__).parent.parent / "sim" / "recorded" / "mutation.json"
KILLED = Outcome(trial=Trial(killed_by="a.test", message="no", tests=3))
ALIVE = Outcome(trial=Trial(killed_by="", message="", tests=9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("mutants")
    (place / SOURCE).write_text(verilog_text(CONFIG))
    return place


@pytest.fixture(scope="module")
def mutants(folder) -> list[Mutant]:
    return draw_mutants(folder, CONFIG, mutate.COUNT, mutate.SEED)


def test_the_command_emits_the_configuration_itself():
    assert array_verilog(CONFIG) == verilog_text(CONFIG)


def test_drawing_is_fixed_by_its_seed(folder, mutants):
    assert draw_mutants(folder, CONFIG, mutate.COUNT, mutate.SEED) == mutants
    assert draw_mutants(folder, CONFIG, mutate.COUNT, mutate.SEED + 1) != mutants
    assert [each.number for each in mutants] == list(range(1, mutate.COUNT + 1))


def test_control_flags_counters_and_registers_are_among_the_mutants(mutants):
    modules = {each.module for each in mutants}
    assert {"registers", "core", "core.sequencer", "core.scale_ring"} <= modules
    assert {"core.activation_gate", "core.scale_walk", "core.results.ring"} <= modules


def test_all_mutants_stand_in_one_verilog_with_the_arrays_ports(folder, mutants):
    text = mutated_verilog(folder, CONFIG, mutants[:20])
    assert f"module {CONFIG.name} (" in text
    assert '$value$plusargs("mutant=%d", mutant)' in text
    if icarus_installed():
        from tern_hw.flows.process import run_tool

        (folder / "both.v").write_text(text)
        run_tool(["iverilog", "-g2005", "-o", folder / "both", folder / "both.v"], timeout_s=60)


def test_outcomes_are_kept_by_list_and_array(tmp_path, mutants):
    store = Store(tmp_path, mutants, "verilog")
    store.put(mutants[0], KILLED)
    store.put(mutants[1], dataclasses.replace(ALIVE, proof="how"))
    again = Store(tmp_path, mutants, "verilog")
    assert again.get(mutants[0]) == KILLED
    assert again.get(mutants[1]).state == "equivalent"
    assert again.get(mutants[2]) is None
    assert Store(tmp_path, mutants, "other").get(mutants[0]) is None
    assert Store(tmp_path, mutants[1:], "verilog").get(mutants[1]) is None


def test_score_leaves_out_what_is_proven_equivalent(mutants):
    outcomes = [KILLED, KILLED, KILLED, ALIVE, dataclasses.replace(ALIVE, proof="how")]
    report = facts(CONFIG, 1, mutants[:5], outcomes)
    assert (report["killed"], report["survived"], report["equivalent"]) == (3, 1, 1)
    assert report["score_percent"] == 75.0


@pytest.mark.slow
def test_equivalence_is_proven_of_what_is_whole_and_not_of_what_is_broken(folder, mutants):
    live = [each for each in mutants if each.module == "registers" and each.mode == "inv"][:2]
    assert live
    # Yosys' mode that breaks nothing.
    dead = [
        dataclasses.replace(each, options=each.options.replace("-mode inv", "-mode none"))
        for each in live
    ]
    assert all(prove_equivalent(folder, CONFIG, each) for each in dead)
    assert not any(prove_equivalent(folder, CONFIG, each) for each in live)


def test_a_broken_block_breaks_its_own_property_and_the_whole_one_keeps_it(folder, mutants):
    path = folder / "part.v"
    properties = block_properties(CONFIG)
    assert {*properties.values()} <= {each.block for each in all_properties()}
    for block in ("core.room", "core.weight_gate"):
        found = [each for each in mutants if each.module.partition("$")[0] == block]
        module, name = found[0].module, properties[block]
        one_mutant(folder, CONFIG, None, module, path)
        assert decide_on(path, name)
        for mutant in found:
            one_mutant(folder, CONFIG, mutant, module, path)
            if decide_on(path, name) is False:
                break
        else:
            pytest.fail(f"{name} must fail on one of {len(found)} mutants")


def on_port(module: str, cell: str, port: str, bit: int, mode: str = "inv") -> Mutant:
    """Return the mutant that breaks a bit at an instance."""
    place = {"mode": mode, "cell": cell, "port": port}
    full = ".".join(filter(None, (CONFIG.name, module)))
    fields = {**place, "module": full, "portbit": bit}
    options = " ".join(f"-{name} {value}" for name, value in fields.items())
    return Mutant(
        number=1, module=module, bit=bit, other_bit=None, wire="", options=options, **place
    )


def test_a_port_that_an_instance_does_not_look_at_may_be_broken(folder):
    # The lowest two bits of an address choose a byte of a word.
    unused, used = (on_port("", "registers", "axil_awaddr", bit) for bit in (1, 2))
    assert "top and its registers" in prove_equivalent(folder, CONFIG, unused)
    assert not prove_equivalent(folder, CONFIG, used)


@pytest.mark.slow
def test_what_a_pipeline_holds_after_an_abort_is_decided_where_its_valid_bits_are(folder):
    # The tree is not cleared at all, and all the time but at an abort.
    keeps, clears = (on_port("core.dot_0", "tree", "abort", 0, mode) for mode in ("const0", "inv"))
    assert "core and its dot_0" in prove_equivalent(folder, CONFIG, keeps)
    assert not prove_equivalent(folder, CONFIG, clears)


def test_a_register_that_loses_its_output_is_decided(tmp_path):
    # The start value of `state[1]` stands on what is a constant 1 then.
    (tmp_path / SOURCE).write_text(
        f"module {CONFIG.name} (input clk, input d, output reg [1:0] state);\n"
        "  initial state = 2'b00;\n"
        "  always @(posedge clk) state <= {1'b0, d};\n"
        "endmodule\n"
    )
    drawn = draw_mutants(tmp_path, CONFIG, 40, 1)
    cut = [each for each in drawn if (each.port, each.bit, each.mode) == ("Q", 1, "inv")]
    assert cut
    assert not prove_equivalent(tmp_path, CONFIG, cut[0])


def test_the_recorded_run_is_whole_and_reaches_the_bar():
    report = json.loads(RECORDED.read_text())
    assert report["mutants"] == mutate.COUNT == len(report["all"]) >= 200
    # A field that is newer than the run stands at its default.
    assert report["configuration"].items() <= CONFIG.as_dict().items()
    assert report["seed"] == mutate.SEED
    states = [line["state"] for line in report["all"]]
    counted = len(states) - states.count("equivalent")
    assert all(line["proof"] for line in report["all"] if line["state"] == "equivalent")
    assert all(line["killed_by"] for line in report["all"] if line["state"] == "killed")
    assert report["score_percent"] == round(100 * states.count("killed") / counted, 2) >= 95
