"""Counts against counters: pauses drawn again as the harness draws them, and what is wrong."""

import dataclasses

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.costs import Pace
from tern_hw.errors import TernError
from tern_hw.flows.harness import STALLS as STREAM_NAMES
from tern_hw.flows.harness import Period
from tern_hw.validation.cycles import (
    CONFIGURATIONS,
    QUICK,
    STREAMS,
    CycleCheck,
    Streams,
    _jobs,
    _pace,
    check_cycles,
)
from tern_hw.validation.idle import idle_pauses

STALLS = {"activation": 0, "weight": 3, "scale": 0, "result": 2}


def check_of(cycles, *, backpressure=0.0):
    predicted = {"cycles": 100, "weight beats": 7}
    if not backpressure:
        predicted |= STALLS
    return CycleCheck(
        config=ArrayConfig(),
        n=4,
        k=9,
        streams=Streams(backpressure=backpressure),
        predicted=predicted,
        measured={"cycles": cycles, "weight beats": 7, **STALLS},
    )


def test_a_source_without_idle_cycles_never_pauses():
    assert idle_pauses(0.0, 3, 5) == (0, 0, 0, 0, 0)


def test_pauses_are_those_of_the_probability():
    pauses = idle_pauses(0.7, 5, 4000)
    assert len(pauses) == 4000
    assert sum(pauses) / 4000 == pytest.approx(0.7 / 0.3, rel=0.05)
    assert idle_pauses(0.7, 5, 40)[:39] == pauses[:39]
    assert idle_pauses(0.7, 6, 40) != idle_pauses(0.7, 5, 40)


def test_pauses_are_the_ones_that_the_compiled_harness_makes():
    # Held to its counters by the slow test below; written down for the quick run.
    assert idle_pauses(0.5, 1, 12) == (0, 1, 1, 4, 1, 0, 0, 1, 1, 0, 3, 0)
    assert idle_pauses(0.7, 8, 8) == (1, 6, 0, 0, 2, 3, 0, 0)


def test_periods_are_pauses_after_so_many_transfers():
    periods = {"weight": Period(3, 8), "result": Period(1, 2)}
    jobs = _jobs(QUICK[0], 5, 20, Streams(periods=periods))
    assert _pace(jobs) == Pace(weight=(0, 0, 8), result=(2,))


def test_every_stream_pauses_by_a_period_somewhere():
    assert {name for each in STREAMS for name in each.periods} == set(STREAM_NAMES)
    assert any(period.beats > 1 for each in STREAMS for period in each.periods.values())


@pytest.mark.parametrize(
    ("streams", "name"),
    [
        (Streams(), "no pause"),
        (Streams(idle=0.3, backpressure=0.4), "sources 30% idle, sink 40% idle"),
        (Streams(periods={"weight": Period(4, 6)}), "weight 6 after 4"),
    ],
)
def test_streams_are_named_after_their_pauses(streams, name):
    assert streams.name == name


@pytest.mark.parametrize("period", [(0, 1), (1, -1)])
def test_an_absurd_period_is_refused(period):
    with pytest.raises(TernError, match=rf"period must be of at least .*, not {period[0]} and"):
        Period(*period)


def test_every_count_must_be_equal():
    assert check_of(100).wrong == {}
    assert check_of(101).wrong == {"cycles": 1}
    late = dataclasses.replace(check_of(100), measured=check_of(100).measured | {"weight": 4})
    assert late.wrong == {"weight": 1}


@pytest.mark.parametrize(("cycles", "error"), [(99, -1), (100, 0), (109, 0), (110, 1)])
def test_a_busy_sink_leaves_two_ends(cycles, error):
    # 100 to 100 + 5 stalls + 4 results.
    assert check_of(cycles, backpressure=0.4).wrong == ({"cycles": error} if error else {})


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: config.name)
def test_counters_of_the_verilog_are_the_models(config):
    checks = list(check_cycles((config,)))
    assert [
        (check.n, check.k, check.streams.name, check.wrong) for check in checks if check.wrong
    ] == []
    # Pauses did reach the array: each of the sources and the sink made it wait somewhere.
    waited = {name for check in checks for name in STALLS if check.measured.get(name)}
    assert waited >= {"activation", "weight", "scale", "result"}


def test_quick_arrays_are_among_all():
    assert set(QUICK) <= set(CONFIGURATIONS)
