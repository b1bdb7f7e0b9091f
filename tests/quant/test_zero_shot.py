"""quant.scoring.zero_shot: the harness' scores against log-likelihoods computed here."""

import json
import math

import pytest
import torch

from quant.errors import UnreachableError
from quant.models.tiny import byte_tokenizer
from quant.scoring.task_files import read_questions
from quant.scoring.zero_shot import task_names, zero_shot
from tern_hw.errors import TernError
from tests.quant.models import random_llama

#: Choices of different length, so that acc and acc_norm part; one of two bytes a character.
QUESTIONS = [
    {"query": f"{subject} is", "choices": choices, "gold": gold}
    for subject, choices, gold in [
        ("The whale", ["white", "a very long fish"], 0),
        ("The sea", ["dry as a bone in summer", "wet"], 1),
        ("Ahab", ["éééé", "mad", "a captain of a ship"], 2),
        ("The ship", ["a cat", "the Pequod, they say"], 1),
        ("Starbuck", ["the mate, as we know", "x"], 0),
        ("Ishmael", ["called", "éèêëéèêë", "no one at all"], 1),
    ]
]
CONTEXTS = [
    {"context_options": ["The sea", "The cat and the dog"], "continuation": "roared.", "gold": 0},
    {"context_options": ["A whale so", "A stone so"], "continuation": "breathed air.", "gold": 1},
    {"context_options": ["He saw and he", "She"], "continuation": "fled.", "gold": 1},
]


def write(folder, name, rows):
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(text)


@pytest.fixture(scope="module")
def model():
    # Large enough weights that the choices' likelihoods are far apart.
    model = random_llama(seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


@torch.no_grad()
def log_likelihood(model, context, continuation):
    """Sum of the log-probabilities of a continuation's bytes, by one forward pass."""
    before, after = (byte_tokenizer()(text).input_ids for text in (context, continuation))
    logits = model(input_ids=torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    return logits.double().log_softmax(-1)[range(len(after)), after].sum().item()


def best(scores):
    return max(range(len(scores)), key=lambda i: scores[i])


def mean_and_error(hits):
    """Mean, and its standard error with the sample's variance."""
    mean = sum(hits) / len(hits)
    variance = sum((hit - mean) ** 2 for hit in hits) / (len(hits) - 1)
    return mean, math.sqrt(variance / len(hits))


def test_acc_and_acc_norm_are_those_of_the_log_likelihoods(model, tmp_path):
    write(tmp_path / "tasks", "sea", QUESTIONS)
    (score,) = zero_shot(model, byte_tokenizer(), ["sea"], folder=tmp_path / "tasks").scores
    hits, normed = [], []
    for row in QUESTIONS:
        sums = [log_likelihood(model, row["query"], f" {choice}") for choice in row["choices"]]
        lengths = [len(choice) for choice in row["choices"]]
        hits.append(best(sums) == row["gold"])
        normed.append(best([s / n for s, n in zip(sums, lengths, strict=True)]) == row["gold"])
    assert hits != normed, "the questions must tell the two scores apart"
    assert (score.acc, score.acc_stderr) == pytest.approx(mean_and_error(hits))
    assert (score.acc_norm, score.acc_norm_stderr) == pytest.approx(mean_and_error(normed))
    assert (score.items, score.origin) == (6, "file")


def test_contexts_are_scored_by_their_common_continuation(model, tmp_path):
    write(tmp_path / "tasks", "who", CONTEXTS)
    (score,) = zero_shot(model, byte_tokenizer(), ["who"], folder=tmp_path / "tasks").scores
    hits = []
    for row in CONTEXTS:
        sums = [
            log_likelihood(model, option, f" {row['continuation']}")
            for option in row["context_options"]
        ]
        hits.append(best(sums) == row["gold"])
    assert (score.acc, score.acc_stderr) == pytest.approx(mean_and_error(hits))
    assert score.acc_norm is None


def test_several_tasks_keep_their_order_and_the_harness_is_named(model, tmp_path):
    write(tmp_path / "tasks", "sea", QUESTIONS)
    write(tmp_path / "tasks", "who", CONTEXTS)
    tokenizer = byte_tokenizer()
    found = zero_shot(model, tokenizer, ["who", "sea"], folder=tmp_path / "tasks", limit=2)
    assert [(score.task, score.items) for score in found.scores] == [("who", 2), ("sea", 2)]
    assert found.lm_eval.startswith("0.4.")
    assert len(tokenizer) == 256, "the harness' padding token stays in its copy"


def test_all_files_of_the_folder_are_the_tasks_where_none_is_named(tmp_path):
    write(tmp_path / "tasks", "b", QUESTIONS)
    write(tmp_path / "tasks", "a", QUESTIONS)
    assert task_names([], tmp_path / "tasks") == ["a", "b"]
    assert task_names(["b", "piqa"], tmp_path / "tasks") == ["b", "piqa"]
    assert task_names(["piqa"], None) == ["piqa"]
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(TernError, match=r"^--task-folder must"):
            task_names([], folder)


def test_a_line_of_each_form_is_read(tmp_path):
    write(tmp_path, "q", [{**QUESTIONS[0], "note": "ignored"}])
    write(tmp_path, "c", CONTEXTS)
    assert read_questions(tmp_path / "q.jsonl") == ("query", [QUESTIONS[0]])
    assert read_questions(tmp_path / "c.jsonl") == ("continuation", CONTEXTS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 must be a JSON object \("),
        ("[1]", r"line 2 must be a JSON object, not \[1\]"),
        ('{"choices": ["a", "b"], "gold": 0}', "line 2: query must be a text, not None"),
        ('{"query": "", "choices": ["a", "b"], "gold": 0}', "line 2: query must be a text, not ''"),
        ('{"query": "q", "choices": ["a"], "gold": 0}', "choices must be two texts or more"),
        ('{"query": "q", "choices": ["a", ""], "gold": 0}', "choices must be two texts or more"),
        ('{"query": "q", "choices": ["a", "b"], "gold": 2}', "gold must be from 0 to 1, not 2"),
        ('{"query": "q", "choices": ["a", "b"], "gold": true}', "gold must be from 0 to 1"),
        (json.dumps(CONTEXTS[0]), "line 2: query must be a text, not None"),
    ],
)
def test_a_line_of_another_form_is_refused(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(QUESTIONS[0]) + "\n" + line + "\n")
    with pytest.raises(TernError, match=message):
        read_questions(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n\n", "at least one question"), (b"\xff", "must be UTF-8")]
)
def test_a_file_without_questions_is_refused(tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(TernError, match=message):
        read_questions(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"limit": 0}, "limit must be a positive"), ({"batch": 0}, "batch must be a positive")],
)
def test_bad_numbers_are_refused(model, options, message):
    with pytest.raises(TernError, match=message):
        zero_shot(model, byte_tokenizer(), ["sea"], **options)


@pytest.mark.slow
def test_the_harness_own_tasks_are_known_by_name(model, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(TernError, match=r"not 'piqqa' \(there is piqa\)"):
        zero_shot(model, byte_tokenizer(), ["piqqa"])
    with pytest.raises(UnreachableError, match="data of the tasks piqa must be reachable") as error:
        zero_shot(model, byte_tokenizer(), ["piqa"])
    assert "\n" not in str(error.value)
