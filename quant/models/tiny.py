"""A small LLaMA-type model of bytes, trained here in seconds, for where no other can be had."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quant.cache import cached_folder
from quant.models.checkpoints import quiet
from quant.progress import Progress, silent
from quant.text.excerpt import excerpt

__all__ = ["ORIGIN", "TinyRecipe", "byte_tokenizer", "tiny_folder", "train_tiny"]

#: What the model is, for every table it appears in.
ORIGIN: Final = "a small byte-level LLaMA trained in this repository on one chapter of Moby-Dick"


@dataclass(frozen=True)
class TinyRecipe:
    """Shape and training of the model; the same recipe gives the same weights."""

    #: Width; no multiple of 128, so that its last group is short, as SmolLM2's is.
    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 2
    heads: int = 6
    kv_heads: int = 2
    #: Bytes of one training window.
    window: int = 128
    batch: int = 8
    steps: int = 200
    #: Peak of the one-cycle schedule.
    learning_rate: float = 3e-3
    seed: int = 1851

    def config(self) -> LlamaConfig:
        """Return the architecture as transformers has it."""
        return LlamaConfig(
            vocab_size=256,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each of the 256 bytes and no merges."""
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def train_tiny(
    recipe: TinyRecipe, progress: Progress = silent
) -> tuple[LlamaForCausalLM, list[float]]:
    """Train the model on the excerpt.

    Parameters
    ----------
    recipe : TinyRecipe
    progress : Progress
        Counts the steps.

    Returns
    -------
    model : LlamaForCausalLM
        In evaluation mode, float32.
    losses : list of float
        Cross-entropy of each step, nats a byte (ln 256 = 5.5 knows nothing).
    """
    tokens = torch.tensor(byte_tokenizer()(excerpt()).input_ids)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(recipe.config())
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=recipe.learning_rate, total_steps=recipe.steps
        )
        losses = []
        with progress("training a small model", recipe.steps) as advance:
            for _ in range(recipe.steps):
                batch = _batch(tokens, recipe)
                loss = model(input_ids=batch, labels=batch).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                advance(1)
    return model.eval(), losses


def tiny_folder(progress: Progress = silent) -> Path:
    """Return a Hugging Face folder of the trained model, made on first use and then cached."""
    recipe = TinyRecipe()

    def make(folder: Path) -> None:
        model, _ = train_tiny(recipe, progress)
        with quiet():
            model.save_pretrained(folder)
            byte_tokenizer().save_pretrained(folder)

    content = repr(asdict(recipe)) + excerpt()
    return cached_folder(f"tiny-{hashlib.sha256(content.encode()).hexdigest()[:12]}", make)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sum in the same order on any number of cores; matrices this small gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _batch(tokens: Tensor, recipe: TinyRecipe) -> Tensor:
    """Draw windows of the text at random places, [batch, window]."""
    starts = torch.randint(len(tokens) - recipe.window, (recipe.batch, 1))
    return tokens[starts + torch.arange(recipe.window)]
