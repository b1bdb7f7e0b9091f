"""What an artifact says about its own cost: which layers are ternary, and how many trits are 0."""

from dataclasses import dataclass
from typing import Any

from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize
from tern_hw.packing import DIGITS_PER_BYTE, unpack

__all__ = ["ArtifactShape", "read_artifact"]


@dataclass(frozen=True)
class ArtifactShape:
    """Layers of an artifact, all with one group size and packing."""

    #: (N, K) by name.
    layers: dict[str, tuple[int, int]]
    group_size: GroupSize
    packing: str
    #: Share of weights that are 0; None if it was not asked for.
    zero_fraction: float | None


def read_artifact(path: str, *, zeros: bool) -> ArtifactShape:
    """Read what decides an artifact's cost; its trits only for `zeros`.

    Raises
    ------
    TernError
        If it has no ternary layer, layers of several group sizes or packings, or is damaged.
    """
    artifact = load_artifact(path, verify=False)
    infos = artifact.info.layers
    if not infos:
        raise TernError(f"{path} must have a ternary layer, not none")
    kinds = {(info.group_size, info.packing) for info in infos.values()}
    if len(kinds) != 1:
        raise TernError(f"{path} must have one group size and packing, not {len(kinds)}")
    ((group_size, packing),) = kinds
    share = None
    if zeros:
        weights = sum(info.out_features * info.in_features for info in infos.values())
        share = sum(_zeros(artifact.layer(name)) for name in infos) / weights
    shapes = {name: (info.out_features, info.in_features) for name, info in infos.items()}
    return ArtifactShape(shapes, group_size, packing, share)


def _zeros(matrix: Any) -> int:
    """Return how many trits of a layer are 0, by a histogram of its bytes."""
    import numpy as np

    codes = np.bincount(matrix.packed.reshape(-1), minlength=256)
    every_byte = np.arange(256, dtype=np.uint8)[:, None]
    digits = DIGITS_PER_BYTE[matrix.packing]
    in_byte = (unpack(every_byte, digits, matrix.packing, strict=False) == 1).sum(axis=1)
    pads = matrix.packed.shape[1] * digits - matrix.in_features
    return int((codes * in_byte).sum()) - matrix.out_features * pads
