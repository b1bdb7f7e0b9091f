"""The main job on real input: one layer of a language model, from checkpoint to Verilog and back.

`make demo` runs it. A linear layer is ternarised and saved as an artifact; the activations that
really enter it are captured while the model reads a text; the reloaded layer runs as emitted
Verilog in Verilator, and every result is compared, bit for bit, with the reference's.
"""

import argparse
import enum
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tern_hw.cli import ArgumentParser, integer, parse_group_size, progress, run
from tern_hw.config import Activation, ArrayConfig, Packing
from tern_hw.errors import TernError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quant.exports.convert import LayerReport
    from quant.models.sources import ModelSource
    from tern_hw.matrix import TernaryMatrix
    from tern_hw.simulation import SimulationResult

#: The model that needs no hub, and the one that needs no network either.
DEFAULT_MODEL: Final = "smollm2"
FALLBACK_MODEL: Final = "tiny"
#: 576 inputs in SmolLM2: four groups of 128 and a half one.
DEFAULT_LAYER: Final = "model.layers.0.mlp.gate_proj"


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns 0 where every result agrees, else 1."""
    arguments = _parser().parse_args(argv)
    if arguments.tokens < 1:
        raise TernError(f"--tokens must be a positive integer, not {arguments.tokens}")
    config = ArrayConfig(
        lanes=arguments.lanes,
        rows=arguments.rows,
        activation=arguments.activation,
        group_size=parse_group_size(arguments.group_size),
        packing=arguments.packing,
    )
    begun = time.monotonic()
    # Threads that wait for work asleep cost a busy machine nothing; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    source = _find_model(arguments.model)
    layer = _layer(source, arguments.layer)
    inputs = _real_inputs(source, layer, arguments.tokens, config)
    matrix, reloaded, report = _ternarise(source, layer, config)
    result, mismatches = _compare(matrix, reloaded, inputs, config)
    facts = _facts(source.origin, report, result, mismatches)
    facts["seconds"] = round(time.monotonic() - begun, 1)
    print(json.dumps(facts, indent=2)) if arguments.json else _print_table(facts)
    for complaint in result.complaints:
        print(f"wrong: {complaint}", file=sys.stderr)
    return 1 if mismatches or result.complaints else 0


def _find_model(name: str) -> "ModelSource":
    """Return the model asked for; the small one in place of a default that cannot be fetched."""
    from quant.errors import UnreachableError
    from quant.models.sources import find_source

    try:
        return find_source(name, progress)
    except UnreachableError as error:
        if name != DEFAULT_MODEL:
            raise
        print(f"{error}; the demo goes on with {FALLBACK_MODEL}", file=sys.stderr)
        return find_source(FALLBACK_MODEL, progress)


def _layer(source: "ModelSource", asked: str | None) -> str:
    """Return the layer asked for, else a wide one of the first block or the model's first."""
    from quant.models.linears import block_linears, named_linear

    # The skeleton knows the names; a wrong one is refused before any weight is read.
    if asked is not None:
        named_linear(source.skeleton, asked)
        return asked
    names = list(block_linears(source.skeleton))
    return DEFAULT_LAYER if DEFAULT_LAYER in names else names[0]


def _real_inputs(
    source: "ModelSource", layer: str, tokens: int, config: ArrayConfig
) -> "NDArray[Any]":
    """Return what enters the layer while the model reads, in the array's format, [tokens, K]."""
    import numpy as np

    from quant.models.capture import capture_inputs
    from quant.text.excerpt import excerpt
    from tern_hw.reference import quantize_tokens

    inputs = capture_inputs(source.model, source.tokenizer, layer, excerpt(), tokens=tokens)
    if config.activation is Activation.INT8:
        return quantize_tokens(inputs)[0]
    return inputs.astype(np.float16)


def _ternarise(
    source: "ModelSource", layer: str, config: ArrayConfig
) -> "tuple[TernaryMatrix, TernaryMatrix, LayerReport]":
    """Return the ternary layer, the same after a round trip through an artifact, and a report."""
    from quant.exports.artifact import write_artifact
    from quant.exports.convert import convert_layers
    from quant.models.linears import named_linear
    from tern_hw.artifact import load_artifact

    matrices, (report,) = convert_layers(
        source.model,
        {layer: named_linear(source.model, layer)},
        group_size=config.group_size,
        packing=config.packing,
    )
    with tempfile.TemporaryDirectory(prefix="tern-demo-") as scratch:
        folder = Path(scratch) / "artifact"
        write_artifact(source.model, folder, matrices, {}, origin=source.origin)
        return matrices[layer], load_artifact(folder).layer(layer), report


