"""The artifact: every way in which a folder can be something else, and what is said then."""

import struct

import pytest

from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tests.artifacts import (
    LAYERS,
    TENSORS,
    edit_config,
    edit_header,
    edit_section,
    edit_tensor,
    save,
    set_byte,
)


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "model")


@pytest.mark.parametrize("name", ["b.q_proj.packed", "a.k_proj.scale", "norm", "embed"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_refused(folder, name, bit):
    edit_tensor(folder, name, lambda data: set_byte(1, data[1] ^ 1 << bit)(data), sign=False)
    message = f"tensor '{name}' must be as it was written, but its checksum differs"
    with pytest.raises(TernError, match=message):
        load_artifact(folder)
    lazy = load_artifact(folder, verify=False)
    with pytest.raises(TernError, match=message):
        lazy.tensor(name)
    if name not in TENSORS:
        with pytest.raises(TernError, match=message):
            lazy.layer(name.rpartition(".")[0])


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_a_truncated_tensor_file_is_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TernError, match=r"model.safetensors must be a whole safetensors file"):
        load_artifact(folder)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 30, 3])
def test_an_absurd_header_length_is_refused(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(TernError, match=r"model.safetensors must be a whole safetensors file"):
        load_artifact(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda header: header["norm"].update(shape=[1 << 62, 1 << 62]),
        lambda header: header["norm"].update(data_offsets=[0, 1 << 62]),
        lambda header: header["norm"].update(data_offsets=header["embed"]["data_offsets"]),
        lambda header: header["norm"].update(shape=[-7]),
        lambda header: header.pop("norm"),
    ],
    ids=["huge shape", "huge offset", "overlap", "negative", "hole"],
)
def test_a_header_that_does_not_tile_the_file_is_refused(folder, edit):
    edit_header(folder, edit)
    with pytest.raises(TernError, match=r"model.safetensors must be a whole safetensors file"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("b.q_proj", 0xFF, "^b.q_proj.packed must hold legal 2bit codes, not 0xff at row 1, byte"),
        ("a.k_proj", 20, "^a.k_proj.packed must hold legal base3 codes, not 0x14 at row 1, byte"),
    ],
)
def test_an_illegal_code_is_refused_though_its_checksum_is_right(folder, name, value, message):
    edit_tensor(folder, f"{name}.packed", set_byte(34, value))
    with pytest.raises(TernError, match=message):
        load_artifact(folder)


@pytest.mark.parametrize(("part", "bits"), [("scale", 0x7E00), ("shift", 0xFC00)])
def test_a_scale_that_is_not_finite_is_refused(folder, part, bits):
    edit_tensor(
        folder, f"b.q_proj.{part}", lambda data: data[:6] + struct.pack("<H", bits) + data[8:]
    )
    with pytest.raises(TernError, match=f"^b.q_proj.{part} must be finite, not .* row 1, group 1$"):
        load_artifact(folder)


def test_a_missing_tensor_is_refused(folder):
    def forget(document):
        del document["tern_hw"]["tensors"]["a.k_proj.shift"]

    edit_config(folder, forget)
    with pytest.raises(TernError, match=r"layer 'a.k_proj' must have a tensor a.k_proj.shift$"):
        load_artifact(folder)


def test_a_tensor_that_only_the_config_has_is_refused(folder):
    entry = {"dtype": "F32", "shape": [1], "sha256": "0" * 64}
    edit_config(folder, lambda document: document["tern_hw"]["tensors"].update(ghost=entry))
    with pytest.raises(TernError, match=r"model.safetensors must have the tensor 'ghost'"):
        load_artifact(folder)


