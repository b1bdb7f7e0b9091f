"""quant.cache: a cached folder is made once, whole, and again when it is damaged."""

import os

import pytest

from quant.cache import MANIFEST, cached_folder, file_sha256
from tern_hw.cache import cache_root
from tern_hw.errors import TernError

pytestmark = pytest.mark.usefixtures("own_cache")


class Maker:
    """Fills a folder with two files and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "a.bin").write_bytes(bytes(range(256)))
        (folder / "deep").mkdir()
        (folder / "deep" / "b.txt").write_text("b")


def test_folder_is_made_once():
    make = Maker()
    folder = cached_folder("thing", make)
    assert folder == cache_root() / "thing"
    assert cached_folder("thing", make) == folder
    assert make.calls == 1
    assert (folder / "deep" / "b.txt").read_text() == "b"


def test_names_keep_apart():
    make = Maker()
    assert cached_folder("one", make) != cached_folder("other", make)
    assert make.calls == 2


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "a flipped bit": lambda folder: flip(folder / "a.bin"),
    "a truncated file": lambda folder: os.truncate(folder / "a.bin", 100),
    "a missing file": lambda folder: (folder / "deep" / "b.txt").unlink(),
    "a file too many": lambda folder: (folder / "c.txt").write_text("c"),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "a torn manifest": lambda folder: os.truncate(folder / MANIFEST, 20),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folder_is_made_again(damage):
    make = Maker()
    folder = cached_folder("thing", make)
    DAMAGE[damage](folder)
    assert cached_folder("thing", make) == folder
    assert make.calls == 2
    assert (folder / "a.bin").read_bytes() == bytes(range(256))
    assert not (folder / "c.txt").exists()
    cached_folder("thing", make)
    assert make.calls == 2


def test_interrupted_making_leaves_nothing():
    def interrupted(folder):
        Maker()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder("thing", interrupted)
    assert list(cache_root().iterdir()) == []


def test_cache_that_cannot_be_made_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TERN_HW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        TernError, match=r"cache folder \(\$TERN_HW_CACHE\) must be writable, not .*file"
    ):
        cached_folder("thing", Maker())


def test_folder_that_another_process_made_meanwhile_is_no_obstacle():
    other = Maker()

    def make(folder):
        cached_folder("thing", other)
        Maker()(folder)

    folder = cached_folder("thing", make)
    assert other.calls == 1
    assert (folder / "a.bin").read_bytes() == bytes(range(256))
    assert [path.name for path in cache_root().iterdir()] == ["thing"]


def test_sha256_is_the_standards_example(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == digest
