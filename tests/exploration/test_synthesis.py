"""The front's arrays go through synthesis: which, what is told of them, what fails."""

import csv
import json
import re
import sys

import pytest

from tern_hw import explore, synth
from tern_hw.cli import run
from tern_hw.errors import TernError
from tern_hw.exploration import page as page_module
from tern_hw.exploration import synthesis as synthesis_module
from tern_hw.exploration.cells import cell_lines, cell_titles
from tern_hw.exploration.objectives import read_objectives
from tern_hw.exploration.report import front_csv, front_points, print_report
from tern_hw.exploration.results import Results
from tern_hw.exploration.sweep import sweep_facts
from tern_hw.exploration.synthesis import tools_digest, with_cells
from tern_hw.flows.targets import KINDS, TARGETS
from tests.exploration.sweeps import made_up, planned
from tests.exploration.test_page import Page

#: The smallest arrays: a second of Yosys for what fails, six for what does not.
SHAPE = ["--rows", "1", "--group-size", "64", "--packing", "2bit", "--max-k", "256"]
SHAPE += ["--max-n", "512"]
#: Fourteen points of seven arrays, each twice, with one clock slower than the other.
LISTS = {"lanes": "8,16,32,64,128", "rows": "1,2", "packing": "2bit", "clock": "400,500"}


def refuses(job):
    """Fail as Yosys does where there are 16 lanes."""
    if job.array.lanes == 16:
        raise TernError("yosys must end with status 0, not 1:\nUsed module: x\nERROR: no cell.")
    return made_up(job)


def strange(job):
    """Return a cell that no rule knows."""
    return made_up(job) | {"others": {"ODD_CELL": 3}, "lutram": 7}


@pytest.fixture
def swept(small, tmp_path):
    """Return a sweep's plan and facts."""
    plan = planned(small, **LISTS)
    objectives = read_objectives("time,array-area")
    return plan, sweep_facts(plan, Results(tmp_path / "known"), objectives, workers=1)


def with_made_up(swept, *, limit=100, evaluator=made_up, target="ecp5", **how):
    plan, facts = swept
    how = {"workers": 1, **how}
    return with_cells(facts, plan, target, limit=limit, evaluator=evaluator, **how)


def test_each_array_of_the_front_is_synthesised_once(swept):
    jobs = []

    def noted(job):
        jobs.append(job)
        return made_up(job)

    facts = with_made_up(swept, evaluator=noted, target="xc7")
    front = {each["array"] for each in facts["points"] if each["front"]}
    assert sorted(job.array.name for job in jobs) == sorted(front)
    assert 1 < len(front) < len({each["array"] for each in facts["points"]})
    assert {job.target for job in jobs} == {"xc7"}
    found = facts["synthesis"]
    assert (found["arrays"], found["synthesised"], found["left_out"]) == (len(front), len(front), 0)
    assert (found["target"], found["area_unit"]) == ("xc7", TARGETS["xc7"].area_unit)


def test_points_have_the_cells_of_their_own_array(swept):
    plan, facts = swept
    names = {point.command: point.system.array for point in plan.points}
    found = with_made_up(swept)
    front = {each["array"] for each in found["points"] if each["front"]}
    beside = 0
    for before, point in zip(facts["points"], found["points"], strict=True):
        assert point == before | {"cells": point["cells"]}
        if point["array"] not in front:
            assert point["cells"] is None
            continue
        array = names[point["command"]]
        assert point["cells"]["lut"] == array.lanes * array.rows
        assert "tools" not in point["cells"]
        beside += not point["front"]
    # Beaten by the faster clock, and of an array of the front.
    assert beside > 0


def test_the_limit_takes_the_first_of_the_front_and_says_what_is_left(swept):
    two, three = with_made_up(swept, limit=2), with_made_up(swept, limit=3)
    first = list(dict.fromkeys(each["array"] for each in front_points(swept[1])))
    for found, limit in ((two, 2), (three, 3)):
        taken = {each["array"] for each in found["points"] if each["cells"]}
        assert taken == set(first[:limit])
        assert found["synthesis"]["left_out"] == len(first) - limit > 0
    assert f"left out {len(first) - 2} arrays by --synth-limit" in cell_lines(two)


def test_an_array_that_fails_is_named_and_the_others_stay(swept, capsys):
    found = with_made_up(swept, evaluator=refuses)
    (failed,) = {each["array"] for each in found["synthesis"]["failed"]}
    assert failed.startswith("tern_16x1")
    for point in found["points"]:
        if point["front"]:
            assert (point["cells"] is None) == (point["array"] == failed)
    line = f"not synthesised: {failed}: yosys must end with status 0, not 1 (ERROR: no cell.)"
    assert line in cell_lines(found)
    assert f"<li>{line}</li>" in page_module.page(found)
    print_report(found, [])
    assert line in capsys.readouterr().out


