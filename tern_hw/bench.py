"""`python -m tern_hw.bench`: the kernels against numpy, PyTorch and the machine itself."""

import argparse
import json
import os
import platform
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

if TYPE_CHECKING:
    from tern_hw.benchmark.cases import Contender, Shape
    from tern_hw.benchmark.measure import Timing
    from tern_hw.benchmark.roofs import Roof

__all__ = ["main"]

EXAMPLE = """examples:
  python -m tern_hw.bench
  python -m tern_hw.bench --shapes 2048x2048 4096x11008 --tokens 1 32 --threads 1 2
  taskset --cpu-list 0 python -m tern_hw.bench --threads 1 --json bench.json --picture bench.png

A shape is NxK, outputs by inputs. Kernels, reference, peers and the machine's roofs take turns
within one run; peers have one thread. Hot: the same matrix again and again; cold: matrices of
320 MB in turn.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    shapes = _check(arguments)
    # Before numpy and PyTorch are loaded: the peers' one thread.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    report = _measure(shapes, arguments)
    if arguments.json:
        write_atomic(Path(arguments.json), json.dumps(report, indent=2) + "\n")
    if arguments.picture:
        from tern_hw.benchmark.report import picture

        picture(report, Path(arguments.picture))
    from tern_hw.benchmark.report import print_report

    print_report(report)
    wrong = [
        row["name"] for case in report["cases"] for row in case["rows"] if row["right"] is False
    ]
    if wrong:
        raise TernError(f"outputs must be the reference's, not as those of {', '.join(wrong)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m tern_hw.bench",
        description="Time the ternary kernels side by side with numpy, PyTorch and the roofs.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--shapes", nargs="+", default=["4096x4096"], metavar="NxK", help="default: 4096x4096"
    )
    parser.add_argument(
        "--tokens",
        nargs="+",
        type=integer,
        default=[1, 32, 128],
        metavar="M",
        help="tokens of a product (default: 1 32 128)",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=integer,
        metavar="T",
        help="threads of the kernels (default: 1, and all processors)",
    )
    parser.add_argument(
        "--rounds", type=integer, default=9, help="turns of each contender (default: 9)"
    )
    parser.add_argument("--no-peers", action="store_true", help="only kernels and roofs")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a JSON file")
    parser.add_argument("--picture", metavar="FILE", help="write a roofline picture (.png, .svg)")
    return parser


def _check(arguments: argparse.Namespace) -> list[tuple[int, int]]:
    """Return the shapes; refuse what is out of range before anything is timed."""
    for name in ("tokens", "threads", "rounds"):
        values = getattr(arguments, name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not 1 <= value <= 4096:
                raise TernError(f"--{name} must be from 1 to 4096, not {value}")
    shapes = []
    for text in arguments.shapes:
        match = re.fullmatch("([0-9]{1,5})x([0-9]{1,6})", text)
        if not match or not all(int(part) for part in match.groups()):
            raise TernError(f"--shapes must be NxK, two positive numbers, not {text!r}")
        shapes.append((int(match[1]), int(match[2])))
    for name in ("json", "picture"):
        value = getattr(arguments, name)
        if value is not None and not Path(value).absolute().parent.is_dir():
            raise TernError(f"--{name} must be a file in a folder that exists, not {value}")
    return shapes


def _measure(shapes: list[tuple[int, int]], arguments: argparse.Namespace) -> dict[str, Any]:
    from tern_hw import kernels
    from tern_hw.benchmark.cases import (
        COLD_BYTES,
        Shape,
        cold_contenders,
        hot_contenders,
        peer_notes,
    )
    from tern_hw.benchmark.first_call import first_calls
    from tern_hw.benchmark.roofs import machine_roofs
    from tern_hw.kernels.team import processors

    counts = arguments.threads or sorted({1, processors()})
    cases: list[dict[str, Any]] = []
    for threads in sorted(set(counts)):
        roofs = machine_roofs(kernels.chosen(), COLD_BYTES, threads)
        for n, k in shapes:
            for tokens in arguments.tokens:
                shape = Shape(n, k, tokens)
                peers = not arguments.no_peers
                hot = hot_contenders(shape, 7, threads, peers=peers)
                cases.append(_case(shape, hot, threads, "hot", arguments.rounds, roofs))
            cold = cold_contenders(Shape(n, k), 8, threads)
            cases.append(_case(Shape(n, k), cold, threads, "cold", arguments.rounds, roofs))
    return {
        "processor": _processor(),
        "instructions": kernels.chosen(),
        "processors": processors(),
        "rounds": arguments.rounds,
        "first_call": first_calls(),
        "roofs": {str(threads): _median_roof(cases, threads) for threads in sorted(set(counts))},
        "cases": cases,
        "notes": [] if arguments.no_peers else peer_notes(),
    }


def _median_roof(cases: list[dict[str, Any]], threads: int) -> dict[str, float | None]:
    found = [case["roofs"] for case in cases if case["threads"] == threads]
    return {
        name: None if value is None else statistics.median(each[name] for each in found)
        for name, value in found[0].items()
    }


def _case(
    shape: "Shape",
    contenders: "list[Contender]",
    threads: int,
    caches: str,
    rounds: int,
    roofs: "dict[str, Roof]",
) -> dict[str, Any]:
    """Time the contenders of one case and the roofs in turns, then look at the last outputs."""
    from tern_hw.benchmark.measure import interleaved

    calls = {each.name: each.call for each in contenders}
    calls |= {name: roof.call for name, roof in roofs.items()}
    with progress(f"{shape}, {threads} thread(s), {caches}", rounds * len(calls)) as advance:
        found = interleaved(calls, rounds, advance)
    rows = [_row(shape, each, found, roofs) for each in contenders]
    measured = {
        name: roofs[name].amount / found[name].seconds / 1e9 if name in roofs else None
        for name in ("read_gb_s", "gmacs")
    }
    return {
        "shape": str(shape),
        "threads": threads,
        "caches": caches,
        "roofs": measured,
        "rows": rows,
    }


def _row(
    shape: "Shape",
    contender: "Contender",
    found: "dict[str, Timing]",
    roofs: "dict[str, Roof]",
) -> dict[str, Any]:
    timing, numpy = found[contender.name], found.get("numpy fp32")

    def share(name: str, amount: int) -> float | None:
        """Return the rate over the roof's: the median of ratios within a round."""
        if name not in roofs:
            return None
        return timing.times_faster(found[name])[0] * amount / roofs[name].amount

    return {
        "name": contender.name,
        "seconds": timing.seconds,
        "spread": timing.spread,
        "rounds": list(timing.rounds),
        "products": shape.products,
        "nbytes": contender.nbytes,
        "gmacs": shape.products / timing.seconds / 1e9,
        "gb_s": contender.nbytes / timing.seconds / 1e9,
        "of_peak": share("gmacs", shape.products),
        "of_read": share("read_gb_s", contender.nbytes),
        "times_numpy": list(timing.times_faster(numpy)) if numpy is not None else None,
        "right": contender.check() if contender.check is not None else None,
    }


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(run(main))
