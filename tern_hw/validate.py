"""`python -m tern_hw.validate`: the cost model beside RTL, synthesis and gates."""

import json
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, run, stages
from tern_hw.errors import TernError

if TYPE_CHECKING:
    import argparse

    from tern_hw.gates.layer import Layer

__all__ = ["main"]

PARTS = ("cycles", "area", "switching")
#: What a record keeps of an artifact's metadata.
MADE_BY = ("method", "origin", "versions")

EPILOG = """examples:
  python -m tern_hw.validate                    # a few of each, and all of the area's record
  python -m tern_hw.validate --part cycles --full
  python -m tern_hw.validate --json
  python -m tern_hw.validate --artifact model/ --activations x.safetensors \\
      --weights teacher/model.safetensors --layer model.layers.7.self_attn.q_proj
  python -m tern_hw.validate --refit            # measure again, fit the area anew, record

cycles     jobs on the compiled Verilog: cycles, stalls and beats equal the model's, without pauses,
           with random and with periodic ones
area       synthesised arrays (ECP5) that the fitted coefficients have not seen
switching  toggles of gates: the ratio of FP16 over ternary beside the tables' ratio

By default, of what is recorded, two arrays are simulated, two held-out ones synthesised, one ratio
measured; --full does all. --refit takes what it measured before from the store of syntheses, so it
may be interrupted.

With --artifact switching alone is measured, of that model's layers: 64 lanes, both packings, both
formats of the opponent's sum. The artifact comes from quant.export, activations from quant.capture.
A layer without a record is held to the bar; --refit records these layers in place of those before.

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
    layers, made_by = _layers(args)
    if layers:
        known = ["switching"]
    parts = [part for part in PARTS if part in (args.part or known)]
    from tern_hw.validation.report import print_report

    with stages() as notify:
        if args.refit:
            record_anew(parts, notify, layers, made_by)
        facts = validation_facts(parts, full=args.full or args.refit, notify=notify, layers=layers)
    if args.json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        print_report(facts)
        for part in PARTS:
            if not args.part and not layers and part not in parts:
                print(
                    f"{part}: not recorded yet; --part {part} --refit measures it, in an hour or so"
                )
    return 1 if facts["regressions"] else 0


def _layers(args: "argparse.Namespace") -> "tuple[list[Layer], dict[str, Any]]":
    """Return the model's layers that are named, some rows of each, and what made the model."""
    named = (args.artifact, args.activations, args.weights, args.layer)
    if not any(named):
        return [], {}
    if not all(named):
        raise TernError("--artifact must stand beside --activations, --weights and --layer")
    if args.part and args.part != ["switching"]:
        raise TernError(f"--part must be switching beside --artifact, not {' '.join(args.part)}")
    from tern_hw.artifact import load_artifact
    from tern_hw.gates.real import real_layer

    layers = [
        real_layer(args.artifact, name, activations=args.activations, weights=args.weights)
        for name in args.layer
    ]
    made_by = load_artifact(args.artifact).info.metadata
    told = {key: made_by[key] for key in MADE_BY if key in made_by}
    return [layer.some_rows(args.rows) for layer in layers], told


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
    parser.add_argument("--artifact", metavar="FOLDER", help="a model whose switching is measured")
    parser.add_argument("--layer", nargs="+", metavar="NAME", help="its layers")
    parser.add_argument("--activations", help="what enters them: quant.capture's file")
    parser.add_argument(
        "--weights", help="a .safetensors file with the layers before they were ternary"
    )
    parser.add_argument(
        "--rows", type=integer, default=64, help="rows taken, a multiple of 4 (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
