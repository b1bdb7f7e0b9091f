"""A job as its streams carry it, with the results and flags that the reference expects of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from sim.mac_stimuli import (
    MAC_ADVERSARIAL,
    MacLayer,
    adversarial_mac_layer,
    random_mac_layer,
)
from sim.stimuli import ADVERSARIAL, Layer, adversarial_layer, random_layer
from tern_hw import beats, reference
from tern_hw.config import ArrayConfig, ErrorFlag, OutputFormat, Packing, Weights

__all__ = [
    "ILLEGAL_BYTES",
    "STREAMS",
    "Job",
    "adversarial_job",
    "adversarial_names",
    "clean_job",
    "faulty_job",
    "first_difference",
    "job_with_other_inputs_beyond",
    "misframed",
    "random_job",
    "some_outputs",
    "streams",
    "weight_bytes",
]

#: The input streams, and the flag of each one's TLAST.
STREAMS = {
    "activation": ErrorFlag.ACTIVATION_TLAST,
    "weight": ErrorFlag.WEIGHT_TLAST,
    "scale": ErrorFlag.SCALE_TLAST,
}
#: Bytes of the weight stream with an illegal code: a field of 3, and (243 * byte) mod 256 >= 243.
ILLEGAL_BYTES = {
    Packing.BITS2: tuple(b for b in range(256) if any(b >> at & 3 == 3 for at in (0, 2, 4, 6))),
    Packing.BASE3: tuple(b for b in range(256) if 243 * b % 256 >= 243),
}
NO_FLAGS = ErrorFlag(0)
CANONICAL_NAN = {OutputFormat.FP32: 0x7FC00000, OutputFormat.FP16: 0x7E00}


def streams(config: ArrayConfig) -> tuple[str, ...]:
    """Return the input streams that an array has."""
    return tuple(name for name in STREAMS if name in config.input_streams)


def some_outputs(config: ArrayConfig) -> int:
    """Return N of a job of several blocks, the last one ragged."""
    blocks = 3 if config.weights is Weights.TERNARY else 1
    return min(blocks * config.block_outputs + 1, config.max_n)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Beats (as integers, one a beat) of the three input packets, and what must come of them."""

    n: int
    k: int
    activation: tuple[int, ...]
    weight: tuple[int, ...]
    #: Bits of the N results.
    expected: tuple[int, ...]
    #: Empty where the array has no such stream.
    scale: tuple[int, ...] = ()
    #: Flags that the job must raise; no others.
    flags: ErrorFlag = NO_FLAGS

    def packet(self, stream: str) -> tuple[int, ...]:
        """Return the beats of a stream."""
        beats_of_stream: tuple[int, ...] = getattr(self, stream)
        return beats_of_stream


def adversarial_names(config: ArrayConfig) -> tuple[str, ...]:
    """Return the names of the layers that try an array's arithmetic."""
    return tuple(ADVERSARIAL if config.weights is Weights.TERNARY else MAC_ADVERSARIAL)


def adversarial_job(name: str, rng: Generator, n: int, k: int, config: ArrayConfig) -> Job:
    """Return the job of a named adversarial layer."""
    if config.weights is Weights.TERNARY:
        return clean_job(adversarial_layer(name, rng, n, k, config), config)
    return _mac_job(adversarial_mac_layer(name, rng, n, k, config), config)


def random_job(rng: Generator, n: int, k: int, config: ArrayConfig) -> Job:
    """Return the job of a random layer."""
    if config.weights is Weights.TERNARY:
        return clean_job(random_layer(rng, n, k, config), config)
    return _mac_job(random_mac_layer(rng, n, k, config), config)


def _mac_job(layer: MacLayer, config: ArrayConfig) -> Job:
    results = reference.matmul_rounded(layer.activations, layer.weights, output=config.output)
    return Job(
        n=layer.n,
        k=layer.k,
        activation=_words(beats.activation_beats(layer.activations, config)),
        weight=_words(beats.plain_weight_beats(layer.weights, config)),
        expected=_bits(results, config),
    )


def clean_job(layer: Layer, config: ArrayConfig) -> Job:
    """Return the job of a layer without faults; the reference gives the results."""
    matrix = layer.matrix(config)
    results = reference.matmul(
        layer.activations, matrix, output=config.output, aligned=config.aligned
    )
    return Job(
        n=layer.n,
        k=layer.k,
        activation=_words(beats.activation_beats(layer.activations, config)),
        weight=_words(beats.weight_beats(matrix, config)),
        scale=_words(beats.scale_beats(matrix, config)),
        expected=_bits(results, config),
    )


