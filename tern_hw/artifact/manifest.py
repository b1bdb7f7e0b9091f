"""The config.json of an artifact: what it says of layers and tensors, written and checked."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from tern_hw.artifact.tensors import RawTensor
from tern_hw.errors import TernError
from tern_hw.matrix import (
    MAX_IN_FEATURES,
    MAX_OUT_FEATURES,
    GroupSize,
    TernaryMatrix,
    group_count,
)
from tern_hw.packing import DIGITS_PER_BYTE, packed_row_bytes

__all__ = [
    "CONFIG_FILE",
    "LAYER_PARTS",
    "SECTION",
    "TENSOR_FILE",
    "ArtifactInfo",
    "LayerInfo",
    "TensorInfo",
    "build_document",
    "check_file_name",
    "is_document",
    "listed_files",
    "read_document",
]

CONFIG_FILE: Final = "config.json"
TENSOR_FILE: Final = "model.safetensors"
#: The key of our part; every other key is the model's own configuration.
SECTION: Final = "tern_hw"
FORMAT: Final = "tern_hw.artifact"
VERSION: Final = 1
#: A layer "x" is the tensors "x.packed", "x.scale" and "x.shift".
LAYER_PARTS: Final = ("packed", "scale", "shift")
#: Name of a file that may lie beside the two: no path, nothing hidden, in any file system.
FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
#: Largest config.json that is read, in bytes: a model of 10,000 layers takes a tenth.
MAX_CONFIG_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class LayerInfo:
    """What the config says of one ternary layer."""

    in_features: int
    out_features: int
    group_size: GroupSize
    packing: str

    @classmethod
    def of(cls, matrix: TernaryMatrix) -> "LayerInfo":
        """Describe a matrix."""
        return cls(matrix.in_features, matrix.out_features, matrix.group_size, matrix.packing)

    def parts(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type and shape that each of the layer's tensors must have."""
        pairs = (self.out_features, group_count(self.in_features, self.group_size))
        row_bytes = packed_row_bytes(self.in_features, self.packing)
        return {
            "packed": ("U8", (self.out_features, row_bytes)),
            "scale": ("F16", pairs),
            "shift": ("F16", pairs),
        }


@dataclass(frozen=True)
class TensorInfo:
    """What the config says of one tensor of the file."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @classmethod
    def of(cls, tensor: RawTensor) -> "TensorInfo":
        """Describe a tensor."""
        return cls(tensor.dtype, tensor.shape, tensor.sha256())


@dataclass(frozen=True)
class ArtifactInfo:
    """The checked content of an artifact's config.json."""

    #: Version of the format.
    version: int
    #: Ternary layers by name.
    layers: dict[str, LayerInfo]
    #: Every tensor of the file by name, the layers' among them.
    tensors: dict[str, TensorInfo]
    #: What the writer noted: method, versions, ...
    metadata: dict[str, Any]
    #: The model's own configuration, as Hugging Face wrote it.
    model_config: dict[str, Any]
    #: sha256 of each further file, a tokenizer's, by name.
    files: dict[str, str]


