"""`python -m quant.compare`: every method and loss on equal text and equal steps, in one table."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from quant.comparison.measures import Tasks
    from quant.comparison.suites import Entry, Suite

__all__ = ["main"]

EXAMPLE = """example:
  python -m quant.compare --suite quick --output runs/quick
  python -m quant.compare --suite cpu --output runs/cpu --only "dlt + off" symmetric

Runs that are done are not done again: a stopped comparison goes on when the command is repeated.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    from quant.comparison.suites import named_suite

    suite = named_suite(arguments.suite)
    if not arguments.output:
        raise TernError("--output must be a folder, not ''")
    output = Path(arguments.output)
    runs = _runs(suite, arguments.only)
    if arguments.run:  # one run, in a process of its own
        entry, seed = runs[_index(arguments.run, len(runs))]
        _run_one(suite, entry, seed, arguments, _folder(output, entry, seed))
        return 0
    _tasks(arguments)
    _run_all(suite, runs, arguments, output)
    return _report(suite, output, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.compare",
        description="Compare quantisation methods and distillation losses on equal terms.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", default="quick", help="quick, cpu or gpu (default: quick)")
    parser.add_argument("--output", required=True, help="folder of the runs' results and the table")
    parser.add_argument("--model", default="smollm2", help="the teacher (default: smollm2)")
    parser.add_argument(
        "--text", default="brown", help="training and calibration text (default: brown)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORDS",
        help="only rows of this name, or where none is called so, whose name has these words",
    )
    parser.add_argument(
        "--task-folder", default="", metavar="DIR", help="folder of JSONL files of questions, too"
    )
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="TASK", help="only these of its files"
    )
    parser.add_argument("--limit", type=integer, help="only a task's first questions")
    parser.add_argument("--keep-models", action="store_true", help="keep each run's prepared model")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--run", default="", help=argparse.SUPPRESS)
    return parser


def _runs(suite: "Suite", only: list[str]) -> "list[tuple[Entry, int]]":
    """Return entries and seeds, first seeds first, so that a stopped comparison is a whole one."""
    names = {entry.name for entry in suite.entries}
    chosen = [
        entry
        for entry in suite.entries
        if not only
        or any(
            words == entry.name or (words not in names and words in entry.name) for words in only
        )
    ]
    if not chosen:
        raise TernError(f"--only must match a row's name, not {only[0]!r}")
    pairs = [(entry, seed) for entry in chosen for seed in entry.seeds]
    return sorted(pairs, key=lambda pair: pair[0].seeds.index(pair[1]))


def _folder(output: Path, entry: "Entry", seed: int) -> Path:
    return output / f"{re.sub(r'[^a-z0-9]+', '-', entry.name).strip('-')}-{seed}"


def _index(text: str, count: int) -> int:
    if not text.isdecimal() or int(text) >= count:
        raise TernError(f"--run must be a number below {count}, not {text!r}")
    return int(text)


def _run_one(
    suite: "Suite", entry: "Entry", seed: int, arguments: argparse.Namespace, folder: Path
) -> None:
    from quant.comparison.runner import run_entry
    from quant.models.sources import find_source

    source = find_source(arguments.model, progress)
    run_entry(
        suite,
        entry,
        seed,
        source,
        arguments.text,
        folder,
        tasks=_tasks(arguments),
        keep_model=arguments.keep_models,
        progress=progress,
    )


def _tasks(arguments: argparse.Namespace) -> "Tasks | None":
    """Return the zero-shot questions, checked before any model is made."""
    from quant.comparison.measures import Tasks
    from quant.scoring.zero_shot import check_tasks, task_names

    if not arguments.task_folder:
        for name in ("tasks", "limit"):
            if getattr(arguments, name):
                raise TernError(f"--{name} must be given with --task-folder, not alone")
        return None
    if arguments.limit is not None and arguments.limit < 1:
        raise TernError(f"--limit must be positive, not {arguments.limit}")
    folder = Path(arguments.task_folder).expanduser()
    names = task_names(arguments.tasks, folder)
    check_tasks(names, folder)
    return Tasks(folder, tuple(names), arguments.limit)


def _run_all(
    suite: "Suite", runs: "list[tuple[Entry, int]]", arguments: argparse.Namespace, output: Path
) -> None:
    """Do each run in a process of its own, so that its peak memory is its own."""
    from quant.comparison.runner import read_result

    for index, (entry, seed) in enumerate(runs):
        if read_result(_folder(output, entry, seed)) is not None:
            continue
        print(f"{index + 1} of {len(runs)}: {entry.name}, seed {seed}", file=sys.stderr)
        command = [
            sys.executable,
            "-m",
            "quant.compare",
            "--suite",
            suite.name,
            "--output",
            str(output),
        ]
        command += ["--model", arguments.model, "--text", arguments.text, "--run", str(index)]
        command += ["--only", *arguments.only] if arguments.only else []
        command += ["--task-folder", arguments.task_folder] if arguments.task_folder else []
        command += ["--tasks", *arguments.tasks] if arguments.tasks else []
        command += ["--limit", str(arguments.limit)] if arguments.limit is not None else []
        command += ["--keep-models"] if arguments.keep_models else []
        if status := subprocess.run(command).returncode:
            raise TernError(
                f"run {entry.name!r}, seed {seed}, must end well, not with status {status}"
            )


def _report(suite: "Suite", output: Path, *, as_json: bool) -> int:
    """Write table and picture of all runs that are done, and print the table."""
    from quant.comparison.report import markdown, picture, rows_of
    from quant.comparison.runner import read_result
    from tern_hw.files import write_atomic

    results = [
        result
        for entry, seed in _runs(suite, [])
        if (result := read_result(_folder(output, entry, seed))) is not None
    ]
    rows = rows_of(suite, results)
    table = markdown(suite, rows)
    write_atomic(output / "table.md", table)
    write_atomic(output / "results.json", json.dumps(results, indent=1) + "\n")
    picture(suite, rows, output / "comparison.png")
    _print(results if as_json else table)
    return 0


def _print(what: Any) -> None:
    print(what if isinstance(what, str) else json.dumps(what, indent=2))


if __name__ == "__main__":
    raise SystemExit(run(main))
