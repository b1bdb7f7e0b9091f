"""What an export says of itself: figures of the layers, as JSON and as a table."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quant.exports.convert import ExportReport, LayerReport
from quant.exports.gguf_export import GgufReport
from quant.exports.merge import MergeReport
from quant.methods import quantized_linears
from quant.methods.base import latent_weight
from quant.models.linears import without_block
from quant.models.prepared import Prepared, plain_state

__all__ = ["Report", "method_bits", "print_table", "summarise"]

#: What the writer of any format reports.
Report = ExportReport | MergeReport | GgufReport


def summarise(
    report: Report, prepared: Prepared, output: Path, form: str, bits: float
) -> dict[str, Any]:
    """Return the report of an export as JSON holds it; `bits` are those of `method_bits`."""
    files = [path for path in output.iterdir() if path.is_file()] if output.is_dir() else [output]
    size = sum(path.stat().st_size for path in files)
    state = plain_state(prepared.model.state_dict())
    parameters = sum(tensor.numel() for tensor in state.values())
    return {
        "format": form,
        # The key is the format's: "artifact" and "artifact_bytes", "merged" and so on.
        form: str(output),
        f"{form}_bytes": size,
        "bits_per_parameter": 8 * size / parameters,
        "method": prepared.method.name,
        "options": prepared.config.to_json(),
        "method_bits_per_weight": bits,
        "origin": prepared.origin,
        "training": prepared.training,
        "ternary": _totals(report.layers),
        "error_against": _reference(prepared),
        "kept_tensors": len(report.kept),
        "tied": report.tied,
        "notes": _notes(report),
        "layers": [dataclasses.asdict(layer) for layer in report.layers],
    }


def method_bits(prepared: Prepared) -> float:
    """Return the bits a weight that the method counts for its levels, over all its layers."""
    bits = weights = 0.0
    for _, linear, quantizer in quantized_linears(prepared.model):
        weight = latent_weight(linear)
        bits += quantizer.bits_per_weight(weight) * weight.numel()
        weights += weight.numel()
    return bits / weights


def print_table(summary: dict[str, Any]) -> None:
    """Print one row for each kind of layer, over all blocks, and what the figures mean."""
    from rich.console import Console
    from rich.table import Table

    kinds: dict[tuple[str, tuple[int, int]], list[LayerReport]] = {}
    for layer in (LayerReport(**each) for each in summary["layers"]):
        kinds.setdefault((without_block(layer.name), layer.shape), []).append(layer)
    table = Table(title=f"Layers of {summary['model']}, quantised by {summary['method']}")
    table.add_column("layer", overflow="fold")
    for column in ("count", "N x K", "bits a weight", "zeros", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    for (name, shape), members in kinds.items():
        table.add_row(name, *_cells(_totals(members), f"{shape[0]} x {shape[1]}"))
    table.add_section()
    total = summary["ternary"]
    table.add_row("all", *_cells(total, f"{total['weights'] / 1e6:.1f} M"))
    Console(file=sys.stdout).print(table)
    for line in _lines(summary):
        print(line)


def _lines(summary: dict[str, Any]) -> list[str]:
    """Return what stands below the table."""
    form = summary["format"]
    bits = f"{summary['method_bits_per_weight']:.3f}"
    lines = [
        f"Bits a weight are those of the {form}, scales counted; the method itself takes {bits}.",
        f"Error is |W - D|^2 / |W|^2 against {summary['error_against']}.",
        *summary["notes"],
        f"{summary['kept_tensors']} other tensors stayed as they were.",
        *(f"{name} is tied to {other}." for name, other in summary["tied"].items()),
    ]
    if summary["tokenizer"] != "written":
        lines.append(f"No tokenizer was written: {summary['tokenizer']}.")
    megabytes, bits = summary[f"{form}_bytes"] / 1e6, f"{summary['bits_per_parameter']:.2f}"
    size = f"{megabytes:.1f} MB, {bits} bits a parameter over all files"
    return [*lines, f"{summary[form]}: {size}, in {summary['seconds']:.1f} s"]


def _totals(layers: Sequence[LayerReport]) -> dict[str, Any]:
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


def _notes(report: Report) -> list[str]:
    """Return what the format does to the model, a sentence each."""
    if isinstance(report, MergeReport):
        return [_rounding(report)]
    if isinstance(report, GgufReport) and report.pre_tokenizer is None:
        note = "GGUF has no name known here for how the tokenizer cuts text into words"
        return [f"{note}: llama.cpp may cut it otherwise."]
    return []


def _rounding(report: MergeReport) -> str:
    if not report.rounded:
        return f"{report.dtype} holds every quantised weight exactly."
    return (
        f"{report.dtype} rounds {report.rounded:.1%} of the quantised weights, since their levels "
        "have more digits (a scale plus a shift does); fp32 holds all of them exactly."
    )


def _reference(prepared: Prepared) -> str:
    """Return in words which weights the errors are against."""
    if prepared.training and prepared.method.trainable:
        return "the latent weights that training left, not the original model's"
    return "the model's own weights"


def _cells(totals: dict[str, Any], shape: str) -> list[str]:
    return [
        str(totals["layers"]),
        shape,
        f"{totals['bits_per_weight']:.3f}",
        f"{totals['zeros']:.1%}",
        f"{totals['error']:.2%}",
    ]
