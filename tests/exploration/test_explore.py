"""`python -m tern_hw.explore`: what it reports and writes, what it refuses, what it loads."""

import csv
import json
import shlex
import subprocess
import sys

import pytest

from tern_hw import estimate, explore
from tern_hw.cli import run
from tern_hw.exploration.objectives import OBJECTIVES
from tests.exploration.sweeps import OPTIONS


def facts_of(small, capsys, *options):
    assert explore.main(["--model", small, *OPTIONS, *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_counts_add_up_and_a_second_run_evaluates_nothing(small, capsys):
    facts = facts_of(small, capsys)
    counts = facts["counts"]
    assert (counts["combinations"], counts["skipped"], counts["points"]) == (12, 4, 8)
    assert (counts["evaluated"], counts["known_before"]) == (8, 0)
    assert counts["front"] == sum(each["front"] for each in facts["points"]) > 0
    again = facts_of(small, capsys)
    assert (again["counts"]["evaluated"], again["counts"]["known_before"]) == (0, 8)
    assert again["points"] == facts["points"]


def test_a_larger_sweep_starts_from_what_is_known(small, capsys):
    facts_of(small, capsys)
    larger = facts_of(small, capsys, "--clock", "500,600")
    assert (larger["counts"]["evaluated"], larger["counts"]["known_before"]) == (8, 8)


@pytest.mark.parametrize("options", [(), ("--memory", "sram,hbm2", "--batch", "3")])
def test_figures_are_those_of_estimate(small, capsys, options):
    for point in facts_of(small, capsys, *options)["points"][1::6]:
        assert estimate.main([*shlex.split(point["command"])[3:], "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        decode, prefill, array = found["decode"], found["prefill"], found["array"]
        area = sum(array[f"{part}_mm2"] for part in ("engine", "companion", "on_chip_banks"))
        expected = {
            "joules_per_token": decode["joules_per_token"]["mid"],
            "seconds_per_token": decode["seconds"] / decode["tokens"],
            "watts": decode["joules_per_token"]["mid"] * decode["tokens_per_second"],
            "bytes_per_token": decode["bytes_per_token"],
            "first_token_seconds": prefill["seconds"],
            "prompt_joules_per_token": prefill["joules_per_token"]["mid"],
            "engine_mm2": array["engine_mm2"],
            "area_mm2": area,
        }
        bound = point["figures"].pop("bound")
        assert bound == decode["bound"]
        assert point["figures"] == pytest.approx(expected, rel=1e-12)
        assert point["array"] == array["name"]


def test_csv_is_the_front_with_units(small, tmp_path, capsys):
    path = tmp_path / "front.csv"
    facts = facts_of(small, capsys, "--csv", str(path), "--minimise", "area,time")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    front = {each["command"]: each for each in facts["points"] if each["front"]}
    assert {row["command"] for row in rows} == set(front)
    assert [float(row["area_mm2"]) for row in rows] == sorted(float(r["area_mm2"]) for r in rows)
    for row in rows:
        point = front[row["command"]]
        assert float(row["energy_mj"]) == pytest.approx(point["figures"]["joules_per_token"] * 1e3)
        assert float(row["bytes_mb"]) == pytest.approx(point["figures"]["bytes_per_token"] / 1e6)
        assert row["lanes"] == str(point["values"]["lanes"])
    assert len(rows[0]) == 3 + len(facts["axes"]) + len(OBJECTIVES)


def test_picture_has_both_axes_with_units(small, tmp_path, capsys, monkeypatch):
    from matplotlib.axes import Axes

    labels = []
    monkeypatch.setattr(Axes, "set_xlabel", lambda self, text: labels.append(text))
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, text: labels.append(text))
    path = tmp_path / "front.png"
    facts_of(small, capsys, "--plot", str(path), "--minimise", "area,first-token")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert labels == ["area, mm2", "time to the first token, s"]


def test_report_tells_front_skips_and_commands(small, tmp_path, capsys):
    path = str(tmp_path / "front.csv")
    assert explore.main(["--model", small, *OPTIONS, "--csv", path, "--limit", "6"]) == 0
    text = capsys.readouterr().out
    assert "12 combinations, 6 points (6 evaluated now, 0 known before)" in text
    assert 'skipped 4: group_size must be "row", a multiple of lanes or a divisor of lanes' in text
    assert "left out 2 by --limit" in text
    assert "not beaten in energy of a token (mJ), time of a token (ms), area (mm2)" in text
    assert "least energy of a token, " in text
    assert f"python -m tern_hw.estimate --model {small} --lanes" in text
    assert f"wrote {path}" in text


def test_a_table_of_many_axes_is_not_cut(small, capsys):
    axes = ["--memory", "lpddr5,hbm2", "--clock", "500,600", "--result", "fp32,fp16"]
    axes += ["--activation", "int8,fp16", "--float-macs", "32,64", "--bandwidth", "20,30"]
    names = ["--minimise", ",".join(OBJECTIVES), "--limit", "30"]
    assert explore.main(["--model", small, *OPTIONS, *axes, *names]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    head = next(line for line in text.splitlines() if line.lstrip().startswith("memory"))
    assert head.split()[:4] == ["memory", "bandwidth", "clock", "float"]
    assert "768 combinations, 30 points" in text
    assert "skipped 256: group_size must be" in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--lanes", "16,1000000000"], "lanes must be an integer from 8 to 1024, not 1000000000"),
        (["--lanes", "16;32"], "--lanes must be integers with commas between them, not '16;32'"),
        (["--limit", "0"], "--limit must be an integer from 1 to 1073741824, not 0"),
        (["--workers", "0"], "--workers must be an integer from 1 to 1024, not 0"),
        (["--workers", "two"], "--workers must be an integer, not 'two'"),
        (["--minimise", "speed"], "--minimise must be names from energy, time, area, array-area, "),
        (["--csv", "front.txt"], "--csv must be a .csv file, not 'front.txt'"),
        (
            ["--html", "no/such/a.html"],
            "--html must be in a folder that exists, not no/such/a",
        ),
        (["--scheduler", "host"], "--scheduler must be local or an address like tcp://host:8786"),
        (["--max-k", "64"], "k (inputs) must be an integer from 1 to 64, not 128"),
        (["--frobnicate"], "arguments must be among those that --help lists, not --frobnicate"),
        (["--results", "/"], "/ must be a file to read (Is a directory)"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(small, options, sentence, capsys):
    arguments = ["--model", small, "--lanes", "16", "--group-size", "row", "--rows", "1", *options]
    try:
        status = run(lambda: explore.main(arguments))
    except SystemExit as exit_:  # argparse's own
        status = exit_.code
    output, errors = capsys.readouterr()
    assert (status, output) == (2, "")
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: {sentence}")
    assert "Traceback" not in errors


def test_a_model_must_be_given(capsys):
    assert run(lambda: explore.main([])) == 2
    assert capsys.readouterr().err == "error: --model must be given\n"


def test_help_is_quick_and_ends_with_examples():
    """Without the libraries that take long to load."""
    heavy = ("numpy", "matplotlib", "plotly", "distributed", "dask", "rich", "torch", "amaranth")
    code = f"""
import sys
for name in {heavy!r}:
    sys.modules[name] = None  # importing it raises ImportError
from tern_hw.explore import main
main(["--help"])
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "python -m tern_hw.explore --model llama-2-7b --html front.html" in child.stdout
    assert "swept: 16,32,64,128,256" in " ".join(child.stdout.split())


@pytest.mark.parametrize(
    ("option", "library"),
    [
        (["--plot", "a.png"], "matplotlib"),
        (["--html", "a.html"], "plotly"),
        (["--scheduler", "local"], "distributed"),
    ],
)
def test_a_library_that_is_missing_is_named(small, option, library, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    status = run(lambda: explore.main(["--model", small, *OPTIONS, *option]))
    output, errors = capsys.readouterr()
    assert (status, output) == (2, "")
    assert errors.splitlines()[-1].startswith(f"error: {library} ")
    assert f"must be installed for {option[0]}" in errors
