"""`python -m quant.train`: distil a quantised student from its own full-precision model.

The same command trains on one process, and on several under torchrun or `accelerate launch`.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from quant.training.recipe import Recipe
    from quant.training.start import Start

__all__ = ["main"]

#: Name of the trained model inside a run's folder.
MODEL: Final = "model"
#: What a training-free method's levels are written to, where training starts from them.
START: Final = "start"
#: Options that change a field of the recipe, with what --help says of it.
FIELDS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "start_from": (str, "what levels to begin with; see below"),
    "steps": (integer, "optimiser steps"),
    "warmup_steps": (integer, "steps of linear warm-up"),
    "batch": (integer, "windows a step, over all processes"),
    "window": (integer, "tokens of a window"),
    "accumulation": (integer, "parts that a process cuts its windows into, to save memory"),
    "learning_rate": (float, "peak rate of the weights"),
    "scale_rate": (float, "rate of scales and shifts over that of the weights"),
    "final_rate": (float, "rate at the end over the peak"),
    "clip_norm": (float, "largest norm of the gradient; 0: not clipped"),
    "trained": (str, "what moves: linears, norms (these too) or all"),
    "precision": (str, "of matrix products: fp32 or bf16"),
    "seed": (integer, "of the order of the windows"),
}
EXAMPLE: Final = """example:
  python -m quant.train smollm2 --recipe smollm2-cpu --text brown --output runs/dlt
  python -m quant.evaluate runs/dlt/model --text brown --split test --window 512
  torchrun --nproc-per-node 2 -m quant.train tiny --recipe tiny --text my.txt --output runs/tiny

A training starts from the method's own fit to the weights, or from --start-from: the name of a
training-free method (aware, als, ...) or the folder of an artifact, whose levels it takes (with dlt
and codes=nearest), or the folder of a trained model, where it goes on.