def _compare(
    matrix: "TernaryMatrix",
    reloaded: "TernaryMatrix",
    inputs: "NDArray[np.generic]",
    config: ArrayConfig,
) -> "tuple[SimulationResult, int]":
    """Run the reloaded layer in Verilog, the original in the reference; count differing results."""
    import numpy as np

    from tern_hw.reference import matmul
    from tern_hw.simulation import simulate_layer

    expected = matmul(inputs, matrix)
    with progress("simulating the Verilog", expected.size) as advance:
        result = simulate_layer(reloaded, inputs, config, progress=advance)
    differing = result.outputs.view(np.uint32) != expected.view(np.uint32)
    return result, int(differing.sum())


def _facts(
    origin: str, report: "LayerReport", result: "SimulationResult", mismatches: int
) -> dict[str, Any]:
    config, (n, k) = result.config, report.shape
    tokens, cycles = len(result.cycles), sum(result.cycles)
    return {
        "model": origin,
        "layer": report.name,
        "shape": [n, k],
        "group_size": config.group_size,
        "packing": str(config.packing),
        "bits_per_weight": report.bits_per_weight,
        "zeros": report.zeros,
        "weight_error": report.error,
        "array": config.name,
        "tokens": tokens,
        "cycles": cycles,
        "cycles_by_formula": tokens * result.expected_cycles,
        "weights_per_cycle": tokens * n * k / cycles,
        "peak_weights_per_cycle": config.lanes * config.rows,
        "simulated_cycles_per_second": round(result.cycles_per_second),
        "results": result.outputs.size,
        "mismatches": mismatches,
    }


def _print_table(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    n, k = facts["shape"]
    table = Table(show_header=False, title="One real layer, from checkpoint to Verilog and back")
    for name, text in (
        ("model", facts["model"]),
        ("layer", f"{facts['layer']}, {n} outputs x {k} inputs, groups of {facts['group_size']}"),
        ("bits a weight", f"{facts['bits_per_weight']:.3f} ({facts['packing']}, with scales)"),
        ("zeros", f"{facts['zeros']:.1%}"),
        ("weight error", f"{facts['weight_error']:.2%} of the weights' energy, no training"),
        ("inputs", f"{facts['tokens']} tokens of chapter 1 of Moby-Dick"),
        ("array", f"{facts['array']} (Verilog in Verilator)"),
        ("cycles", f"{facts['cycles']:,}"),
        ("cycles by formula", f"{facts['cycles_by_formula']:,}"),
        (
            "weights a cycle",
            f"{facts['weights_per_cycle']:.1f} of {facts['peak_weights_per_cycle']}",
        ),
        ("simulated at", f"{facts['simulated_cycles_per_second']:,} cycles/s"),
        ("results compared", f"{facts['results']:,}"),
        ("mismatches", str(facts["mismatches"])),
        ("time", f"{facts['seconds']:.1f} s"),
    ):
        table.add_row(name, text)
    Console(file=sys.stdout).print(table)


def _values(kind: type[enum.StrEnum]) -> list[str]:
    """List an enumeration's values as plain strings, which argparse can show."""
    return [str(member) for member in kind]


def _parser() -> argparse.ArgumentParser:
    default = ArrayConfig()
    parser = ArgumentParser(prog="python demo.py", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="smollm2 (from a PyPI package), tiny (trained here), a model folder, a GGUF file or "
        "a hub id (default: %(default)s)",
    )
    parser.add_argument("--layer", help=f"a linear layer's name (default: {DEFAULT_LAYER})")
    parser.add_argument(
        "--tokens", type=integer, default=16, help="tokens of the text (default: %(default)s)"
    )
    for name, value in (("--lanes", default.lanes), ("--rows", default.rows)):
        parser.add_argument(name, type=integer, default=value, help="(default: %(default)s)")
    parser.add_argument(
        "--activation", choices=_values(Activation), default=str(default.activation)
    )
    parser.add_argument(
        "--group-size",
        default=str(default.group_size),
        help="inputs per scale and shift, or row (default: %(default)s)",
    )
    parser.add_argument("--packing", choices=_values(Packing), default=str(Packing.BASE3))
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
