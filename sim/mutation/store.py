"""What is known of each mutant, kept after every trial, so that a run can be taken up again."""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.mutation.mutants import Mutant
from sim.mutation.trials import Trial
from tern_hw.files import write_atomic

__all__ = ["Outcome", "Store"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of a mutant; of one that survived, also whether it is one at all."""

    trial: Trial
    #: How it was proven to behave as the whole array does; empty where it was not.
    proof: str = ""

    @property
    def state(self) -> str:
        """Return "killed", "equivalent" or "survived"."""
        if self.trial.killed_by:
            return "killed"
        return "equivalent" if self.proof else "survived"


class Store:
    """Outcomes by mutant number, in one file per list of mutants.

    Parameters
    ----------
    folder
        Where the file lies.
    mutants
        The list; another list, another file.
    """

    def __init__(self, folder: Path, mutants: Iterable[Mutant], verilog: str) -> None:
        total = hashlib.sha256(verilog.encode())
        for mutant in mutants:
            total.update(repr(mutant).encode())
        self.path = folder / f"outcomes-{total.hexdigest()[:16]}.json"
        self._lock = threading.Lock()
        self._outcomes: dict[int, Outcome] = {}
        if self.path.exists():
            known = json.loads(self.path.read_text())
            self._outcomes = {int(number): _outcome(fields) for number, fields in known.items()}

    def get(self, mutant: Mutant) -> Outcome | None:
        """Return what is known of a mutant."""
        return self._outcomes.get(mutant.number)

    def put(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keep what came of a mutant."""
        with self._lock:
            self._outcomes[mutant.number] = outcome
            plain = {number: dataclasses.asdict(each) for number, each in self._outcomes.items()}
            write_atomic(self.path, json.dumps(plain, indent=1))


def _outcome(fields: dict[str, Any]) -> Outcome:
    return Outcome(trial=Trial(**fields["trial"]), proof=fields["proof"])
