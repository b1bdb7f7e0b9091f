"""What a beat of activations takes on its way into the array: converted, or aligned; written."""

from collections import Counter
from typing import Final

from tern_hw.config import Activation, ArrayConfig
from tern_hw.costs.actions import (
    MUX_GATES,
    SHIFT_BITS,
    SIGNIFICAND_BITS,
    Action,
    activation_word,
    fine_widths,
)

__all__ = ["load_chunk", "unit_word", "waiting_word"]

#: Places that an activation is shifted by before it is put to its place.
LOAD_FINE_BITS: Final = 3
#: Two-input gates a lane that tell whether it lies within K.
REAL_GATES: Final = 3
#: Bits of a binary16, and of its exponent.
HALF_BITS: Final = 16
EXPONENT_BITS: Final = 5
#: Cycles in which a bit of the largest exponent is found: who has it, whether anybody has.
BIT_CYCLES: Final = 2
#: Bits of an aligned activation's shift that wait for the second of its two cycles.
FAR_BITS: Final = 2
#: Register bits that carry a lane's sign, and whether it lies within K, while it is aligned.
ALIGNED_TAG_BITS: Final = 6


def load_chunk(config: ArrayConfig) -> Counter[Action]:
    """Return what a beat of activations takes on its way into the activation memory.

    Of aligned activations that is two passes: the beat is searched for its groups' units and
    waits in a memory; its word comes again, is aligned and written.
    """
    if config.aligned is None:
        counts = _convert(config)
    else:
        counts = _find_units(config) + _align(config)
        counts[waiting_word(config, "write")] += 1
        counts[unit_word(config, "write")] += 1
    # A register at the port.
    counts[Action("register", bits=8 * config.activation_beat_bytes)] += 1
    # Which lanes lie within K: a comparison of a few gates a lane, kept for the row's last beat.
    counts[Action("gate", bits=REAL_GATES * config.lanes)] += 1
    counts[Action("register", bits=config.lanes)] += 1
    counts[activation_word(config, "write")] += 1
    return counts


def _convert(config: ArrayConfig) -> Counter[Action]:
    """Return what turns a beat of binary16 into signs and magnitudes; int8 takes nothing."""
    counts: Counter[Action] = Counter()
    if config.activation is Activation.FP16:
        widths = fine_widths(LOAD_FINE_BITS)
        # Each bit of the operand may go to one of four places: an AND and an OR for each.
        coarse = 2 * widths[-1] << (SHIFT_BITS - LOAD_FINE_BITS)
        counts[Action("gate", bits=config.lanes * (MUX_GATES * sum(widths) + coarse))] += 1
        # The magnitude, its sign, and whether it is not finite.
        counts[Action("register", bits=config.lanes * (config.fixed_bits + 1))] += 1
    return counts


def _find_units(config: ArrayConfig) -> Counter[Action]:
    """Return what finds the largest exponent of each group in a beat, from its highest bit on."""
    counts: Counter[Action] = Counter()
    later = range(1, EXPONENT_BITS)  # bits that another one follows
    # Who has the bit and is still in, whether anybody; who stays: those, or all where nobody has.
    bit_gates = 2 * EXPONENT_BITS + 2 * len(later)
    counts[Action("gate", bits=config.lanes * (REAL_GATES + bit_gates))] += 1
    # Exponents and who is within K; who has a bit; who is in, the bit and those below it meanwhile.
    waiting = sum(BIT_CYCLES * (2 + below) for below in later)
    counts[Action("register", bits=config.lanes * (2 * EXPONENT_BITS + 1 + waiting))] += 1
    # Of each group: a bit waits for the last one; whether all are 1; the largest so far, which
    # restarts with the group, and not less than the smallest one's: two comparisons, choices.
    kept = EXPONENT_BITS + sum(BIT_CYCLES * below for below in later)
    counts[Action("register", bits=kept + EXPONENT_BITS)] += config.segments
    choices = 2 * EXPONENT_BITS - 1 + 2 * MUX_GATES * EXPONENT_BITS
    counts[Action("gate", bits=choices)] += config.segments
    # The comparisons, and the unit: an exponent less a constant.
    counts[Action("add", bits=EXPONENT_BITS)] += 3 * config.segments
    # Whether there is a beat and whether it begins a group, meanwhile; whether all is finite.
    counts[Action("register", bits=2 * (config.unit_cycles - 1) + 1)] += 1
    return counts


def _align(config: ArrayConfig) -> Counter[Action]:
    """Return what rounds a word of binary16 to integers of their groups' units."""
    lanes, width = config.lanes, config.fixed_bits
    counts: Counter[Action] = Counter()
    # Whether it is normal, its sign where it is within K; five shifts of one choice a bit each; to
    # 0 beyond K, complemented where negative.
    gates = EXPONENT_BITS + SHIFT_BITS * MUX_GATES * width + 2 * width
    counts[Action("gate", bits=lanes * (REAL_GATES + gates))] += 1
    counts[Action("add", bits=EXPONENT_BITS)] += lanes  # how far below the unit
    counts[Action("add", bits=width)] += lanes  # negate, round
    counts[Action("add", bits=EXPONENT_BITS)] += config.segments
    # As it came, shift and significand; after the small shifts, after all, and the integer.
    kept = HALF_BITS + EXPONENT_BITS + SIGNIFICAND_BITS + FAR_BITS + 3 * width
    counts[Action("register", bits=lanes * (kept + ALIGNED_TAG_BITS))] += 1
    counts[Action("register", bits=EXPONENT_BITS)] += config.segments
    return counts


def waiting_word(config: ArrayConfig, component: str) -> Action:
    """Return the read or write of a beat that waits for its groups' units to be aligned."""
    bits = config.lanes * config.activation_bits
    return Action(component, bits=bits, capacity_bytes=bits * config.max_chunks // 8)


def unit_word(config: ArrayConfig, component: str) -> Action:
    """Return the read or write of the unit of a group, or of those of the groups in a beat."""
    bits = config.segments * config.unit_max.bit_length()
    places = config.max_groups if config.segments == 1 else config.max_chunks
    return Action(component, bits=bits, capacity_bytes=-(-bits * places // 8))