def faulty_job(layer: Layer, config: ArrayConfig, weights: NDArray[np.uint8] | None = None) -> Job:
    """Return the job of operands that no artifact holds: the hardware's rules give the results.

    Parameters
    ----------
    layer
        Scales, shifts and activations may be NaN or infinite.
    config
        The array.
    weights : uint8 [row_blocks * chunks, weight_beat_bytes]
        Beats with any bytes, in place of the layer's (see `weight_bytes`).
    """
    if weights is None:
        weights = weight_bytes(layer, config)
    results, flags = reference.matmul_faults(
        layer.activations,
        beats.digits_from_weight_beats(weights, config, out_features=layer.n),
        layer.scale,
        layer.shift,
        group_size=config.group_size,
        output=config.output,
        aligned=config.aligned,
    )
    return Job(
        n=layer.n,
        k=layer.k,
        activation=_words(beats.activation_beats(layer.activations, config)),
        weight=_words(weights),
        scale=_scale_words(layer, config),
        expected=_bits(results, config),
        flags=ErrorFlag(int(flags)),
    )


def job_with_other_inputs_beyond(rng: Generator, n: int, k: int, config: ArrayConfig) -> Job:
    """Return a random job whose last beats hold inputs beyond K, too, that must not count."""
    # The array's beats, for as many inputs as their lanes hold.
    width = config.chunks(k) * config.lanes
    full = replace(config, max_k=max(config.max_k, width))
    whole = random_layer(rng, n, width, full)
    groups = config.groups(k)
    within = replace(
        whole,
        activations=whole.activations[:k],
        digits=whole.digits[:, :k],
        scale=whole.scale[:, :groups],
        shift=whole.shift[:, :groups],
    )
    return replace(
        clean_job(within, config),
        activation=_words(beats.activation_beats(whole.activations, full)),
        weight=_words(weight_bytes(whole, full)),
    )


def weight_bytes(layer: Layer, config: ArrayConfig) -> NDArray[np.uint8]:
    """Return the weight beats of a layer, for a test to change."""
    zeros = np.zeros_like(layer.scale)
    return beats.weight_beats(replace(layer, scale=zeros, shift=zeros).matrix(config), config)


def misframed(job: Job, stream: str, length: int, filler: int, config: ArrayConfig) -> Job:
    """Return the job with TLAST at beat `length` of a stream, early or late.

    Parameters
    ----------
    job
        A job whose packets are right.
    stream
        One of `STREAMS`.
    length
        Beats of the packet; other than what it should be, at least 1.
    filler
        The beat that comes too late; its content must not matter.
    config
        The array.
    """
    packet = job.packet(stream)
    if length > len(packet):
        changed = packet + (filler,) * (length - len(packet))
        expected = job.expected
    else:
        changed = packet[:length]
        whole = 0 if stream == "activation" else _whole_rows(job, stream, length, config)
        lost = CANONICAL_NAN[config.output]
        expected = tuple(bits if row < whole else lost for row, bits in enumerate(job.expected))
    flags = job.flags | STREAMS[stream]
    fields: dict[str, Any] = {stream: changed}
    return replace(job, expected=expected, flags=flags, **fields)


def _whole_rows(job: Job, stream: str, length: int, config: ArrayConfig) -> int:
    """Rows whose block got all of its beats."""
    per_block = config.weight_beats(job.k) if stream == "weight" else config.groups(job.k)
    return length // per_block * config.block_outputs


def _words(array: NDArray[np.uint8]) -> tuple[int, ...]:
    return tuple(int.from_bytes(row.tobytes(), "little") for row in array)


def _bits(results: NDArray[Any], config: ArrayConfig) -> tuple[int, ...]:
    kind = "<u4" if config.output is OutputFormat.FP32 else "<u2"
    return tuple(int(bits) for bits in np.ascontiguousarray(results).view(kind))


def _scale_words(layer: Layer, config: ArrayConfig) -> tuple[int, ...]:
    """Return scale beats of any bits, NaN too, which a `TernaryMatrix` refuses to hold."""
    words = []
    for first in range(0, layer.n, config.rows):
        for group in range(config.groups(layer.k)):
            word = 0
            for row in range(first, min(first + config.rows, layer.n)):
                pair = np.array([layer.scale[row, group], layer.shift[row, group]], "<f2")
                word |= int.from_bytes(pair.tobytes(), "little") << 32 * (row - first)
            words.append(word)
    return tuple(words)


def first_difference(got: Sequence[int], expected: Sequence[int]) -> str:
    """Return where two results differ first, in words; empty where they do not."""
    for row, (have, want) in enumerate(zip(got, expected, strict=False)):
        if have != want:
            return f"result {row} is {have:#x}, not {want:#x}"
    if len(got) != len(expected):
        return f"{len(got)} results came, not {len(expected)}"
    return ""