def build_document(
    layers: Mapping[str, LayerInfo],
    tensors: Mapping[str, TensorInfo],
    model_config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> str:
    """Return the text of config.json.

    Raises
    ------
    TernError
        If the model's configuration has our key, something is not JSON, or a further file has a
        name that none may have.
    """
    if SECTION in model_config:
        raise TernError(f"model_config must not have the key {SECTION!r}, which is the artifact's")
    section = {
        "format": FORMAT,
        "version": VERSION,
        "file": TENSOR_FILE,
        "metadata": dict(metadata),
        "layers": {name: asdict(layer) for name, layer in layers.items()},
        "tensors": {name: asdict(tensor) for name, tensor in tensors.items()},
    }
    if files:
        # Left out where there is none, so that such an artifact is the same bytes as ever.
        section["files"] = {
            check_file_name(name): hashlib.sha256(content).hexdigest()
            for name, content in files.items()
        }
    try:
        # Through text and back, so that the checksum is of what a reader will see.
        document = json.loads(json.dumps({**model_config, SECTION: section}, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TernError(f"model_config and metadata must be JSON ({error})") from None
    document[SECTION]["sha256"] = _checksum(document)
    return json.dumps(document, indent=2) + "\n"


def check_file_name(name: str) -> str:
    """Return the name of a file beside config.json and model.safetensors; refuse any other text."""
    if not FILE_NAME.fullmatch(name) or name.lower() in (CONFIG_FILE, TENSOR_FILE):
        raise TernError(
            f"file name must be letters, digits and _.-, and not {CONFIG_FILE} or {TENSOR_FILE}, "
            f"not {name!r:.80}"
        )
    return name


def listed_files(path: Path) -> set[str]:
    """Return the names of the further files that a config.json lists, of whatever state."""
    try:
        files = (_section(_parse(path)) or {}).get("files")
    except TernError:
        return set()
    return set(files) if isinstance(files, dict) else set()


def is_document(path: Path) -> bool:
    """Tell whether a file is an artifact's config.json, of whatever version and state."""
    try:
        return _section(_parse(path)) is not None
    except TernError:
        return False


def read_document(path: Path) -> ArtifactInfo:
    """Read and check a config.json.

    Raises
    ------
    TernError
        If it is not JSON, not an artifact's, of another version, changed since it was written, or
        says something that no artifact can be.
    """
    document = _parse(path)
    section = _section(document)
    if section is None:
        raise TernError(f"{path} must have a {SECTION!r} section of format {FORMAT!r}")
    version = section.get("version")
    # 1.0 and true are equal to 1.
    if type(version) is not int or version != VERSION:
        _refuse(path, "version", f"{VERSION}", version)
    if section.get("file") != TENSOR_FILE:
        _refuse(path, "file", f"{TENSOR_FILE!r}, in the artifact's folder", section.get("file"))
    checksum = section.pop("sha256", None)
    if checksum != _checksum(document):
        raise TernError(f"{path} must be as it was written, but its checksum differs")
    del document[SECTION]
    return ArtifactInfo(
        version=VERSION,
        layers={name: _layer(path, name, entry) for name, entry in _items(path, section, "layers")},
        tensors={
            name: _tensor(path, name, entry) for name, entry in _items(path, section, "tensors")
        },
        metadata=dict(_items(path, section, "metadata")),
        model_config=document,
        files=_files(path, section) if "files" in section else {},
    )


def _checksum(document: dict[str, Any]) -> str:
    """Return the sha256 of a document without its own checksum, in one canonical form."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _section(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return an artifact's own part of a config.json; None where it is another's."""
    section = document.get(SECTION)
    return section if isinstance(section, dict) and section.get("format") == FORMAT else None


def _parse(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise TernError(f"{path} must be at most {MAX_CONFIG_BYTES} bytes, not {size}")
        # Of bytes, json would take UTF-16 and UTF-32 too.
        document = json.loads(
            path.read_bytes().decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
        )
    except OSError as error:
        raise TernError(f"{path} must be readable ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, TernError):
            raise
        raise TernError(f"{path} must be JSON in UTF-8 ({error})") from None
    if not isinstance(document, dict):
        raise TernError(f"{path} must be a JSON object, not {type(document).__name__}")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; two readers of one with a key twice could see different things."""
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {key!r:.80} is there twice")
        members[key] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _refuse(path: Path, thing: str, rule: str, value: Any) -> NoReturn:
    raise TernError(f"{path}: {thing} must be {rule}, not {value!r:.80}")


def _items(path: Path, section: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    if not isinstance(section.get(key), dict):
        _refuse(path, key, "an object", section.get(key))
    return list(section[key].items())


def _layer(path: Path, name: str, entry: Any) -> LayerInfo:
    fields = _fields(path, name, entry, ("in_features", "out_features", "group_size", "packing"))
    inputs, outputs, group_size, packing = fields
    for key, value, high in (
        ("in_features", inputs, MAX_IN_FEATURES),
        ("out_features", outputs, MAX_OUT_FEATURES),
    ):
        if not _is_count(value) or not 1 <= value <= high:
            _refuse(path, f"{name}.{key}", f"an integer from 1 to {high}", value)
    if group_size != "row" and not (_is_count(group_size) and group_size >= 1):
        _refuse(path, f"{name}.group_size", '"row" or a positive integer', group_size)
    if not isinstance(packing, str) or packing not in DIGITS_PER_BYTE:
        _refuse(path, f"{name}.packing", f"one of {', '.join(DIGITS_PER_BYTE)}", packing)
    return LayerInfo(inputs, outputs, group_size, packing)


def _tensor(path: Path, name: str, entry: Any) -> TensorInfo:
    dtype, shape, sha256 = _fields(path, name, entry, ("dtype", "shape", "sha256"))
    if not isinstance(dtype, str):
        _refuse(path, f"{name}.dtype", "a string", dtype)
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        _refuse(path, f"{name}.shape", "a list of integers", shape)
    if not isinstance(sha256, str):
        _refuse(path, f"{name}.sha256", "a string", sha256)
    return TensorInfo(dtype, tuple(shape), sha256)


def _files(path: Path, section: dict[str, Any]) -> dict[str, str]:
    """Return the further files' checksums; an artifact without any has no such part."""
    files = dict(_items(path, section, "files"))
    for name, sha256 in files.items():
        check_file_name(name)
        if not isinstance(sha256, str):
            _refuse(path, f"sha256 of {name}", "a string", sha256)
    return files


def _fields(path: Path, name: str, entry: Any, keys: tuple[str, ...]) -> list[Any]:
    if not isinstance(entry, dict) or not set(keys) <= set(entry):
        _refuse(path, name, f"an object with {', '.join(keys)}", entry)
    return [entry[key] for key in keys]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
