"""The comparison: its suites hold together, a run measures what it says, the table adds it up."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes

from quant import compare
from quant.comparison import runner
from quant.comparison.layer_outputs import mean_output_error
from quant.comparison.measures import Tasks
from quant.comparison.report import markdown, picture, rows_of
from quant.comparison.runner import first_blocks, read_result, run_entry
from quant.comparison.suites import SUITES, TEACHER, Entry, Suite, named_suite
from quant.losses.features import FeatureLoss
from quant.methods import METHODS, method_config, named_method
from quant.models.sources import find_source
from quant.models.tiny import byte_tokenizer
from quant.scoring.perplexity import perplexity
from quant.text.loading import load_tokens
from quant.training import start as start_module
from quant.training.recipe import Losses, Precision, Recipe
from tern_hw.errors import TernError
from tests.quant.models import random_llama

ENTRIES = (
    Entry("als", "als", {"group_size": 16}),
    Entry("dlt + off", "dlt", {"group_size": 16}, Losses(), seeds=(0, 1)),
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    # Documents of many lines, so that a hash can put some of them in each part.
    path.write_text("\n\n".join(f"{i} the quick brown fox jumps over dogs" * 40 for i in range(40)))
    return path


@pytest.fixture
def model_folder(tmp_path: Path) -> str:
    folder = tmp_path / "teacher"
    random_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def suite(text: Path) -> Suite:
    recipe = Recipe(steps=3, warmup_steps=1, batch=2, window=16)
    return Suite(
        "test",
        "a test",
        recipe,
        ENTRIES,
        blocks=1,
        calibration_windows=4,
        test_tokens=256,
        texts=((str(text), "all"),),
        test_window=32,
    )


@pytest.mark.parametrize("name", list(SUITES))
def test_every_row_of_a_suite_can_be_run(name: str, tmp_path: Path):
    suite = named_suite(name)
    folders = {
        compare._folder(tmp_path, entry, seed) for entry in suite.entries for seed in entry.seeds
    }
    assert len(folders) == sum(len(entry.seeds) for entry in suite.entries)
    for entry in suite.entries:
        recipe = suite.recipe_of(entry, 5)
        assert recipe.seed == 5
        trains = bool(entry.method) and METHODS[entry.method].trainable
        assert (entry.losses is not None) <= trains


@pytest.mark.parametrize("name", list(SUITES))
def test_a_suite_has_every_method_and_every_loss(name: str):
    entries = SUITES[name].entries
    assert {entry.method for entry in entries} == {"", *METHODS}
    losses = [entry.losses for entry in entries if entry.losses]
    assert {each.feature_loss for each in losses} == set(FeatureLoss)
    assert any(each.dad for each in losses)


def test_a_run_measures_bits_error_and_perplexity(
    suite: Suite, model_folder: str, text: Path, tmp_path: Path
):
    result = run_entry(suite, ENTRIES[0], 0, find_source(model_folder), str(text), tmp_path / "run")
    assert result["bits_per_weight"] > 1.6
    assert 0 < result["weight_error"] < 1
    assert result["tokens"] == 0
    assert 1 < result["perplexity"][str(text)] < 10_000
    assert result["divergence"] > 0
    assert 0 < result["output_error"] < 1
    assert read_result(tmp_path / "run") == result


def test_the_teacher_is_measured_as_it_is(
    suite: Suite, model_folder: str, text: Path, tmp_path: Path
):
    suite = replace(suite, entries=(TEACHER, *ENTRIES))
    source = find_source(model_folder)
    result = run_entry(suite, TEACHER, 0, source, str(text), tmp_path / "run", keep_model=True)
    assert (result["divergence"], result["cosine"], result["tokens"]) == (
        0,
        pytest.approx(0, abs=1e-6),
        0,
    )
    held_out = load_tokens(str(text), source.tokenizer)[: suite.test_tokens]
    exact = perplexity(first_blocks(find_source(model_folder).model, 1), held_out, window=32)
    assert result["perplexity"] == {str(text): exact.perplexity}
    line = markdown(suite, rows_of(suite, [result])).splitlines()[2]
    assert line.startswith("| teacher | 1 of 1 | – | – | 0 | – | – | 0.000 | 0.0000 |")


def test_a_run_is_measured_in_the_precision_that_the_suite_trains_in(
    suite: Suite, model_folder: str, text: Path, tmp_path: Path
):
    measured = {}
    for precision in Precision:
        chosen = replace(suite, recipe=replace(suite.recipe, precision=precision))
        source = find_source(model_folder)
        run = run_entry(chosen, TEACHER, 0, source, str(text), tmp_path / precision)
        (measured[precision],) = run["perplexity"].values()
    assert measured[Precision.BF16] != measured[Precision.FP32]
    assert measured[Precision.BF16] == pytest.approx(measured[Precision.FP32], rel=0.02)


def test_zero_shot_scores_have_a_column(
    suite: Suite, model_folder: str, text: Path, tmp_path: Path
):
    question = {"query": "the quick", "choices": [" brown", " fox jumps"], "gold": 0}
    (tmp_path / "q.jsonl").write_text(f"{json.dumps(question)}\n" * 3)
    tasks = Tasks(tmp_path, ("q",), limit=2)
    arguments = (suite, ENTRIES[0], 0, find_source(model_folder), str(text), tmp_path / "run")
    result = run_entry(*arguments, tasks=tasks)
    score = result["zero_shot"]["q"]
    assert (score["items"], score["acc"]) in ((2, 0.0), (2, 1.0))
    head, _, line = markdown(suite, rows_of(suite, [result])).splitlines()
    assert head.split(" | ")[-3] == "q"
    assert line.split(" | ")[-3] == f"{score['acc_norm']:.1%}"
    with pytest.raises(TernError, match="must be of tasks None"):
        run_entry(*arguments)


def test_a_run_that_trains_is_done_once(
    suite: Suite, model_folder: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arguments = (suite, ENTRIES[1], 1, find_source(model_folder), str(text), tmp_path / "run")
    result = run_entry(*arguments)
    assert (result["steps"], result["tokens"], result["seed"]) == (3, 3 * 2 * 16, 1)
    monkeypatch.setattr(runner._Run, "make", None)
    assert run_entry(*arguments) == result
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_training_starts_from_a_fitted_artifact_made_once(
    suite: Suite, model_folder: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = find_source(model_folder)
    # A step of rate 0: what is measured is the start.
    suite = replace(suite, recipe=replace(suite.recipe, learning_rate=0.0))
    fitted = run_entry(suite, Entry("gptq", "gptq"), 0, source, str(text), tmp_path / "gptq")
    entry = Entry("x", "dlt", {"codes": "nearest"}, Losses(), start_from="gptq", seeds=(0, 1))
    begun = run_entry(suite, entry, 0, source, str(text), tmp_path / "x0")
    assert (begun["start"], begun["tokens"]) == ("gptq", 3 * 2 * 16 + 4 * 16)
    for name in ("perplexity", "weight_error"):
        assert begun[name] == fitted[name]
    monkeypatch.setattr(start_module, "fitted_copy", None)
    run_entry(suite, entry, 1, source, str(text), tmp_path / "x1")


@pytest.mark.parametrize("name", list(SUITES))
def test_rows_of_dlt_differ_in_what_their_names_say(name: str):
    rules = {e.name: e.options.get("ste") for e in SUITES[name].entries if e.method == "dlt"}
    assert {row for row, rule in rules.items() if rule != "identity"} == {
        "dlt, ttq",
        "dlt, clipped",
    }


def test_a_result_of_another_model_or_text_is_not_taken(
    suite: Suite, model_folder: str, text: Path, tmp_path: Path
):
    source = find_source(model_folder)
    run_entry(suite, ENTRIES[0], 0, source, str(text), tmp_path / "run")
    with pytest.raises(TernError, match=r"must be of text 'brown', not '.*; give another --output"):
        run_entry(suite, ENTRIES[0], 0, source, "brown", tmp_path / "run")


def test_blocks_are_cut_from_the_front():
    model = random_llama()
    whole = model(torch.arange(8)[None], output_hidden_states=True).hidden_states
    cut = first_blocks(random_llama(), 1)(torch.arange(8)[None], output_hidden_states=True)
    assert len(cut.hidden_states) == 2
    torch.testing.assert_close(cut.hidden_states[0], whole[0])
    assert len(whole) == 3


def test_output_error_is_the_geometric_mean_over_the_layers_own_inputs():
    model, teacher, tokens = random_llama(), random_llama(), torch.arange(64).reshape(4, 16)
    names = [f"model.layers.{block}.self_attn.q_proj" for block in (0, 1)]
    config = method_config("als", {"group_size": 16, "layers": names})
    named_method("als").prepare(model, config)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    handles = [
        teacher.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: seen[name].append(inputs[0])
        )
        for name in names
    ]
    error = mean_output_error(model, teacher, tokens)
    for handle in handles:
        handle.remove()
    product = 1.0
    for name in names:
        x = torch.cat(seen[name]).detach().flatten(0, 1).double()
        exact, ours = (
            each.get_submodule(name).weight.detach().double() for each in (teacher, model)
        )
        product *= float((x @ (exact - ours).T).square().sum() / (x @ exact.T).square().sum())
    assert error == pytest.approx(product**0.5, rel=1e-5)


def result_of(entry: str, seed: int, divergence: float, perplexity: float) -> dict[str, object]:
    return {
        "entry": entry,
        "seed": seed,
        "bits_per_weight": 1.85,
        "quantized_bytes": 1_000_000,
        "tokens": 96,
        "losses": {"kl": 1.0} if "off" in entry else None,
        "weight_error": 0.25,
        "output_error": 0.125,
        "divergence": divergence,
        "cosine": 0.5,
        "perplexity": {"brown": perplexity},
        "seconds": 10.0,
        "peak_bytes": 2_000_000_000,
        "vocabulary": 49152,
    }


def test_the_table_has_means_spreads_and_no_noise(suite: Suite, tmp_path: Path):
    results = [
        result_of("dlt + off", 0, 1.0, 100.0),
        result_of("dlt + off", 1, 2.0, 110.0),
        result_of("als", 0, 9.0, 1e6),
    ]
    rows = rows_of(suite, results)
    assert [row.name for row in rows] == ["als", "dlt + off"]  # the suite's order
    assert [row.trained for row in rows] == [False, True]
    table = markdown(suite, rows)
    assert "| noise |" in table  # above the vocabulary, a perplexity says nothing
    assert "105.0 ± 7.1" in table
    assert "1.500 ± 0.707" in table
    picture(suite, rows, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_leaves_the_teacher_out(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[list[str]] = []
    draw = Axes.barh

    def noted(axes: Axes, names: list[str], *rest: Any, **more: Any) -> Any:
        drawn.append(names)
        return draw(axes, names, *rest, **more)

    monkeypatch.setattr(Axes, "barh", noted)
    teacher = {**result_of("teacher", 0, 0.0, 50.0), "bits_per_weight": None}
    suite = replace(suite, entries=(TEACHER, *ENTRIES))
    rows = rows_of(suite, [teacher, result_of("als", 0, 9.0, 1e6)])
    picture(suite, rows, tmp_path / "bars.png")
    assert drawn == [["als"]]


def test_every_run_s_process_is_told_what_the_command_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "a", "choices": ["b", "c"], "gold": 0}\n')
    commands: list[list[str]] = []

    def fail(command: list[str]) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr("subprocess.run", fail)
    told = ["--only", "als", "--task-folder", str(tmp_path), "--tasks", "q", "--limit", "2"]
    with pytest.raises(TernError, match="run 'als', seed 0, must end well, not with status 3"):
        compare.main(
            ["--suite", "quick", "--output", str(tmp_path / "out"), "--keep-models", *told]
        )
    (command,) = commands
    own = compare._parser().parse_args(command[command.index("--suite") :])
    assert (own.suite, own.run, own.only, own.keep_models) == ("quick", "0", ["als"], True)
    assert (own.task_folder, own.tasks, own.limit) == (str(tmp_path), ["q"], 2)


def test_first_seeds_run_first(suite: Suite):
    turned = replace(suite, entries=(ENTRIES[1], ENTRIES[0]))
    wanted = [("dlt + off", 0), ("als", 0), ("dlt + off", 1)]
    assert [(entry.name, seed) for entry, seed in compare._runs(turned, [])] == wanted
    assert [entry.name for entry, _ in compare._runs(turned, ["als"])] == ["als"]


def test_a_rows_own_name_means_that_row_alone(suite: Suite):
    suite = replace(suite, entries=(*ENTRIES, Entry("dlt", "dlt"), Entry("als, too", "als")))
    chosen = {
        words: [entry.name for entry, seed in compare._runs(suite, [words]) if seed == 0]
        for words in ("dlt", "als", "o")
    }
    assert chosen == {"dlt": ["dlt"], "als": ["als"], "o": ["dlt + off", "als, too"]}


def test_wrong_names_are_refused(suite: Suite):
    with pytest.raises(TernError, match="suite must be one of quick, cpu, gpu, not 'all'"):
        named_suite("all")
    with pytest.raises(TernError, match="--only must match a row's name, not 'x'"):
        compare._runs(replace(suite), ["x"])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--limit", "3"], "--limit must be given with --task-folder, not alone"),
        (["--tasks", "q"], "--tasks must be given with --task-folder, not alone"),
        (["--task-folder", "{}", "--limit", "-1"], "--limit must be positive, not -1"),
        (["--task-folder", "{}/none"], "--task-folder must be a folder"),
    ],
)
def test_tasks_that_cannot_be_run_are_refused_before_any_run(
    tmp_path: Path, options: list[str], error: str
):
    (tmp_path / "q.jsonl").write_text('{"query": "a", "choices": ["b", "c"], "gold": 0}\n')
    arguments = ["--output", str(tmp_path / "out"), *(each.format(tmp_path) for each in options)]
    with pytest.raises(TernError, match=error):
        compare.main(arguments)
    assert not (tmp_path / "out").exists()


def test_tasks_are_those_named_or_all_of_the_folder(tmp_path: Path):
    for name in "qr":
        path = tmp_path / f"{name}.jsonl"
        path.write_text('{"query": "a", "choices": ["b", "c"], "gold": 0}\n')
    given = ["--output", "x", "--task-folder", str(tmp_path)]
    for more, names in ([], ("q", "r")), (["--tasks", "r"], ("r",)):
        tasks = compare._tasks(compare._parser().parse_args([*given, *more]))
        assert tasks == Tasks(tmp_path, names)
    assert compare._tasks(compare._parser().parse_args(["--output", "x"])) is None
