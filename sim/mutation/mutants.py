"""Where an emitted array is broken: Yosys draws the places and writes them all into one Verilog."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tern_hw.config import ArrayConfig
from tern_hw.flows.process import ToolError, run_tool
from tern_hw.flows.wrapper import ports
from tern_hw.flows.yosys import run_script

__all__ = [
    "PREPARE",
    "SOURCE",
    "Mutant",
    "array_verilog",
    "draw_mutants",
    "mutated_verilog",
    "one_mutant",
]

#: Name of the Verilog file in a folder: Yosys' cell names contain it.
SOURCE = "array.v"
#: From Verilog to the cells that `mutate` breaks; the hierarchy stays, for readable names.
PREPARE = (
    f"read_verilog {SOURCE}",
    "hierarchy -check -auto-top",
    "proc",
    "opt_clean",
    # A memory's start values become part of it: broken apart, they are not Verilog any more.
    "memory_collect",
)
#: Name of the number that chooses a mutant: port of the broken modules, and plusarg.
SELECT = "mutant"
SELECT_BITS = 12
EMIT_LIMIT_S = 120


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One broken place. Number 0 is none."""

    number: int
    #: Module below the top, such as "core.sequencer"; "" is the top itself.
    module: str
    cell: str
    port: str
    bit: int
    #: "inv" inverts the bit, "const0" and "const1" fix it, "cnot0" and "cnot1" invert it while
    #: another bit of the port (`other_bit`) is 0 or 1.
    mode: str
    other_bit: int | None
    #: Net behind the bit, as Yosys calls it.
    wire: str
    #: What makes Yosys break it, without the choice by number.
    options: str

    @property
    def name(self) -> str:
        """The place in short."""
        other = "" if self.other_bit is None else f" by [{self.other_bit}]"
        return f"{self.module or 'top'} {self.cell}.{self.port}[{self.bit}] {self.mode}{other}"


def array_verilog(config: ArrayConfig) -> str:
    """Return a configuration's Verilog, emitted by the command that users run."""
    fields = {name: value for name, value in config.as_dict().items() if value is not None}
    fields["result"] = fields.pop("output")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    done = run_tool(
        [sys.executable, "-m", "tern_hw.generate", *options, "--output", "-"],
        timeout_s=EMIT_LIMIT_S,
    )
    return done.stdout


def draw_mutants(folder: Path, config: ArrayConfig, count: int, seed: int) -> list[Mutant]:
    """Return `count` places of the Verilog in a folder, spread by Yosys over modules and nets."""
    drawn = "drawn.ys"
    _yosys([*PREPARE, f"mutate -list {count} -seed {seed} -o {drawn}"], folder)
    lines = (folder / drawn).read_text().splitlines()
    return [_parse(line, number, config.name) for number, line in enumerate(lines, start=1)]


def _parse(line: str, number: int, top: str) -> Mutant:
    fields = dict(re.findall(r"-(\w+) (\S+)", line.partition(" -src ")[0]))
    names = ("mode", "module", "cell", "port", "portbit", "ctrlbit")
    return Mutant(
        number=number,
        module=fields["module"].removeprefix(top).removeprefix("."),
        cell=fields["cell"].replace(SOURCE + ":", ""),
        port=fields["port"],
        bit=int(fields["portbit"]),
        mode=fields["mode"],
        other_bit=int(fields["ctrlbit"]) if "ctrlbit" in fields else None,
        wire=fields.get("wire", "").removeprefix("\\"),
        options=" ".join(f"-{name} {fields[name]}" for name in names if name in fields),
    )


def mutated_verilog(folder: Path, config: ArrayConfig, mutants: list[Mutant]) -> str:
    """Return Verilog of the array that breaks at the place whose number `+mutant=` gives."""
    lines = [
        f"mutate -ctrl {SELECT} {SELECT_BITS} {each.number} {each.options}" for each in mutants
    ]
    (folder / "break.ys").write_text("\n".join(lines) + "\n")
    inner, output = f"{config.name}_mutants", "mutants.v"
    commands = [*PREPARE, "script break.ys", f"rename {config.name} {inner}"]
    _yosys([*commands, f"write_verilog -noattr {output}"], folder)
    return (folder / output).read_text() + _shell(config, inner)


def one_mutant(
    folder: Path, config: ArrayConfig, mutant: Mutant | None, part: str, output: Path
) -> None:
    """Write Verilog of the array broken at one place alone; a module of it is named `block`.

    Parameters
    ----------
    folder
        Holds the array's Verilog, `SOURCE`.
    config
        The array's configuration.
    mutant
        Which; None breaks nothing.
    part
        The module that is named so, as `Mutant.module` names it.
    output
        Written.
    """
    broken = [f"mutate {mutant.options}"] if mutant else []
    module = f"{config.name}.{part}" if part else config.name
    commands = [*PREPARE, *broken, f"rename {module} block"]
    _yosys([*commands, f"write_verilog -noattr {output.absolute()}"], folder)


def _shell(config: ArrayConfig, inner: str) -> str:
    """Return a module with the array's name and ports, which reads the mutant's number."""
    inputs, outputs = ports(config)
    heads = [f"  input [{bits - 1}:0] {name}" for name, bits in inputs.items()]
    heads += [f"  output [{bits - 1}:0] {name}" for name, bits in outputs.items()]
    wires = [f"    .{name}({name})" for name in ("clk", *inputs, *outputs)]
    lines = [
        f"module {config.name} (",
        ",\n".join(["  input clk", *heads]),
        ");",
        f"  reg [{SELECT_BITS - 1}:0] {SELECT} = 0;",
        f'  initial if (!$value$plusargs("{SELECT}=%d", {SELECT})) {SELECT} = 0;',
        f"  {inner} array (",
        ",\n".join([*wires, f"    .{SELECT}({SELECT})"]),
        "  );",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _yosys(commands: list[str], folder: Path) -> None:
    status, log = run_script(commands, cwd=folder)
    if status:
        raise ToolError(f"yosys must break the array, and ended with\n{log[-1000:]}", log)
