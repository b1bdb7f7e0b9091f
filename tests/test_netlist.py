"""What Yosys makes of the emitted Verilog, with the vendors' cell models: netlist = reference."""

import random
import re
import subprocess
from pathlib import Path

import pytest

from sim.runner import TEST_MODULES, Report, Simulator, run
from tern_hw.config import ArrayConfig
from tern_hw.flows.cells import cell_models, flattened
from tern_hw.flows.pins import Port, module_ports
from tern_hw.flows.synthesis import SynthesisOptions, SynthesisResult, synthesize
from tern_hw.flows.targets import TARGETS
from tern_hw.gateware.blocks import TritPorts, emit_block
from tern_hw.gateware.dot import GroupDot
from tests.gateware import blocks
from tests.simulations import SEED, needs, small

#: Families whose cells have models. None of a block RAM or of ECP5's multiplier has behaviour, so
#: memories and multiplications stay in LUTs.
FAMILIES = ("ecp5", "xc7")
SMALL = small(8, 1, "row")
IN_TURN = small(8, 1, "row", "turn")


def netlist(config: ArrayConfig, family: str, block: str = "array") -> SynthesisResult:
    module, text = emit_block(config, block)
    options = SynthesisOptions(target=TARGETS[family], dsp=False, block_ram=False)
    return synthesize(text, module, options)


def check_models(result: SynthesisResult, family: str) -> None:
    """Fail if a cell of the netlist has no model: a simulator would say so less plainly."""
    models = cell_models(family)[0].read_text()
    cells = set(result.counts.cells) - {"$scopeinfo"}
    assert cells
    assert [cell for cell in sorted(cells) if f"module {cell}" not in models] == []


# ---------------------------------------------------------------- one block, driven plainly

BENCH = """
module bench;
  reg clk = 0;
  reg [{last}:0] vectors [0:{count}];
  reg [{last}:0] now = 0;
{wires}
  integer at, tick;
  {module} dut (.clk(clk){ports});
  initial begin
{loads}
    for (at = 0; at < {count}; at = at + 1) begin
      now = vectors[at];
      for (tick = 0; tick < {hold}; tick = tick + 1) begin #1 clk = 1; #1 clk = 0; end
      $display("%h", total);
    end
  end
endmodule
"""


def simulated(
    result: SynthesisResult,
    ports: list[Port],
    vectors: list[dict[str, int]],
    hold: int,
    family: str,
    folder: Path,
) -> list[int]:
    """Return output `total` after each vector has stood at the inputs for some cycles."""
    inputs = [port for port in ports if port.direction == "input" and port.name != "clk"]
    outputs = [port for port in ports if port.direction == "output"]
    words, connections, at = [0] * len(vectors), "", 0
    for port in inputs:
        connections += f", .{port.name}(now[{at + port.bits - 1}:{at}])"
        words = [
            word | vector.get(port.name, 0) << at
            for word, vector in zip(words, vectors, strict=True)
        ]
        at += port.bits
    connections += "".join(f", .{port.name}({port.name})" for port in outputs)
    bench = BENCH.format(
        last=at - 1,
        count=len(vectors),
        wires="\n".join(f"  wire [{port.bits - 1}:0] {port.name};" for port in outputs),
        module=result.top,
        ports=connections,
        loads="\n".join(f"    vectors[{i}] = {at}'h{word:x};" for i, word in enumerate(words)),
        hold=hold,
    )
    (folder / "bench.v").write_text(bench)
    files = [folder / "bench.v", result.netlist_verilog, *cell_models(family)]
    program = folder / "run"
    subprocess.run(["iverilog", "-g2005", "-o", program, *files], check=True, timeout=120)
    done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=120)
    return [int(line, 16) for line in done.stdout.split()]


@pytest.mark.parametrize("family", FAMILIES)
def test_netlist_of_the_dot_product_gives_the_sum(family, tmp_path):
    needs(Simulator.ICARUS)
    config = blocks.small(rows=1)
    rng = random.Random(7)
    vectors, expected = [], []
    for count in range(60):
        corners = count % 3 == 0
        x = [rng.choice((-128, 127)) if corners else rng.randint(-128, 127) for _ in range(8)]
        trits = [rng.choice((-1, 0, 1)) if count else -1 for _ in range(8)]
        vectors.append(
            {
                "x": blocks.pack(x, 8),
                "codes": blocks.pack([trit & 1 for trit in trits], 1)
                | blocks.pack([trit < 0 for trit in trits], 1) << 8,
                "last": 1,
                "valid": 1,
            }
        )
        expected.append(sum(map(int.__mul__, x, trits)))
    module, text = emit_block(config, "trees")
    result = netlist(config, family, "trees")
    check_models(result, family)
    hold = GroupDot(config, TritPorts(config)).latency
    seen = simulated(result, module_ports(text, module), vectors, hold, family, tmp_path)
    bits = config.sum_bits
    assert seen == [value & ((1 << bits) - 1) for value in expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_flattened_netlist_has_no_cell_left(family):
    result = netlist(SMALL, family, "trees")
    text = flattened(result.netlist_verilog, result.top, family).read_text()
    cells = {*result.counts.cells} - {"$scopeinfo"}
    assert cells
    assert set(re.findall(r"^ +(\w+) ", text, re.M)) & cells == set()
    assert text.count("\nmodule ") == 1


# ------------------------------------------------------------- the whole array, under cocotb


def benches(config: ArrayConfig, family: str, folder: Path, modules=TEST_MODULES) -> Report:
    result = netlist(config, family)
    check_models(result, family)
    return run(
        result.netlist_verilog,
        config,
        Simulator.VERILATOR,
        folder,
        seed=SEED,
        modules=modules,
        models=cell_models(family),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "config"), [("ecp5", IN_TURN), ("xc7", SMALL)], ids=["ecp5-in-turn", "xc7"]
)
def test_netlist_of_a_small_array_passes_all_benches(family, config, tmp_path):
    report = benches(config, family, tmp_path)
    assert report.failures == {}
    assert {name.rsplit(".", 1)[0] for name in report.tests} == set(TEST_MODULES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", FAMILIES)
def test_netlist_of_the_default_array_passes_all_benches(family, tmp_path):
    config = ArrayConfig()
    result = netlist(config, family)
    check_models(result, family)
    report = run(
        flattened(result.netlist_verilog, result.top, family),
        config,
        Simulator.VERILATOR,
        tmp_path,
        seed=SEED,
    )
    assert report.failures == {}
    assert {name.rsplit(".", 1)[0] for name in report.tests} == set(TEST_MODULES)