def test_a_tensor_that_only_the_file_has_is_refused(folder):
    edit_config(folder, lambda document: document["tern_hw"]["tensors"].pop("norm") and None)
    with pytest.raises(TernError, match=r"must be those that config.json lists, not 'norm'"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("norm", {"dtype": "I32"}),
        ("norm", {"shape": [7, 1]}),
        ("b.q_proj.scale", {"dtype": "BF16"}),
        ("b.q_proj.packed", {"shape": [3, 66]}),
    ],
)
def test_a_type_or_shape_unlike_the_configs_is_refused(folder, name, changes):
    edit_header(folder, lambda header: header[name].update(changes))
    with pytest.raises(TernError, match=f"tensor '{name}' must be .*, not "):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_features": 134}, "tensor 'b.q_proj.packed' must be U8 .6, 34., not U8 .6, 33."),
        ({"out_features": 5}, "tensor 'b.q_proj.packed' must be U8 .5, 33., not"),
        ({"group_size": 64}, "tensor 'b.q_proj.scale' must be F16 .6, 3., not F16 .6, 2."),
        ({"packing": "base3"}, "tensor 'b.q_proj.packed' must be U8 .6, 26., not"),
        ({"packing": "9bit"}, "b.q_proj.packing must be one of 2bit, base3, not '9bit'"),
        ({"packing": []}, "b.q_proj.packing must be one of"),
        ({"in_features": 10**18}, "b.q_proj.in_features must be an integer from 1 to"),
        ({"in_features": 130.0}, "b.q_proj.in_features must be an integer from 1 to"),
        ({"out_features": -6}, "b.q_proj.out_features must be an integer from 1 to"),
        ({"out_features": True}, "b.q_proj.out_features must be an integer from 1 to"),
        ({"group_size": 0}, 'b.q_proj.group_size must be "row" or a positive integer, not 0'),
        ({"group_size": None}, 'b.q_proj.group_size must be "row" or a positive integer, not None'),
    ],
)
def test_a_layer_unlike_its_tensors_is_refused(folder, changes, message):
    edit_config(folder, lambda doc: doc["tern_hw"]["layers"]["b.q_proj"].update(changes))
    with pytest.raises(TernError, match=message):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version must be 1, not 2"),
        ({"version": None}, "version must be 1, not None"),
        ({"version": 1.0}, "version must be 1, not 1.0"),
        ({"version": True}, "version must be 1, not True"),
        ({"format": "other"}, "must have a 'tern_hw' section of format 'tern_hw.artifact'"),
        ({"file": "../x"}, "file must be 'model.safetensors', in the artifact's folder, not '../x"),
        ({"file": "/etc/passwd"}, "file must be 'model.safetensors', in the artifact's folder"),
        ({"layers": []}, "layers must be an object, not "),
        ({"tensors": None}, "tensors must be an object, not None"),
        ({"metadata": 1}, "metadata must be an object, not 1"),
        ({"layers": {"x": 1}}, "x must be an object with in_features, out_features"),
        ({"tensors": {"x": {"dtype": "F32"}}}, "x must be an object with dtype, shape, sha256"),
        ({"tensors": {"x": {"dtype": 1, "shape": [], "sha256": ""}}}, "x.dtype must be a string"),
        (
            {"tensors": {"x": {"dtype": "F32", "shape": [-1], "sha256": ""}}},
            "x.shape must be a list of integers",
        ),
        (
            {"tensors": {"x": {"dtype": "F32", "shape": [1], "sha256": 0}}},
            "x.sha256 must be a string",
        ),
    ],
)
def test_a_section_that_is_wrong_is_refused(folder, changes, message):
    edit_section(folder, **changes)
    with pytest.raises(TernError, match=message):
        load_artifact(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document.update(hidden_size=131),
        lambda document: document["tern_hw"]["layers"]["b.q_proj"].update(group_size=129),
        lambda document: document["tern_hw"]["metadata"].update(method="none"),
        lambda document: document["tern_hw"].pop("sha256") and None,
    ],
    ids=["model", "group", "metadata", "no checksum"],
)
def test_a_config_that_was_changed_is_refused(folder, edit):
    edit_config(folder, edit, sign=False)
    with pytest.raises(TernError, match=r"config.json must be as it was written, but its checksum"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "config.json must be JSON"),
        (b"{", "config.json must be JSON"),
        (b"\xff\xfe{}", "config.json must be JSON"),
        (b"[" * 100_000, "config.json must be JSON"),
        (b"[]", "config.json must be a JSON object, not list"),
        (b'{"model_type": "llama"}', "config.json must have a 'tern_hw' section"),
        (b'{"tern_hw": 1}', "config.json must have a 'tern_hw' section"),
    ],
)
def test_a_config_that_is_none_is_refused(folder, text, message):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(TernError, match=message):
        load_artifact(folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_config_in_another_encoding_is_refused(folder, encoding):
    path = folder / "config.json"
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(TernError, match=r"config.json must be JSON in UTF-8 \(.+\)$"):
        load_artifact(folder)


@pytest.mark.parametrize("key", ["hidden_size", "b.q_proj", "sha256"])
def test_a_key_that_is_there_twice_is_refused(folder, key):
    path = folder / "config.json"
    value = '"' + "0" * 64 + '"' if key == "sha256" else "{}"
    text = path.read_text()
    # The first of the two is the wrong one: a reader that keeps the last would see no change.
    path.write_text(text.replace(f'"{key}":', f'"{key}": {value}, "{key}":', 1))
    with pytest.raises(TernError, match=f"must be JSON in UTF-8 .the key '{key}' is there twice"):
        load_artifact(folder)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_lacks_is_refused(folder, literal):
    edit_config(folder, lambda document: document["rope"].update(theta=float(literal)))
    with pytest.raises(TernError, match=f"must be JSON in UTF-8 .{literal} is no number of JSON"):
        load_artifact(folder)


def test_a_config_of_absurd_length_is_refused_unread(folder):
    with (folder / "config.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        TernError, match=f"config.json must be at most 67108864 bytes, not {1 << 40}"
    ):
        load_artifact(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(TernError, match=f"must have a file {name}"):
        load_artifact(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(f"../{name}")
    with pytest.raises(TernError, match=f"{name} must lie in the artifact's folder, not at"):
        load_artifact(folder)


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert load_artifact(tmp_path / "link").layers == tuple(LAYERS)


@pytest.mark.parametrize("place", ["nowhere", "model/config.json"])
def test_what_is_no_folder_is_refused(folder, tmp_path, place):
    with pytest.raises(TernError, match=f"artifact must be a folder, not .*{place}"):
        load_artifact(tmp_path / place)


def test_unknown_names_are_refused(folder):
    artifact = load_artifact(folder)
    with pytest.raises(TernError, match=r"layer must be one of .*b.q_proj, a.k_proj.*, not 'x'"):
        artifact.layer("x")
    with pytest.raises(TernError, match=r"tensor must be one of .*norm, embed.*, not 'x'"):
        artifact.tensor("x")
