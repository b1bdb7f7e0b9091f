"""What the gate tests share: small designs, a small Liberty with invented numbers, an oracle."""

import re
from typing import Any

import numpy as np

from tern_hw.gates.cells import Cell, CellSet
from tern_hw.gates.expression import Expression

__all__ = ["COUNTER", "LIBERTY", "evaluate", "naive_toggles", "number"]

#: A counter that can be held, cleared by `rst`.
COUNTER = """
module counter(input clk, input rst, input hold, output reg [3:0] q);
  initial q = 0;
  always @(posedge clk) if (rst) q <= 0; else if (!hold) q <= q + 1;
endmodule
"""

#: What abc wants of every pin that an output depends on.
TIMING = """timing () { related_pin : "\\1"; timing_sense : non_unate;
        cell_rise (delay) { values ("0.10, 0.30", "0.20, 0.40"); }
        cell_fall (delay) { values ("0.10, 0.30", "0.20, 0.40"); }
        rise_transition (delay) { values ("0.10, 0.30", "0.20, 0.40"); }
        fall_transition (delay) { values ("0.10, 0.30", "0.20, 0.40"); }
      }"""

#: Six cells that synthesis may use, and four that it may not. Numbers are invented.
LIBERTY = re.sub(
    r"TIMING\((\w)\)",
    TIMING,
    """
/* a small library */
library (tiny) {
  nom_voltage : 2.0;
  voltage_unit : "1V"; time_unit : "1ns"; leakage_power_unit : "1nW";
  capacitive_load_unit (1, pf);
  power_lut_template (energy) {
    variable_1 : total_output_net_capacitance; variable_2 : input_transition_time;
    index_1 ("0.01, 0.03"); index_2 ("0.1, 0.3");
  }
  lu_table_template (delay) {
    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("0.1, 0.3"); index_2 ("0.01, 0.03");
  }
  power_lut_template (passive) { variable_1 : input_transition_time; index_1 ("0.1, 0.3"); }
  cell (INV) {
    area : 10; cell_leakage_power : 0.5;
    pin (A) { direction : input; capacitance : 0.010; }
    pin (Y) { direction : output; max_capacitance : 1.0; function : "!A";
      TIMING(A)
      internal_power () { related_pin : "A";
        rise_power (energy) { values ("0.001, 0.003", "0.002, 0.004"); }
        fall_power (energy) { values ("0.003, 0.005", "0.004, 0.006"); }
      }
    }
  }
  cell (BUF) { area : 15;
    pin (A) { direction : input; capacitance : 0.010; }
    pin (Y) { direction : output; max_capacitance : 1.0; function : "A"; TIMING(A) }
  }
  cell (NAND2) {
    area : 20; cell_leakage_power : 1.0;
    pin (A) { direction : input; capacitance : 0.012; }
    pin (B) { direction : input; capacitance : 0.014; }
    pin (Y) { direction : output; max_capacitance : 1.0; function : "(A B)'"; TIMING(A) TIMING(B)
      internal_power () { related_pin : "A";
        power (energy) { values ("1e-3, 1e-3", "1e-3, 1e-3"); } }
      internal_power () { related_pin : "B";
        power (energy) { values ("3e-3, 3e-3", "3e-3, 3e-3"); } }
    }
  }
  cell (NOR2) { area : 20;
    pin (A) { direction : input; capacitance : 0.015; }
    pin (B) { direction : input; capacitance : 0.015; }
    pin (Y) { direction : output; max_capacitance : 1.0; function : "!(A+B)"; TIMING(A) TIMING(B) }
  }
  cell (XOR2) { area : 40;
    pin (A) { direction : input; capacitance : 0.020; }
    pin (B) { direction : input; capacitance : 0.020; }
    pin (Y) { direction : output; max_capacitance : 1.0; function : "A ^ B"; TIMING(A) TIMING(B) }
  }
  cell (DFF) { area : 90; cell_leakage_power : 2.0;
    ff (IQ, IQN) { next_state : "D"; clocked_on : "CK"; }
    pin (CK) { direction : input; capacitance : 0.030; clock : true;
      internal_power () { rise_power (passive) { values ("0.02, 0.04"); }
                          fall_power (passive) { values ("0.04, 0.06"); } }
    }
    pin (D) { direction : input; capacitance : 0.008;
      internal_power () { power (passive) { values ("0.01, 0.01"); } } }
    pin (Q) { direction : output; function : "IQ"; }
  }
  cell (AND2) { area : 30; dont_use : true;
    pin (A) { direction : input; capacitance : 0.01; }
    pin (B) { direction : input; capacitance : 0.01; }
    pin (Y) { direction : output; max_capacitance : 1.0; function : "A & B"; TIMING(A) TIMING(B) } }
  cell (DFFN) { area : 90; ff (IQ, IQN) { next_state : "D"; clocked_on : "!CK"; }
    pin (CK) { direction : input; capacitance : 0.03; }
    pin (D) { direction : input; capacitance : 0.008; }
    pin (Q) { direction : output; function : "IQ"; } }
  cell (DFFR) { area : 90; ff (IQ, IQN) { next_state : "D"; clocked_on : "CK"; clear : "!R"; }
    pin (CK) { direction : input; capacitance : 0.03; }
    pin (D) { direction : input; capacitance : 0.008; }
    pin (R) { direction : input; capacitance : 0.008; }
    pin (Q) { direction : output; function : "IQ"; } }
  cell (LATCH) { area : 50; latch (IQ, IQN) { data_in : "D"; enable : "G"; }
    pin (D) { direction : input; capacitance : 0.008; }
    pin (G) { direction : input; capacitance : 0.008; }
    pin (Q) { direction : output; function : "IQ"; } }
}
""",
)


