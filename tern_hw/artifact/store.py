"""Save an artifact as a folder that appears whole, and load one after checking all that it says."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.artifact.manifest import (
    CONFIG_FILE,
    LAYER_PARTS,
    TENSOR_FILE,
    ArtifactInfo,
    LayerInfo,
    TensorInfo,
    build_document,
    is_document,
    listed_files,
    read_document,
)
from tern_hw.artifact.tensors import RawTensor, TensorFile, write_tensors
from tern_hw.errors import TernError
from tern_hw.files import atomic_directory, check_directory
from tern_hw.matrix import TernaryMatrix

__all__ = ["Artifact", "check_output", "load_artifact", "save_artifact"]


def save_artifact(
    path: str | os.PathLike[str],
    *,
    layers: Mapping[str, TernaryMatrix],
    tensors: Mapping[str, RawTensor | NDArray[Any]],
    model_config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model as an artifact: config.json and model.safetensors in a folder.

    Parameters
    ----------
    path : path
        The folder; appears only when it is whole.
    layers : mapping of str to TernaryMatrix
        Ternary layers by name: "x" becomes the tensors "x.packed", "x.scale" and "x.shift".
    tensors : mapping of str to RawTensor or array
        All other tensors, as they were. Nothing is copied.
    model_config : mapping
        The model's own (Hugging Face) configuration; top-level keys of config.json.
    metadata : mapping
        Method, versions, whatever belongs to the making; JSON.
    files : mapping of str to bytes, optional
        Further files by name, a tokenizer's: written beside the two, and listed with a checksum.
    overwrite : bool
        Replace an artifact that is there. Any other folder is refused.

    Raises
    ------
    TernError
        If two tensors share a name, something is not JSON, a file's name is a path or one of the
        artifact's own, or the path exists or cannot be written.
    """
    everything = _all_tensors(layers, tensors)
    text = build_document(
        {name: LayerInfo.of(matrix) for name, matrix in layers.items()},
        {name: TensorInfo.of(tensor) for name, tensor in everything.items()},
        model_config,
        metadata,
        files or {},
    )
    check_output(path, overwrite=overwrite)
    with atomic_directory(path, overwrite=overwrite) as folder:
        write_tensors(folder / TENSOR_FILE, everything, shown=Path(path) / TENSOR_FILE)
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse at once a path at which `save_artifact` could not put an artifact.

    Raises
    ------
    TernError
        If the path exists (without `overwrite`), is anything but an artifact (with it), or lies in
        no folder.
    """
    check_directory(path, overwrite=overwrite)
    folder = Path(path)
    if folder.exists() and not _is_artifact(folder):
        raise TernError(f"output must be a new path or an artifact to replace, not {folder}")


def load_artifact(path: str | os.PathLike[str], *, verify: bool = True) -> "Artifact":
    """Open an artifact; tensors stay in the file until they are asked for.

    Parameters
    ----------
    path : path
        The folder.
    verify : bool
        Check every checksum and every layer now. If False, each is checked at its first use.

    Returns
    -------
    Artifact

    Raises
    ------
    TernError
        If a file is missing, truncated, mislabelled, changed, or lies outside the folder; if a
        tensor is missing or not listed; if a code is illegal or a scale or shift not finite.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise TernError(f"artifact must be a folder, not {folder}")
    info = read_document(_inside(folder, CONFIG_FILE))
    file = TensorFile(_inside(folder, TENSOR_FILE))
    _check_names(folder, info, file)
    artifact = Artifact(folder, info, file)
    if verify:
        artifact.verify()
    return artifact


