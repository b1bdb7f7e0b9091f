"""Wherever points are evaluated the figures are the same, and an ended sweep goes on."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tern_hw.errors import TernError
from tern_hw.exploration import workers
from tern_hw.exploration.figures import evaluate
from tern_hw.exploration.objectives import DEFAULT, read_objectives
from tern_hw.exploration.results import Results
from tern_hw.exploration.sweep import sweep_facts
from tests.exploration.sweeps import SMALL, begun, dies, planned

#: Enough points for workers to be started.
LISTS = {**SMALL, "clock": "100,200,300,400,500,600,700", "memory": "lpddr5,sram"}


def answers_of(jobs, **options):
    found = {}
    workers.evaluate_all(evaluate, jobs, done=found.update, **options)
    return [found[at] for at in range(len(jobs))]


@pytest.fixture
def jobs(small):
    from tern_hw.exploration.sweep import _jobs

    return _jobs(planned(small, **LISTS))


def test_processes_give_the_same_figures(jobs):
    assert len(jobs) > workers.FEW
    found = answers_of(jobs, workers=2, scheduler=None)
    assert found == answers_of(jobs, workers=1, scheduler=None)
    assert found[::25] == [evaluate(job) for job in jobs[::25]]


def test_a_dask_scheduler_gives_the_same_figures(jobs):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        assert cluster.scheduler_address.startswith("tcp://")
        found = answers_of(jobs[:40], workers=1, scheduler=cluster.scheduler_address)
        assert cluster.scheduler.transition_counter > 0
    assert found == [evaluate(job) for job in jobs[:40]]


@pytest.mark.slow
def test_a_local_dask_cluster_is_started_and_ended(jobs):
    pytest.importorskip("distributed")
    found = answers_of(jobs[:20], workers=1, scheduler="local")
    assert found == [evaluate(job) for job in jobs[:20]]


def test_a_scheduler_that_does_not_answer_is_told(jobs, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "PATIENCE_S", 0.3)
    with pytest.raises(TernError, match=r"^--scheduler must be one that answers and has a worker"):
        answers_of(jobs[:1], workers=1, scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("address", ["", "127.0.0.1:8786", "http://host:1", "tcp://", "tcp://a b"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(TernError, match="--scheduler must be local or an address like tcp://"):
        workers.check_scheduler(address)


def test_a_worker_of_another_version_is_refused(jobs, monkeypatch):
    monkeypatch.setattr(workers, "code_digest", lambda: "another")
    with pytest.raises(TernError, match="every worker must have the cost model of this version"):
        answers_of(jobs, workers=2, scheduler=None)


def test_a_worker_that_dies_is_told(jobs):
    with pytest.raises(TernError, match="worker processes must live to the end"):
        workers.evaluate_all(dies, jobs, workers=2, scheduler=None, done=lambda _: None)


def refuses(job):
    """Refuse an array of 64 lanes, and evaluate any other."""
    if job.system.array.lanes == 64:
        raise TernError("lanes must be few here (as 16), not 64")
    return evaluate(job)


def test_points_without_figures_are_counted(small, tmp_path):
    facts = sweep_facts(
        planned(small, packing="2bit", **SMALL),
        Results(tmp_path / "known.jsonl"),
        read_objectives(DEFAULT),
        workers=1,
        evaluator=refuses,
    )
    counts = facts["counts"]
    assert (counts["combinations"], counts["skipped"], counts["points"]) == (12, 6, 6)
    assert [each["rule"] for each in facts["skipped"]] == [
        'group_size must be "row", a multiple of lanes or a divisor of lanes',
        "lanes must be few here",
    ]
    assert {each["values"]["lanes"] for each in facts["points"]} == {16, 32}


COMMAND = [sys.executable, "-m", "tern_hw.explore", "--json", "--workers", "2"]
SWEEP = ["--lanes", "16,32", "--rows", "1,2,4", "--packing", "2bit", "--group-size", "64,row"]


#: Points of a sweep that is ended: so many that it is not over before the test, on a busy machine,
#: has ended it.
POINTS = 1200


def started(small, results):
    clocks = ",".join(str(each) for each in range(100, 100 + POINTS // 12))
    options = ["--model", small, "--results", str(results), "--clock", clocks, *SWEEP]
    return begun(COMMAND + options)


def children_of(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(each) for each in path.read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="children are read from /proc")
def test_a_killed_sweep_goes_on(small, tmp_path):
    results = tmp_path / "known.jsonl"
    first = started(small, results)
    while not results.exists() or results.stat().st_size < 1000:
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.01)
    children = children_of(first)
    assert children
    first.kill()
    first.communicate(timeout=60)
    known = len(Results(results).known)
    assert 0 < known < POINTS
    second = started(small, results)
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    counts = json.loads(output)["counts"]
    assert (counts["points"], counts["evaluated"]) == (POINTS, POINTS - known)
    # The workers of the one that was killed went with it.
    assert not any(running(each) for each in children)


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_an_interrupted_sweep_says_what_is_kept(small, tmp_path):
    results = tmp_path / "known.jsonl"
    sweep = started(small, results)
    while not results.exists() or results.stat().st_size < 1000:
        assert sweep.poll() is None, sweep.stderr.read()
        time.sleep(0.01)
    sweep.send_signal(signal.SIGINT)
    output, errors = sweep.communicate(timeout=60)
    assert (sweep.returncode, output) == (130, "")
    assert f"of {POINTS} points are kept: the same command goes on\n" in errors
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert 0 < len(Results(results).known) < POINTS
