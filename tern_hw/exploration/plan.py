"""The points of a sweep: every combination of the axes that goes together; the others, counted."""

import argparse
import copy
import itertools
import math
import random
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tern_hw.costs import Inputs, System
from tern_hw.costs.technology import Values
from tern_hw.errors import TernError
from tern_hw.estimation.request import Subject, make_inputs, make_system, open_subject
from tern_hw.exploration.axes import FIXED, Axis, spelled

__all__ = ["MAX_COMBINATIONS", "Plan", "Point", "Skips", "make_plan"]

#: Most combinations of a sweep: planning that many takes minutes, evaluating them an hour.
MAX_COMBINATIONS: Final = 1_000_000
#: Decides which points --limit takes; any number will do, as long as it stays.
SEED: Final = 0
#: What a point's command line begins with.
VERB: Final = "python -m tern_hw.estimate"
#: Options by which the coefficients differ between points.
OF_INPUTS: Final = ("technology", "memory", "bandwidth", "zeros")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A combination that goes together."""

    #: By axis, in the axes' order.
    values: dict[str, Any]
    #: What gives its figures again.
    command: str
    system: System
    numbers: Values


@dataclass
class Skips:
    """Combinations that make no point, by the rule that they break."""

    counts: dict[str, int] = field(default_factory=dict)
    #: Whole sentence and command line of the first of each.
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, sentence: str, command: str) -> None:
        """Count a combination; rules are told apart without the values that broke them."""
        rule = re.sub(r"\s*\([^)]*\)|, not .*$", "", sentence)
        self.counts[rule] = self.counts.get(rule, 0) + 1
        self.examples.setdefault(rule, (sentence, command))

    @property
    def first(self) -> str:
        """Return the sentence of the first combination that was skipped."""
        return next(iter(self.examples.values()))[0]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep evaluates, and what it leaves out."""

    subject: Subject
    axes: list[Axis]
    context: int
    batch: int
    technology: str
    combinations: int
    points: list[Point]
    skips: Skips
    #: Good points beyond the limit.
    left_out: int


def make_plan(
    estimate: argparse.ArgumentParser,
    args: argparse.Namespace,
    axes: list[Axis],
    limit: int | None = None,
) -> Plan:
    """Return the points of a sweep.

    Parameters
    ----------
    estimate : ArgumentParser
        Of `tern_hw.estimate`.
    args : Namespace
        Has the options of `FIXED`.
    axes : list of Axis
    limit : int, optional
        Most points; which ones is decided by a seed, so a second run takes the same.

    Raises
    ------
    TernError
        If an option is out of its range, a value goes with no other, or there are too many.
    """
    combinations = math.prod(len(each.values) for each in axes)
    if combinations > MAX_COMBINATIONS:
        raise TernError(
            f"the sweep must have at most {MAX_COMBINATIONS:,} combinations, not {combinations:,}"
        )
    fixed = _fixed_options(estimate, args)
    base = estimate.parse_args(fixed)
    subject = open_subject(base)
    skips = Skips()
    points = list(_points(base, fixed, subject, axes, skips))
    if not points:
        raise TernError(skips.first)
    taken = points
    if limit is not None and limit < len(points):
        chosen = random.Random(SEED).sample(range(len(points)), limit)
        taken = [points[at] for at in sorted(chosen)]
    return Plan(
        subject=subject,
        axes=axes,
        context=base.context,
        batch=base.batch,
        technology=base.technology,
        combinations=combinations,
        points=taken,
        skips=skips,
        left_out=len(points) - len(taken),
    )


def _fixed_options(estimate: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Return the options that all points share, as a command line has them."""
    given = []
    for action in estimate._actions:
        value = getattr(args, action.dest, None)
        if action.dest in FIXED and value is not None and value != action.default:
            given += [action.option_strings[-1], spelled(value)]
    return given


def _points(
    base: argparse.Namespace, fixed: list[str], subject: Subject, axes: list[Axis], skips: Skips
) -> Iterator[Point]:
    inputs_of = _remembered(subject)
    unused = {(axis.name, value): "" for axis in axes if axis.given for value in axis.values}
    for values in itertools.product(*(each.values for each in axes)):
        chosen = {axis.name: value for axis, value in zip(axes, values, strict=True)}
        command = _command(fixed, axes, values)
        args = copy.copy(base)
        vars(args).update(chosen)
        try:
            numbers = inputs_of(args).values()
            system = make_system(args, subject)
        except TernError as error:
            skips.add(str(error), command)
            _blame(unused, chosen.items(), str(error))
            continue
        for item in chosen.items():
            unused.pop(item, None)
        yield Point(values=chosen, command=command, system=system, numbers=numbers)
    if unused:
        # A value that no combination takes was not meant: its own sentence says why.
        raise TernError(next(iter(unused.values())))


def _blame(
    unused: dict[tuple[str, Any], str], items: Iterable[tuple[str, Any]], sentence: str
) -> None:
    for item in items:
        if unused.get(item) == "":
            unused[item] = sentence


def _remembered(subject: Subject) -> Callable[[argparse.Namespace], Inputs]:
    """Return `make_inputs`, which reads every table once."""
    known: dict[tuple[Any, ...], Inputs] = {}

    def inputs_of(args: argparse.Namespace) -> Inputs:
        key = tuple(getattr(args, name) for name in OF_INPUTS)
        if key not in known:
            known[key] = make_inputs(args, subject)
        return known[key]

    return inputs_of


def _command(fixed: list[str], axes: list[Axis], values: tuple[Any, ...]) -> str:
    words = [*VERB.split(), *fixed]
    for axis, value in zip(axes, values, strict=True):
        words += [axis.option, spelled(value)]
    return shlex.join(words)
