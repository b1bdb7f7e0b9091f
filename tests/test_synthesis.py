"""`tern_hw.flows` for FPGAs: cells counted exactly, kept results, pins, paths, failures."""

import dataclasses
import itertools

import pytest

from tern_hw.cache import CACHE_VARIABLE
from tern_hw.errors import TernError
from tern_hw.flows import nextpnr
from tern_hw.flows.nextpnr import Hop
from tern_hw.flows.parts import cells_by_part, part_of
from tern_hw.flows.process import ToolError
from tern_hw.flows.synthesis import SynthesisOptions, synthesize
from tern_hw.flows.targets import TARGETS, CellCount, find_target
from tern_hw.gateware.blocks import emit_block
from tests.gateware.blocks import small

#: A 4-input function, a register behind it, and an 8-bit sum: their cells are known beforehand.
LUT = "assign y = a[0] ^ (a[1] & a[2] & a[3]);"
REGISTER = "reg q = 0; always @(posedge clk) q <= a[0]; assign y = q;"
SUM = "assign s = a + b;"


def design(body: str) -> str:
    return (
        "module top(input clk, input [7:0] a, input [7:0] b, output y, output [7:0] s);"
        f" {body} endmodule"
    )


def counts(body: str, target: str, **options: bool) -> CellCount:
    wanted = SynthesisOptions(target=TARGETS[target], **options)
    return synthesize(design(body), "top", wanted).counts


# ---------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("target", "lut", "ff", "carry", "area"),
    [
        # An 8-bit sum: CCU2C holds two bits.
        ("ecp5", 1, 1, 4, 8),
        # The lowest bit of a sum needs no carry, the highest makes none.
        ("ice40", 1, 1, 7, 8),
    ],
)
def test_known_designs_take_known_cells(target, lut, ff, carry, area):
    function, register, total = (counts(body, target) for body in (LUT, REGISTER, SUM))
    assert (function.lut, function.ff, function.carry, function.area) == (lut, 0, 0, 1)
    assert (register.lut, register.ff, register.area) == (0, ff, 0)
    assert (total.carry, total.area) == (carry, area)
    assert total.others == {}


@pytest.mark.parametrize(
    ("target", "cells", "kinds", "area"),
    [
        (
            "ecp5",
            {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7, "DP16KD": 1},
            {"lut": 10, "carry": 3, "lutram": 2, "ff": 7, "block_ram": 1},
            10 + 2 * 3 + 6 * 2,
        ),
        ("ecp5", {"MULT18X18D": 2, "ALU54B": 1, "PFUMX": 4}, {"dsp": 3, "mux": 4}, 0),
        (
            "xc7",
            {"LUT2": 1, "LUT6": 2, "INV": 50, "CARRY4": 3, "RAM32M": 2, "FDRE": 4, "FDSE": 1},
            {"lut": 3, "carry": 3, "lutram": 2, "ff": 5},
            3 + 4 * 2,
        ),
        (
            "xc7",
            {"RAM64X1D": 3, "SRL16E": 5, "DSP48E1": 1, "RAMB36E1": 1, "MUXF7": 2},
            {"lutram": 8, "dsp": 1, "block_ram": 1, "mux": 2},
            2 * 3 + 5,
        ),
        (
            "gowin",
            {"LUT1": 1, "LUT4": 2, "ALU": 3, "DFFRE": 4, "GND": 1, "VCC": 1, "RAM16SDP4": 1},
            {"lut": 3, "carry": 3, "ff": 4, "lutram": 1},
            3 + 3 + 6,
        ),
        ("gowin", {"SDPB": 1, "MULT18X18": 2}, {"block_ram": 1, "dsp": 2}, 0),
        ("ice40", {"SB_LUT4": 3, "SB_CARRY": 2, "SB_DFFESR": 1, "SB_RAM40_4K": 1}, {"lut": 3}, 3),
    ],
)
def test_every_cell_is_of_its_kind(target, cells, kinds, area):
    count = TARGETS[target].count({**cells, "$scopeinfo": 9})
    for kind, number in kinds.items():
        assert getattr(count, kind) == number, kind
    assert count.area == area
    assert count.others == {}
    assert sum(count.luts.values()) == count.lut


