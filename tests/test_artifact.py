"""The artifact: a round trip, and every way in which a folder can be something else."""

import json
import os
import resource
import stat
import struct

import numpy as np
import pytest

from tern_hw.artifact import RawTensor, load_artifact
from tern_hw.errors import TernError
from tests.artifacts import (
    LAYERS,
    METADATA,
    MODEL_CONFIG,
    NORM,
    TENSORS,
    edit_config,
    edit_header,
    edit_section,
    edit_tensor,
    layer,
    save,
    set_byte,
)


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "model")


# ------------------------------------------------------------------ round trip


@pytest.mark.parametrize("verify", [True, False])
def test_roundtrip_of_layers(folder, verify):
    artifact = load_artifact(folder, verify=verify)
    assert artifact.layers == tuple(LAYERS)
    for name, saved in LAYERS.items():
        loaded = artifact.layer(name)
        assert np.array_equal(loaded.packed, saved.packed)
        assert loaded.scale.tobytes() == saved.scale.tobytes()
        assert loaded.shift.tobytes() == saved.shift.tobytes()
        assert loaded.scale.dtype == np.float16
        assert (loaded.in_features, loaded.group_size) == (saved.in_features, saved.group_size)
        assert (loaded.packing, loaded.name) == (saved.packing, name)


def test_the_smallest_layer_roundtrips(tmp_path):
    smallest = layer("base3", 1, n=1, k=1)
    save(tmp_path / "a", layers={"x": smallest}, tensors={})
    assert np.array_equal(load_artifact(tmp_path / "a").layer("x").digits(), smallest.digits())


def test_layers_are_the_files_own_bytes(folder):
    # Odd shapes: a tensor that does not start at an even byte is copied, the others never.
    matrix = load_artifact(folder).layer("b.q_proj")
    assert not matrix.packed.flags.owndata
    assert not matrix.packed.flags.writeable


def test_roundtrip_of_other_tensors(folder):
    artifact = load_artifact(folder)
    assert artifact.tensors == ("norm", "embed")
    assert np.array_equal(artifact.tensor("norm").array(), NORM)
    embed = artifact.tensor("embed")
    assert (embed.dtype, embed.shape, bytes(embed.data)) == ("BF16", (3, 2), bytes(range(12)))
    with pytest.raises(TernError, match="must be one that numpy has, not BF16"):
        embed.array()


def test_roundtrip_of_configuration_and_metadata(folder):
    info = load_artifact(folder).info
    assert info.model_config == MODEL_CONFIG
    assert info.metadata == METADATA
    assert info.version == 1


def test_config_keeps_the_models_keys_on_top_and_ours_under_one(folder):
    document = json.loads((folder / "config.json").read_text())
    assert {key: document[key] for key in MODEL_CONFIG} == MODEL_CONFIG
    assert set(document) - set(MODEL_CONFIG) == {"tern_hw"}
    assert document["tern_hw"]["layers"]["b.q_proj"] == {
        "in_features": 130,
        "out_features": 6,
        "group_size": 128,
        "packing": "2bit",
    }


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (size, dtype)
        for size, dtypes in [
            (1, "BOOL U8 I8 F8_E4M3 F8_E5M2"),
            (2, "U16 I16 F16 BF16"),
            (4, "U32 I32 F32"),
            (8, "U64 I64 F64"),
        ]
        for dtype in dtypes.split()
    ],
)
def test_every_type_passes_untouched(tmp_path, dtype, size):
    data = bytes(value % 2 for value in range(6 * size))
    save(tmp_path / "a", tensors={"t": RawTensor(dtype, (2, 3), data)})
    loaded = load_artifact(tmp_path / "a").tensor("t")
    assert (loaded.dtype, loaded.shape, bytes(loaded.data)) == (dtype, (2, 3), data)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(5, dtype=">i4"),
        np.zeros((0, 3), np.float32),
        np.array(7),
        np.array([True, False]),
        np.arange(12, dtype=np.int16)[::2],
    ],
    ids=["transposed", "big-endian", "empty", "scalar", "bool", "strided"],
)
def test_arrays_of_any_layout_roundtrip(tmp_path, array):
    save(tmp_path / "a", tensors={"t": array})
    loaded = load_artifact(tmp_path / "a").tensor("t").array()
    assert loaded.shape == array.shape
    assert np.array_equal(loaded, array)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    one, other = save(tmp_path / "one"), save(tmp_path / "other")
    for name in ("config.json", "model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


# --------------------------------------------------------------------- writing


def test_an_existing_path_is_refused_unless_overwritten(folder, tmp_path):
    with pytest.raises(TernError, match=r"output must be a new path, not .*model, which exists"):
        save(folder, tensors={})
    assert load_artifact(folder).tensors == ("norm", "embed")
    save(folder, tensors={}, overwrite=True)
    assert load_artifact(folder).tensors == ()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_overwrite_spares_a_models_folder_with_the_same_file_names(tmp_path):
    for name, text in (("config.json", json.dumps(MODEL_CONFIG)), ("model.safetensors", "weights")):
        (tmp_path / name).write_text(text)
    with pytest.raises(TernError, match="output must be a new path or an artifact to replace"):
        save(tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_text() == "weights"


def test_overwrite_replaces_an_artifact_of_any_version_and_state(folder):
    edit_config(folder, lambda document: document["tern_hw"].update(version=2), sign=False)
    (folder / "model.safetensors").write_bytes(b"")
    save(folder, overwrite=True)
    assert load_artifact(folder).layers == tuple(LAYERS)


def test_both_files_honour_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        folder = save(tmp_path / "a")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize(("limit", "named"), [(500, "a/model.safetensors"), (3000, "a")])
def test_a_write_that_fails_names_the_target(tmp_path, limit, named):
    """The tensors take 1 to 2 kB, the config 4: the first limit stops one, the second the other."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(TernError) as caught:
            save(tmp_path / "a", metadata={"note": "x" * 4000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{tmp_path / named} " in str(caught.value)
    assert "File too large" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_overwrite_spares_a_folder_that_is_no_artifact(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TernError, match="output must be a new path or an artifact to replace"):
        save(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_config": {"tern_hw": {}}}, "model_config must not have the key 'tern_hw'"),
        ({"model_config": {"x": float("nan")}}, "model_config and metadata must be JSON"),
        ({"metadata": {"x": object()}}, "model_config and metadata must be JSON"),
        ({"tensors": {"b.q_proj.scale": np.zeros(1)}}, "must be unlike those of the layers, not"),
        ({"tensors": {"t": np.zeros(1, np.complex64)}}, "tensor type must be one of .* complex64"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(TernError, match=message):
        save(tmp_path / "a", **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "message"),
    [
        ("F17", (1,), b"\0\0", "tensor type must be one of .* not 'F17'"),
        ("F16", (2,), b"\0\0", r"must be 4 bytes for F16 \[2\], not 2"),
        ("F16", (-1,), b"", "tensor shape must be of non-negative integers"),
    ],
)
def test_raw_tensor_refusals(dtype, shape, data, message):
    with pytest.raises(TernError, match=message):
        RawTensor(dtype, shape, data)


# -------------------------------------------------------------------- refusals


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