An interrupted run goes on from its last checkpoint when the same command is given again.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    from quant.models.sources import find_source
    from quant.text.loading import load_tokens
    from quant.training.recipe import load_recipe

    recipe = _changed(load_recipe(arguments.recipe), arguments)
    if arguments.show_recipe:
        print(json.dumps(recipe.to_json(), indent=2))
        return 0
    folder = _run_folder(arguments.output, arguments.model)
    source = find_source(arguments.model, progress)
    tokens = load_tokens(arguments.text, source.tokenizer, arguments.split, progress=progress)
    summary = _train(arguments, recipe, source, tokens, folder)
    if summary and arguments.json:
        print(json.dumps(summary, indent=2))
    elif summary:
        _print(summary)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.train",
        description="Train a quantised copy of a causal language model to answer as it does.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", help="a model folder, GGUF file, hub id, smollm2 or tiny: the teacher"
    )
    parser.add_argument("--output", default="", help="folder of the run: checkpoint, log, model")
    parser.add_argument(
        "--text",
        nargs="+",
        default=["brown"],
        metavar="SOURCE",
        help="a corpus (see quant.data), text files, hf:DATASET, or packed tokens (default: brown)",
    )
    parser.add_argument("--split", default="train", help="part of the text (default: train)")
    parser.add_argument("--recipe", default="default", help="a recipe's name or TOML file")
    parser.add_argument("--method", help="quantisation method, in place of the recipe's")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of the method"
    )
    parser.add_argument(
        "--loss",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="weights of label, kl, dad and features; feature_loss=off|mse|clipped_mse|huber|none",
    )
    for name, (kind, text) in FIELDS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="recompute activations in the backward pass, to save memory",
    )
    parser.add_argument(
        "--shard",
        action="store_true",
        help="under torchrun: give each process a part of the student (FSDP), not a copy (DDP)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=integer,
        default=100,
        metavar="STEPS",
        help="steps between checkpoints (default: 100)",
    )
    parser.add_argument(
        "--show-recipe", action="store_true", help="print the recipe as JSON and stop"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _changed(recipe: "Recipe", arguments: argparse.Namespace) -> "Recipe":
    """Return the recipe with what the command line says otherwise."""
    from quant.methods.options import parse_options
    from quant.training.recipe import parse_losses

    method = arguments.method or recipe.method
    # Another method's options are not this one's.
    base = recipe.options.to_json() if method == recipe.method else {}
    fields = {name: getattr(arguments, name) for name in (*FIELDS, "gradient_checkpointing")}
    if method != recipe.method and arguments.start_from is None:
        fields["start_from"] = ""
    if arguments.steps is not None and arguments.warmup_steps is None:
        fields["warmup_steps"] = min(recipe.warmup_steps, arguments.steps // 10)
    return recipe.changed(
        method=method,
        options=parse_options(method, arguments.set, base),
        losses=parse_losses(arguments.loss, recipe.losses),
        **fields,
    )


def _run_folder(text: str, model: str) -> Path:
    """Return the run's folder; refuse one that lies with the model."""
    if not text:
        raise TernError("--output must be a folder, not ''")
    folder = Path(text)
    ours, theirs = Path(os.path.realpath(folder)), Path(os.path.realpath(model))
    if theirs.is_dir() and (ours.is_relative_to(theirs) or theirs.is_relative_to(ours)):
        raise TernError(f"--output must lie apart from the model at {model}, not at {folder}")
    if folder.exists() and not folder.is_dir():
        raise TernError(f"--output must be a folder, not the file {folder}")
    return folder


def _train(
    arguments: argparse.Namespace, recipe: "Recipe", source: Any, tokens: Any, folder: Path
) -> dict[str, Any] | None:
    """Train and write the model; returns the report, on the main process only."""
    from quant.models.prepared import save_prepared
    from quant.training.loop import LOG, Trainer
    from quant.training.start import begin_from
    from quant.training.student import make_student

    begun = time.monotonic()
    teacher = source.model.float()
    student = make_student(teacher, recipe, progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TernError(f"--output must be a folder, not {folder} ({error.strerror})") from None
    origin = source.origin
    record: dict[str, Any] = {}
    if recipe.start_from:
        start = _start(recipe, teacher, tokens, folder, origin)
        begin_from(student, start, recipe)
        record["start"] = start.describe()
        origin = f"{origin}; start {record['start']['sha256']}"
    trainer = Trainer(
        teacher,
        student,
        recipe,
        tokens,
        folder,
        origin=origin,
        checkpoint_every=arguments.checkpoint_every,
        sharded=arguments.shard,
    )
    rows: list[dict[str, float]] = []
    with _display(recipe, trainer.accelerator.is_main_process) as show:

        def report(row: dict[str, float]) -> None:
            rows.append(row)
            show(row)

        steps = trainer.train(report)
    state = trainer.state()
    if not trainer.accelerator.is_main_process:
        return None
    record |= {
        "steps": steps,
        "tokens": steps * recipe.tokens_per_step,
        "text": arguments.text,
        "split": arguments.split,
        "recipe": recipe.to_json(),
        "processes": trainer.accelerator.num_processes,
    }
    save_prepared(
        folder / MODEL,
        trainer.model,
        source.tokenizer,
        method=recipe.method,
        config=recipe.options,
        origin=source.origin,
        training=record,
        state=state,
        overwrite=True,
    )
    return {
        "model": source.origin,
        "output": str(folder / MODEL),
        "log": str(folder / LOG),
        **record,
        "last": rows[-1] if rows else None,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _start(recipe: "Recipe", teacher: Any, tokens: Any, folder: Path, origin: str) -> "Start":
    """Open what training starts from; a training-free method's levels are fitted by one process."""
    from accelerate import Accelerator

    from quant.methods import METHODS
    from quant.training.start import fit_start, open_start

    if recipe.start_from not in METHODS:
        return open_start(Path(recipe.start_from).expanduser())
    with Accelerator(mixed_precision="no").main_process_first():
        return fit_start(folder / START, teacher, recipe, tokens, origin=origin, progress=progress)


@contextlib.contextmanager
def _display(recipe: "Recipe", shown: bool) -> Iterator[Callable[[dict[str, float]], None]]:
    """Show a bar with the parts of the loss, tokens/s and the time that is left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(f"training {recipe.method}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("", total=recipe.steps, losses="")

        def show(row: dict[str, float]) -> None:
            bar.update(task, completed=row["step"], losses=_losses(row))

        yield show


def _losses(row: dict[str, float]) -> str:
    """Return a step's losses and speed in a few words."""
    names = ("total", "kl", "features", "label", "dad")
    parts = [f"{name} {row[name]:.3g}" for name in names if row[name]]
    return "  ".join([*parts, f"{row['tokens_per_s']:.0f} tokens/s"])


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Trained: {summary['model']}", show_header=False)
    recipe = summary["recipe"]
    rows = {
        "method": recipe["method"],
        "steps": f"{summary['steps']} of {recipe['batch']} x {recipe['window']} tokens",
        "tokens": f"{summary['tokens']:,}",
        "last step": _losses(summary["last"]) if summary["last"] else "was done before",
        "time": f"{summary['seconds']:.1f} s",
        "model": summary["output"],
        "log": summary["log"],
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    raise SystemExit(run(main))