@pytest.mark.parametrize("target", TARGETS)
def test_an_unknown_cell_is_told_and_not_counted(target):
    count = TARGETS[target].count({"NEW_CELL": 3})
    assert count.others == {"NEW_CELL": 3}
    assert count.area == 0


def test_multiplication_takes_a_dsp_block_unless_forbidden():
    body = "assign s = a * b;"
    assert counts(body, "ecp5").dsp == 1
    logic = counts(body, "ecp5", dsp=False)
    assert logic.dsp == 0
    assert logic.area > 50


def test_unknown_target_is_refused():
    with pytest.raises(TernError, match="--target must be one of ecp5, ice40, xc7, gowin, not 'x'"):
        find_target("x")


# ----------------------------------------------------------------------- kept results


def test_result_is_made_once_for_the_same_design_and_options(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    told: list[str] = []
    options = SynthesisOptions(target=TARGETS["ecp5"])
    first = synthesize(design(LUT), "top", options, notify=told.append)
    assert told == ["yosys: top for ecp5"]
    again = synthesize(design(LUT), "top", options, notify=told.append)
    assert again == first
    assert len(told) == 1
    for name in ("design.v", "yosys.log", "netlist.json", "netlist.v"):
        assert (first.folder / name).stat().st_size > 0
    other = SynthesisOptions(target=TARGETS["ecp5"], block_ram=False)
    assert synthesize(design(LUT), "top", other, notify=told.append).folder != first.folder
    assert synthesize(design(SUM), "top", options, notify=told.append).folder != first.folder
    assert len(told) == 3


def test_failed_synthesis_is_one_sentence_with_the_end_of_the_log(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    options = SynthesisOptions(target=TARGETS["ecp5"])
    for _ in range(2):
        with pytest.raises(ToolError, match=r"yosys must end with status 0, not \d+:") as caught:
            synthesize(design("assign y = a[0]"), "top", options)
        assert "syntax error" in str(caught.value)
    assert not list((tmp_path / "synthesis").glob("*/facts.json"))


def test_scopes_name_every_instance():
    config = small()
    module, text = emit_block(config, "dots")
    result = synthesize(text, module, SynthesisOptions(target=TARGETS["ecp5"]))
    rows = [f"row_{row}{part}" for row in range(2) for part in ("", ".decoder", ".tree")]
    assert result.scopes == rows
    assert result.counts.others == {}
    assert set(result.parts) <= {*rows, "top"}
    assert result.parts["row_0.tree"].carry > 0
    for name in ("lut", "carry", "ff", "area"):
        parts = [getattr(part, name) for part in result.parts.values()]
        assert sum(parts) == getattr(result.counts, name) > 0


# ------------------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    ("cell", "block"),
    [
        ("core.dot_0.tree.sum_l0_1_TRELLIS_FF_Q", "core.dot_0.tree"),
        ("core.dot_0.total_TRELLIS_FF_Q_3", "core.dot_0"),
        ("core.dot_01.total_LUT4_Z", "core"),
        ("core.room$172.left_TRELLIS_FF_Q", "core.room"),
        ("dut.core.dot_0.tree.sum_l0_1_LUT4_Z", "core.dot_0.tree"),
        ("z_taken_TRELLIS_FF_Q", "top"),
    ],
)
def test_cell_belongs_to_the_longest_scope_of_its_name(cell, block):
    scopes = ["core", "core.dot_0", "core.dot_0.tree", "core.room$172"]
    assert part_of(cell, [*scopes, "dut", *(f"dut.{scope}" for scope in scopes)]) == block


def test_cells_of_a_netlist_are_counted_in_their_parts():
    lines = """
  LUT4 #(
    .INIT(16'h8000)
  ) \\a.b.sum_LUT4_Z  (
    .A(x)
  );
  LUT4 #(
    .INIT(16'h8001)
  ) \\a.sum_LUT4_Z  (
    .A(x)
  );
  TRELLIS_FF #(
  ) flag_TRELLIS_FF_Q (
    .CLK(clk)
  );
  MUXF7 \\a.b.mux  (
    .I0(x)
  );
  assign y = x;
""".splitlines()
    assert cells_by_part(lines, {"a", "a.b"}) == {
        "a": {"LUT4": 1},
        "a.b": {"LUT4": 1, "MUXF7": 1},
        "top": {"TRELLIS_FF": 1},
    }


def test_hops_add_up_to_the_path():
    def step(kind: str, before: str, after: str, delay: float) -> dict:
        return {"type": kind, "delay": delay, "from": {"cell": before}, "to": {"cell": after}}

    path = [
        step("clk-to-q", "a.x", "a.x", 0.5),
        step("routing", "a.x", "a.y", 0.25),
        step("logic", "a.y", "a.y", 0.125),
        step("routing", "a.y", "b.z", 1.0),
        step("setup", "b.z", "b.z", 0.0625),
    ]
    assert nextpnr._hops(path, ["a", "b"]) == [
        Hop("a", 0.625, 0.25, 2),
        Hop("b", 0.062, 1.0, 1),
    ]


# ------------------------------------------------------------------- placed and routed


@pytest.mark.slow
def test_small_block_is_placed_with_several_seeds(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    from tern_hw.synthesis import measure

    told: list[str] = []
    for _ in range(2):
        measured = measure(
            small(rows=1),
            "trees",
            SynthesisOptions(target=TARGETS["ecp5"]),
            surroundings=("registered_pins", "out_of_context"),
            seeds=2,
            clock_mhz=150,
            notify=told.append,
        )
    # Two syntheses, then two seeds in each of two surroundings; nothing the second time.
    assert len(told) == 2 + 2 * 2
    for placements in measured.placements.values():
        assert [each.seed for each in placements] == [1, 2]
        for each in placements:
            assert 50 < each.fmax_mhz < 600
            delay = sum(hop.logic_ns + hop.routing_ns for hop in each.path)
            assert delay == pytest.approx(1000 / each.fmax_mhz, abs=0.1)
    clocks = {
        round(each.fmax_mhz, 3)
        for each in itertools.chain.from_iterable(measured.placements.values())
    }
    assert len(clocks) > 1


@pytest.mark.slow
def test_design_too_large_for_the_part_is_one_sentence():
    """More ports than the package has pins."""
    text = (
        "module top(input clk, input [299:0] a, output reg y);\n"
        "  always @(posedge clk) y <= ^a;\nendmodule\n"
    )
    design = synthesize(text, "top", SynthesisOptions(target=TARGETS["ice40"]))
    with pytest.raises(ToolError, match=r"nextpnr-ice40 must end with status 0, not \d+:\n"):
        nextpnr.place_and_route(design, seed=1, clock_mhz=50, out_of_context=False)


def test_target_without_a_router_is_refused():
    made = synthesize(design(LUT), "top", SynthesisOptions(target=TARGETS["ecp5"]))
    gowin = dataclasses.replace(made, target=TARGETS["gowin"])
    with pytest.raises(TernError, match="target must be one that nextpnr places, not gowin"):
        nextpnr.place_and_route(gowin, seed=1, clock_mhz=50, out_of_context=False)
    ice40 = dataclasses.replace(made, target=TARGETS["ice40"])
    with pytest.raises(TernError, match="ice40 must be placed with pins, not out of context"):
        nextpnr.place_and_route(ice40, seed=1, clock_mhz=50, out_of_context=True)