def evaluate(expression: Expression, values: dict[str, bool]) -> bool:
    """Evaluate an expression the plain way."""
    if isinstance(expression, bool):
        return expression
    if isinstance(expression, str):
        return values[expression]
    operator, *parts = expression
    found = [evaluate(part, values) for part in parts]
    if operator == "not":
        return not found[0]
    if operator == "xor":
        return found[0] != found[1]
    return all(found) if operator == "and" else any(found)


def naive_toggles(
    module: dict[str, Any], cells: CellSet, stimulus: dict[str, list[int]], warm_up: int
) -> tuple[dict[Any, int], dict[str, list[int]]]:
    """Simulate one stream by settling every cell until nothing changes.

    Returns
    -------
    Changes of each bit of Yosys' JSON from cycle `warm_up` on, and the outputs of all cycles.
    """
    bits: dict[Any, bool] = {"0": False, "1": True, "x": False}
    flops: list[tuple[Cell, dict[str, Any]]] = []
    gates: list[tuple[Cell, dict[str, Any]]] = []
    for fields in module["cells"].values():
        if fields["type"] == "$scopeinfo":
            continue
        pins = {pin: found[0] for pin, found in fields["connections"].items()}
        cell = cells.cell(fields["type"])
        (flops if cell.flop else gates).append((cell, pins))
    for net in module["netnames"].values():
        for bit, start in zip(
            net["bits"], reversed(net["attributes"].get("init", "")), strict=False
        ):
            bits[bit] = start == "1"
    changes: dict[Any, int] = {}
    outputs: dict[str, list[int]] = {}
    before: dict[Any, bool] = {}
    for cycle in range(len(next(iter(stimulus.values())))):
        for name, values in stimulus.items():
            for at, bit in enumerate(module["ports"][name]["bits"]):
                bits[bit] = bool(values[cycle] >> at & 1)
        settled = None
        while settled != bits:
            settled = dict(bits)
            for cell, pins in gates:
                inputs = {pin: bits.get(pins[pin], False) for pin in cell.inputs}
                for pin, output in cell.outputs.items():
                    bits[pins[pin]] = evaluate(output.function, inputs)
        if cycle >= warm_up:
            for bit, value in bits.items():
                changes[bit] = changes.get(bit, 0) + (value != before.get(bit, False))
        before = dict(bits)
        for name, port in module["ports"].items():
            if port["direction"] == "output":
                found = sum(int(bits[bit]) << at for at, bit in enumerate(port["bits"]))
                outputs.setdefault(name, []).append(found)
        bits |= {pins["Q"]: bits[pins["D"]] for _, pins in flops}
    return changes, outputs


def number(bits: np.ndarray) -> np.ndarray:
    """Return bits, lowest first on the last axis, as Python integers."""
    weights = np.array([1 << at for at in range(bits.shape[-1])], object)
    return (bits.astype(object) * weights).sum(axis=-1)
