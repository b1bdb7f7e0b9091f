"""What enters an array: the activations of a file, or random ones, in the array's own format."""

import zipfile
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tern_hw.artifact.tensors import TensorFile
from tern_hw.config import Activation
from tern_hw.errors import TernError
from tern_hw.reference import quantize_tokens

__all__ = ["ActivationFile", "open_activations", "random_activations"]

#: Types that a tensor of activations may have, by their names in a safetensors header.
TENSOR_TYPES: Final = {"F32": "float32", "F16": "float16", "I8": "int8"}


class ActivationFile(Protocol):
    """A file of activations, for one layer or for many."""

    def of(self, layer: str, in_features: int) -> NDArray[Any]:
        """Return what enters a layer, [M, K], in the type that the file has."""
        ...

    def converted(self, array: NDArray[Any], activation: Activation, layer: str) -> NDArray[Any]:
        """Return tokens of what enters a layer as an array of that format takes them."""
        ...


def open_activations(path: str) -> ActivationFile:
    """Open a .npy file of one array, or a .safetensors file of one tensor a layer.

    Raises
    ------
    TernError
        If there is no such file, or it is not whole.
    """
    if Path(path).suffix == ".safetensors":
        return TensorActivations(path)
    return ArrayActivations(path)


class ArrayActivations:
    """The array of a .npy file, a single token as [1, K]: the same for any layer."""

    def __init__(self, path: str) -> None:
        try:
            array = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise _missing(path) from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            reason = str(error).partition("\n")[0]
            raise TernError(
                f"--activations must be a .npy file of numbers, not {path} ({reason})"
            ) from None
        if not isinstance(array, np.ndarray):
            raise TernError(f"--activations must be a .npy file of one array, not {path}")
        self._array = np.atleast_2d(array)

    def of(self, layer: str, in_features: int) -> NDArray[Any]:
        """Return the array; whether it fits the layer is seen when the layer is simulated."""
        return self._array

    def converted(self, array: NDArray[Any], activation: Activation, layer: str) -> NDArray[Any]:
        """Return the tokens as they are: such a file is written for the array."""
        return array


class TensorActivations:
    """The tensors of a .safetensors file, each named as the layer that it enters."""

    def __init__(self, path: str) -> None:
        if not Path(path).exists():
            raise _missing(path)
        self._path = path
        self._file = TensorFile(Path(path))

    def of(self, layer: str, in_features: int) -> NDArray[Any]:
        """Return a layer's tensor, float32, float16 or int8 [M, K], finite.

        Raises
        ------
        TernError
            If there is none, or it is not like that.
        """
        if layer not in self._file.names():
            raise TernError(f"{self._path} must have a tensor {layer!r}, the layer's name")
        what = self._what(layer)
        dtype, shape = self._file.described(layer)
        if dtype not in TENSOR_TYPES or len(shape) != 2 or shape[1] != in_features or not shape[0]:
            raise TernError(
                f"{what} must be float32, float16 or int8 of shape [M, {in_features}], "
                f"not {TENSOR_TYPES.get(dtype, dtype)} {[*shape]}"
            )
        array = self._file.raw(layer).array()
        _check_finite(what, array, array)
        return array

    def converted(self, array: NDArray[Any], activation: Activation, layer: str) -> NDArray[Any]:
        """Return float32 tokens in the array's format, any others as they are.

        For int8 each token is quantised by a scale of its own (`quantize_tokens`), which the
        results then lack; for fp16 it is rounded to nearest even.

        Raises
        ------
        TernError
            If a value is beyond binary16, where that is the format.
        """
        if array.dtype != np.float32:
            return array
        if activation is Activation.INT8:
            return quantize_tokens(array)[0]
        with np.errstate(over="ignore", under="ignore"):
            rounded = array.astype(np.float16)
        _check_finite(f"{self._what(layer)} rounded to float16", array, rounded)
        return rounded

    def _what(self, layer: str) -> str:
        return f"{self._path}: tensor {layer!r}"


def random_activations(
    seed: int, tokens: int, in_features: int, activation: Activation
) -> NDArray[Any]:
    """Return random activations [M, K]: any int8, or float16 of a normal distribution."""
    rng = np.random.default_rng(seed)
    shape = (tokens, in_features)
    if activation is Activation.INT8:
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.normal(0, 1, shape).astype(np.float16)


def _missing(path: str) -> TernError:
    return TernError(f"--activations must be an existing file, not {path}")


def _check_finite(what: str, array: NDArray[Any], judged: NDArray[Any]) -> None:
    """Refuse the first value of `array` that is not finite in `judged`."""
    wrong = np.argwhere(~np.isfinite(judged))
    if len(wrong):
        token, lane = wrong[0]
        raise TernError(f"{what} must be finite, not {array[token, lane]} at [{token}, {lane}]")
