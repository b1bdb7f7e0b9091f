"""`python -m tern_hw.synth`: what it reports, what it keeps, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tern_hw import synth, synthesis_report
from tern_hw.cache import CACHE_VARIABLE
from tern_hw.cli import run, stages
from tern_hw.config import NAMED_CONFIGS, ArrayConfig
from tern_hw.flows.nextpnr import Hop, Placement
from tern_hw.flows.targets import TARGETS
from tern_hw.gateware.blocks import BLOCKS

TINY = ["--lanes", "8", "--rows", "2", "--group-size", "8", "--max-k", "64", "--max-n", "64"]


def report(capsys, *args: str) -> dict:
    assert synth.main([*TINY, *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_report_holds_each_block_with_its_shares(capsys):
    facts = report(capsys, "--target", "ecp5", "--block", "dots", "decoder")
    assert facts["target"] == "ecp5"
    assert facts["dsp"] is True
    assert facts["area_unit"] == "LUT4-eq"
    assert facts["configuration"]["lanes"] == 8
    assert facts["tools"].keys() == {"yosys"}
    dots, decoder = facts["blocks"]
    assert [each["block"] for each in facts["blocks"]] == ["dots", "decoder"]
    assert (
        dots["area_per_unit"] == dots["area_per_mac"] == pytest.approx(dots["area"] / 16, abs=1e-3)
    )
    assert decoder["area_per_unit"] == pytest.approx(decoder["area"] / 8, abs=1e-3)
    # Two decoders serve the sixteen lanes of two rows.
    assert decoder["area_per_mac"] == pytest.approx(2 * decoder["area"] / 16, abs=1e-3)
    for block in (dots, decoder):
        cells = block["cells"]
        assert block["area"] == cells["lut"] + 2 * cells["carry"] > 0
        assert sum(part["area"] for part in block["parts"].values()) == block["area"]
        assert cells["others"] == {}
        assert block["clock"] == {}
    # Rows are told together, the largest part first.
    assert next(iter(dots["parts"])) == "row_*.tree"
    assert all("_0" not in part for part in dots["parts"])
    # Two bits a lane are registered in a decoder of each row, and one for two fields' flag.
    assert decoder["cells"]["ff"] == 20


def test_table_names_every_block_and_the_rule_of_the_sum(capsys):
    assert synth.main([*TINY, "--block", "dots", "decoder"]) == 0
    text = capsys.readouterr().out
    for word in ("dots", "decoder", "a MAC", "/ weight", "LUT4 + 2 x CCU2C", "with DSP blocks"):
        assert word in text


def placement(seed: int, mhz: float) -> Placement:
    return Placement(
        seed=seed,
        fmax_mhz=mhz,
        path=[Hop("core.walk", 1.5, 2.25, 4), Hop("registers", 0.25, 0.5, 1)],
        start=f"a{seed}",
        end="b",
        used={"TRELLIS_COMB": 9},
        absorbed=42,
        seconds=float(seed),
        folder=Path("none"),
    )


def test_clock_is_reported_as_the_middle_of_the_seeds_and_their_spread(capsys, monkeypatch):
    """Placement takes minutes: here its outcomes are given."""
    clocks = [150.0, 120.0, 180.0, 130.0]
    monkeypatch.setattr(
        "tern_hw.synthesis.place_and_route",
        lambda design, *, seed, clock_mhz, **rest: placement(seed, clocks[seed - 1]),
    )
    args = ["--block", "decoder", "--pnr", "bare", "--seeds", "4", "--clock", "100"]
    facts = report(capsys, *args)
    assert facts["tools"].keys() == {"yosys", "nextpnr"}
    (clock,) = facts["blocks"][0]["clock"].values()
    assert (clock["median_mhz"], clock["least_mhz"], clock["greatest_mhz"]) == (140.0, 120.0, 180.0)
    assert [each["fmax_mhz"] for each in clock["seeds"]] == clocks
    assert clock["absorbed_registers"] == 42
    assert [each["seed"] for each in clock["seeds"]] == [1, 2, 3, 4]
    # The path is that of the seed in the middle.
    path = clock["critical_path"]
    assert (path["seed"], path["from"], path["to"]) == (4, "a4", "b")
    assert path["hops"][0] == {
        "block": "core.walk",
        "logic_ns": 1.5,
        "routing_ns": 2.25,
        "cells": 4,
    }
    assert synth.main([*TINY, *args]) == 0
    text = capsys.readouterr().out
    assert "core.walk (4 cells, 1.50 + 2.25 ns) -> registers (1 cells, 0.25 + 0.50 ns)" in text
    assert "140.0" in text
    assert "42 flip-flops are now registers of block RAMs and multipliers" in text


@pytest.mark.parametrize(
    ("how", "target", "surroundings"),
    [
        ("both", "ecp5", ["registered_pins", "out_of_context"]),
        ("registered", "ecp5", ["registered_pins"]),
        ("bare", "ecp5", ["out_of_context"]),
        ("both", "ice40", ["registered_pins"]),
    ],
)
def test_surroundings_are_those_the_target_has(how, target, surroundings):
    args = synth._parser().parse_args(["--pnr", how, "--target", target])
    assert list(synth._surroundings(args, synth._options(args))) == surroundings


def test_parts_are_a_table_of_their_own(capsys):
    assert synth.main([*TINY, "--block", "dots"]) == 0
    assert "row_*.tree" not in capsys.readouterr().out
    assert synth.main([*TINY, "--block", "dots", "--parts"]) == 0
    assert "row_*.tree" in capsys.readouterr().out


def facts_of(activation: str, **area: float) -> dict:
    return {
        "configuration": {"activation": activation},
        "blocks": [{"block": name, "area": value} for name, value in area.items()],
    }


@pytest.mark.parametrize(
    ("activation", "rest", "percent"), [("fp16", 100.0, 40.0), ("int8", 150.0, 75.0)]
)
def test_overhead_is_what_is_neither_dot_product_nor_conversion(activation, rest, percent):
    """An int8 is no less an integer before the converter, which only masks it."""
    facts = facts_of(activation, dots=200.0, converter=50.0, array=350.0)
    assert synthesis_report.overhead_facts(facts) == {
        "array": 350.0,
        "dots": 200.0,
        "converter": 50.0,
        "rest": rest,
        "percent": percent,
    }


def test_overhead_asks_for_the_three_blocks_it_needs():
    args = synth._parser().parse_args(["--overhead", "--block", "scale"])
    assert synth._blocks(args, ArrayConfig()) == ["scale", "array", "dots", "converter"]


def test_output_folder_holds_verilog_netlists_logs_and_report(capsys, tmp_path):
    folder = tmp_path / "new" / "build"
    facts = report(capsys, "--block", "decoder", "-o", str(folder))
    assert json.loads((folder / "report.json").read_text()) == facts
    kept = {path.name for path in (folder / "decoder").iterdir()}
    assert kept == {"design.v", "yosys.log", "netlist.json", "netlist.v"}
    module = facts["blocks"][0]["module"]
    assert f"module {module}(" in (folder / "decoder" / "netlist.v").read_text()


def test_list_names_targets_blocks_and_configurations(capsys):
    assert synth.main(["--list", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts["targets"]) == list(TARGETS)
    assert list(facts["blocks"]) == list(BLOCKS)
    assert list(facts["configurations"]) == list(NAMED_CONFIGS)
    assert synth.main(["--list"]) == 0
    assert BLOCKS["dots"].about in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--target", "virtex"], "--target must be one of ecp5, ice40, xc7, gowin, not 'virtex'"),
        (["--block", "heart"], "--block must be one of array, core, dots, "),
        (
            ["--activation", "fp16", "--weights", "fp16", "--group-size", "128", "--block", "dots"],
            "--block must be one of array, core, registers, macs, ",
        ),
        (
            ["--activation", "fp16", "--weights", "fp16", "--group-size", "128", "--overhead"],
            "--overhead must go with ternary weights, not fp16",
        ),
        (["--lanes", "7"], "lanes must be an integer from 8 to 1024, not 7"),
        (["--config", "huge"], "--config must be one of tiny, base, base3, fine, half, not 'huge'"),
        (["--pnr", "fast"], "--pnr must be one of both, registered, bare, not 'fast'"),
        (["--target", "xc7", "--pnr"], "--pnr must go with a target that nextpnr places, not xc7"),
        (["--target", "ice40", "--pnr", "bare"], "--pnr must be registered for ice40"),
        (["--pnr", "--seeds", "0"], "--seeds must be from 1 to 100, not 0"),
        (["--pnr", "--seeds", "many"], "--seeds must be an integer, not 'many'"),
        (["--seeds", "3"], "--seeds must stand beside --pnr, not without it"),
        (["--clock", "100"], "--clock must stand beside --pnr, not without it"),
        (["--pnr", "--clock", "0"], "--clock must be from 1 to 1000 (MHz), not 0"),
        (["--pnr", "--clock", "nan"], "--clock must be from 1 to 1000 (MHz), not nan"),
        (["--list", "--lanes", "8"], "--list must stand without --lanes, not beside it"),
        (["-o", "/proc/none/x"], "--output must be a folder, not '/proc/none/x'"),
    ],
)
def test_mistake_is_one_sentence_and_status_2(args, sentence, capsys):
    try:
        status = run(lambda: synth.main(args))
    except SystemExit as end:
        status = end.code
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_failing_tool_is_quoted_with_status_2(capsys, monkeypatch, tmp_path):
    """Yosys fails on Verilog with a defect, and its own words are in the message."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("tern_hw.synthesis.emit_block", lambda config, name: ("m", "module m("))
    assert run(lambda: synth.main([*TINY, "--block", "dots"])) == 2
    err = capsys.readouterr().err
    assert "error: yosys must end with status 0, not " in err
    assert "syntax error" in err


def test_help_has_examples_and_loads_no_tool():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tern_hw.synth", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "examples:" in done.stdout
    for name in ("amaranth", "rich", "numpy"):
        assert f" {name}\n" not in done.stderr


def test_stages_are_lines_where_no_terminal_shows_them(capsys):
    with stages() as notify:
        notify("yosys: top")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "yosys: top ...\n")
