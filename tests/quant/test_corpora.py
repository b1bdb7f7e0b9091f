"""quant.text.loading and what it stands on: packages, documents, splits, text, tokens, windows."""

import hashlib
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from safetensors.torch import save_file

from quant.errors import UnreachableError
from quant.models.tiny import byte_tokenizer
from quant.text.brown import brown_text, rejoin
from quant.text.documents import CORPORA, Split, corpus_documents, split_of, unwrapped
from quant.text.loading import load_text, load_tokens, tokenize, windows
from quant.text.packed import vocabulary_sha256, write_packed
from tern_hw.errors import TernError
from tests.quant.npm_tarballs import BROWN_FILE, BROWN_TEXT, brown_files, pinned, write_tarball

PARTS = [Split.TRAIN, Split.VALIDATION, Split.TEST]
#: Where some documents of Brown are, for good.
SPLITS = {
    "ca02": "train",
    "ca03": "test",
    "ca04": "train",
    "ca05": "train",
    "ca06": "validation",
    "cb03": "train",
    "cb04": "test",
}


@pytest.fixture
def brown(own_cache, tmp_path, monkeypatch):
    """The Brown corpus as a small package in the cache; returns the tarball."""
    package = tmp_path / "cache" / CORPORA["brown"].package.tarball
    package.parent.mkdir()
    write_tarball(package, brown_files())
    pinned(monkeypatch, "brown", package)
    return package


# -------------------------------------------------------------------------------------- documents


def test_brown_loses_its_tags_and_gets_its_punctuation_back():
    assert brown_text(BROWN_FILE) == BROWN_TEXT


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("`` Well , '' she said .", '"Well," she said.'),
        ("said : `` I ' won't ' go '' .", "said: \"I 'won't' go\"."),
        ("' Yes ' and ' no ' .", "'Yes' and 'no'."),
        ("[ sic ] -- and so", "[sic] -- and so"),
        ("what ? ? no ! ! yes ; ; well , , then : : on", "what? no! yes; well, then: on"),
        ("( ( a ) )", "((a))"),
        ("had had", "had had"),
    ],
)
def test_punctuation_stands_as_in_print(words, text):
    assert rejoin(words.split()) == text


def test_wrapped_lines_become_paragraphs():
    assert unwrapped("CHAPTER 1.\n\nCall me\nIshmael. \n\n\nSome\n") == (
        "CHAPTER 1.\nCall me Ishmael.\nSome"
    )


def test_corpus_is_read_from_the_package_once(brown, monkeypatch):
    first = corpus_documents("brown")
    assert first[0].text == f"{BROWN_TEXT}\nNumber a1"
    brown.unlink()
    monkeypatch.setattr("quant.text.documents.fetch_package", None)
    assert corpus_documents("brown") == first
    assert len(first) == 60


def test_documents_stand_in_reading_order(own_cache, tmp_path, monkeypatch):
    package = tmp_path / "cache" / CORPORA["moby-dick"].package.tarball
    package.parent.mkdir()
    names = ["chapter_10", "chapter_2", "epilogue", "chapter_1", "contents"]
    folder = "package/moby-dick/data"
    write_tarball(package, {f"{folder}/{name}.txt": name.encode() for name in names})
    pinned(monkeypatch, "moby-dick", package)
    found = [document.name for document in corpus_documents("moby-dick")]
    assert found == ["chapter_1", "chapter_2", "chapter_10", "epilogue"]


def test_split_is_the_hash_of_the_name_and_never_moves():
    # Written down: another hash, or other shares, would let what was trained on be tested on.
    found = {name: split_of(f"brown/{name}") for name in SPLITS}
    assert found == SPLITS


def test_shares_are_80_10_and_10_of_100():
    for index in range(1000):
        value = int(hashlib.sha256(str(index).encode()).hexdigest(), 16) % 100
        expected = Split.TRAIN if value < 80 else Split.VALIDATION if value < 90 else Split.TEST
        assert split_of(str(index)) is expected


def test_parts_share_a_corpus_out(brown):
    documents = corpus_documents("brown")
    parts = [load_text("brown", split=part) for part in PARTS]
    assert [sum(document.text in part for part in parts) for document in documents] == [1] * 60
    assert load_text("brown") == "\n\n".join(document.text for document in documents)


# ------------------------------------------------------------------------------------------- text


