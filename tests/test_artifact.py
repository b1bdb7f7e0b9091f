"""The artifact: a round trip, and what may be written where."""

import json
import os
import resource
import stat

import numpy as np
import pytest

from tern_hw.artifact import RawTensor, load_artifact
from tern_hw.errors import TernError
from tests.artifacts import (
    LAYERS,
    METADATA,
    MODEL_CONFIG,
    NORM,
    edit_config,
    layer,
    save,
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
