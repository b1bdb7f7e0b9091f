"""Shapes of models: the catalogue's parameters, and what a configuration may not say."""

import json

import pytest

from tern_hw.costs import catalogue, open_model
from tern_hw.costs.models import model_from_config
from tern_hw.errors import TernError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}

#: Billions in the papers' own tables (OPT: Table 1; LLaMA: Table 2; BitNet: section 2).
PUBLISHED = {
    "opt-125m": 0.125,
    "opt-350m": 0.331,
    "opt-1.3b": 1.316,
    "opt-2.7b": 2.652,
    "opt-6.7b": 6.658,
    "llama-1-7b": 6.738,
    "llama-2-7b": 6.738,
    "llama-3-8b": 8.030,
    "smollm2-135m": 0.1345,
    "bitnet-2b4t": 2.413,
}


def test_catalogue_has_the_published_parameters():
    models = catalogue()
    assert {name: model.parameters / 1e9 for name, model in models.items()} == pytest.approx(
        PUBLISHED, rel=2e-3
    )


def test_every_entry_names_its_source():
    assert all("20" in model.source for model in catalogue().values())


def test_a_small_llama_by_hand():
    model = model_from_config(LLAMA, "small", "a test")
    block = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 96
    assert model.ternary_parameters == 2 * block
    assert model.parameters == 2 * block + 100 * 64 + 5 * 64
    assert (model.head_dim, model.kv_values) == (16, 64)
    untied = model_from_config(LLAMA | {"tie_word_embeddings": False}, "small", "a test")
    assert untied.parameters == model.parameters + 100 * 64


def test_opt_350m_has_projections_that_are_no_block_s():
    model = catalogue()["opt-350m"]
    outside = [each for each in model.linears if each not in model.block_linears]
    assert [(each.name, each.n, each.k, each.count) for each in outside] == [
        ("project_in", 1024, 512, 1),
        ("project_out", 512, 1024, 1),
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mamba"}, "model_type must be one of opt, llama, .*, not 'mamba'"),
        ({"hidden_size": None}, "hidden_size must be an integer from 1 to 16777216, not None"),
        ({"hidden_size": -64}, "hidden_size must be an integer from 1 to 16777216, not -64"),
        ({"vocab_size": 1 << 40}, "vocab_size must be an integer from 1 to 16777216, not 1099"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be an integer .*, not True"),
        ({"num_key_value_heads": 3}, r"num_key_value_heads must divide .* \(= 4\), not 3"),
        (
            {"num_attention_heads": 5, "num_key_value_heads": 5},
            r"num_attention_heads must divide hidden",
        ),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false, not 'yes'"),
    ],
)
def test_a_configuration_that_no_model_has_is_refused(change, sentence):
    with pytest.raises(TernError, match=f"^here: {sentence}"):
        model_from_config(LLAMA | change, "small", "here")


def test_a_model_is_opened_by_file_and_by_folder(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert open_model(str(folder)) == open_model(str(folder / "config.json"))
    assert open_model(str(folder)).name == "small"


@pytest.mark.parametrize("text", ["{", "[]", "\xff", '{"model_type": "llama"}'])
def test_a_damaged_configuration_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TernError, match=f"^{path}"):
        open_model(str(path))


def test_an_unknown_name_is_refused_with_a_hint(tmp_path):
    with pytest.raises(TernError, match=r"not 'llama-2-8b' \(there is llama-3-8b\)$"):
        open_model("llama-2-8b")
    with pytest.raises(TernError, match=r"config\.json must be a readable file"):
        open_model(str(tmp_path))
