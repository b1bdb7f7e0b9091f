"""What quant's tests share: one thread, no network, and small models."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from quant.models.tiny import byte_tokenizer
from tests.quant.models import random_llama, write_gguf


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # The models are tiny: a second thread only waits for the first.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The variable was read when the library was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache for this test alone."""
    monkeypatch.setenv("TERN_HW_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def llama() -> LlamaForCausalLM:
    return random_llama()


@pytest.fixture
def llama_folder(llama: LlamaForCausalLM, tmp_path: Path) -> Path:
    """A Hugging Face folder of `llama` with a byte tokenizer."""
    folder = tmp_path / "llama"
    llama.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def llama_gguf(llama: LlamaForCausalLM, tmp_path: Path) -> Path:
    """`llama` as a GGUF file in float32, written by the format's own package."""
    path = tmp_path / "llama.gguf"
    write_gguf(llama, path)
    return path
