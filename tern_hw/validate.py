"""`python -m tern_hw.validate`: the cost model beside RTL, synthesis and gates."""

import json

from tern_hw.cli import ArgumentParser, run, stages
from tern_hw.errors import TernError

__all__ = ["main"]

PARTS = ("cycles", "area", "switching")

EPILOG = """examples:
  python -m tern_hw.validate                    # a few of each, and all of the area's record
  python -m tern_hw.validate --part cycles --full
  python -m tern_hw.validate --json
  python -m tern_hw.validate --refit            # measure again, fit the area anew, record

cycles     jobs on the compiled Verilog: cycles, stalls and beats equal the model's
area       synthesised arrays (ECP5) that the fitted coefficients have not seen
switching  toggles of gates: the ratio of FP16 over ternary beside the tables' ratio

By default, of what is recorded, two arrays are simulated, two held-out ones synthesised, one ratio
measured; --full does all. --refit takes what it measured before from the store of syntheses, so it
may be interrupted.

Exit status: 0; 1 where a count differs, the area's bars are missed, or anything is worse than what
is recorded; 2 for a mistake in the command or a tool that fails.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = _parser().parse_args(argv)
    for part in args.part or ():
        if part not in PARTS:
            raise TernError(f"--part must be one of {', '.join(PARTS)}, not {part!r}")
    from tern_hw.validation.checks import record_anew, recorded_parts, validation_facts

    known = PARTS if args.refit else recorded_parts(PARTS)
    parts = [part for part in PARTS if part in (args.part or known)]
    from tern_hw.validation.report import print_report

    with stages() as notify:
        if args.refit:
            record_anew(parts, notify)
        facts = validation_facts(parts, full=args.full or args.refit, notify=notify)
    if args.json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        print_report(facts)
        for part in PARTS:
            if not args.part and part not in parts:
                print(
                    f"{part}: not recorded yet; --part {part} --refit measures it, in an hour or so"
                )
    return 1 if facts["regressions"] else 0


def _parser() -> ArgumentParser:
    import argparse

    parser = ArgumentParser(
        prog="python -m tern_hw.validate",
        description="Print what the cost model predicts, what RTL, synthesis and gates measure, "
        "and the error.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", nargs="+", metavar="NAME", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--full", action="store_true", help="everything, which takes hours")
    parser.add_argument(
        "--refit",
        action="store_true",
        help="measure all again, fit the area's coefficients, write the records",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
