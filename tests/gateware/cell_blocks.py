"""Drive a block of vendor cells, as emitted Verilog with Yosys' models, in either simulator.

Amaranth's own simulator cannot run an instance; `respond` here is `blocks.respond` for such blocks.
"""

from pathlib import Path

from amaranth.back import verilog

from sim.runner import Simulator
from tern_hw.flows.cells import cell_models
from tern_hw.flows.icarus import BUILD_ARGUMENTS
from tern_hw.flows.process import run_tool
from tern_hw.flows.verilator import build_model
from tests.gateware.blocks import pack

__all__ = ["respond"]

LIMIT_S = 300
MAIN = """
#include "Vbench.h"
#include "verilated.h"
int main() {
    VerilatedContext context;
    Vbench bench(&context);
    while (!context.gotFinish()) {
        bench.clk = 0;
        bench.eval();
        bench.clk = 1;
        bench.eval();
    }
}
"""
#: Vector i is at the inputs after edge i, and its outputs are read `latency` + 1 edges later.
BENCH = """
module bench(input clk);
  reg [{bits}-1:0] vectors [0:{count}-1];
  reg [{bits}-1:0] now = 0;
  integer at = 0;
{wires}
  block dut({connections});
  initial $readmemh("vectors.hex", vectors);
  always @(posedge clk) begin
    now <= at < {count} ? vectors[at] : 0;
    at <= at + 1;
    if (at > {latency}) $display("read {formats}", {outputs});
    if (at == {count} + {latency}) $finish;
  end
endmodule
module driver;
  reg clk = 0;
  always #1 clk = ~clk;
  bench bench(clk);
endmodule
"""


def respond(
    dut,
    vectors,
    outputs,
    *,
    family: str,
    simulator: Simulator,
    folder: Path,
    netlist: str | None = None,
):
    """Drive vector i in cycle i and return, for each, the outputs `dut.latency` cycles later.

    Every input of the block is in every vector; `folder` is the run's own. A `netlist`, of a
    module "block", is run in place of the block's own Verilog.
    """
    inputs = [name for name, member in dut.signature.members.items() if member.flow.name == "In"]
    widths = {name: len(getattr(dut, name)) for name in (*inputs, *outputs)}
    signed = {name for name in outputs if getattr(dut, name).shape().signed}
    words = [_word(vector, inputs, widths) for vector in vectors]
    (folder / "vectors.hex").write_text("".join(f"{word:x}\n" for word in words))
    clocked = dut.latency > 0
    (folder / "bench.v").write_text(
        BENCH.format(
            bits=sum(widths[name] for name in inputs),
            count=len(vectors),
            latency=dut.latency,
            wires="\n".join(_wires(outputs, widths, signed)),
            connections=", ".join(_connections(inputs, outputs, widths, clocked)),
            formats=" ".join("%0d" for _ in outputs),
            outputs=", ".join(outputs),
        )
    )
    block = folder / "block.v"
    if netlist is None:
        netlist = verilog.convert(dut, name="block", emit_src=False, strip_internal_attrs=True)
    block.write_text(netlist)
    models = cell_models(family)
    run = _run_icarus if simulator is Simulator.ICARUS else _run_verilator
    lines = [line for line in run(folder, block, models).splitlines() if line.startswith("read ")]
    return [[int(field) for field in line.split()[1:]] for line in lines]


def _word(vector, inputs, widths):
    word, at = 0, 0
    for name in inputs:
        word |= pack([vector[name]], widths[name]) << at
        at += widths[name]
    return word


def _wires(outputs, widths, signed):
    for name in outputs:
        yield f"  wire {'signed ' if name in signed else ''}[{widths[name] - 1}:0] {name};"


def _connections(inputs, outputs, widths, clocked):
    if clocked:
        yield from (".clk(clk)", ".rst(1'b0)")
    at = 0
    for name in inputs:
        yield f".{name}(now[{at} +: {widths[name]}])"
        at += widths[name]
    yield from (f".{name}({name})" for name in outputs)


def _run_icarus(folder, block, models):
    program = folder / "bench.vvp"
    sources = [folder / "bench.v", block, *models]
    run_tool(
        ["iverilog", *BUILD_ARGUMENTS, "-s", "driver", "-o", program, *sources], timeout_s=LIMIT_S
    )
    return run_tool(["vvp", "-n", program], timeout_s=LIMIT_S, cwd=folder).stdout


def _run_verilator(folder, block, models):
    main = folder / "main.cpp"
    main.write_text(MAIN)
    bench = (folder / "bench.v").read_text().split("module driver")[0]
    binary = build_model(
        block, top="bench", prefix="Vbench", main=main, wrapper=bench, models=models
    )
    return run_tool([binary], timeout_s=LIMIT_S, cwd=folder).stdout