class Artifact:
    """A loaded artifact; made by `load_artifact`.

    Attributes
    ----------
    path : Path
    info : ArtifactInfo
        What config.json says: the layers' shapes, the model's configuration, metadata.
    """

    def __init__(self, path: Path, info: ArtifactInfo, file: TensorFile) -> None:
        self.path = path
        self.info = info
        self._file = file
        self._verified: set[str] = set()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the ternary layers, in the order they were saved."""
        return tuple(self.info.layers)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all other tensors."""
        own = {f"{name}.{part}" for name in self.info.layers for part in LAYER_PARTS}
        return tuple(name for name in self.info.tensors if name not in own)

    def layer(self, name: str) -> TernaryMatrix:
        """Return a ternary layer; its arrays are the file's own bytes.

        Raises
        ------
        TernError
            If there is no such layer, a checksum differs, a code is illegal, or a scale or shift
            is not finite.
        """
        if name not in self.info.layers:
            raise self._unknown("layer", name, self.layers)
        layer = self.info.layers[name]
        packed, scale, shift = (self._checked(f"{name}.{part}").array() for part in LAYER_PARTS)
        return TernaryMatrix(
            packed=packed,
            scale=scale.astype(np.float16, copy=False),
            shift=shift.astype(np.float16, copy=False),
            in_features=layer.in_features,
            group_size=layer.group_size,
            packing=layer.packing,
            name=name,
        )

    def tensor(self, name: str) -> RawTensor:
        """Return a tensor by its name in the file; its bytes are the file's own.

        Raises
        ------
        TernError
            If there is no such tensor, or its checksum differs.
        """
        if name not in self.info.tensors:
            raise self._unknown("tensor", name, self.tensors)
        return self._checked(name)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the further files, a tokenizer's."""
        return tuple(self.info.files)

    def file(self, name: str) -> Path:
        """Return the path of a further file, whose content is as it was written.

        Raises
        ------
        TernError
            If there is no such file, it lies outside the folder, or its checksum differs.
        """
        if name not in self.info.files:
            raise self._unknown("file", name, self.files)
        path = _inside(self.path, name)
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != self.info.files[name]:
            raise TernError(
                f"{self.path}: file {name} must be as it was written, but its checksum differs"
            )
        return path

    def verify(self) -> None:
        """Check every checksum and every layer.

        Raises
        ------
        TernError
            Naming the first file or tensor that is not as it should be.
        """
        for name in self.info.files:
            self.file(name)
        for name in self.info.tensors:
            self._checked(name)
        for name in self.info.layers:
            self.layer(name)

    def _checked(self, name: str) -> RawTensor:
        tensor = self._file.raw(name)
        if name not in self._verified:
            if tensor.sha256() != self.info.tensors[name].sha256:
                raise TernError(
                    f"{self.path}: tensor {name!r} must be as it was written, "
                    f"but its checksum differs"
                )
            self._verified.add(name)
        return tensor

    def _unknown(self, kind: str, name: str, known: tuple[str, ...]) -> TernError:
        some = ", ".join(known[:3]) + (", ..." if len(known) > 3 else "")
        return TernError(f"{kind} must be one of {self.path}'s ({some or 'none'}), not {name!r}")


def _all_tensors(
    layers: Mapping[str, TernaryMatrix], tensors: Mapping[str, RawTensor | NDArray[Any]]
) -> dict[str, RawTensor]:
    everything: dict[str, RawTensor] = {}
    for name, matrix in layers.items():
        for part in LAYER_PARTS:
            everything[f"{name}.{part}"] = RawTensor.of(getattr(matrix, part))
    for name, tensor in tensors.items():
        if name in everything:
            raise TernError(f"tensor name must be unlike those of the layers, not {name!r}")
        everything[name] = tensor if isinstance(tensor, RawTensor) else RawTensor.of(tensor)
    return everything


def _is_artifact(folder: Path) -> bool:
    """Tell whether a folder holds an artifact's files, marked as ours, and nothing else."""
    # Many a model's folder has two files of the same names.
    names = {entry.name for entry in folder.iterdir()}
    config = folder / CONFIG_FILE
    return is_document(config) and names <= {CONFIG_FILE, TENSOR_FILE, *listed_files(config)}


def _inside(folder: Path, name: str) -> Path:
    """Return the path of an artifact's file; refuse one that is missing or a link to elsewhere."""
    path = folder / name
    if not path.is_file():
        raise TernError(f"artifact {folder} must have a file {name}")
    if path.resolve().parent != folder.resolve():
        raise TernError(f"{path} must lie in the artifact's folder, not at {path.resolve()}")
    return path


def _check_names(folder: Path, info: ArtifactInfo, file: TensorFile) -> None:
    """Hold the layers' parts against the listed tensors, and those against the file's."""
    for name, layer in info.layers.items():
        for part, wanted in layer.parts().items():
            listed = info.tensors.get(f"{name}.{part}")
            if listed is None:
                raise TernError(f"{folder}: layer {name!r} must have a tensor {name}.{part}")
            _check_same(folder, f"{name}.{part}", wanted, (listed.dtype, listed.shape))
    for name in sorted(file.names() - set(info.tensors)):
        raise TernError(f"{folder}: tensors must be those that {CONFIG_FILE} lists, not {name!r}")
    for name, tensor in info.tensors.items():
        if name not in file.names():
            raise TernError(f"{folder}: {TENSOR_FILE} must have the tensor {name!r}")
        _check_same(folder, name, (tensor.dtype, tensor.shape), file.described(name))


def _check_same(
    folder: Path,
    name: str,
    wanted: tuple[str, tuple[int, ...]],
    found: tuple[str, tuple[int, ...]],
) -> None:
    if wanted != found:
        described = [f"{dtype} {list(shape)}" for dtype, shape in (wanted, found)]
        raise TernError(f"{folder}: tensor {name!r} must be {described[0]}, not {described[1]}")