def test_several_sources_follow_one_another(brown, tmp_path):
    (tmp_path / "a.txt").write_text("häh", encoding="utf-8")
    text = load_text([tmp_path / "a.txt", "brown", str(tmp_path / "a.txt")])
    assert text == f"häh\n\n{load_text('brown')}\n\nhäh"


def paragraphs(count, seed=0):
    return [f"Paragraph {seed}.{i}: " + "word " * (20 + 13 * i % 60) for i in range(count)]


def test_a_file_is_shared_out_whole(tmp_path):
    path = tmp_path / "book.txt"
    lines = paragraphs(1500)
    path.write_text("\n\n".join(lines))
    parts = [load_text(path, split=part) for part in PARTS]
    assert sorted(p for part in parts for p in part.split("\n\n")) == sorted(lines)
    shares = [len(part) / path.stat().st_size for part in parts]
    assert 0.65 < shares[0] < 0.95
    assert all(0.02 < share < 0.25 for share in shares[1:])
    assert load_text(path) == path.read_text()


def test_an_edit_moves_only_the_paragraphs_beside_it(tmp_path):
    path = tmp_path / "book.txt"

    def parts(lines):
        path.write_text("\n\n".join(lines))
        texts = {part: set(load_text(path, split=part).split("\n\n")) for part in PARTS}
        return {line: part for line in lines for part in PARTS if line in texts[part]}

    lines = paragraphs(1500)
    before = parts(lines)
    after = parts([*lines[:700], "A new paragraph.", *lines[700:]])
    moved = [line for line in lines if before[line] != after[line]]
    assert len(before) == 1500
    assert len(moved) < 150
    assert all(550 < lines.index(line) < 850 for line in moved)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.txt", "a.txt must hold text in split all, not none"),
        (b" \n\n ", "a.txt", "a.txt must hold text in split all, not none"),
        (b"ab\xffcd", "a.txt", "a.txt must be UTF-8, which byte 2 is not"),
        (b"\x80\x02", "a.pkl", "which could run code when read"),
        (b"\x80\x02", "a.pt", "which could run code when read"),
        (b"x", "a.safetensors", "text must be plain, not the tokens of"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TernError, match=message):
        load_text(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("nowhere.txt", "all", "text must be a file, hf:NAME, or one of brown, sotu, moby-dick"),
        (".", "all", "text must be a file, not the folder"),
        ([], "all", "text must be at least one source, not none"),
        ("brown", "dev", "split must be one of train, validation, test, all, not 'dev'"),
        ("hf:", "test", r"dataset must be hf:NAME\[:CONFIG"),
        ("hf:a:b:c:d:e", "test", r"dataset must be hf:NAME\[:CONFIG"),
        ("hf:a:b", "all", "hf:a:b must name its split"),
        ("hf:a:b:train", "test", "split must be train, as hf:a:b:train names it, not test"),
    ],
)
def test_a_source_that_is_none_is_refused(source, split, message):
    with pytest.raises(TernError, match=message):
        load_text(source, split=split)


def dataset_stand_in(monkeypatch, rows):
    from datasets import Dataset

    calls = []

    def load_dataset(name, config, split):
        calls.append((name, config, split))
        return Dataset.from_dict(rows)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return calls


def test_a_dataset_gives_the_rows_of_its_column(monkeypatch):
    calls = dataset_stand_in(monkeypatch, {"text": ["a", "b"], "body": ["c", "d"]})
    assert load_text("hf:owner/set:raw", split="test") == "a\n\nb"
    assert load_text("hf:owner/set::train:body") == "c\n\nd"
    assert calls == [("owner/set", "raw", "test"), ("owner/set", None, "train")]
    with pytest.raises(TernError, match="column of owner/set must be one of text, body, not 'x'"):
        load_text("hf:owner/set::train:x")


def test_an_unreachable_dataset_is_told_with_what_was_wanted(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError) as caught:
        load_text("hf:nobody/nothing:raw", split="test")
    message = str(caught.value)
    assert "dataset 'nobody/nothing' (config raw, split test) must be reachable" in message
    assert "a local text file may be given instead" in message
    assert "\n" not in message


# ----------------------------------------------------------------------------------------- tokens


