"""`python -m quant.analyze`: every question on a small random model, pictures, and bad input."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import LlamaForCausalLM

from quant import analyze
from quant.analysis.models import prepare_student
from quant.methods import convert, method_config, named_method, quantized_linears
from quant.models.linears import block_linears
from quant.models.prepared import load_prepared, save_prepared
from quant.models.tiny import byte_tokenizer
from tern_hw.cli import run
from tests.quant.models import random_llama

PNG = b"\x89PNG\r\n\x1a\n"


def command(*arguments):
    """Run the command line in this process; returns its status as the shell would see it."""
    try:
        return run(lambda: analyze.main([str(argument) for argument in arguments]))
    except SystemExit as stopped:
        return stopped.code


@pytest.fixture
def answer(capsys):
    """Ask a question with --json; returns the answer."""

    def ask(*arguments):
        assert command(*arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return ask


def wide_llama(seed=0, **changes):
    """A random model whose context holds every word's sentence, byte by byte."""
    return random_llama(seed, max_position_embeddings=128, **changes)


def save_plain(folder, model=None):
    model = model or wide_llama()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def save_quantised(folder, method, model=None, nudge=0.0, **options):
    """Prepare a model, perhaps move its weights as training would, and save it."""
    model = model or wide_llama()
    config = method_config(method, {"group_size": 16, **options})
    named_method(method).prepare(model, config)
    if nudge:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for _, linear, _ in quantized_linears(model):
                weight = linear.parametrizations["weight"].original
                weight += nudge * torch.randn(weight.shape, generator=generator)
    save_prepared(folder, model, byte_tokenizer(), method=method, config=config, origin="random")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, and prepared ones: dlt before and after a nudge, and fdb."""
    root = tmp_path_factory.mktemp("models")
    return {
        "plain": save_plain(root / "plain"),
        "dlt": save_quantised(root / "dlt", "dlt", codes="nearest"),
        "later": save_quantised(root / "later", "dlt", nudge=0.02, codes="nearest"),
        "fdb": save_quantised(root / "fdb", "fdb"),
    }


# ------------------------------------------------------------------- every question, and pictures

QUESTIONS = {
    "asymmetry": (
        ["plain"],
        ["--group-size", "16"],
        ["asymmetry_groups", "asymmetry_errors"],
    ),
    "codes": (["dlt", "later"], [], ["codes_shares", "codes_dead_zone", "codes_flow"]),
    "outliers": (
        ["plain", "dlt"],
        ["--method", "dlt", "--options", "group_size=16"],
        ["outliers_channels", "outliers_gradients"],
    ),
    "clustering": (["plain", "dlt"], [], ["clustering_measures", "clustering_words"]),
    "planes": (["fdb"], [], ["planes"]),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_prints_a_table(question, folders, capsys):
    models, options, _ = QUESTIONS[question]
    assert command(question, *(folders[model] for model in models), *options) == 0
    assert "┃" in capsys.readouterr().out


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_draws_its_pictures_over_older_ones(question, folders, tmp_path, answer):
    models, options, pictures = QUESTIONS[question]
    for name in pictures:
        (tmp_path / f"{name}.png").write_bytes(b"old")
    report = answer(question, *(folders[model] for model in models), *options, "--plot", tmp_path)
    paths = [tmp_path / f"{name}.png" for name in pictures]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert report["question"] == question
    assert report["pictures"] == [str(path) for path in paths]
    for path in paths:
        data = path.read_bytes()
        assert data.startswith(PNG)
        assert len(data) > 10_000


def test_table_names_its_pictures_in_a_folder_that_is_made(folders, tmp_path, capsys):
    assert command("planes", folders["fdb"], "--plot", tmp_path / "new") == 0
    assert str(tmp_path / "new" / "planes.png") in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["planes.png"]


# ------------------------------------------------------------------------------ what they answer


def test_asymmetry_counts_all_block_linears_or_those_named(folders, answer):
    weights = sum(linear.weight.numel() for linear in block_linears(wide_llama()).values())
    report = answer("asymmetry", folders["plain"], "--group-size", 16)
    assert report["errors"][-1]["weights"] == weights
    assert report["group_size"] == 16
    report = answer("asymmetry", folders["plain"], "--layers", "*.0.mlp.up_proj")
    assert [row["kind"] for row in report["errors"]] == ["mlp.up_proj", "all"]
    assert report["errors"][0]["weights"] == 40 * 72


def test_asymmetry_reads_the_latent_weights_of_a_prepared_folder(folders, answer):
    one = answer("asymmetry", folders["plain"], "--group-size", 16)
    other = answer("asymmetry", folders["dlt"], "--group-size", 16)
    assert one["errors"] == other["errors"]


def test_codes_flow_from_each_folder_to_the_next(folders, answer):
    report = answer("codes", folders["dlt"], folders["later"], folders["later"])
    assert [folder["label"] for folder in report["folders"]] == [
        str(folders[name]) for name in ("dlt", "later", "later")
    ]
    first, second = (step["rows"][-1] for step in report["flow"])
    assert first["changed"] > 0
    assert (second["changed"], second["net_to_zero"]) == (0, 0)
    assert sum(map(sum, first["matrix"])) == pytest.approx(1)


def test_one_folder_has_no_flow(folders, answer):
    report = answer("codes", folders["dlt"])
    assert report["flow"] == []
    assert report["folders"][0]["label"] == "dlt"


def test_codes_are_those_that_the_model_computes_with(folders, answer):
    model = load_prepared(folders["dlt"]).model
    zeros = total = 0
    for _, linear, quantizer in quantized_linears(model):
        trits = quantizer.fit(linear.parametrizations["weight"].original).trits
        zeros, total = zeros + int((trits == 0).sum()), total + trits.numel()
    row = answer("codes", folders["dlt"])["folders"][0]["rows"][-1]
    assert row["shares"][1] == pytest.approx(zeros / total)


def test_method_and_its_prepared_folder_are_the_same_student(folders, answer):
    options = ("group_size=16", "codes=nearest")
    report = answer(
        "outliers", folders["plain"], folders["dlt"], "--method", "dlt", "--options", *options
    )
    one, other = report["students"]
    assert (one["label"], other["label"]) == ("dlt, not trained", "dlt")
    assert one["mse"] == other["mse"]
    assert one["off"] == other["off"]
    assert one["off_loss"] == other["off_loss"]
    assert min(one["off_loss"]) > 0


def test_outliers_follow_windows_tokens_top_and_text(folders, tmp_path, answer):
    text = tmp_path / "text.txt"
    text.write_text("na\u00efve " * 40, encoding="utf-8")
    size = ("--windows", 3, "--tokens", 20, "--top", 0.5)
    report = answer("outliers", folders["plain"], "--text", text, *size)
    assert (report["windows"], report["tokens"], report["top"]) == (3, 20, 0.5)
    assert [block["block"] for block in report["blocks"]] == [0, 1]
    assert report["students"] == []
    other = answer("outliers", folders["plain"], *size)
    assert other["blocks"] != report["blocks"]


def test_teacher_is_not_changed_by_its_student():
    teacher = wide_llama()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = prepare_student(teacher, "twn", method_config("twn", {"group_size": 16}))
    after = teacher.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(student.model.state_dict()[name], before[name])


def test_clustering_of_one_block_is_that_of_all_blocks_there(folders, answer):
    every = answer("clustering", folders["plain"], folders["dlt"])
    one = answer("clustering", folders["plain"], folders["dlt"], "--block", 1)
    assert (every["blocks"], one["blocks"]) == ([0, 1], [1])
    for ours, all_blocks in zip(one["models"], every["models"], strict=True):
        for measure in ("silhouette", "overlap", "cka"):
            assert ours[measure] == all_blocks[measure][1:]
    teacher, student = every["models"]
    assert teacher["overlap"] == [1.0, 1.0]
    assert max(student["overlap"]) < 1


def test_student_computes_with_its_quantised_weights(folders, answer):
    # The converted model as a teacher of its own: no distance is left.
    model = load_prepared(folders["dlt"]).model
    convert(model)
    merged = save_plain(folders["dlt"].parent / "merged", model)
    report = answer("outliers", merged, folders["dlt"])
    assert max(report["students"][0]["off_loss"]) < 1e-6


def test_planes_report_bits_with_both_scales(folders, answer):
    row = answer("planes", folders["fdb"], "--layers", "*.up_proj")["rows"][-1]
    assert row["bits_per_weight"] == pytest.approx(2 + 2 * 16 * 3 / 40)
    assert row["layers"] == 2


def test_bfloat16_models_are_measured(tmp_path, answer):
    folder = save_plain(tmp_path / "plain", wide_llama().bfloat16())
    assert answer("asymmetry", folder)["errors"][-1]["dlt"] > 0
    assert answer("outliers", folder, "--method", "twn")["students"][0]["off_loss"][0] > 0


# ------------------------------------------------------------------------------------ bad input


@pytest.fixture
def mistake(capsys):
    """Run a command that must fail with one sentence; returns it."""

    def fail(*arguments):
        assert command(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("error: ") == 1
        return captured.err[captured.err.index("error: ") :]

    return fail


def test_layer_that_is_not_there_is_refused_with_one_like_it(folders, mistake):
    for question, name in (("asymmetry", "plain"), ("codes", "dlt"), ("planes", "fdb")):
        sentence = mistake(question, folders[name], "--layers", "*.up_prj")
        assert "layers must match the name of a linear layer, not '*.up_prj'" in sentence


def test_planes_of_another_method_are_refused(folders, mistake):
    assert "must have the two planes of fdb, not the codes of dlt" in mistake(
        "planes", folders["dlt"]
    )


def test_codes_of_four_levels_are_refused(folders, mistake):
    assert "must have ternary codes, not those of fdb" in mistake("codes", folders["fdb"])


def test_flow_between_two_models_is_refused(folders, tmp_path, mistake):
    other = save_quantised(tmp_path / "other", "dlt", wide_llama(intermediate_size=80))
    sentence = mistake("codes", folders["dlt"], other)
    assert "folders must be of one model, but model.layers.0.mlp.gate_proj is [72, 40]" in sentence


@pytest.mark.parametrize("question", ["codes", "planes"])
def test_folder_without_quantisers_is_refused(question, folders, mistake):
    rule = "folder must be a prepared model, with its quantisers, not"
    assert rule in mistake(question, folders["plain"])
    assert rule in mistake(question, folders["plain"] / "nowhere")
    assert rule in mistake(question, "")


@pytest.mark.parametrize("question", ["outliers", "clustering"])
def test_teacher_must_be_unquantised_and_student_prepared(question, folders, mistake):
    sentence = mistake(question, folders["dlt"])
    assert "model must be an unquantised one, not the prepared folder" in sentence
    sentence = mistake(question, folders["plain"], folders["plain"])
    assert "folder must be a prepared model" in sentence


def test_student_of_another_shape_is_refused(folders, tmp_path, mistake):
    other = save_quantised(tmp_path / "other", "dlt", wide_llama(num_hidden_layers=1))
    sentence = mistake("outliers", folders["plain"], other)
    assert "student must have 2 blocks, a vocabulary of 257, width 40, as the teacher" in sentence
    assert "not 1 blocks" in sentence


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["asymmetry", "{plain}", "--group-size", "1"], '--group-size must be "row" or at least 2'),
        (["asymmetry", "{plain}", "--sigma", "0"], "--sigma must be a positive number, not 0.0"),
        (["asymmetry", "no such model"], "model must be an existing folder or GGUF file"),
        (["outliers", "{plain}", "--top", "0"], "--top must be above 0 and at most 1, not 0.0"),
        (["outliers", "{plain}", "--windows", "0"], "--windows must be at least 1, not 0"),
        (
            ["outliers", "{plain}", "--tokens", "999"],
            "--tokens must be from 2 to the model's context",
        ),
        (["outliers", "{plain}", "--text", "nowhere.txt"], "nowhere.txt: No such file"),
        (["outliers", "{plain}", "--method", "gone"], "method must be one of"),
        (["outliers", "{plain}", "--options", "a=1"], "--options must be given with --method"),
        (["clustering", "{plain}", "--block", "2"], "--block must be from 0 to 1, not 2"),
        (
            ["clustering", "{plain}", "--neighbours", "64"],
            "--neighbours must be from 1 to 63, not 64",
        ),
        (
            ["clustering", "{plain}", "--neighbours", "x"],
            "--neighbours must be an integer, not 'x'",
        ),
        (["weather", "{plain}"], "must be one of"),
        ([], "QUESTION must be given"),
    ],
)
def test_mistakes_take_one_sentence(arguments, message, folders, mistake):
    assert message in mistake(*(each.format(**folders) for each in arguments))


def test_text_that_is_not_utf8_is_refused(folders, tmp_path, mistake):
    (tmp_path / "text").write_bytes(b"\xff\xfe\x00")
    assert "--text must be a UTF-8 file, not" in mistake(
        "outliers", folders["plain"], "--text", tmp_path / "text"
    )


def test_pictures_place_is_checked_before_any_work(folders, tmp_path, mistake, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", None)
    (tmp_path / "file").touch()
    assert "--plot must be a folder, not" in mistake(
        "asymmetry", folders["plain"], "--plot", tmp_path / "file"
    )
    assert "--plot must lie in a folder that exists, not at" in mistake(
        "asymmetry", folders["plain"], "--plot", tmp_path / "no" / "where"
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_method_that_needs_text_is_refused(folders, mistake, monkeypatch):
    monkeypatch.setattr(type(named_method("twn")), "calibrated", True)
    assert "--method must be one that needs no calibration text, not twn" in mistake(
        "outliers", folders["plain"], "--method", "twn"
    )


# ----------------------------------------------------------------------------------- its weight


@pytest.mark.parametrize("question", [None, *QUESTIONS])
def test_help_shows_an_example(question, capsys):
    assert command(*([question] if question else []), "--help") == 0
    out = capsys.readouterr().out
    assert "python -m quant.analyze" in out.partition("example")[2]


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom quant import analyze\n"
        "try: analyze.main(['outliers', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'matplotlib', 'numpy', 'sklearn', 'rich'} "
        "& set(sys.modules)), file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.stderr.strip() == "[]"
