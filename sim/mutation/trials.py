"""One mutant under the benches, then under the solvers: which test notices it first."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sim.mutation.mutants import Mutant, one_mutant
from sim.runner import Simulator, run
from sim.settings import LIMIT_VARIABLE
from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows.process import run_tool

__all__ = ["Trial", "block_properties", "decide_on", "try_mutant", "try_proofs"]

#: Simulated time (ms) that a test may take: ten times what the longest needs on a whole array.
LIMIT_MS = 0.05
#: Property of the whole array that is decided on what the benches let pass.
WHOLE = "array, counters"
#: Seconds for a property.
PROOF_LIMIT_S = 900
PROJECT = Path(__file__).resolve().parent.parent.parent
#: Characters of a failure's message that are kept.
MESSAGE_CHARACTERS = 160


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of a mutant under the benches."""

    #: First test that failed; empty where all passed.
    killed_by: str
    message: str
    #: Tests that ran, the failed one included.
    tests: int


def try_mutant(verilog: Path, config: ArrayConfig, mutant: Mutant | None, folder: Path) -> Trial:
    """Run the benches on a mutant (None: on the whole array) up to the first test that fails.

    Parameters
    ----------
    verilog
        What `mutated_verilog` returned.
    config
        The array's configuration.
    mutant
        Which.
    folder
        For everything that is written; removed at the end.
    """
    number = 0 if mutant is None else mutant.number
    try:
        report = run(
            verilog,
            config,
            Simulator.VERILATOR,
            folder,
            environment={"COCOTB_MAX_FAILURES": "1", LIMIT_VARIABLE: str(LIMIT_MS)},
            plusargs=[f"+mutant={number}"],
        )
    except TernError as error:
        # The simulator itself ended: a mutant may bring down what no test looks at.
        return Trial(killed_by="simulator", message=_short(str(error)), tests=0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, message in report.failures.items():
        return Trial(killed_by=name, message=_short(message), tests=len(report.tests))
    return Trial(killed_by="", message="", tests=len(report.tests))


def block_properties(config: ArrayConfig) -> dict[str, str]:
    """Return the property of each block of an array that has one, by its module without `$...`."""
    places = config.result_places
    counted = "credits, {} places, {} a claim"
    return {
        "core.activation_gate": "packet gate",
        "core.weight_gate": "packet gate",
        "core.scale_gate": "packet gate",
        "core.scale_credit": counted.format(config.scale_places, 1),
        "core.room": counted.format(places, config.rows),
        "core.results.waiting": counted.format(places, 1),
        "registers.counters": "counters, 5 of 32 bits",
    }


def try_proofs(source: Path, config: ArrayConfig, mutant: Mutant, tests: int) -> Trial:
    """Decide properties on a mutant that the benches let pass: its block's own, and the array's.

    Parameters
    ----------
    source
        Folder with the array's Verilog.
    config
        The array's configuration.
    mutant
        Which.
    tests
        Tests that it passed.
    """
    path = source / f"mutant-{mutant.number}.v"
    own = block_properties(config).get(mutant.module.partition("$")[0])
    for name, part in ((own, mutant.module), (WHOLE, "")):
        if name is None:
            continue
        one_mutant(source, config, mutant, part, path)
        holds = decide_on(path, name)
        path.unlink()
        if not holds:
            message = "a run breaks it" if holds is False else "the proof does not succeed"
            return Trial(killed_by=f"tern_hw.prove {name}", message=message, tests=tests)
    return Trial(killed_by="", message="", tests=tests)


def decide_on(verilog: Path, name: str) -> bool | None:
    """Return whether a property holds of this Verilog; None where that is not decided."""
    command = [sys.executable, "-m", "tern_hw.prove", "--only", name, "--json"]
    done = run_tool([*command, "--verilog", verilog], timeout_s=PROOF_LIMIT_S, check=False)
    text = done.stdout
    # What comes before is the progress bar's.
    (line,) = json.loads(text[text.index("[\n") :])
    holds: bool | None = line["holds"]
    return holds


def _short(message: str) -> str:
    """Return a message in one line, without where this project lies on the disk."""
    local = message.replace(f"{PROJECT}/", "")
    return " ".join(local.split())[:MESSAGE_CHARACTERS]
