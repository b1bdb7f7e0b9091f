"""`python -m sim.mutate`: break an array in many places and report which tests notice."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.config import ArrayConfig, Packing
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from sim.mutation.mutants import Mutant
    from sim.mutation.store import Outcome, Store

__all__ = ["CONFIG", "COUNT", "SEED", "main"]

EPILOG = """examples:
  python -m sim.mutate                        # all trials, then the proofs of what survived
  python -m sim.mutate --only 17 42           # these two again
  python -m sim.mutate --retry                # survivors again, after the benches grew
  python -m sim.mutate --json > report.json

Every outcome is kept in the folder, and a run goes on where the last one ended. A mutant leaves
the count only where a solver proves that it behaves as the whole array does, whatever comes in.
"""

#: The array: small, so that a whole bench takes seconds, with every kind of counter in it (rows of
#: a block, steps of a group, a ragged maximum).
CONFIG = ArrayConfig(lanes=8, rows=2, group_size=16, packing=Packing.BASE3, max_k=100, max_n=60)
#: Fixed before the first run, and never changed for the score's sake.
COUNT, SEED = 240, 1
FOLDER = Path("build/mutation")


def main(arguments: list[str] | None = None) -> int:
    """Run the verb; 0 where no mutant survived, 1 where one did."""
    args = _parser().parse_args(arguments)
    if args.count < 1 or args.jobs < 1:
        raise TernError("--count and --jobs must be at least 1")
    return _mutate(args)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sim.mutate",
        description="Break a small array in many places, one at a time, and run the test benches "
        "on each: how many of the broken arrays do they notice?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", metavar="N", type=integer, default=COUNT, help=f"({COUNT})")
    parser.add_argument("--seed", type=integer, default=SEED, help=f"of the places ({SEED})")
    parser.add_argument("--jobs", type=integer, default=2, help="trials at a time (2)")
    parser.add_argument("--folder", metavar="PATH", type=Path, default=FOLDER, help=f"({FOLDER})")
    parser.add_argument("--only", metavar="NUMBER", type=integer, nargs="+", help="these again")
    parser.add_argument("--retry", action="store_true", help="try survivors again")
    parser.add_argument("--no-proofs", action="store_true", help="leave survivors unproven")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write the report there, too")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    return parser


def _mutate(args: argparse.Namespace) -> int:
    from sim.mutation.mutants import SOURCE, array_verilog, draw_mutants, mutated_verilog
    from sim.mutation.report import facts, print_facts
    from sim.mutation.store import Store
    from tern_hw.files import write_atomic

    args.folder.mkdir(parents=True, exist_ok=True)
    verilog = array_verilog(CONFIG)
    (args.folder / SOURCE).write_text(verilog)
    mutants = draw_mutants(args.folder, CONFIG, args.count, args.seed)
    path = args.folder / f"{CONFIG.name}.v"
    path.write_text(mutated_verilog(args.folder, CONFIG, mutants))
    store = Store(args.folder, mutants, verilog)
    # Before the trials too, so that a retry leaves out what is proven equivalent.
    if not args.no_proofs:
        _prove_all(args, mutants, store)
    _try_all(args, path, mutants, store)
    if not args.no_proofs:
        _prove_all(args, mutants, store)
    outcomes = _known(mutants, store)
    report = facts(CONFIG, args.seed, mutants, outcomes)
    text = json.dumps(report, indent=1)
    if args.record:
        write_atomic(args.record, text + "\n")
    if args.json:
        print(text)
    else:
        print_facts(report)
    return 1 if report["survived"] else 0


def _known(mutants: "list[Mutant]", store: "Store") -> "list[Outcome]":
    return [outcome for mutant in mutants if (outcome := store.get(mutant)) is not None]


def _due(args: argparse.Namespace, mutant: "Mutant", store: "Store") -> bool:
    outcome = store.get(mutant)
    again = args.retry and outcome is not None and outcome.state == "survived"
    return outcome is None or again or mutant.number in (args.only or ())


def _try_all(
    args: argparse.Namespace, verilog: Path, mutants: "list[Mutant]", store: "Store"
) -> None:
    """Try every mutant that is due, after the array that is not broken, which must pass."""
    from sim.mutation.store import Outcome
    from sim.mutation.trials import try_mutant, try_proofs

    due = [mutant for mutant in mutants if _due(args, mutant, store)]
    if not due:
        return
    whole = try_mutant(verilog, CONFIG, None, args.folder / "whole")
    if whole.killed_by:
        raise TernError(f"the whole array must pass, not fail {whole.killed_by}: {whole.message}")

    def attempt(mutant: "Mutant") -> None:
        trial = try_mutant(verilog, CONFIG, mutant, args.folder / f"trial-{mutant.number}")
        if not trial.killed_by:
            trial = try_proofs(args.folder, CONFIG, mutant, trial.tests)
        store.put(mutant, Outcome(trial=trial))

    with progress("trying mutants", len(due)) as advance, ThreadPoolExecutor(args.jobs) as pool:
        for _ in pool.map(attempt, due):
            advance(1)


def _prove_all(args: argparse.Namespace, mutants: "list[Mutant]", store: "Store") -> None:
    """Look for a proof that a survivor is no mutant at all."""
    from sim.mutation.equivalence import prove_equivalent
    from sim.mutation.store import Outcome

    left = [(each, known) for each in mutants if (known := store.get(each)) is not None]
    left = [(each, known) for each, known in left if known.state == "survived"]
    if not left:
        return
    with progress("proving equivalence", len(left)) as advance:
        for mutant, known in left:
            proof = prove_equivalent(args.folder, CONFIG, mutant)
            store.put(mutant, Outcome(trial=known.trial, proof=proof))
            advance(1)


if __name__ == "__main__":
    raise SystemExit(run(main))
