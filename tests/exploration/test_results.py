"""Known figures come back bit for bit, under a key of all that decides them."""

import dataclasses
import json

import pytest

from tern_hw.costs import System
from tern_hw.errors import TernError
from tern_hw.exploration import figures as figures_module
from tern_hw.exploration.figures import FIGURES, Job, Work, evaluate, key_of
from tern_hw.exploration.results import Results
from tests.exploration.sweeps import planned


@pytest.fixture
def job(small):
    plan = planned(small, lanes="32", group_size="64")
    work = Work(model=plan.subject.model, context=64, batch=1, ternary=None)
    return Job(work=work, system=plan.points[0].system, numbers=plan.points[0].numbers)


def test_results_come_back_bit_for_bit(tmp_path, job):
    path = tmp_path / "deep" / "known.jsonl"
    found = evaluate(job)
    assert set(found) == {*FIGURES, "bound"}
    Results(path).add({"one": found})
    Results(path).add({"two": found | {"watts": 0.1 + 0.2}})
    known = Results(path).known
    assert known == {"one": found, "two": found | {"watts": 0.30000000000000004}}
    assert len(path.read_text().splitlines()) == 2


def test_a_torn_line_costs_only_itself(tmp_path, job):
    path = tmp_path / "known.jsonl"
    found = evaluate(job)
    Results(path).add({"one": found, "two": found})
    path.write_bytes(path.read_bytes()[:-20])
    again = Results(path)
    assert set(again.known) == {"one"}
    again.add({"three": found})
    again.add({"four": found})
    assert set(Results(path).known) == {"one", "three", "four"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{}",
        "12",
        "\xff",
        '{"k": null}',
        '{"k": {"watts": 1.0}}',
        "nan",
        "infinite",
        "text",
    ],
)
def test_a_line_that_is_no_result_is_passed_over(tmp_path, job, line):
    path = tmp_path / "known.jsonl"
    found = evaluate(job)
    bad = {"nan": float("nan"), "infinite": float("inf"), "text": "1"}
    if line in bad:
        line = json.dumps({"k": found | {"watts": bad[line]}})
    path.write_bytes(line.encode("latin-1") + b"\n")
    Results(path).add({"one": found})
    assert Results(path).known == {"one": found}


def test_a_folder_is_no_results_file(tmp_path):
    with pytest.raises(TernError, match="must be a file to read"):
        Results(tmp_path)


def changed(job, name):
    """Return the job with one thing that decides its figures changed."""
    array, work, numbers = job.system.array, job.work, job.numbers
    if name in {field.name for field in dataclasses.fields(array)}:
        other = {"activation": "fp16", "packing": "base3", "output": "fp16", "group_size": "row"}
        value = other.get(name) or getattr(array, name) * 2
        system = dataclasses.replace(job.system, engine=dataclasses.replace(array, **{name: value}))
        return dataclasses.replace(job, system=system)
    if name in ("context", "batch"):
        return dataclasses.replace(job, work=dataclasses.replace(work, **{name: 2}))
    if name == "ternary":
        return dataclasses.replace(job, work=dataclasses.replace(work, ternary={"mlp.up_proj": 0}))
    if name == "model":
        model = dataclasses.replace(work.model, tied=not work.model.tied)
        return dataclasses.replace(job, work=dataclasses.replace(work, model=model))
    if name in ("clock_mhz", "float_macs"):
        return dataclasses.replace(job, system=dataclasses.replace(job.system, **{name: 128}))
    other = type(numbers)(numbers | {name: numbers[name] * 1.5}, numbers.tables)
    return dataclasses.replace(job, numbers=other)


#: Fields that have one value only as yet are not among them.
ARRAY = ("lanes", "rows", "activation", "packing", "group_size", "output", "max_k", "max_n")
AROUND = ("context", "batch", "ternary", "model", "clock_mhz", "float_macs")
PRICES = ("energy.int_add_8", "memory.energy", "memory.bandwidth", "data.zero_fraction")


def test_everything_that_decides_a_point_is_in_its_key(job):
    keys = {key_of(changed(job, name)) for name in (*ARRAY, *AROUND, *PRICES)}
    assert len(keys | {key_of(job)}) == 1 + len(ARRAY) + len(AROUND) + len(PRICES)


def test_another_cost_model_has_other_keys(job, monkeypatch):
    before = key_of(job)
    monkeypatch.setattr(figures_module, "code_digest", lambda: "another")
    assert key_of(job) != before


def test_a_name_decides_nothing(job):
    model = dataclasses.replace(job.work.model, name="other", source="elsewhere")
    same = dataclasses.replace(job, work=dataclasses.replace(job.work, model=model))
    assert key_of(same) == key_of(job)


def test_an_engine_of_another_format_has_no_key(job):
    fp16 = System(engine=job.system.companion, clock_mhz=500)
    with pytest.raises(TernError, match="engine must be a ternary array"):
        key_of(dataclasses.replace(job, system=fp16))
