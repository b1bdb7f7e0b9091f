"""`python -m quant.capture`: what enters a model's layers while it reads a text, as one file.

`python -m tern_hw.simulate` feeds such a file to the emitted Verilog.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quant.models.opening import OpenedModel

    Inputs = dict[str, NDArray[np.float32]]

__all__ = ["main"]

#: What the file's metadata calls its form.
FORMAT: Final = "tern_hw.activations"
VERSION: Final = "1"
#: The text where none is named.
EXCERPT: Final = "chapter 1 of Moby-Dick"
EPILOG: Final = """examples:
  python -m quant.capture model/ --tokens 4 --output x.safetensors
      what enters every linear layer of the blocks, over the first 4 tokens of an excerpt
  python -m tern_hw.simulate model/ '*' --activations x.safetensors
      the same, through the emitted Verilog

A text is a corpus (brown, sotu, moby-dick), a UTF-8 file, packed tokens (python -m quant.data
pack), or a dataset as hf:NAME[:CONFIG[:SPLIT[:COLUMN]]]. An artifact is run with its ternary
weights, so that the activations are those that its own hardware would see. The file holds one
float32 tensor [M, K] a layer, by the layer's name.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.tokens < 1:
        raise TernError(f"--tokens must be a positive integer, not {arguments.tokens}")
    output = _output(arguments.output, overwrite=arguments.overwrite)
    # Threads that wait for work asleep cost a busy machine nothing; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from quant.models.opening import open_model

    start = time.monotonic()
    opened = open_model(arguments.model, tokenizer=arguments.tokenizer, progress=progress)
    inputs = _capture(opened, arguments)
    about = {
        "model": opened.origin,
        "kind": opened.kind,
        "text": ", ".join(arguments.text) or EXCERPT,
        "tokens": arguments.tokens,
    }
    _write(output, inputs, about)
    report = {
        **about,
        "layers": [_facts(name, array) for name, array in inputs.items()],
        "output": str(output),
        "bytes": output.stat().st_size,
        "seconds": round(time.monotonic() - start, 2),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.capture",
        description="Run a model over a text and write what enters its linear layers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        help="a model folder (plain, prepared or an artifact), a GGUF file, a hub id, smollm2 or "
        "tiny",
    )
    parser.add_argument("--output", required=True, metavar="FILE.safetensors")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="SOURCE", help=f"texts ({EXCERPT}); see below"
    )
    parser.add_argument(
        "--tokens", type=integer, default=1, metavar="M", help="the text's first M tokens (1)"
    )
    parser.add_argument(
        "--layers", nargs="+", default=["*"], metavar="GLOB", help="only layers of these names"
    )
    parser.add_argument("--tokenizer", metavar="MODEL", help="take this model's tokenizer")
    parser.add_argument("--overwrite", action="store_true", help="replace a file at --output")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _output(text: str, *, overwrite: bool) -> Path:
    """Return the output's path; refuse now what writing would refuse after all the work."""
    path = Path(text)
    if path.suffix != ".safetensors" or path.is_dir():
        raise TernError(f"--output must be a file that ends in .safetensors, not {text!r}")
    if not path.parent.is_dir():
        raise TernError(f"--output must lie in a folder that exists, not in {path.parent}")
    if path.exists() and not overwrite:
        raise TernError(f"--output must be a new file, or --overwrite given, not {path}")
    return path


def _capture(opened: "OpenedModel", arguments: argparse.Namespace) -> "Inputs":
    """Return what enters each layer that was asked for, by name."""
    from quant.models.capture import capture_all_inputs
    from quant.models.linears import block_linears, select_linears
    from quant.text.excerpt import excerpt
    from quant.text.loading import load_tokens, tokenize

    layers = [*select_linears(block_linears(opened.model), arguments.layers)]
    if arguments.text:
        ids = load_tokens(arguments.text, opened.tokenizer, progress=progress)
    else:
        ids = tokenize(excerpt(), opened.tokenizer)
    with progress("reading the text", 1) as advance:
        inputs = capture_all_inputs(
            opened.model, opened.tokenizer, layers, ids, tokens=arguments.tokens
        )
        advance(1)
    return inputs


def _write(output: Path, inputs: "Inputs", about: dict[str, Any]) -> None:
    from safetensors.numpy import save

    metadata = {"format": FORMAT, "version": VERSION, **about}
    write_atomic(
        output, save(inputs, metadata={name: str(each) for name, each in metadata.items()})
    )


def _facts(name: str, array: "NDArray[np.float32]") -> dict[str, Any]:
    """Describe what enters a layer; the magnitudes say how an int8 or fp16 array will fare."""
    import numpy as np

    magnitudes = np.abs(array)
    return {
        "layer": name,
        "tokens": array.shape[0],
        "inputs": array.shape[1],
        "mean_magnitude": float(magnitudes.mean(dtype=np.float64)),
        "largest_magnitude": float(magnitudes.max()),
    }


def _print(report: dict[str, Any]) -> None:
    """Print one row for each kind of layer, over all blocks."""
    from rich.console import Console
    from rich.table import Table

    from quant.models.linears import without_block

    kinds: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for facts in report["layers"]:
        kinds.setdefault((without_block(facts["layer"]), facts["inputs"]), []).append(facts)
    table = Table(title=f"What enters the layers of {report['model']}")
    table.add_column("layer", overflow="fold")
    for column in ("count", "M x K", "mean |x|", "largest |x|"):
        table.add_column(column, justify="right", no_wrap=True)
    for (name, inputs), members in kinds.items():
        mean = sum(facts["mean_magnitude"] for facts in members) / len(members)
        largest = max(facts["largest_magnitude"] for facts in members)
        shape = f"{members[0]['tokens']} x {inputs}"
        table.add_row(name, str(len(members)), shape, f"{mean:.4g}", f"{largest:.4g}")
    Console(file=sys.stdout).print(table)
    print(f"{report['kind']}; the first {report['tokens']} token(s) of {report['text']}")
    size = f"{len(report['layers'])} tensors, {report['bytes'] / 1e6:.1f} MB"
    print(f"{report['output']}: {size}, in {report['seconds']:.1f} s")


if __name__ == "__main__":
    raise SystemExit(run(main))
