"""Simulate a netlist cycle by cycle, 64 streams in a word, and count what toggles.

Zero delay: a net has one value a cycle, so a toggle is a change from one cycle to the next and
glitches within a cycle are not seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.errors import TernError
from tern_hw.gates.netlist import AND, COPY, NOT, ONE_SLOT, OR, XOR, Netlist
from tern_hw.reference.jit import jit

__all__ = ["Activity", "Stimulus", "simulate"]

#: Port -> what it holds, integers [streams, cycles, fields], the first field lowest; a port of w
#: bits has fields of w / fields bits, at most 64. A port left out is 0 all the time.
Stimulus = Mapping[str, NDArray[np.integer]]

#: Streams in a word.
WORD: Final = 64
#: Each operation as 1 xor a xor b xor (a and b), and which of the four terms it has: all are one
#: loop without a branch.
TERMS: Final = {
    AND: (0, 0, 0, 1),
    OR: (0, 1, 1, 1),
    XOR: (0, 1, 1, 0),
    NOT: (1, 1, 0, 0),
    COPY: (0, 1, 0, 0),
}
FORMS: Final = np.array([TERMS[each] for each in sorted(TERMS)], np.uint64) * ~np.uint64(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """What a simulation saw, over all streams and counted cycles."""

    #: Streams times counted cycles.
    cycles: int
    #: Changes of each net, int64 [nets].
    toggles: NDArray[np.int64]
    #: Output ports in every cycle, the first ones too: bool [streams, cycles, bits].
    outputs: dict[str, NDArray[np.bool_]]


def simulate(netlist: Netlist, stimulus: Stimulus, *, warm_up: int = 1) -> Activity:
    """Simulate streams that know nothing of one another.

    Parameters
    ----------
    netlist
        One clock; states start at their reset values.
    stimulus
        Inputs of each cycle, as they are before the clock's edge that ends it.
    warm_up
        Cycles at the start (at least 1) whose toggles are not counted.

    Raises
    ------
    TernError
        If an array fits no port, or the arrays are not equally long.
    """
    streams, cycles = _extent(stimulus)
    if not 1 <= warm_up < cycles:
        raise TernError(f"warm_up must be from 1 to cycles - 1 (= {cycles - 1}), not {warm_up}")
    words = -(-streams // WORD)
    driven, bits = _input_words(netlist, stimulus, streams, cycles)
    mask = _to_words(np.ones((streams, 1), bool))[0]
    values = np.zeros((netlist.slots, words), np.uint64)
    values[ONE_SLOT] = ~np.uint64(0)
    values[netlist.states[netlist.starts, 0]] = ~np.uint64(0)
    toggles = np.zeros(netlist.nets, np.int64)
    watched = np.array([slot for bits in netlist.outputs.values() for slot in bits], np.int32)
    seen = np.zeros((cycles, len(watched), words), np.uint64)
    _run(
        FORMS,
        netlist.program,
        netlist.states,
        driven,
        bits,
        warm_up,
        mask,
        values,
        toggles,
        watched,
        seen,
    )
    return Activity(
        cycles=streams * (cycles - warm_up),
        toggles=toggles,
        outputs=_output_bits(netlist, seen, streams),
    )


def _extent(stimulus: Stimulus) -> tuple[int, int]:
    extents = {array.shape[:2] for array in stimulus.values() if array.ndim == 3}
    if len(extents) != 1 or any(array.ndim != 3 for array in stimulus.values()):
        raise TernError("stimulus must have arrays [streams, cycles, fields], equally long")
    return extents.pop()


def _input_words(
    netlist: Netlist, stimulus: Stimulus, streams: int, cycles: int
) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """Return the slots that are driven, and their values, uint64 [cycles, slots, words]."""
    slots: list[int] = []
    parts = []
    for name, array in stimulus.items():
        port = netlist.inputs.get(name)
        if port is None:
            choices = ", ".join(netlist.inputs)
            raise TernError(f"stimulus port must be one of {choices}, not {name!r}")
        width, rest = divmod(len(port), array.shape[2])
        if rest or not 1 <= width <= 64:
            raise TernError(
                f"stimulus of {name} must have fields that divide {len(port)} bits into at most "
                f"64 each, not {array.shape[2]} fields"
            )
        slots += port
        parts.append(_field_words(array, width))
    words = np.concatenate(parts, axis=1) if parts else np.zeros((cycles, 0, 1), np.uint64)
    return np.array(slots, np.int32), np.ascontiguousarray(words)


def _field_words(array: NDArray[np.integer], width: int) -> NDArray[np.uint64]:
    """Return integers as their bits, uint64 [cycles, fields * width, words]."""
    streams, cycles, fields = array.shape
    result = np.empty((cycles, fields, width, -(-streams // WORD)), np.uint64)
    raw = array.astype(np.int64, copy=False)
    for bit in range(width):
        ones = (raw >> bit & 1).astype(bool).reshape(streams, -1)
        result[:, :, bit] = _to_words(ones).reshape(cycles, fields, -1)
    return result.reshape(cycles, fields * width, -1)


def _to_words(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack the first axis: bool [streams, n] to uint64 [n, words], stream 0 lowest."""
    padded = np.zeros((bits.shape[1], -(-len(bits) // WORD) * WORD), bool)
    padded[:, : len(bits)] = bits.T
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


def _output_bits(
    netlist: Netlist, seen: NDArray[np.uint64], streams: int
) -> dict[str, NDArray[np.bool_]]:
    cycles, bits, words = seen.shape
    raw = seen.astype("<u8", copy=False).view(np.uint8).reshape(cycles, bits, words * 8)
    flat = np.unpackbits(raw, axis=2, bitorder="little")[:, :, :streams].astype(bool)
    flat = flat.transpose(2, 0, 1)
    result, at = {}, 0
    for name, slots in netlist.outputs.items():
        result[name] = flat[:, :, at : at + len(slots)]
        at += len(slots)
    return result


@jit
def _count(word: np.uint64) -> np.uint64:
    """Count the ones of a word (Hacker's Delight, section 5-1)."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit
def _run(
    forms: NDArray[np.uint64],
    program: NDArray[np.int32],
    states: NDArray[np.int32],
    driven: NDArray[np.int32],
    inputs: NDArray[np.uint64],
    warm_up: int,
    mask: NDArray[np.uint64],
    values: NDArray[np.uint64],
    toggles: NDArray[np.int64],
    watched: NDArray[np.int32],
    seen: NDArray[np.uint64],
) -> None:
    """Fill `toggles` [nets] and `seen` [cycles, watched, words]; `values` are [slots, words]."""
    words = values.shape[1]
    nets = len(toggles)
    before = values[:nets].copy()
    following = np.empty((len(states), words), np.uint64)
    for cycle in range(inputs.shape[0]):
        for at in range(len(driven)):
            values[driven[at]] = inputs[cycle, at]
        for index in range(len(program)):
            operation, result = program[index, 0], program[index, 1]
            a, b = program[index, 2], program[index, 3]
            one, of_a, of_b, of_both = forms[operation]
            for w in range(words):
                x, y = values[a, w], values[b, w]
                values[result, w] = one ^ (x & of_a) ^ (y & of_b) ^ (x & y & of_both)
        if cycle >= warm_up:
            for net in range(nets):
                for w in range(words):
                    toggles[net] += np.int64(_count((values[net, w] ^ before[net, w]) & mask[w]))
        before[:] = values[:nets]
        for at in range(len(watched)):
            seen[cycle, at] = values[watched[at]]
        for at in range(len(states)):
            following[at] = values[states[at, 1]]
        for at in range(len(states)):
            values[states[at, 0]] = following[at]
