"""`python -m tern_hw.prove`: properties of the emitted gateware, decided by solvers."""

import argparse
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, progress, run
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

if TYPE_CHECKING:
    from tern_hw.formal.harness import Property

__all__ = ["main"]

EPILOG = """examples:
  python -m tern_hw.prove                     # all of them: minutes
  python -m tern_hw.prove --quick             # those that take seconds
  python -m tern_hw.prove --only 'rounder*'   # those of one kind of block
  python -m tern_hw.prove --traces traces/    # where one fails, a value change dump of how

Exit status: 0 if every property holds, 1 if one does not, 2 for a mistake in the command.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the verb; 0 where every property holds, 1 where one does not."""
    args = _parser().parse_args(arguments)
    from tern_hw.formal.properties import properties

    wanted = [each for each in properties() if _chosen(args, each)]
    if not wanted:
        raise TernError(f"--only must match a block, not {args.only!r} (see --list)")
    if args.list:
        for each in wanted:
            print(f"{each.block}: {each.text}")
        return 0
    verilog = None if args.verilog is None else args.verilog.read_text()
    lines = []
    with progress("deciding properties", len(wanted)) as advance:
        for each in wanted:
            lines.append(_decide(each, args.traces, verilog))
            advance(1)
    if args.json:
        print(json.dumps(lines, indent=1))
    else:
        _print(lines)
    return 0 if all(line["holds"] for line in lines) else 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m tern_hw.prove",
        description="Decide what the gateware's blocks promise, on the Verilog emitted of each, "
        "for all inputs: by Yosys' SMT back end with yices, and by ABC.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="GLOB", default="*", help="blocks by name, as 'tree*'")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--list", action="store_true", help="list the properties, decide none")
    parser.add_argument("--traces", metavar="FOLDER", type=Path, help="for runs that break one")
    parser.add_argument(
        "--verilog",
        metavar="FILE",
        type=Path,
        help="look at this in place of what is emitted; the block's module is named `block`",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    return parser


def _chosen(args: argparse.Namespace, each: "Property") -> bool:
    return fnmatch(each.block, args.only) and (each.quick or not args.quick)


def _decide(each: "Property", traces: Path | None, verilog: str | None) -> dict[str, Any]:
    verdict, cycles = each.decide(lambda text: text if verilog is None else verilog)
    line = {
        "block": each.block,
        "property": each.text,
        "method": _method(each, cycles),
        "proof": each.is_proof,
        "solver": verdict.solver,
        "seconds": round(verdict.seconds, 1),
        "holds": verdict.holds,
    }
    if traces is not None and verdict.trace:
        traces.mkdir(parents=True, exist_ok=True)
        path = traces / f"{each.block.replace(', ', '-').replace(' ', '_')}.vcd"
        write_atomic(path, verdict.trace)
        line["trace"] = str(path)
    return line


def _method(each: "Property", cycles: int) -> str:
    from tern_hw.flows.smt import Method

    words = {
        Method.INDUCTION: f"proof: k-induction, k = {cycles}",
        Method.PIPELINE: f"proof: {cycles - 1} cycles after any state",
        Method.PDR: "proof: PDR",
        Method.BOUNDED: f"bounded: {cycles} cycles",
    }
    return words[each.method]


def _print(lines: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("block", "property", "how", "solver", "s", "result", box=box.ROUNDED)
    for line in lines:
        table.add_row(
            line["block"],
            line["property"],
            line["method"],
            line["solver"],
            f"{line['seconds']:.1f}",
            {True: "holds", False: "FAILS", None: "not decided"}[line["holds"]],
        )
    Console(width=max(110, Console().width)).print(table)


if __name__ == "__main__":
    raise SystemExit(run(main))
