"""`python -m tern_hw.synth`: the area and the clock of an array and its blocks on an FPGA."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, run, stages
from tern_hw.config import NAMED_CONFIGS, ArrayConfig, Weights
from tern_hw.errors import TernError
from tern_hw.files import write_atomic
from tern_hw.shape import SHAPE, add_shape_options, shaped_config

if TYPE_CHECKING:
    import argparse

    from tern_hw.flows.synthesis import SynthesisOptions

__all__ = ["main"]

#: Choices of --pnr, and what each places.
PLACES = {
    "both": ("registered_pins", "out_of_context"),
    "registered": ("registered_pins",),
    "bare": ("out_of_context",),
}
#: More seeds than anyone waits for.
MAX_SEEDS = 100

EPILOG = """examples:
  python -m tern_hw.synth --target ecp5 --lanes 64 --rows 4
  python -m tern_hw.synth --target xc7 --no-dsp --block dots trees decoder --activation fp16
  python -m tern_hw.synth --target ecp5 --block core --pnr registered --seeds 5 --clock 200
  python -m tern_hw.synth --target ecp5 --overhead --no-dsp --json
  python -m tern_hw.synth --activation fp16 --weights fp16 --result fp16 --block mac macs --no-dsp

Area is counted after synthesis (Yosys). --pnr places and routes with nextpnr: "registered" within a
top of four pins, whose registers feed every input and take every output; "bare" without pads,
where only paths between the design's own registers count; "both" is both (where the target has it).
Results are kept in $TERN_HW_CACHE (~/.cache/tern-hw), found by Verilog, options and tool version.

Exit status: 0, or 2 for a mistake in the command or a tool that fails.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = _parser().parse_args(argv)
    if args.list:
        return _list(args)
    options = _options(args)
    config = shaped_config(args)
    blocks = _blocks(args, config)
    folder = None if args.output is None else _folder(args.output)

    from tern_hw.synthesis import measure, save
    from tern_hw.synthesis_report import overhead_facts, print_report, report_facts

    measured = []
    with stages() as notify:
        for block in blocks:
            result = measure(
                config,
                block,
                options,
                surroundings=_surroundings(args, options),
                seeds=args.seeds or 1,
                clock_mhz=args.clock or 200.0,
                notify=notify,
            )
            measured.append(result)
            if folder is not None:
                save(result, folder)
    facts = report_facts(config, options, measured)
    if args.overhead:
        facts["overhead"] = overhead_facts(facts)
    text = json.dumps(facts, indent=2) + "\n"
    if folder is not None:
        write_atomic(folder / "report.json", text)
    if args.json:
        print(text, end="")
    else:
        print_report(facts, parts=args.parts)
    return 0


def _parser() -> ArgumentParser:
    import argparse

    parser = ArgumentParser(
        prog="python -m tern_hw.synth",
        description="Synthesise an array or its blocks for an FPGA with open tools, and place and "
        "route them: cells by kind, area, clock, critical path.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--target", help="ecp5, ice40, xc7 or gowin (ecp5)")
    what.add_argument(
        "--block", nargs="+", metavar="NAME", help="parts of the array, see --list (array)"
    )
    what.add_argument("--no-dsp", action="store_true", help="multiply in logic")
    what.add_argument(
        "--overhead",
        action="store_true",
        help="the array beside its dot products, and the rest in percent of them",
    )
    what.add_argument(
        "--parts", action="store_true", help="a table of each by the blocks within it"
    )
    place = parser.add_argument_group("place and route")
    place.add_argument(
        "--pnr", nargs="?", const="both", metavar="HOW", help="both, registered or bare (both)"
    )
    place.add_argument("--seeds", type=integer, metavar="N", help="placements, seeds 1 to N (1)")
    place.add_argument("--clock", type=float, metavar="MHZ", help="what to aim at (200)")
    add_shape_options(parser)
    out = parser.add_argument_group("what to write")
    out.add_argument("--json", action="store_true", help="report as JSON")
    out.add_argument(
        "-o", "--output", metavar="FOLDER", help="keep Verilog, netlists, logs and report there"
    )
    out.add_argument("--list", action="store_true", help="list targets, blocks, configurations")
    return parser


def _options(args: "argparse.Namespace") -> "SynthesisOptions":
    from tern_hw.flows.synthesis import SynthesisOptions
    from tern_hw.flows.targets import find_target

    _check_numbers(args)
    target = find_target(args.target or "ecp5")
    if args.pnr is not None and target.device is None:
        raise TernError(f"--pnr must go with a target that nextpnr places, not {target.name}")
    return SynthesisOptions(target=target, dsp=not args.no_dsp)


def _check_numbers(args: "argparse.Namespace") -> None:
    if args.pnr is not None and args.pnr not in PLACES:
        raise TernError(f"--pnr must be one of {', '.join(PLACES)}, not {args.pnr!r}")
    if args.seeds is not None and not 1 <= args.seeds <= MAX_SEEDS:
        raise TernError(f"--seeds must be from 1 to {MAX_SEEDS}, not {args.seeds}")
    if args.clock is not None and not 1 <= args.clock <= 1000:
        raise TernError(f"--clock must be from 1 to 1000 (MHz), not {args.clock:g}")
    for name in ("seeds", "clock"):
        if getattr(args, name) is not None and args.pnr is None:
            raise TernError(f"--{name} must stand beside --pnr, not without it")


def _surroundings(args: "argparse.Namespace", options: "SynthesisOptions") -> tuple[str, ...]:
    if args.pnr is None:
        return ()
    device = options.target.device
    if device is not None and device.out_of_context is None:
        if args.pnr == "bare":
            name = options.target.name
            raise TernError(f"--pnr must be registered for {name}, which has no other mode")
        return PLACES["registered"]
    return PLACES[args.pnr]


def _blocks(args: "argparse.Namespace", config: ArrayConfig) -> list[str]:
    """Return the blocks to measure, each once; all names are known before the first tool runs."""
    from tern_hw.gateware.blocks import blocks_of

    if args.overhead and config.weights is not Weights.TERNARY:
        raise TernError(f"--overhead must go with ternary weights, not {config.weights}")
    known = blocks_of(config)
    wanted = args.block or ([] if args.overhead else ["array"])
    for name in wanted:
        if name not in known:
            raise TernError(f"--block must be one of {', '.join(known)}, not {name!r}")
    if args.overhead:
        from tern_hw.synthesis import OVERHEAD_BLOCKS

        wanted = [*wanted, *OVERHEAD_BLOCKS]
    return list(dict.fromkeys(wanted))


def _folder(output: str) -> Path:
    path = Path(output)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TernError(f"--output must be a folder, not {output!r} ({error.strerror})") from None
    return path


def _list(args: "argparse.Namespace") -> int:
    for name in SHAPE:
        if getattr(args, name) is not None:
            raise TernError(f"--list must stand without --{name.replace('_', '-')}, not beside it")
    from tern_hw.flows.targets import TARGETS
    from tern_hw.gateware.blocks import BLOCKS

    facts: dict[str, Any] = {
        "targets": {name: target.about for name, target in TARGETS.items()},
        "blocks": {name: block.about for name, block in BLOCKS.items()},
        "configurations": {name: config.name for name, config in NAMED_CONFIGS.items()},
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for head, entries in facts.items():
        print(f"{head}:")
        for name, about in entries.items():
            print(f"  {name:18} {about}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