def test_tokens_are_the_whole_texts_without_special_ones(tmp_path):
    (tmp_path / "a.txt").write_text("whale")
    tokens = load_tokens([tmp_path / "a.txt"] * 2, byte_tokenizer())
    assert tokens.dtype == torch.int64
    assert byte_tokenizer().decode(tokens) == "whalewhale"


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "t.safetensors"
    tokenizer = byte_tokenizer()
    tokens = tokenize("the white whale", tokenizer)
    write_packed(path, tokens, tokenizer, name="bytes", split=Split.TRAIN)
    return path, tokens


def test_packed_tokens_come_back(tokens_file):
    path, tokens = tokens_file
    for split in ("train", "all"):
        assert torch.equal(load_tokens(path, byte_tokenizer(), split), tokens)
    assert path.stat().st_size < 400 + 2 * len(tokens)


def test_ids_beyond_16_bits_are_packed_as_32(tmp_path):
    tokens = torch.tensor([0, 70000, 1])

    class Large:
        def get_vocab(self):
            return {"a": 0, "b": 70000}

        def __len__(self):
            return 70001

    write_packed(tmp_path / "t.safetensors", tokens, Large(), name="large", split=Split.ALL)
    assert load_tokens(tmp_path / "t.safetensors", Large()).tolist() == tokens.tolist()


def test_packed_tokens_of_another_split_are_refused(tokens_file):
    with pytest.raises(TernError, match="must be packed from the test split, not train"):
        load_tokens(tokens_file[0], byte_tokenizer(), "test")


def test_packed_tokens_of_another_tokenizer_are_refused(tokens_file):
    other = byte_tokenizer()
    other.add_tokens(["whale"])
    assert vocabulary_sha256(other) != vocabulary_sha256(byte_tokenizer())
    with pytest.raises(TernError, match="with the model's own tokenizer, not with that of 'bytes'"):
        load_tokens(tokens_file[0], other)


def test_damaged_packed_tokens_are_refused(tokens_file):
    path, _ = tokens_file
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(TernError, match="must be a whole safetensors file"):
        load_tokens(path, byte_tokenizer())


def repacked(path, tensors, **changes):
    """Write tensors with the metadata of a packed file, some of it changed."""
    metadata = {
        "format": "tern_hw.tokens",
        "version": "1",
        "tokenizer": "bytes",
        "vocabulary_sha256": vocabulary_sha256(byte_tokenizer()),
        "split": "all",
        "count": "3",
        **changes,
    }
    path.write_bytes(save({k: v.numpy() for k, v in tensors.items()}, metadata=metadata))
    return path


@pytest.mark.parametrize(
    ("tokens", "changes", "message"),
    [
        ([1, 2, 256], {}, "tokens must be from 0 to 255, not 256"),
        ([1, -2, 5], {}, "tokens must be from 0 to 255, not -2"),
        ([1, 2], {}, "must hold 3 tokens, as it says, not 2"),
        ([], {"count": "0"}, "tokens must be uint16 or int32"),
        ([[1, 2, 3]], {}, "tokens must be uint16 or int32"),
        ([1, 2, 3], {"version": "2"}, "must hold packed tokens of version 1"),
    ],
)
def test_packed_tokens_that_cannot_be_are_refused(tmp_path, tokens, changes, message):
    tensor = torch.tensor(tokens, dtype=torch.int32)
    path = repacked(tmp_path / "t.safetensors", {"tokens": tensor}, **changes)
    with pytest.raises(TernError, match=message):
        load_tokens(path, byte_tokenizer())


def test_a_models_weights_are_no_tokens(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(TernError, match="must hold packed tokens of version 1, and nothing else"):
        load_tokens(tmp_path / "model.safetensors", byte_tokenizer())


# ---------------------------------------------------------------------------------------- windows


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_windows_are_slices_at_each_stride(count, length, data):
    stride = data.draw(st.integers(1, length))
    tokens = torch.arange(count)
    starts = range(0, count - length + 1, stride)
    if not starts:
        with pytest.raises(TernError, match="text must have at least"):
            windows(tokens, length, stride)
    else:
        assert windows(tokens, length, stride).tolist() == [
            list(range(s, s + length)) for s in starts
        ]


def test_windows_do_not_overlap_unless_told():
    assert windows(torch.arange(8), 3).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_every_corpus_states_its_terms_and_is_pinned():
    assert sorted(CORPORA) == ["brown", "moby-dick", "sotu"]
    for corpus in CORPORA.values():
        assert corpus.terms
        assert re.fullmatch("[0-9a-f]{64}", corpus.package.sha256)
