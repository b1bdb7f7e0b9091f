"""Further files in an artifact, as a tokenizer's: listed, checked, and nothing else read."""

import json

import pytest

from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tests.artifacts import LAYERS, edit_section, save


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "model")


FILES = {"tokenizer.json": b'{"model": {}}', "merges.txt": b"\xff\x00t h\n", "chat.jinja": b""}


@pytest.fixture
def folder_with_files(tmp_path):
    return save(tmp_path / "with_files", files=FILES)


@pytest.mark.parametrize("verify", [True, False])
def test_roundtrip_of_further_files(folder_with_files, verify):
    artifact = load_artifact(folder_with_files, verify=verify)
    assert artifact.files == tuple(FILES)
    for name, content in FILES.items():
        assert artifact.file(name) == folder_with_files / name
        assert artifact.file(name).read_bytes() == content
    assert artifact.layers == tuple(LAYERS)


def test_artifact_without_further_files_is_as_ever(folder):
    document = json.loads((folder / "config.json").read_text())
    assert "files" not in document["tern_hw"]
    assert load_artifact(folder).files == ()


def test_a_changed_further_file_is_refused(folder_with_files):
    (folder_with_files / "merges.txt").write_bytes(b"t h")
    with pytest.raises(TernError, match=r"file merges\.txt must be as it was written, but its che"):
        load_artifact(folder_with_files)
    artifact = load_artifact(folder_with_files, verify=False)
    with pytest.raises(TernError, match="its checksum differs"):
        artifact.file("merges.txt")
    assert artifact.file("tokenizer.json").is_file()


def test_a_missing_further_file_is_refused(folder_with_files):
    (folder_with_files / "merges.txt").unlink()
    with pytest.raises(TernError, match=r"must have a file merges\.txt"):
        load_artifact(folder_with_files)


def test_a_further_file_that_links_elsewhere_is_refused(folder_with_files, tmp_path):
    (tmp_path / "elsewhere").write_bytes(FILES["merges.txt"])
    (folder_with_files / "merges.txt").unlink()
    (folder_with_files / "merges.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TernError, match=r"merges\.txt must lie in the artifact's folder"):
        load_artifact(folder_with_files)


def test_an_unlisted_file_is_unknown(folder_with_files):
    (folder_with_files / "stray.txt").write_text("x")
    with pytest.raises(TernError, match=r"file must be one of .*, not 'stray\.txt'"):
        load_artifact(folder_with_files).file("stray.txt")


BAD_NAMES = ["../x", "a/b", "", ".hidden", "config.json", "Model.SafeTensors", "a\n", "x" * 101]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_further_file_has_a_plain_name(tmp_path, folder, name):
    with pytest.raises(TernError, match="file name must be letters, digits and _"):
        save(tmp_path / "new", files={name: b"x"})
    assert not (tmp_path / "new").exists()
    edit_section(folder, files={name: "00"})
    with pytest.raises(TernError, match="file name must be letters, digits and _"):
        load_artifact(folder)


@pytest.mark.parametrize("files", [[], "x", None, {"a": 1}, {"a": None}])
def test_a_list_of_further_files_that_is_none_is_refused(folder, files):
    edit_section(folder, files=files)
    with pytest.raises(TernError, match=r"(files|sha256 of a) must be"):
        load_artifact(folder)


def test_overwrite_replaces_listed_files_and_spares_others(folder_with_files):
    save(folder_with_files, overwrite=True)
    assert load_artifact(folder_with_files).files == ()
    assert {path.name for path in folder_with_files.iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    (folder_with_files / "tokenizer.json").write_text("mine")
    with pytest.raises(TernError, match="output must be a new path or an artifact to replace"):
        save(folder_with_files, overwrite=True)
    assert (folder_with_files / "tokenizer.json").read_text() == "mine"
