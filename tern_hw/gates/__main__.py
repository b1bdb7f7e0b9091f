"""`python -m tern_hw.gates`: what switching takes in ternary dot products and in FP16 MACs."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, parse_group_size, progress, run
from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from tern_hw.gates.comparison import Line, Opponent
    from tern_hw.gates.layer import Layer

EPILOG = """examples:
  python -m tern_hw.gates
  python -m tern_hw.gates --liberty osu018 --packing base3
  python -m tern_hw.gates --mac mine.v:fp16:1:1
  python -m tern_hw.gates model/ model.layers.0.mlp.gate_proj --activations x.safetensors \\
      --weights teacher/model.safetensors

Zero delay (no glitches), no wires, an ideal clock: good for ratios, not for a chip's consumption.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = _parser().parse_args(argv)
    config = ArrayConfig(
        lanes=args.lanes, group_size=parse_group_size(args.group_size), packing=args.packing
    )
    opponents = [_opponent(text) for text in args.mac] or _own_opponents()
    layer = _layer(args, config).some_rows(args.rows)
    from tern_hw.gates.comparison import compare
    from tern_hw.gates.liberty import liberty_path
    from tern_hw.gateware.blocks import emit_block

    library = liberty_path(args.liberty) if args.liberty else None
    with progress("measuring blocks", 4 + len(opponents)) as advance:
        lines = []
        for line in compare(
            config, layer, opponents, emit_block, parts=args.parts, library=library
        ):
            lines.append(line)
            advance(1)
    if args.json:
        print(json.dumps(_facts(layer, lines), indent=2))
    else:
        _print(layer, lines)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m tern_hw.gates",
        description="Synthesise a ternary dot product (int8 and exact fp16 activations), its scale "
        "and shift, and FP16 MACs to gates, run one layer through them and add up what switching "
        "takes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", help="an artifact's folder; random weights without one")
    parser.add_argument("layer", nargs="?", help="name of one of its layers")
    parser.add_argument("--activations", help="what enters it: .npy, or quant.capture's file")
    parser.add_argument(
        "--weights", help="a .safetensors file with the layer before it was ternary"
    )
    parser.add_argument(
        "--liberty",
        metavar="FILE",
        help="cells of a Liberty file, or osu018 for Debian's qflow-tech-osu018 (generic gates)",
    )
    parser.add_argument(
        "--mac",
        action="append",
        default=[],
        metavar="FILE:SUM:LATENCY:LOOP",
        help="Verilog of a module `mac` (a, b, c, result), its sum's format (fp16, fp32), cycles "
        "from a and from c to the result (our own, with one register and as its array has it)",
    )
    default = ArrayConfig()
    parser.add_argument("--lanes", type=integer, default=default.lanes, help="(%(default)s)")
    parser.add_argument("--group-size", default=str(default.group_size), help="(%(default)s)")
    parser.add_argument("--packing", default=str(default.packing), help="2bit, base3 (%(default)s)")
    parser.add_argument("--rows", type=integer, default=56, help="rows taken (%(default)s)")
    parser.add_argument(
        "--parts", type=integer, default=4, help="streams a token, each a share of the rows (4)"
    )
    parser.add_argument("--tokens", type=integer, default=16, help="random tokens (%(default)s)")
    parser.add_argument("--inputs", type=integer, default=576, help="random K (%(default)s)")
    parser.add_argument("--zeros", type=float, default=0.4, help="random zeros (%(default)s)")
    parser.add_argument("--seed", type=integer, default=0, help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    return parser


def _own_opponents() -> "list[Opponent]":
    """Return our multiply-adds: with one register, the least that sums take, and as in an array."""
    from tern_hw.config import Activation, OutputFormat, Weights
    from tern_hw.gates.comparison import Opponent
    from tern_hw.gateware.emit import convert
    from tern_hw.gateware.fp16_mac import Fp16Mac

    array = ArrayConfig(activation=Activation.FP16, weights=Weights.FP16)
    return [
        Opponent(
            name="of ours",
            verilog=convert(Fp16Mac(form, registers=latency), "mac"),
            accumulator=str(form),
            latency=latency,
            loop=loop,
        )
        for form in (OutputFormat.FP16, OutputFormat.FP32)
        for latency, loop in ((1, 1), (array.mac_registers, array.mac_contexts))
    ]


def _opponent(text: str) -> "Opponent":
    from tern_hw.gates.comparison import Opponent

    parts = text.rsplit(":", 3)
    try:
        path, accumulator, latency, loop = parts[0], parts[1], integer(parts[2]), integer(parts[3])
    except (ValueError, IndexError):
        raise TernError(f"--mac must be FILE:SUM:LATENCY:LOOP, not {text!r}") from None
    try:
        verilog = Path(path).read_text()
    except OSError as error:
        raise TernError(f"--mac must name a readable file, not {path} ({error.strerror})") from None
    return Opponent(
        name=Path(path).stem, verilog=verilog, accumulator=accumulator, latency=latency, loop=loop
    )


def _layer(args: argparse.Namespace, config: ArrayConfig) -> "Layer":
    """Return the random layer, or the model's where one is named."""
    from tern_hw.gates.layer import random_layer

    real = (args.layer, args.activations, args.weights)
    if args.model is None:
        if any(real):
            raise TernError("--activations and --weights must stand beside a model and a layer")
        return random_layer(
            args.seed, args.rows, args.inputs, args.tokens, config, zeros=args.zeros
        )
    if not all(real):
        raise TernError("model must stand beside a layer, --activations and --weights")
    from tern_hw.gates.real import real_layer

    return real_layer(args.model, args.layer, activations=args.activations, weights=args.weights)


def _facts(layer: "Layer", lines: "list[Line]") -> dict[str, Any]:
    return {
        "layer": layer.origin,
        "shape": [*layer.matrix.shape],
        "tokens": len(layer.tokens),
        "zeros": layer.zeros,
        "library": lines[0].energy.library,
        "source": lines[0].energy.source,
        "blocks": [
            {
                "name": line.name,
                "macs_per_cycle": line.macs_per_cycle,
                "pj_per_mac": line.pj_per_mac._asdict(),
                "pj_per_cycle": line.energy.pj_per_cycle._asdict(),
                "by_gate": {key: share.value for key, share in line.energy.by_gate.items()},
                "by_block": {key: share.value for key, share in line.energy.by_block.items()},
                "gates": line.energy.gates,
                "flops": line.energy.flops,
                "area": line.energy.area,
                "leakage_nw": line.energy.leakage_nw,
                "toggle_rate": line.energy.toggle_rate,
                "cycles": line.energy.cycles,
            }
            for line in lines
        ],
    }


def _print(layer: "Layer", lines: "list[Line]") -> None:
    from rich.console import Console
    from rich.table import Table

    from tern_hw.gates.cells import ZERO
    from tern_hw.gates.energy import CLOCK

    n, k = layer.matrix.shape
    energy = lines[0].energy
    table = Table(
        title=f"{layer.origin}: {n} rows x {k} inputs, {len(layer.tokens)} tokens, "
        f"{layer.zeros:.1%} zeros\n{energy.library} ({energy.source})"
    )
    for column in ("block", "pJ/MAC", "low", "high", "clock", "gates", "flip-flops", "toggles"):
        table.add_column(column, justify="left" if column == "block" else "right")
    for line in lines:
        low, value, high = line.pj_per_mac
        clock = line.energy.by_gate.get(CLOCK, ZERO).value / line.energy.pj_per_cycle.value
        table.add_row(
            line.name,
            *(f"{each:.3f}" for each in (value, low, high)),
            f"{clock:.0%}",
            f"{line.energy.gates:,}",
            f"{line.energy.flops:,}",
            f"{line.energy.toggle_rate:.3f}",
        )
    Console(file=sys.stdout, width=max(110, Console().width)).print(table)


if __name__ == "__main__":
    raise SystemExit(run(main))
