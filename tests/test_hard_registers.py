"""`tern_hw.flows.hard_registers`: registers that move into block RAM and multipliers, or stay."""

import json

import pytest

from tern_hw.flows.hard_registers import absorb_registers
from tern_hw.flows.nextpnr import place_and_route
from tern_hw.flows.synthesis import SynthesisOptions, synthesize
from tern_hw.flows.targets import TARGETS

#: A memory whose word is registered once more, by some statement.
MEMORY = """
module top(input clk, rst, en, we, input [8:0] wa, ra, input [35:0] wd, output reg [35:0] q,
           output [35:0] other);
  (* no_rw_check *) reg [35:0] mem [511:0];
  reg [35:0] word;
  assign other = {other};
  always @(posedge clk) if (we) mem[wa] <= wd;
  always @(posedge clk) word <= mem[ra];
  always @(posedge clk) {register};
{more}endmodule
"""
#: A product of two operands, registered by some statements.
PRODUCT = """
module top(input clk, rst, en, input signed [14:0] a, input signed [14:0] b,
           output reg signed [29:0] p, output [14:0] other);
  reg signed [14:0] x, y;
  assign other = {other};
  always @(posedge clk) {operands};
  always @(posedge clk) {product};
endmodule
"""


def synthesized(text):
    """Return Yosys' netlist of a design, as JSON."""
    result = synthesize(text, "top", SynthesisOptions(target=TARGETS["ecp5"]))
    return json.loads(result.netlist_json.read_text())


def cells(netlist, kind):
    """Return the cells of a kind in the top module."""
    module = next(m for m in netlist["modules"].values() if "top" in m.get("attributes", {}))
    return [cell for cell in module["cells"].values() if cell["type"] == kind]


def memory(register="q <= word", other="0", more=""):
    return synthesized(MEMORY.format(register=register, other=other, more=more))


def product(operands="begin x <= a; y <= b; end", result="p <= x * y", other="0"):
    return synthesized(PRODUCT.format(operands=operands, product=result, other=other))


def test_register_behind_a_block_ram_becomes_its_own():
    netlist = memory()
    outputs = {cell["connections"]["Q"][0] for cell in cells(netlist, "TRELLIS_FF")}
    assert len(outputs) == 36
    assert absorb_registers(netlist) == 36
    assert cells(netlist, "TRELLIS_FF") == []
    (ram,) = cells(netlist, "DP16KD")
    assert ram["parameters"]["REGMODE_A"] == ram["parameters"]["REGMODE_B"] == "OUTREG"
    assert ram["connections"]["OCEA"] == ram["connections"]["OCEB"] == ["1"]
    driven = {bits[0] for pin, bits in ram["connections"].items() if pin.startswith("DO") and bits}
    # The nets that the registers drove have the block RAM for a driver, each once.
    assert outputs <= driven


def test_an_enable_becomes_the_block_rams():
    netlist = memory("if (en) q <= word")
    (enable,) = {cell["connections"]["CE"][0] for cell in cells(netlist, "TRELLIS_FF")}
    assert absorb_registers(netlist) == 36
    (ram,) = cells(netlist, "DP16KD")
    assert ram["connections"]["OCEA"] == ram["connections"]["OCEB"] == [enable] != ["1"]


@pytest.mark.parametrize(
    "design",
    [
        pytest.param({"register": "if (rst) q <= 0; else q <= word"}, id="a reset"),
        pytest.param({"other": "word"}, id="the word is used elsewhere"),
        pytest.param({"other": "{35'b0, word[7]}"}, id="a bit is used elsewhere"),
        pytest.param({"register": "begin q <= word; if (en) q[3] <= ~word[3]; end"}, id="logic"),
        pytest.param({"more": "  initial q = 36'h8;\n"}, id="it starts at one"),
        pytest.param({"register": "if (word[0]) q[0] <= wd[0]"}, id="a bit of the word enables"),
        pytest.param(
            {"register": "begin q[35:1] <= word[35:1]; if (en) q[0] <= word[0]; end"},
            id="bits have two enables",
        ),
    ],
)
def test_register_behind_a_block_ram_stays(design):
    netlist = memory(**design)
    before = json.dumps(netlist, sort_keys=True)
    assert absorb_registers(netlist) == 0
    assert json.dumps(netlist, sort_keys=True) == before


