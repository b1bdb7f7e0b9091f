"""`python -m quant.evaluate`: perplexity and zero-shot scores of any model, full or quantised."""

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from torch import Tensor

    from quant.models.opening import OpenedModel

__all__ = ["main"]

EXAMPLE = """example:
  python -m quant.evaluate smollm2 --text brown moby-dick --window 512 --tokens 12288
  python -m quant.evaluate trained/ --text book.txt --tasks piqa --task-folder questions/

A text is a corpus (brown, sotu, moby-dick), a UTF-8 file, packed tokens (python -m quant.data
pack), or a dataset as hf:NAME[:CONFIG[:SPLIT[:COLUMN]]]. Of a corpus its test split is read, of
anything else the whole, unless --split says otherwise.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from quant.scoring.zero_shot import check_tasks, task_names

    start = time.monotonic()
    folder = Path(arguments.task_folder) if arguments.task_folder else None
    tasks = task_names(arguments.tasks, folder)
    check_tasks(tasks, folder)
    opened = _open(arguments)
    # All of them before the first is measured: a mistake in the last would cost the others.
    texts = [_read(opened, source, arguments) for source in arguments.text]
    report = {
        "model": opened.origin,
        "kind": opened.kind,
        "dtype": arguments.dtype,
        "texts": [_measure(opened, *text, arguments) for text in texts],
        "zero_shot": _zero_shot(opened, tasks, folder, arguments) if tasks else None,
        "seconds": round(time.monotonic() - start, 1),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.evaluate",
        description="Measure a causal language model: perplexity on texts, accuracy on tasks.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        help="a model folder (plain, prepared or an artifact), a GGUF file, a hub id, smollm2 or "
        "tiny",
    )
    parser.add_argument("--tokenizer", metavar="MODEL", help="take this model's tokenizer")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what the model computes in (default: float32); logits are compared in float32",
    )
    parser.add_argument(
        "--activation",
        choices=("int8", "fp16"),
        help="run an artifact's layers on the kernels, what enters them rounded to this (default: "
        "not rounded, weights dequantised)",
    )
    parser.add_argument("--batch", type=integer, default=1, help="windows or questions at a time")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    text = parser.add_argument_group("perplexity")
    text.add_argument("--text", nargs="+", default=[], metavar="SOURCE", help="texts; see below")
    text.add_argument(
        "--split",
        choices=("train", "validation", "test", "all"),
        help="which documents, by hash (default: test of a corpus, all of anything else)",
    )
    text.add_argument(
        "--window",
        type=integer,
        help="tokens of a window (default: 2048, or the model's context where that is less)",
    )
    text.add_argument(
        "--stride", type=integer, help="tokens from window to window (default: the window)"
    )
    text.add_argument("--tokens", type=integer, metavar="N", help="only a text's first N tokens")
    text.add_argument(
        "--bos",
        choices=("auto", "yes", "no"),
        default="auto",
        help="put the tokenizer's beginning-of-text token before a text (default: auto, as the "
        "tokenizer does it)",
    )
    tasks = parser.add_argument_group("zero-shot tasks, by lm-evaluation-harness")
    tasks.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help="names of files in --task-folder (default: all), or of the harness' own tasks",
    )
    tasks.add_argument("--task-folder", metavar="DIR", help="folder of JSONL files of questions")
    tasks.add_argument("--limit", type=integer, help="only a task's first questions")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuse at once what would be refused after the model was read."""
    if not (arguments.text or arguments.tasks or arguments.task_folder):
        raise TernError("--text, --tasks or --task-folder must be given, not none of them")
    for name, least in (("batch", 1), ("window", 2), ("stride", 1), ("tokens", 2), ("limit", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise TernError(f"--{name} must be an integer from {least}, not {value}")


def _open(arguments: argparse.Namespace) -> "OpenedModel":
    """Open the model, an artifact on the kernels where that is asked for."""
    import torch

    from quant.models.opening import OpenedModel, is_artifact, open_model

    dtype = getattr(torch, arguments.dtype)
    if arguments.activation is None:
        return open_model(
            arguments.model, tokenizer=arguments.tokenizer, dtype=dtype, progress=progress
        )
    if not is_artifact(Path(arguments.model)):
        raise TernError(f"--activation must be given with an artifact, not with {arguments.model}")
    from quant.runtime import load

    model, tokenizer = load(
        arguments.model,
        activation=arguments.activation,
        tokenizer=arguments.tokenizer,
        dtype=dtype,
        progress=progress,
    )
    kind = f"ternary artifact on the kernels, {arguments.activation} activations"
    return OpenedModel(model, tokenizer, arguments.model, kind)


def _read(
    opened: "OpenedModel", source: str, arguments: argparse.Namespace
) -> tuple[str, str, "Tensor"]:
    """Return a text's name, its split and its tokens."""
    from quant.text.documents import CORPORA
    from quant.text.loading import load_tokens

    split = arguments.split or ("test" if source in CORPORA else "all")
    tokens = load_tokens(source, opened.tokenizer, split, progress=progress)
    return source, split, tokens[: arguments.tokens]


def _measure(
    opened: "OpenedModel", source: str, split: str, tokens: "Tensor", arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measure the perplexity on one text."""
    from quant.scoring.perplexity import bos_token, perplexity

    result = perplexity(
        opened.model,
        tokens,
        window=arguments.window,
        stride=arguments.stride,
        batch=arguments.batch,
        bos=bos_token(opened.tokenizer, arguments.bos),
        progress=progress,
    )
    read = opened.tokenizer.decode(tokens[: result.tokens], clean_up_tokenization_spaces=False)
    finite = math.isfinite(result.perplexity)
    return {
        "text": source,
        "split": split,
        **dataclasses.asdict(result),
        "perplexity": result.perplexity if finite else None,
        "bits_per_byte": result.bits_per_byte(len(read.encode())),
    }


def _zero_shot(
    opened: "OpenedModel", tasks: list[str], folder: Path | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    from quant.scoring.zero_shot import zero_shot

    scored = zero_shot(
        opened.model,
        opened.tokenizer,
        tasks,
        folder=folder,
        limit=arguments.limit,
        batch=arguments.batch,
    )
    return dataclasses.asdict(scored)


def _print(report: dict[str, Any]) -> None:
    print(f"{report['model']}: {report['kind']}, computed in {report['dtype']}")
    if report["texts"]:
        _print_texts(report["texts"])
    if report["zero_shot"]:
        _print_scores(report["zero_shot"])
    print(f"{report['seconds']:.1f} s")


#: A space at which no line ends.
NO_BREAK = "\N{NO-BREAK SPACE}"


def _print_texts(texts: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title="Perplexity")
    table.add_column("text", overflow="fold", min_width=10)
    # A heading of two words may take two lines; what stands below it may not.
    for column in ("split", "perplexity", "nll", "bits a byte", "predicted", "windows", "BOS"):
        table.add_column(column, justify="right")
    for text in texts:
        value = math.inf if text["perplexity"] is None else text["perplexity"]
        windows = f"{text['windows']} x {text['window']}"
        if text["stride"] != text["window"]:
            windows += f" by {text['stride']}"
        table.add_row(
            text["text"],
            text["split"],
            f"{value:.2f}" if value < 1e5 else f"{value:.2e}",
            f"{text['nll']:.4f}",
            f"{text['bits_per_byte']:.4f}",
            str(text["predicted"]),
            windows.replace(" ", NO_BREAK),
            "none" if text["bos"] is None else str(text["bos"]),
        )
    _show(table)
    print("nll in nats a predicted token; windows in tokens; BOS: token before the text.")


def _print_scores(zero_shot: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"Zero-shot, lm-evaluation-harness {zero_shot['lm_eval']}")
    table.add_column("task", overflow="fold")
    for column in ("from", "questions", "acc", "acc_norm"):
        table.add_column(column, justify="right", no_wrap=True)
    for score in zero_shot["scores"]:
        cells = (_share(score, metric) for metric in ("acc", "acc_norm"))
        table.add_row(score["task"], score["origin"], str(score["items"]), *cells)
    _show(table)
    print("Standard error behind ±; acc_norm: log-likelihoods divided by the choice's characters.")


def _share(score: dict[str, Any], metric: str) -> str:
    if score[metric] is None:
        return "-"
    error = score[f"{metric}_stderr"]
    return f"{score[metric]:.3f}" + ("" if error is None else f" ± {error:.3f}")


def _show(table: Any) -> None:
    from rich.console import Console

    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    raise SystemExit(run(main))
