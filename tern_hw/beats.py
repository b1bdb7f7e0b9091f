"""Re-beat a matrix, activations and results between their arrays and an accelerator's streams."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tern_hw.config import Activation, ArrayConfig, OutputFormat, Weights
from tern_hw.errors import TernError
from tern_hw.matrix import GroupSize, TernaryMatrix
from tern_hw.packing import PAD_DIGIT, pack, unpack

__all__ = [
    "activation_beats",
    "check_fit",
    "digits_from_weight_beats",
    "plain_weight_beats",
    "results_from_bytes",
    "scale_beats",
    "weight_beats",
]


def weight_beats(matrix: TernaryMatrix, config: ArrayConfig) -> NDArray[np.uint8]:
    """Return the weight stream of a job: row block outer, chunk inner.

    Parameters
    ----------
    matrix : TernaryMatrix [N, K]
    config : ArrayConfig
        The array; its packing is the stream's, whatever the matrix's is.

    Returns
    -------
    uint8 [row_blocks(N) * chunks(K), weight_beat_bytes]
        Row r of a block at byte r * row_beat_bytes; pad digits (inputs from K, rows from N) are 1.

    Raises
    ------
    TernError
        If the matrix does not fit the array; see `check_fit`.
    """
    check_fit(matrix, config)
    n, k = matrix.shape
    blocks, chunks = config.row_blocks(n), config.chunks(k)
    digits = np.full((blocks * config.rows, chunks * config.lanes), PAD_DIGIT, np.uint8)
    digits[:n, :k] = matrix.digits()
    beats = digits.reshape(blocks, config.rows, chunks, config.lanes).swapaxes(1, 2)
    return pack(beats, config.packing).reshape(blocks * chunks, config.weight_beat_bytes)


def plain_weight_beats(weights: NDArray[np.float16], config: ArrayConfig) -> NDArray[np.uint8]:
    """Return the weight stream of a job on an array with binary16 weights.

    Parameters
    ----------
    weights : float16 [N, K]
        NaN and infinity pass.

    Returns
    -------
    uint8 [row_blocks(N) * weight_beats(K), weight_beat_bytes]
        Blocks of outputs outside, inputs within, contexts innermost; outputs from N are 0.

    Raises
    ------
    TernError
        If the array's weights are ternary, or the matrix does not fit.
    """
    if config.weights is not Weights.FP16:
        raise TernError(f"the array's weights must be fp16 here, not {config.weights}")
    if not isinstance(weights, np.ndarray) or weights.dtype != np.float16 or weights.ndim != 2:
        raise TernError("weights must be a float16 matrix [N, K]")
    n, k = weights.shape
    _check_size("N (outputs)", n, config.max_n)
    _check_size("K (inputs)", k, config.max_k)
    blocks, at_once = config.row_blocks(n), config.lanes * config.rows
    padded = np.zeros((blocks * config.block_outputs, k), "<f2")
    padded[:n] = weights
    beats = padded.reshape(blocks, config.mac_contexts, at_once, k).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(beats).view(np.uint8).reshape(-1, config.weight_beat_bytes)


def scale_beats(matrix: TernaryMatrix, config: ArrayConfig) -> NDArray[np.uint8]:
    """Return the scale stream of a job: row block outer, group inner.

    Returns
    -------
    uint8 [row_blocks(N) * groups(K), scale_beat_bytes]
        Per row four bytes: scale, then shift, binary16 little-endian; rows from N are 0.

    Raises
    ------
    TernError
        If the matrix does not fit the array; see `check_fit`.
    """
    check_fit(matrix, config)
    n, groups = matrix.out_features, matrix.groups
    blocks = config.row_blocks(n)
    pairs = np.zeros((blocks * config.rows, groups, 2), "<f2")
    pairs[:n, :, 0] = matrix.scale
    pairs[:n, :, 1] = matrix.shift
    beats = pairs.reshape(blocks, config.rows, groups, 2).swapaxes(1, 2)
    return np.ascontiguousarray(beats).view(np.uint8).reshape(-1, config.scale_beat_bytes)


def activation_beats(x: NDArray[Any], config: ArrayConfig) -> NDArray[np.uint8]:
    """Return the activation stream of a job: K activations, lane 0 lowest.

    Parameters
    ----------
    x : int8 or float16 [K]
        One token in the array's format. NaN and infinity pass: they are the hardware's to answer.

    Returns
    -------
    uint8 [chunks(K), activation_beat_bytes]
        Inputs from K are 0.

    Raises
    ------
    TernError
        If the dtype is not the array's, the shape is not [K], or K is beyond max_k.
    """
    wanted = np.dtype(np.int8 if config.activation is Activation.INT8 else "<f2")
    if not isinstance(x, np.ndarray) or x.dtype != wanted or x.ndim != 1:
        found = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TernError(f"activations must be {wanted} of shape [K], not {found}")
    _check_size("K (inputs)", len(x), config.max_k)
    chunks = config.chunks(len(x))
    padded = np.zeros(chunks * config.lanes, wanted)
    padded[: len(x)] = x
    return padded.view(np.uint8).reshape(chunks, config.activation_beat_bytes)


def results_from_bytes(
    raw: bytes | NDArray[np.uint8], config: ArrayConfig
) -> NDArray[np.float32] | NDArray[np.float16]:
    """Return the results that a stream's bytes hold, one output a beat.

    Returns
    -------
    float32 or float16 [N]
        In the array's output format.

    Raises
    ------
    TernError
        If the bytes are not a whole number of results.
    """
    data = np.frombuffer(raw, np.uint8)
    if data.size % config.result_beat_bytes:
        raise TernError(
            f"result bytes must be a multiple of {config.result_beat_bytes}, not {data.size}"
        )
    if config.output is OutputFormat.FP32:
        return data.view("<f4").astype(np.float32)
    return data.view("<f2").astype(np.float16)


def digits_from_weight_beats(
    beats: NDArray[np.uint8], config: ArrayConfig, *, out_features: int
) -> NDArray[np.uint8]:
    """Return the digits that weight beats carry, as the oracle of a faulty stream needs them.

    Parameters
    ----------
    beats : uint8 [row_blocks * chunks, weight_beat_bytes]
        A job's weight stream, illegal codes allowed.
    out_features : int
        N of the job.

    Returns
    -------
    uint8 [N, chunks * row_beat_bytes * digits_per_byte]
        The digits in input order, 3 where the code is illegal; first all lanes of all chunks, then
        the digits that fill each beat's last byte. Those from K on count for the flag alone.
    """
    blocks = config.row_blocks(out_features)
    chunks = len(beats) // blocks
    fields = config.row_beat_bytes * config.packing.digits_per_byte
    rows = beats.reshape(blocks, chunks, config.rows, config.row_beat_bytes).swapaxes(1, 2)
    digits = unpack(np.ascontiguousarray(rows), fields, config.packing, strict=False)
    digits = digits.reshape(-1, chunks, fields)[:out_features]
    lanes, fill = digits[..., : config.lanes], digits[..., config.lanes :]
    flat = [part.reshape(out_features, -1) for part in (lanes, fill)]
    return np.concatenate(flat, axis=1)


def check_fit(matrix: TernaryMatrix, config: ArrayConfig) -> None:
    """Refuse a matrix that the array cannot compute.

    Raises
    ------
    TernError
        If N or K is beyond the array's maximum, the groups are cut otherwise, or the array's
        weights are not ternary. "row" and a group size of at least K are the same cut.
    """
    if config.weights is not Weights.TERNARY:
        raise TernError(f"the array's weights must be ternary here, not {config.weights}")
    _check_size(f"{matrix.name}.in_features", matrix.in_features, config.max_k)
    _check_size(f"{matrix.name}.out_features", matrix.out_features, config.max_n)
    wanted = _group_inputs(config.group_size, matrix.in_features)
    if matrix.group_inputs != wanted:
        raise TernError(
            f"{matrix.name}.group_size must be the array's {config.group_size!r}, "
            f"not {matrix.group_size!r}"
        )


def _group_inputs(group_size: GroupSize, k: int) -> int:
    return k if group_size == "row" else min(group_size, k)


def _check_size(name: str, value: int, high: int) -> None:
    if not 1 <= value <= high:
        raise TernError(f"{name} must be from 1 to the array's {high}, not {value}")