def test_registers_around_a_multiplier_become_its_own():
    netlist = product()
    assert len(cells(netlist, "TRELLIS_FF")) == 60
    ports = netlist["modules"]["top"]["ports"]
    assert absorb_registers(netlist) == 60
    assert cells(netlist, "TRELLIS_FF") == []
    (multiplier,) = cells(netlist, "MULT18X18D")
    pins = multiplier["connections"]
    operands = {tuple(pins[f"{side}{at}"][0] for at in range(15)) for side in "AB"}
    assert operands == {tuple(ports["a"]["bits"]), tuple(ports["b"]["bits"])}
    assert [pins[f"P{at}"][0] for at in range(30)] == ports["p"]["bits"]
    for stem in ("REG_INPUTA", "REG_INPUTB", "REG_OUTPUT"):
        assert multiplier["parameters"][f"{stem}_CLK"] == "CLK0"
    assert pins["CLK0"] == ports["clk"]["bits"]
    assert pins["CE0"] == ["1"]
    assert pins["RST0"] == ["0"]


@pytest.mark.parametrize(
    ("design", "gone"),
    [
        pytest.param({"operands": "begin x <= a; y <= rst ? 0 : b; end"}, 30, id="one has a reset"),
        pytest.param({"other": "x"}, 30, id="an operand is used elsewhere"),
        pytest.param({"result": "p <= rst ? 0 : x * y"}, 30, id="the product has a reset"),
        pytest.param({"result": "if (en) p <= x * y"}, 30, id="the product has another enable"),
        pytest.param({"result": "p <= x * y + p"}, 30, id="the product is added up"),
        pytest.param({"operands": "{x, y} <= en ? {a, b} : {x, y}"}, 30, id="operands' enable"),
    ],
)
def test_registers_around_a_multiplier_that_have_to_stay(design, gone):
    netlist = product(**design)
    before = len(cells(netlist, "TRELLIS_FF"))
    assert absorb_registers(netlist) == gone
    assert len(cells(netlist, "TRELLIS_FF")) == before - gone


def test_operand_of_two_multipliers_moves_into_both():
    netlist = synthesized(
        """module top(input clk, input signed [14:0] a, b, c, output reg signed [29:0] p, q);
        reg signed [14:0] x, y, z;
        always @(posedge clk) begin x <= a; y <= b; z <= c; p <= x * y; q <= x * z; end
        endmodule"""
    )
    assert absorb_registers(netlist) == 3 * 15 + 2 * 30
    first, second = cells(netlist, "MULT18X18D")
    a = netlist["modules"]["top"]["ports"]["a"]["bits"]
    for each in (first, second):
        sides = [[each["connections"][f"{s}{at}"][0] for at in range(15)] for s in "AB"]
        assert a in sides


@pytest.mark.slow
def test_placement_tells_how_many_have_moved_and_takes_them():
    # A counter beside it, so that there is a path between registers.
    wheel = "reg [3:0] turn = 0; always @(posedge clk) turn <= turn + 1; assign other = turn"
    text = MEMORY.format(register="q <= word", other="0", more="").replace(
        "assign other = 0", wheel
    )
    design = synthesize(text, "top", SynthesisOptions(target=TARGETS["ecp5"]))
    placed = place_and_route(design, seed=1, clock_mhz=100, out_of_context=True)
    assert placed.absorbed == 36
    # Four of the counter are left.
    assert (placed.used["TRELLIS_FF"], placed.used["DP16KD"]) == (4, 1)
