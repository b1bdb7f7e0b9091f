"""The parts of the benches, and that a bench fails where it should: a wrong array is found out."""

import itertools

import numpy as np
import pytest

from sim.coverage import Bin, Coverage
from sim.jobs import CANONICAL_NAN, ILLEGAL_BYTES, clean_job, faulty_job, misframed, weight_bytes
from sim.runner import Simulator, run
from sim.stalls import LONG_RUN, StallMode, pause_pattern
from sim.stimuli import ADVERSARIAL, adversarial_layer, random_layer
from tern_hw.config import ArrayConfig, ErrorFlag
from tern_hw.errors import TernError
from tests.simulations import PAIRWISE, needs, small, verilog_text

CONFIG = small(8, 2, 8, "fp16")


def layer(config: ArrayConfig, n: int = 5, k: int = 19, seed: int = 3):
    return random_layer(np.random.default_rng(seed), n, k, config)


# ------------------------------------------------------------------------- patterns


def test_pause_pattern_is_seeded_and_has_runs_of_many_lengths():
    first, again, other = (list(itertools.islice(pause_pattern(s), 20_000)) for s in (1, 1, 2))
    assert first == again != other
    runs = [len(list(group)) for value, group in itertools.groupby(first) if value]
    assert {1, 2, 3} <= set(runs)
    assert LONG_RUN / 2 < max(runs) <= LONG_RUN
    assert 0.3 < np.mean(first) < 0.7


def test_stall_modes_name_their_sides():
    sides = {mode: (mode.sources_idle, mode.sink_backpressure) for mode in StallMode}
    assert sorted(sides.values()) == [(False, False), (False, True), (True, False), (True, True)]
    assert sides[StallMode.BOTH] == (True, True)


# ------------------------------------------------------------------------- coverage


def test_coverage_counts_merges_and_finds_what_is_missing(tmp_path):
    one, other = Coverage(), Coverage()
    one.hit("shape", "a", "b")
    other.hit("shape", "a", "b", times=3)
    other.hit("case", "c")
    other.save(tmp_path / "coverage.json")
    one.merge(Coverage.load(tmp_path / "coverage.json"))
    assert one.hits == {Bin("shape", ("a", "b")): 4, Bin("case", ("c",)): 1}
    wanted = [Bin("shape", ("a", "b")), Bin("shape", ("z",)), Bin("fault", ("y",))]
    assert one.missing(wanted) == [Bin("fault", ("y",)), Bin("shape", ("z",))]


def test_coverage_table_names_the_least_hit_bin():
    coverage = Coverage()
    coverage.hit("shape", "a")
    table = coverage.table([Bin("shape", ("a",)), Bin("shape", ("z",))]).splitlines()
    assert table[1].split() == ["shape", "1", "of", "2", "1", "z:", "0"]


# --------------------------------------------------------------------------- stimuli


@pytest.mark.parametrize("config", PAIRWISE, ids=lambda config: config.name)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_layers_are_legal_and_reproducible(name, config):
    k = min(27, config.max_k)
    layers = [
        adversarial_layer(name, np.random.default_rng(5), 2 * config.rows + 1, k, config)
        for _ in "ab"
    ]
    for field in ("activations", "digits", "scale", "shift"):
        assert np.array_equal(getattr(layers[0], field), getattr(layers[1], field))
    job = clean_job(layers[0], config)
    assert len(job.expected) == 2 * config.rows + 1


def test_ties_are_ties():
    """Rounding a tie up by its least surplus and down by its least deficit gives two results."""
    config = small(8, 1, "row")
    rng = np.random.default_rng(1)
    exact = 0
    for _ in range(20):
        case = adversarial_layer("ties", rng, 12, 5, config)
        scale, shift = (part.astype(np.float64)[:, 0] for part in (case.scale, case.shift))
        value = scale + shift * case.activations.sum()
        assert np.array_equal(value - scale, shift * case.activations.sum()), "not exact"
        low = np.nextafter(value, -np.inf).astype(np.float32)
        high = np.nextafter(value, np.inf).astype(np.float32)
        exact += np.count_nonzero(low != high)
    assert exact > 100


def test_cancelling_rows_are_zero_or_nearly():
    config = small(8, 1, "row")
    case = adversarial_layer("cancelling", np.random.default_rng(1), 12, 20, config)
    bits = np.array(clean_job(case, config).expected)
    assert np.count_nonzero(bits == 0) >= 3
    assert np.count_nonzero(bits) >= 3


# ------------------------------------------------------------------------------ jobs


def test_illegal_bytes_are_counted():
    assert len(ILLEGAL_BYTES["2bit"]) == 256 - 3**4
    assert len(ILLEGAL_BYTES["base3"]) == 256 - 3**5


def test_faulty_job_without_a_fault_is_the_clean_job():
    for config in PAIRWISE:
        case = layer(config, k=min(19, config.max_k))
        assert faulty_job(case, config, weight_bytes(case, config)) == clean_job(case, config)


def test_misframed_job_loses_the_blocks_that_lack_beats():
    job = clean_job(layer(CONFIG), CONFIG)  # 3 chunks and 3 groups a block, 3 blocks of 2 rows
    nan = CANONICAL_NAN[CONFIG.output]
    for stream, length, kept in (
        ("weight", 8, 4),
        ("weight", 6, 4),
        ("weight", 5, 2),
        ("weight", 1, 0),
        ("scale", 3, 2),
        ("activation", 2, 0),
    ):
        bad = misframed(job, stream, length, 0, CONFIG)
        assert bad.expected == job.expected[:kept] + (nan,) * (5 - kept)
        assert bad.packet(stream) == job.packet(stream)[:length]
        assert bad.flags == ErrorFlag[f"{stream.upper()}_TLAST"]


def test_misframed_job_that_is_too_long_keeps_its_results():
    job = clean_job(layer(CONFIG), CONFIG)
    bad = misframed(job, "weight", 11, 7, CONFIG)
    assert bad.expected == job.expected
    assert bad.weight == (*job.weight, 7, 7)


# ------------------------------------------------- a bench that cannot fail proves nothing


@pytest.mark.parametrize("simulator", Simulator)
def test_wrong_array_fails_the_benches(simulator, tmp_path):
    """An array of the other packing under this one's name: same ports, other results."""
    needs(simulator)
    mine, other = small(8, 1, "row"), small(8, 1, "row", "base3")
    assert mine.weight_beat_bytes == other.weight_beat_bytes
    path = tmp_path / "wrong.v"
    path.write_text(verilog_text(other).replace(other.name, mine.name))
    modules = ["sim.control_tests"]
    report = run(path, mine, simulator, tmp_path / "run", modules=modules)
    assert "sim.control_tests.identity" in report.failures
    assert "sim.control_tests.bad_shapes" in report.failures
    assert "result 0 is" in report.failures["sim.control_tests.bad_shapes"]
    assert "sim.control_tests.unmapped_addresses" in set(report.tests) - set(report.failures)


def test_missing_icarus_is_a_reason_to_skip(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt install iverilog" in Simulator.ICARUS.missing
    assert Simulator.VERILATOR.missing == ""
    with pytest.raises(TernError, match="iverilog must be installed"):
        run(tmp_path / "none.v", CONFIG, Simulator.ICARUS, tmp_path)


def test_simulation_that_dies_is_an_error(tmp_path):
    path = tmp_path / "broken.v"
    path.write_text(verilog_text(CONFIG).replace("endmodule", "", 1))
    needs(Simulator.ICARUS)
    with pytest.raises(TernError, match="icarus must leave results"):
        run(path, CONFIG, Simulator.ICARUS, tmp_path / "run")