def test_cells_stand_in_csv_page_and_table(swept, capsys):
    found = with_made_up(swept, limit=2)
    rows = list(csv.DictReader(front_csv(found).splitlines()))
    cells = {each["command"]: each["cells"] for each in found["points"]}
    table = Page(page_module.page(found)).rows
    names = ["ecp5_area_lut4_eq", "ecp5_lut", "ecp5_carry", "ecp5_ff", "ecp5_dsp", "ecp5_block_ram"]
    assert [name for name in rows[0] if name.startswith("ecp5")] == names
    assert {row["ecp5_lut"] == "" for row in rows} == {True, False}
    commands = {each["command"]: each["number"] for each in found["points"]}
    for row in rows:
        texts = [row[name] for name in names]
        own = cells[row["command"]] or {}
        wanted = [own.get(name, "") for name in ("area", "lut", "carry", "ff", "dsp", "block_ram")]
        assert texts == [str(each).removesuffix(".0") for each in wanted]
        shown = table[f"point-{commands[row['command']]}"]
        assert shown[-8:-2] == texts
        assert shown[-2:] == [row["bound"], row["command"]]
    print_report(found, [])
    lines = capsys.readouterr().out.splitlines()
    head = next(at for at, line in enumerate(lines) if "ecp5 area" in line)
    assert re.search(r"LUT4-eq +LUT +carry +FF +DSP +block RAM +bound by", lines[head + 1])
    assert f" {rows[0]['ecp5_area_lut4_eq']} " in lines[head + 2]
    assert "ecp5 area<br><small>LUT4-eq</small>" in page_module.page(found)
    assert "Nothing was placed" in " ".join(lines)


def test_a_cell_that_no_rule_knows_is_told(swept):
    found = with_made_up(swept, evaluator=strange, limit=1)
    name = front_points(found)[0]["array"]
    assert f"{name}: in no sum: {{'ODD_CELL': 3}}" in cell_lines(found)
    assert cell_titles(found)["lutram"] == ("ecp5", "LUT RAM")
    assert "lutram" not in cell_titles(with_made_up(swept, limit=1))


def test_without_synthesis_nothing_is_added(swept):
    _, facts = swept
    assert cell_lines(facts) == []
    assert "ecp5" not in front_csv(facts)
    assert all("cells" not in point for point in facts["points"])


@pytest.mark.parametrize("scheduler", [None, "dask"])
def test_workers_synthesise_the_same(swept, scheduler):
    alone = with_made_up(swept)
    if scheduler is None:
        assert with_made_up(swept, workers=2) == alone
        return
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        before = cluster.scheduler.transition_counter
        assert with_made_up(swept, scheduler=cluster.scheduler_address) == alone
        assert cluster.scheduler.transition_counter > before


def test_a_worker_with_other_tools_is_refused(swept):
    def other(job):
        return made_up(job) | {"tools": "another"}

    with pytest.raises(TernError, match="every worker must have this version's gateware and tools"):
        with_made_up(swept, evaluator=other)


@pytest.mark.parametrize("version", ["1.0", ""])
def test_another_yosys_has_another_digest(version, monkeypatch):
    before = tools_digest()
    monkeypatch.setattr(synthesis_module, "yosys_version", lambda: version)
    assert tools_digest() != before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--synth", "virtex"], "--synth must be one of ecp5, ice40, xc7, gowin, not 'virtex'"),
        (["--synth", "ecp5", "--synth-limit", "0"], "--synth-limit must be an integer from 1 to "),
        (["--synth", "ecp5", "--synth-limit", "x"], "--synth-limit must be an integer, not 'x'"),
        (["--synth-limit", "3"], "--synth-limit must stand beside --synth, not without it"),
        (["--synth", "ecp5"], "pyosys must be installed"),
    ],
)
def test_a_mistake_is_refused_before_the_sweep(small, options, sentence, capsys, monkeypatch):
    if sentence.startswith("pyosys"):
        monkeypatch.setitem(sys.modules, "pyosys", None)
    monkeypatch.setattr("tern_hw.exploration.sweep.sweep_facts", lambda *_, **__: 1 / 0)
    try:
        status = run(lambda: explore.main(["--model", small, *options]))
    except SystemExit as exit_:  # argparse's own
        status = exit_.code
    output, errors = capsys.readouterr()
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: {sentence}")


def test_yosys_fails_for_one_and_the_report_is_whole(small, tmp_path, capsys):
    """The carry cells are ECP5's: Yosys does not find them among iCE40's."""
    path = tmp_path / "front.csv"
    options = [*SHAPE, "--lanes", "8", "--dot", "carry", "--synth", "ice40", "--csv", str(path)]
    assert run(lambda: explore.main(["--model", small, *options])) == 2
    output, errors = capsys.readouterr()
    name = "tern_8x1_int8_g64_2bit_k256_n512_carry"
    assert f"not synthesised: {name}: yosys must end with status 0, not 1 (ERROR: Module" in output
    assert "0 of the front's 1 arrays synthesised for ice40" in output
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: every array must go through synthesis, not fail as {name}: ")
    assert "CCU2C" in last
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert (row["array"], row["ice40_area_lut4_eq"]) == (name, "")


def test_cells_are_those_of_synth(small, capsys):
    """And its kept result is taken: Yosys ran once."""
    options = [*SHAPE, "--lanes", "8", "--synth", "ecp5", "--json"]
    assert explore.main(["--model", small, *options]) == 0
    (point,) = json.loads(capsys.readouterr().out)["points"]
    assert synth.main([*SHAPE, "--lanes", "8", "--json"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    (block,) = json.loads(output)["blocks"]
    assert point["cells"]["area"] == block["area"] > 0
    assert point["cells"]["module"] == block["module"]
    for kind in KINDS:
        assert point["cells"][kind] == block["cells"][kind]
