"""A top with four pins around any module, so that a design of thousands of ports can be placed.

All inputs come from registers and all outputs end in registers: every path of the design is then
between two registers, as it is inside a larger design that registers the ports.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tern_hw.errors import TernError

__all__ = ["INSTANCE", "Port", "module_ports", "pins_verilog"]

#: Name of the design's instance.
INSTANCE = "dut"
#: Of two names of one net Yosys keeps the first in the alphabet: let these lose, so that paths are
#: told in the design's own names.
IN_REGISTER, OUT_REGISTER, FOUND = "z_taken", "z_kept", "z_found"
#: A port's declaration as Yosys writes it.
DECLARATION = re.compile(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", re.MULTILINE)


@dataclass(frozen=True)
class Port:
    """A port of a module."""

    name: str
    #: "input" or "output".
    direction: str
    bits: int


def module_ports(verilog: str, module: str) -> list[Port]:
    """Return the ports of a module in Verilog that Yosys wrote.

    Raises
    ------
    TernError
        If the text has no such module.
    """
    found = re.search(rf"^module {re.escape(module)}\(.*?^endmodule", verilog, re.S | re.MULTILINE)
    if found is None:
        raise TernError(f"Verilog must have a module {module}, and has none")
    return [
        Port(name, direction, int(high or 0) + 1)
        for direction, high, name in DECLARATION.findall(found[0])
    ]


def pins_verilog(module: str, ports: list[Port], top: str, clock: str = "clk") -> str:
    """Return the Verilog of module `top`: the design between two shift registers.

    Parameters
    ----------
    module
        Name of the design's module.
    ports
        All its ports.
    top
        Name of the module to write.
    clock
        The design's clock input.

    Notes
    -----
    Pins: `clk`; `data_in`, which enters the input register at its top while bit i moves to bit
    i - 1, so after as many cycles as there are input bits they are as sent, first port and lowest
    bit first; `load`, which takes the outputs into the output register, otherwise shifted the
    same way; `data_out`, that register's lowest bit.
    """
    inputs = {port.name: port.bits for port in ports if port.direction == "input"}
    inputs.pop(clock, None)
    outputs = {port.name: port.bits for port in ports if port.direction == "output"}
    wide_in, wide_out = max(2, sum(inputs.values())), max(2, sum(outputs.values()))
    wires = [f".{clock}(clk)"] if any(port.name == clock for port in ports) else []
    wires += _slices(inputs, IN_REGISTER) + _slices(outputs, FOUND)
    last_in, last_out = wide_in - 1, wide_out - 1
    return f"""module {top}(clk, data_in, load, data_out);
  input clk, data_in, load;
  output data_out;
  reg [{last_in}:0] {IN_REGISTER} = 0;
  reg [{last_out}:0] {OUT_REGISTER} = 0;
  wire [{last_out}:0] {FOUND};
  always @(posedge clk) begin
    {IN_REGISTER} <= {{data_in, {IN_REGISTER}[{last_in}:1]}};
    {OUT_REGISTER} <= load ? {FOUND} : {OUT_REGISTER} >> 1;
  end
  assign data_out = {OUT_REGISTER}[0];
  {module} {INSTANCE} (
    {_joined(wires)}
  );
endmodule
"""


def _slices(ports: Mapping[str, int], register: str) -> list[str]:
    """Return the connections of ports to a register, the first one to its lowest bits."""
    wires, at = [], 0
    for name, bits in ports.items():
        wires.append(f".{name}({register}[{at + bits - 1}:{at}])")
        at += bits
    return wires


def _joined(wires: list[str]) -> str:
    return ",\n    ".join(wires)
