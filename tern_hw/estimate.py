"""`python -m tern_hw.estimate`: what a model costs on a ternary array, and beside FP16."""

import json
from typing import Any

from tern_hw.cli import ArgumentParser, integer, run
from tern_hw.errors import TernError
from tern_hw.shape import add_shape_options

__all__ = ["estimate_parser", "main"]

EPILOG = """examples:
  python -m tern_hw.estimate --model llama-2-7b --packing base3
  python -m tern_hw.estimate --model smollm2-135m --technology 45nm --memory ddr4 --context 2048
  python -m tern_hw.estimate --model path/config.json --lanes 128 --rows 8 --memory hbm2 --clock 800
  python -m tern_hw.estimate --model model/ --plot cost.png
  python -m tern_hw.estimate --model opt-1.3b --technology my.toml --memory my-memory.toml:board
  python -m tern_hw.estimate --model opt-125m --sources

A model is the name of a published one (--list), a Hugging Face config.json, a folder with one, or
an artifact of quant.export, whose own group size, packing and zeros then count. Every number comes
from a table with its source; --technology and --memory take tables of your own in the same form
(tern_hw/costs/tables). Figures are of a model, not of silicon: the ends beside them say how far the
inputs let them move.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = estimate_parser().parse_args(argv)
    if args.list:
        return _list()
    if args.model is None:
        raise TernError("--model must be given")
    if args.plot is not None and not args.plot.endswith(".png"):
        raise TernError(f"--plot must be a .png file, not {args.plot!r}")
    from tern_hw.estimation.facts import estimate_facts
    from tern_hw.estimation.request import make_request

    request = make_request(args)
    fpga = None
    if args.fpga is not None:
        from tern_hw.estimation.fpga import fpga_facts

        fpga = fpga_facts(args.fpga, request.system.array)
    facts = estimate_facts(request)
    if fpga is not None:
        facts["array"]["fpga"] = fpga
    if args.plot is not None:
        from tern_hw.estimation.plot import save_plot

        save_plot(facts, args.plot)
    if args.json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        _print(facts, sources=args.sources)
    return 0


def _print(facts: dict[str, Any], *, sources: bool) -> None:
    from tern_hw.estimation.report import print_report, print_sources

    if sources:
        print_sources(facts)
    else:
        print_report(facts)


def _list() -> int:
    from tern_hw.costs import catalogue

    for name, model in catalogue().items():
        print(f"{name:<14}{model.parameters:>14,} parameters  {model.source}")
    return 0


def estimate_parser() -> ArgumentParser:
    """Return the parser of the command line, whose options `explore` sweeps."""
    import argparse

    parser = ArgumentParser(
        prog="python -m tern_hw.estimate",
        description="Estimate tokens/s, energy and bytes a token of a language model on a ternary "
        "array, and of FP16, BF16, INT8 and INT4 arrays in its place.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("the model")
    what.add_argument("--model", metavar="NAME", help="a name, a config.json or a folder")
    what.add_argument("--context", metavar="N", type=integer, default=1024, help="tokens (1024)")
    what.add_argument("--batch", metavar="B", type=integer, default=1, help="sequences (1)")
    what.add_argument("--zeros", metavar="SHARE", type=float, help="of trits, 0 to 1")
    what.add_argument("--list", action="store_true", help="list the models with a name")
    around = parser.add_argument_group("the system")
    around.add_argument("--technology", metavar="NAME", default="7nm", help="45nm, 7nm or a .toml")
    around.add_argument(
        "--memory",
        metavar="NAME",
        default="lpddr5",
        help="lpddr5, ddr4, gddr6, hbm2, sram (on the chip) or FILE.toml:NAME",
    )
    around.add_argument("--bandwidth", metavar="GB/s", type=float, help="of the memory")
    around.add_argument("--clock", metavar="MHz", type=float, default=500.0, help="(500)")
    around.add_argument(
        "--float-macs",
        metavar="N",
        type=integer,
        default=64,
        help="fp16 multiply-accumulates a cycle for what is not ternary (64)",
    )
    add_shape_options(parser)
    report = parser.add_argument_group("the report")
    report.add_argument("--json", action="store_true", help="report as JSON")
    report.add_argument("--fpga", metavar="NAME", help="add the array's fitted area on it: ecp5")
    report.add_argument("--plot", metavar="FILE.png", help="draw the energy and what moves it")
    report.add_argument("--sources", action="store_true", help="list every number and its source")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
