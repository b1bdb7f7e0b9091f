"""The notebooks run, draw what they say, and stand on tables that can be traced and made again."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
#: Each notebook, and the figures that it draws.
NOTEBOOKS = {
    "energy_of_a_layer": {"layer_ladder", "layer_memory_wall"},
    "model_on_a_board": {"board_roofline", "board_energy", "board_published"},
    "choosing_an_array": {"array_front", "array_saturation"},
    "accuracy_and_energy": {"accuracy_methods", "accuracy_groups", "accuracy_activations"},
}
#: Runs notebooks as scripts, in one process, where no connection can be made.
SCRIPT = """
import runpy, socket, sys

def refuse(*arguments):
    raise AssertionError(f"notebooks must not use the network: {arguments}")

socket.socket.connect = socket.socket.connect_ex = refuse
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    runpy.run_path(f"{sys.argv[1]}/{name}.py", run_name="__main__")
    print(f"<end of {name}>")
heavy = {"torch", "transformers", "amaranth"} & set(sys.modules)
assert not heavy, f"notebooks must not import {heavy}"
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Run all notebooks once; return what each printed, and the folder of figures."""
    figures = tmp_path_factory.mktemp("figures")
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(FOLDER), *NOTEBOOKS],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERN_FIGURES": str(figures)},
        cwd=figures,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert child.returncode == 0, child.stderr
    parts = re.split(r"<end of (\w+)>\n", child.stdout)
    return dict(zip(parts[1::2], parts[0::2], strict=False)), figures


def test_every_notebook_is_known_to_this_test():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*NOTEBOOKS, "style"}


def test_each_draws_its_figures(outcome):
    printed, figures = outcome
    assert set(printed) == set(NOTEBOOKS)
    drawn = {path.stem: path.read_bytes() for path in figures.glob("*.png")}
    assert set(drawn) == set().union(*NOTEBOOKS.values())
    for name, content in drawn.items():
        assert content.startswith(b"\x89PNG"), name
        assert len(content) > 10_000, name


def test_prose_holds_no_figure_that_the_code_computes():
    for name in NOTEBOOKS:
        for cell in markdown_cells(FOLDER / f"{name}.py"):
            # 71.4x is what others quote, and the notebook's subject.
            stated = re.findall(r"\d+(?:\.\d+)?(?: ?x\b| ?%| mJ| pJ| tokens/s)", cell)
            assert set(stated) <= {"71.4x"}, (name, stated)


def test_the_ladder_starts_at_the_quoted_ratio_and_ends_at_the_estimate(outcome):
    from tern_hw.config import ArrayConfig
    from tern_hw.costs import Opponent, count_matmul, count_opponent, load_inputs
    from tern_hw.costs.energy import energy_pj

    values = load_inputs("7nm", "lpddr5").values()
    array = ArrayConfig(packing="base3")
    totals = []
    for counts in (
        count_opponent(Opponent.beside("fp16", array), 1, 11008, 4096),
        count_matmul(array, 1, 11008, 4096),
    ):
        memory = 8 * counts.streamed_bytes * values["memory.energy"]
        totals.append(sum(energy_pj(counts.actions, values)) + memory)
    steps = dict(
        line.rsplit(None, 1)
        for line in outcome[0]["energy_of_a_layer"].splitlines()
        if line.startswith(("quoted", "weights from LPDDR5")) and line.count("  ")
    )
    assert float(steps["quoted: multiply and add / 8-bit add"]) == 71.43
    ladder = re.search(
        r"^weights from LPDDR5 +([\d.]+)$", outcome[0]["energy_of_a_layer"], re.MULTILINE
    )
    assert float(ladder[1]) == pytest.approx(totals[0] / totals[1], rel=1e-3)


def test_every_published_row_says_what_it_is_and_what_it_is_not(outcome):
    works = tomllib.loads((FOLDER / "data" / "published.toml").read_text(encoding="utf-8"))["work"]
    assert len(works) >= 6
    text = outcome[0]["model_on_a_board"]
    for work in works:
        assert re.search(r"arXiv:\d{4}\.\d{5}|ISSCC 20\d\d", work["source"]), work["name"]
        for field in ("platform", "model", "source", "conditions", "not_comparable"):
            assert work[field] in text, (work["name"], field)
        # Energy and speed of a row can be divided by its parameters only if it states them.
        assert "tokens_per_second" not in work or work["parameters"] > 0


def test_notebooks_read_the_tables_that_lie_beside_them():
    table = json.loads((FOLDER / "data" / "layers.json").read_text(encoding="utf-8"))
    assert len(table["layers"]) == 3
    for layer in table["layers"].values():
        sizes = [row["group_size"] for row in layer["groups"]]
        assert sizes == sorted(sizes)
        assert (sizes[0], sizes[-1]) == (32, layer["shape"][1])
        for row in layer["groups"]:
            assert row["aware"]["output_error"] < row["als"]["output_error"]
            # Base-3 bytes of a row, and a binary16 scale and shift for each group.
            k, groups = layer["shape"][1], -(-layer["shape"][1] // row["group_size"])
            bits = (8 * -(-k // 5) + 32 * groups) / k
            assert row["als"]["bits_per_weight"] == pytest.approx(bits)


def markdown_cells(path):
    """Return the text of a percent script's markdown cells."""
    cells = re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [cell for cell in cells if cell.startswith(" [markdown]")]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_as_a_notebook(name, tmp_path, monkeypatch):
    import jupytext
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = jupytext.read(FOLDER / f"{name}.py")
    client = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == len(NOTEBOOKS[name])


@pytest.mark.slow
def test_a_recorded_error_is_measured_again():
    from quant.models.linears import named_linear
    from quant.models.sources import find_source
    from quant.progress import silent
    from quant.ternary import ternarize

    table = json.loads((FOLDER / "data" / "layers.json").read_text(encoding="utf-8"))
    name, layer = next(iter(table["layers"].items()))
    weight = named_linear(find_source("smollm2", silent).model, name).weight.detach().float()
    for row in layer["groups"]:
        fit = ternarize(weight, row["group_size"])
        assert fit.relative_error(weight) == pytest.approx(row["als"]["weight_error"], rel=1e-5)
