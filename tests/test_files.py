"""Atomic writes: whole or not at all, whatever interrupts them."""

import os
import stat
import threading

import pytest

import tern_hw.files
from tern_hw.errors import TernError
from tern_hw.files import atomic_directory, check_directory, write_atomic


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(("content", "stored"), [("añ\n", b"a\xc3\xb1\n"), (b"\0\xff", b"\0\xff")])
def test_write_atomic_writes_and_replaces(tmp_path, content, stored):
    path = tmp_path / "out.v"
    path.write_text("old, and longer than the new")
    write_atomic(path, content)
    assert path.read_bytes() == stored
    assert names(tmp_path) == ["out.v"]


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "out.v"
    path.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TernError, match=r"^output must be writable, not .*out.v \(No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.v"]


def test_write_atomic_honours_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "out.v", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.v").stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o755])
def test_write_atomic_keeps_the_permissions_of_what_it_replaces(tmp_path, mode):
    path = tmp_path / "out.v"
    path.write_text("old")
    path.chmod(mode)
    write_atomic(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_write_atomic_follows_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.v").symlink_to(tmp_path / "real" / "out.v")
    write_atomic(tmp_path / "link.v", "x")
    assert (tmp_path / "link.v").is_symlink()
    assert (tmp_path / "real" / "out.v").read_text() == "x"


def test_write_atomic_writes_into_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, "through")
    reader.join(timeout=10)
    assert got == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("place", ["missing/out.v", "file/out.v", "folder"])
def test_write_atomic_refuses_an_unwritable_path(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TernError, match=f"output must be writable, not .*{place}"):
        write_atomic(tmp_path / place, "x")
    assert names(tmp_path) == ["file", "folder"]


def test_directory_appears_when_the_block_ends(tmp_path):
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        (folder / "link").symlink_to("nowhere")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "sub" / "a").read_text() == "1"
    assert names(tmp_path) == ["out"]


def test_directory_honours_the_umask_however_its_files_were_made(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_directory(tmp_path / "out") as folder:
            (folder / "private").touch(mode=0o600)
            (folder / "tool").touch(mode=0o700)
            (folder / "fixed").touch(mode=0o400)
            (folder / "sub").mkdir(mode=0o700)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"out": 0o750, "private": 0o640, "tool": 0o750, "fixed": 0o440, "sub": 0o750}


@pytest.mark.parametrize("overwrite", [False, True])
def test_failed_write_in_the_block_names_the_target(tmp_path, overwrite):
    with (
        pytest.raises(TernError, match=r"^output must be writable, not \S*/out \(No such file"),
        atomic_directory(tmp_path / "out", overwrite=overwrite) as folder,
    ):
        (folder / "missing" / "a").write_text("1")
    with (
        pytest.raises(TernError, match=r"^output must be writable, not \S*/out \(No space left"),
        atomic_directory(tmp_path / "out", overwrite=overwrite),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_error_of_the_block_about_another_file_stays(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_directory(tmp_path / "out"):
        (tmp_path / "elsewhere").read_text()


def fail_in_the_block(path, overwrite, error):
    with atomic_directory(path, overwrite=overwrite) as folder:
        (folder / "a").write_text("1")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("overwrite", [False, True])
def test_directory_leaves_nothing_when_the_block_raises(tmp_path, error, overwrite):
    if overwrite:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_text("")
    with pytest.raises(error):
        fail_in_the_block(tmp_path / "out", overwrite, error)
    assert [names(path) for path in tmp_path.iterdir()] == ([["old"]] if overwrite else [])


def test_directory_that_cannot_be_made_lasting_is_refused(tmp_path, monkeypatch):
    synced = []

    def fail_at_the_second(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail_at_the_second)
    with (
        pytest.raises(TernError, match=r"^output must be writable, not .*out \(No space left"),
        atomic_directory(tmp_path / "out") as folder,
    ):
        (folder / "a").write_text("1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("can_exchange", [True, False])
def test_directory_is_replaced(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(tern_hw.files, "_exchange", lambda one, other: False)
    for content in ("old", "new"):
        with atomic_directory(tmp_path / "out", overwrite=True) as folder:
            (folder / content).write_text(content)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["new"]


def test_exchange_swaps_two_folders_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    if not tern_hw.files._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two folders")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])


def test_old_directory_comes_back_when_the_new_cannot_be_placed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    with pytest.raises(OSError, match="No such file"):
        tern_hw.files._replace_directory(tmp_path / "missing", tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]


@pytest.mark.parametrize(
    ("place", "overwrite", "message"),
    [
        ("folder", False, "output must be a new path, not .*folder, which exists"),
        ("file", False, "output must be a folder, not the file .*file"),
        ("file", True, "output must be a folder, not the file .*file"),
        ("missing/out", False, "output must be writable, not .*missing/out"),
        ("file/out", True, "output must be writable, not .*file/out"),
        ("loop", True, "output must be writable, not .*loop .Too many levels of symbolic links"),
    ],
)
def test_directory_refusals(tmp_path, place, overwrite, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TernError, match=message):
        check_directory(tmp_path / place, overwrite=overwrite)
    with (
        pytest.raises(TernError, match=message),
        atomic_directory(tmp_path / place, overwrite=overwrite),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["file", "folder", "loop"]
    assert (tmp_path / "file").read_text() == "kept"
