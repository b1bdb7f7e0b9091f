"""The emitted Verilog under cocotb: configurations x stalls, in both simulators, bit for bit."""

import pytest

from sim.bins import matrix_bins, run_bins
from sim.coverage import Coverage
from sim.runner import TEST_MODULES, Simulator
from sim.settings import RANDOM_JOBS_VARIABLE
from tern_hw.config import ArrayConfig
from tests.simulations import (
    ALIGNED,
    CARRY,
    IN_TURN,
    PAIRWISE,
    QUICK_ALIGNED,
    Outcome,
    Runs,
    needs,
    session_folder,
    six_choices,
)

#: Jobs of each `random_jobs` in the long runs.
LONG_RUN = {RANDOM_JOBS_VARIABLE: "60"}
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]
EVERY_PAIR = six_choices(10, 3, max_k=130, max_n=70)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return Runs(session_folder(tmp_path_factory) / "benches")


def check(outcome: Outcome, config: ArrayConfig) -> None:
    assert outcome.failures == {}
    ran = {name.rsplit(".", 1)[0] for name in outcome.tests}
    assert ran == set(TEST_MODULES)
    assert outcome.coverage.missing(run_bins(config)) == []


#: Icarus is up to ten times slower: quick runs take two of its configurations, long ones five more;
#: the two with most groups a row, which would take it minutes each, are Verilator's alone.
QUICK_ICARUS = (PAIRWISE[0], PAIRWISE[5])
LONG_ICARUS = (*PAIRWISE[1:5], PAIRWISE[6])
PAIRWISE_RUNS = [
    *(pytest.param(each, Simulator.VERILATOR, id=f"{each.name}-verilator") for each in PAIRWISE),
    *(pytest.param(each, Simulator.ICARUS, id=f"{each.name}-icarus") for each in QUICK_ICARUS),
    *(
        pytest.param(each, Simulator.ICARUS, id=f"{each.name}-icarus", marks=SLOW)
        for each in LONG_ICARUS
    ),
]


@pytest.mark.parametrize(("config", "simulator"), PAIRWISE_RUNS)
def test_benches_pass_and_hit_their_bins(config, simulator, runs):
    needs(simulator)
    check(runs.get(config, simulator), config)


def test_benches_pass_with_carry_cells(runs):
    check(runs.get(CARRY[0], Simulator.VERILATOR), CARRY[0])


def in_both(configs):
    """Return runs of all configurations in Verilator, and of the first in Icarus, too."""
    runs = [(configs[0], Simulator.ICARUS), *((each, Simulator.VERILATOR) for each in configs)]
    return [pytest.param(*each, id=f"{each[0].name}-{each[1]}") for each in runs]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("config", "simulator"), in_both(CARRY))
def test_every_bench_passes_with_carry_cells(config, simulator, runs):
    needs(simulator)
    check(runs.get(config, simulator), config)


# It may have to wait for runs of the other test processes.
@pytest.mark.timeout(1200)
def test_runs_together_cover_the_choices(runs, record_property):
    merged = Coverage()
    required = matrix_bins()
    for config in PAIRWISE:
        merged.merge(runs.get(config, Simulator.VERILATOR).coverage)
        required |= run_bins(config)
    table = f"verilator, {len(PAIRWISE)} configurations\n{merged.table(required)}"
    record_property("functional coverage", table)
    print(table)
    assert merged.missing(required) == []


def test_an_aligned_array_passes_and_hits_its_bins(runs):
    check(runs.get(QUICK_ALIGNED, Simulator.VERILATOR), QUICK_ALIGNED)


def test_benches_pass_with_products_in_turn(runs):
    check(runs.get(IN_TURN[0], Simulator.VERILATOR), IN_TURN[0])


@pytest.mark.slow
@pytest.mark.parametrize(("config", "simulator"), in_both(IN_TURN))
def test_every_bench_passes_with_products_in_turn(config, simulator, runs):
    needs(simulator)
    check(runs.get(config, simulator), config)


@pytest.mark.slow
@pytest.mark.parametrize("config", EVERY_PAIR + ALIGNED, ids=lambda config: config.name)
def test_long_runs(config, runs):
    check(runs.get(config, Simulator.VERILATOR, LONG_RUN), config)


#: Eight multiply-adds; the job of the most outputs fills both banks of results and waits for one.
PLAIN = [
    ArrayConfig(
        lanes=8,
        rows=1,
        activation="fp16",
        weights="fp16",
        output=output,
        max_k=15,
        max_n=180,
    )
    for output in ("fp16", "fp32")
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("config", "simulator"), in_both(PLAIN))
def test_binary16_weights_pass_the_benches(config, simulator, runs):
    needs(simulator)
    check(runs.get(config, simulator), config)
