"""Cycles of jobs with periodic stalls: those of the array, exactly, and every stall counter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw.config import ArrayConfig
from tern_hw.costs.pace import Pace, paced_job
from tern_hw.errors import TernError
from tests.costs.paced import run_paced
from tests.gateware.layers import job_of, random_case

SMALL = {"max_k": 64, "max_n": 64}
CONFIGS = [
    ArrayConfig(lanes=8, rows=2, group_size=16, **SMALL),
    ArrayConfig(lanes=8, rows=1, group_size="row", packing="base3", **SMALL),
    ArrayConfig(lanes=12, rows=3, group_size=4, packing="base3", activation="fp16", **SMALL),
    ArrayConfig(lanes=8, rows=1, group_size=8, **SMALL),
    ArrayConfig(lanes=8, rows=12, group_size=8, output="fp16", **SMALL),
    ArrayConfig(lanes=16, rows=2, group_size=8, activation="fp16", aligned=12, **SMALL),
    ArrayConfig(lanes=8, rows=1, group_size=16, products=1, **SMALL),
]
PACES = [
    Pace(),
    Pace(activation=3, weight=1),
    Pace(weight=7),
    Pace(scale=2),
    Pace(scale=9, activation=(0, 5, 1)),
    Pace(result=1),
    Pace(result=6),
    Pace(activation=1, weight=2, scale=3, result=4),
    Pace(weight=(0, 0, 0, 9), scale=5, result=2),
]
SHAPES = [(1, 1), (5, 20), (30, 9), (17, 17)]


def random_pace(seed):
    """Return runs of transfers with droughts between, different for each stream."""
    rng = np.random.default_rng(seed)
    pauses = np.where(rng.random((4, 97)) < 0.7, 0, rng.integers(0, 30, (4, 97)))
    names = ("activation", "weight", "scale", "result")
    return Pace(**{name: tuple(row) for name, row in zip(names, pauses.tolist(), strict=True)})


def check(config, pace, shapes):
    rng = np.random.default_rng(1)
    jobs = [job_of(config, *random_case(config, n, k, rng)) for n, k in shapes]
    outcomes = run_paced(config, jobs, pace)
    for job, outcome in zip(jobs, outcomes, strict=True):
        found = paced_job(config, job.n, job.k, pace)
        assert (found.cycles, found.stalls) == (outcome.cycles, outcome.stalls)
    return [sum(counter) for counter in zip(*(each.stalls for each in outcomes), strict=True)]


@pytest.mark.parametrize(
    ("config", "pace"),
    # The last one fills the FIFO of scales: a place more or less would be seen.
    [
        (CONFIGS[0], PACES[7]),
        (CONFIGS[0], random_pace(2)),
        (CONFIGS[0], random_pace(44)),
        (CONFIGS[5], PACES[7]),
        (CONFIGS[6], PACES[7]),
    ],
    ids=["periodic", "random", "full", "aligned", "in turn"],
)
def test_cycles_and_stalls_are_those_of_the_array(config, pace):
    stalls = check(config, pace, [(5, 20), (40, 8)])
    assert sum(map(bool, stalls)) >= 2  # more than one stream made the array wait


ALL_PACES = [*PACES, *map(random_pace, (1, 3))]
#: Four paces an array, so that each pace meets two arrays or more.
PACED = [
    pytest.param(
        config, ALL_PACES[(4 * at + more) % 11], id=f"{config.name}-{(4 * at + more) % 11}"
    )
    for at, config in enumerate(CONFIGS)
    for more in range(4)
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "pace"), PACED)
def test_cycles_and_stalls_are_those_of_the_array_at_every_pace(config, pace):
    check(config, pace, SHAPES)


@given(
    n=st.integers(1, 60),
    k=st.integers(1, 64),
    pauses=st.tuples(*[st.integers(0, 12)] * 4),
    config=st.sampled_from(CONFIGS),
)
@settings(max_examples=40)
def test_pauses_never_make_a_job_shorter(n, k, pauses, config):
    pace = Pace(**dict(zip(("activation", "weight", "scale", "result"), pauses, strict=True)))
    found = paced_job(config, n, k, pace)
    assert found.cycles >= config.job_cycles(n, k)
    # Results that piled up leave in cycles of their own, which are no stalls.
    assert found.cycles <= config.job_cycles(n, k) + sum(found.stalls) + n


@pytest.mark.parametrize(
    "config",
    [
        *CONFIGS,
        ArrayConfig(lanes=20, rows=2, group_size=20, dot="carry", **SMALL),
        ArrayConfig(lanes=16, rows=1, group_size="row", products=1, **SMALL),
        ArrayConfig(lanes=8, rows=3, group_size=24, products=1, **SMALL),
    ],
    ids=lambda config: config.name,
)
def test_without_pauses_it_is_the_formula(config):
    for n in range(1, 50, 7):
        for k in range(1, 65, 5):
            found = paced_job(config, n, k, Pace())
            assert (found.cycles, found.stalls) == (config.job_cycles(n, k), (0, 0, 0, 0))


@pytest.mark.parametrize("pause", [(1, -1), (), 10_001, 1.5, True])
def test_an_absurd_pace_is_refused(pause):
    with pytest.raises(TernError, match="pace of scale must be from 0 to 10000 cycles, not ") as e:
        Pace(scale=pause)
    assert str(e.value).endswith(repr(pause))
