"""quant.models.tiny: the fallback model learns, is reproducible, and is a plain model folder."""

import contextlib
import dataclasses
import math

import pytest
import torch

from quant.models import tiny
from quant.models.checkpoints import load_folder, load_tokenizer
from quant.models.tiny import TinyRecipe, byte_tokenizer, tiny_folder, train_tiny
from quant.text.excerpt import excerpt

pytestmark = pytest.mark.usefixtures("own_cache")

QUICK = TinyRecipe(hidden_size=48, intermediate_size=64, heads=2, kv_heads=1, window=64, steps=40)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_training_halves_the_surprise():
    model, losses = train_tiny(QUICK)
    assert losses[0] == pytest.approx(math.log(256), abs=0.1)
    assert losses[-1] < 0.65 * losses[0]
    assert not model.training


def test_same_recipe_gives_the_same_bits():
    recipe = dataclasses.replace(QUICK, steps=5)
    first = weights(train_tiny(recipe)[0])
    assert torch.equal(first, weights(train_tiny(recipe)[0]))
    other = weights(train_tiny(dataclasses.replace(recipe, seed=1))[0])
    assert not torch.equal(first, other)


def test_training_sums_on_one_thread_whatever_the_machine_has():
    used = []

    @contextlib.contextmanager
    def watch(description, total):
        yield lambda count: used.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        train_tiny(dataclasses.replace(QUICK, steps=2), watch)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert used == [1, 1]


def test_training_leaves_the_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_tiny(dataclasses.replace(QUICK, steps=1))
    assert torch.equal(torch.rand(3), expected)


def test_byte_tokenizer_has_one_token_a_byte_and_loses_nothing():
    tokenizer = byte_tokenizer()
    text = excerpt() + " \t\x00 – ∑ 🐋"
    ids = tokenizer(text).input_ids
    assert len(tokenizer) == 256
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_folder_is_made_once_and_read_like_any_other(monkeypatch):
    monkeypatch.setattr(tiny, "TinyRecipe", lambda: dataclasses.replace(QUICK, steps=2))
    folder = tiny_folder()
    model, tokenizer = load_folder(folder), load_tokenizer(folder)
    assert torch.equal(weights(model), weights(train_tiny(dataclasses.replace(QUICK, steps=2))[0]))
    assert tokenizer("whale").input_ids == byte_tokenizer()("whale").input_ids
    monkeypatch.setattr(tiny, "train_tiny", None)
    assert tiny_folder() == folder


def test_another_recipe_is_another_folder(monkeypatch):
    folders = set()
    for seed in (1, 2):
        recipe = dataclasses.replace(QUICK, steps=1, seed=seed)
        monkeypatch.setattr(tiny, "TinyRecipe", lambda recipe=recipe: recipe)
        folders.add(tiny_folder())
    assert len(folders) == 2


def test_default_recipe_has_a_short_last_group():
    recipe = TinyRecipe()
    assert recipe.hidden_size % 128
    assert recipe.hidden_size % recipe.heads == 0
