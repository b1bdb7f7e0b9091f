"""Pins for a design of thousands of ports: two shift registers that change nothing in it."""

import random
import subprocess

import pytest

from sim.runner import Simulator
from tern_hw.errors import TernError
from tern_hw.flows.pins import Port, module_ports, pins_verilog
from tern_hw.flows.synthesis import SynthesisOptions, synthesize
from tern_hw.flows.targets import TARGETS
from tern_hw.gateware.blocks import emit_block
from tests.gateware.blocks import small
from tests.simulations import needs


def test_ports_are_read_from_emitted_verilog():
    module, text = emit_block(small(), "decoder")
    ports = {port.name: (port.direction, port.bits) for port in module_ports(text, module)}
    assert ports == {
        "codes": ("input", 16),
        "mask": ("input", 8),
        "ones": ("input", 1),
        "nonzero": ("output", 8),
        "negative": ("output", 8),
        "illegal": ("output", 4),
        "clk": ("input", 1),
        "rst": ("input", 1),
    }
    with pytest.raises(TernError, match="must have a module none"):
        module_ports(text, "none")


BENCH = """
module bench;
  reg clk = 0, data_in = 0, load = 0;
  wire data_out;
  reg [{last}:0] sent = {vectors};
  integer at, each;
  shell dut(.clk(clk), .data_in(data_in), .load(load), .data_out(data_out));
  task tick; begin #1 clk = 1; #1 clk = 0; end endtask
  initial for (each = 0; each < {count}; each = each + 1) begin
    for (at = 0; at < {bits}; at = at + 1) begin
      data_in = sent[each * {bits} + at];
      tick;
    end
    // The decoder's register, then the shell's.
    tick;
    load = 1; tick; load = 0;
    for (at = 0; at < {results}; at = at + 1) begin
      $write("%b", data_out);
      tick;
    end
    $write("\\n");
  end
endmodule
"""


def decoded(codes: int, ones: int) -> dict[str, int]:
    """Return what the decoder makes of eight 2-bit digits."""
    digits = [codes >> 2 * lane & 3 for lane in range(8)]
    return {
        "nonzero": sum((ones or digit in (0, 2)) << lane for lane, digit in enumerate(digits)),
        "negative": sum((not ones and digit == 0) << lane for lane, digit in enumerate(digits)),
        "illegal": sum((3 in digits[2 * at : 2 * at + 2]) << at for at in range(4)),
    }


def word(values: dict[str, int], ports: list[Port]) -> int:
    """Return the values side by side in the order of the ports, the first one lowest; others 0."""
    total, at = 0, 0
    for port in ports:
        total |= values.get(port.name, 0) << at
        at += port.bits
    return total


def test_shell_of_pins_computes_what_the_block_computes(tmp_path):
    needs(Simulator.ICARUS)
    module, text = emit_block(small(), "decoder")
    ports = module_ports(text, module)
    inputs = [port for port in ports if port.direction == "input" and port.name != "clk"]
    outputs = [port for port in ports if port.direction == "output"]
    bits = sum(port.bits for port in inputs)
    rng = random.Random(5)
    vectors = [(0, 0), (0xFFFF, 0), (0xFFFF, 1)]
    vectors += [(rng.randrange(1 << 16), int(rng.randrange(4) == 0)) for _ in range(40)]
    sent = sum(
        word({"codes": codes, "ones": ones, "mask": 0xFF}, inputs) << bits * at
        for at, (codes, ones) in enumerate(vectors)
    )
    bench = BENCH.format(
        vectors=f"{bits * len(vectors)}'h{sent:x}",
        last=bits * len(vectors) - 1,
        count=len(vectors),
        bits=bits,
        results=sum(port.bits for port in outputs),
    )
    path = tmp_path / "all.v"
    path.write_text(text + pins_verilog(module, ports, "shell") + bench)
    subprocess.run(["iverilog", "-g2005", "-o", tmp_path / "run", path], check=True, timeout=60)
    done = subprocess.run([tmp_path / "run"], capture_output=True, text=True, timeout=60)
    seen = [int(line[::-1], 2) for line in done.stdout.split()]
    assert seen == [word(decoded(*vector), outputs) for vector in vectors]


def test_shell_keeps_the_whole_design():
    """Nothing is optimised away for a pin that is missing: the shell adds to the block's cells."""
    module, text = emit_block(small(), "decoder")
    options = SynthesisOptions(target=TARGETS["ecp5"])
    bare = synthesize(text, module, options).counts
    ports = module_ports(text, module)
    shell = pins_verilog(module, ports, "shell")
    whole = synthesize(text + shell, "shell", options).counts
    bits = sum(port.bits for port in ports if port.name != "clk")
    assert whole.ff == bare.ff + bits
