"""`python -m tern_hw.explore`: sweep arrays and systems for a model, and find the best of them."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any, Final

from tern_hw.cli import ArgumentParser, integer, run
from tern_hw.errors import TernError

__all__ = ["main"]

EPILOG = """examples:
  python -m tern_hw.explore --model llama-2-7b --html front.html
  python -m tern_hw.explore --model smollm2-135m --lanes 16,32,64 --rows 2,4 --group-size 64,128,row
  python -m tern_hw.explore --model opt-1.3b --memory lpddr5,hbm2,sram --clock 250,500 --plot a.png
  python -m tern_hw.explore --model model/ --minimise energy,first-token --csv front.csv
  python -m tern_hw.explore --model llama-2-7b --scheduler tcp://192.0.2.1:8786
  python -m tern_hw.explore --model smollm2-135m --lanes 8,16 --synth ecp5 --synth-limit 4

Options of the design take one value or several with commas between them; every combination is a
point, and those that do not go together (a group that does not fit the lanes) are skipped and
counted. Without any, lanes, rows and packing are swept; with --config, nothing is, but what you
ask for. Each point is a command line of tern_hw.estimate, which gives its figures again. What is
evaluated is kept (--results): a sweep that was ended goes on, and a larger one starts from there.
--synth adds what the front's arrays take on an FPGA. Netlists are kept in $TERN_HW_CACHE of the
machine that makes them, where tern_hw.synth finds them, too.

Exit status: 0, or 2 for a mistake in the command, or a synthesis that fails: the report is printed
and written all the same, and names the array.
"""
#: Suffix of each output's file, and the library that it needs.
OUTPUTS: Final = {"csv": (".csv", ""), "plot": (".png", "matplotlib"), "html": (".html", "plotly")}
#: Most processes, and most points that --limit means seriously.
MAX_WORKERS: Final = 1024


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    from tern_hw.estimate import estimate_parser

    estimate = estimate_parser()
    args = _parser(estimate).parse_args(argv)
    _check(args)
    facts = _facts(estimate, args)
    written = _write(facts, args)
    if args.json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        from tern_hw.exploration.report import print_report

        print_report(facts, written)
    if failed := facts.get("synthesis", {}).get("failed"):
        first = f"{failed[0]['array']}: {failed[0]['reason']}"
        raise TernError(f"every array must go through synthesis, not fail as {first}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse at once what would only fail when the sweep is over."""
    if args.model is None:
        raise TernError("--model must be given")
    for name in ("workers", "limit"):
        value, high = getattr(args, name), MAX_WORKERS if name == "workers" else 1 << 30
        if value is not None and not 1 <= value <= high:
            raise TernError(f"--{name} must be an integer from 1 to {high}, not {value}")
    if args.synth is not None:
        from tern_hw.exploration.synthesis import check_synthesis

        check_synthesis(args.synth, args.synth_limit)
    elif args.synth_limit is not None:
        raise TernError("--synth-limit must stand beside --synth, not without it")
    for name, (suffix, library) in OUTPUTS.items():
        path = getattr(args, name)
        if path is None:
            continue
        if library and importlib.util.find_spec(library) is None:
            raise TernError(f"{library} must be installed for --{name}, not missing")
        if not path.endswith(suffix):
            raise TernError(f"--{name} must be a {suffix} file, not {path!r}")
        if not Path(path).resolve().parent.is_dir():
            raise TernError(f"--{name} must be in a folder that exists, not {path}")


def _facts(estimate: ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    from tern_hw.exploration.axes import read_axes
    from tern_hw.exploration.objectives import read_objectives
    from tern_hw.exploration.plan import make_plan
    from tern_hw.exploration.results import Results, default_path
    from tern_hw.exploration.sweep import sweep_facts
    from tern_hw.exploration.workers import check_scheduler, default_workers

    objectives = read_objectives(args.minimise)
    if args.scheduler is not None:
        check_scheduler(args.scheduler)
    plan = make_plan(estimate, args, read_axes(estimate, args), args.limit)
    where = {"workers": args.workers or default_workers(), "scheduler": args.scheduler}
    facts = sweep_facts(plan, Results(args.results or default_path()), objectives, **where)
    if args.synth is not None:
        from tern_hw.exploration.synthesis import LIMIT, with_cells

        facts = with_cells(facts, plan, args.synth, limit=args.synth_limit or LIMIT, **where)
    return facts


def _write(facts: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """Write the files that are asked for; returns their paths."""
    from tern_hw.files import write_atomic

    if args.csv is not None:
        from tern_hw.exploration.report import front_csv

        write_atomic(args.csv, front_csv(facts))
    if args.plot is not None:
        from tern_hw.exploration.plot import picture

        write_atomic(args.plot, picture(facts))
    if args.html is not None:
        from tern_hw.exploration.page import page

        write_atomic(args.html, page(facts))
    return [path for name in OUTPUTS if (path := getattr(args, name)) is not None]


def _parser(estimate: ArgumentParser) -> ArgumentParser:
    from tern_hw.exploration.axes import DEFAULTS, FIXED, axis_actions
    from tern_hw.exploration.objectives import DEFAULT, OBJECTIVES

    parser = ArgumentParser(
        prog="python -m tern_hw.explore",
        description="Sweep arrays, memories and clocks for a language model, and find the points "
        "that nothing beats in energy, time and area.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is asked: one value each")
    for action in (each for each in estimate._actions if each.dest in FIXED):
        _add_like(what, action, type=action.type, metavar=action.metavar)
    axes = parser.add_argument_group("the design: one value, or several with commas between them")
    for action in axis_actions(estimate):
        swept = f"; swept: {DEFAULTS[action.dest]}" if action.dest in DEFAULTS else ""
        name = action.metavar or action.dest.upper()
        _add_like(axes, action, default=None, metavar=f"{name},..", help=f"{action.help}{swept}")
    how = parser.add_argument_group("the sweep")
    how.add_argument(
        "--minimise",
        metavar="NAME,NAME",
        default=DEFAULT,
        help=f"of {', '.join(OBJECTIVES)} ({DEFAULT}); the first two are drawn",
    )
    how.add_argument("--limit", metavar="N", type=integer, help="at most N points, drawn by lot")
    how.add_argument("--workers", metavar="N", type=integer, help="processes (one for each core)")
    how.add_argument(
        "--scheduler", metavar="ADDRESS", help="of Dask: tcp://host:8786, or local to start one"
    )
    how.add_argument(
        "--results", metavar="FILE", help="known figures, JSON lines (in the user's cache)"
    )
    synth = parser.add_argument_group("synthesis of the front's arrays")
    synth.add_argument("--synth", metavar="TARGET", help="ecp5, ice40, xc7 or gowin")
    synth.add_argument(
        "--synth-limit",
        metavar="N",
        type=integer,
        help="at most N arrays, those least in what is minimised first (8)",
    )
    report = parser.add_argument_group("the report")
    report.add_argument("--csv", metavar="FILE.csv", help="the front, a line each")
    report.add_argument("--plot", metavar="FILE.png", help="a picture of all points")
    report.add_argument("--html", metavar="FILE.html", help="a page with plot and table")
    report.add_argument("--json", action="store_true", help="report as JSON, all points")
    return parser


def _add_like(group: Any, action: argparse.Action, **changed: Any) -> None:
    """Add an option of an estimate, with changes."""
    own = {"default": action.default, "help": action.help, "dest": action.dest}
    group.add_argument(*action.option_strings, **own | changed)


if __name__ == "__main__":
    raise SystemExit(run(main))
