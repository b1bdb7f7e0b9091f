"""What a ternary array's parts do in a step, at a group's end, for a result: the actions."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from tern_hw.config import FP16_MAX_UNITS, Activation, ArrayConfig, Dot, OutputFormat, Packing
from tern_hw.errors import TernError

__all__ = [
    "Action",
    "activation_word",
    "group_end",
    "load_chunk",
    "result",
    "row_step",
    "scale_beat",
    "sum_word",
]

#: Bits of a binary16 significand, and of its places to the left.
SIGNIFICAND_BITS: Final = 11
SHIFT_BITS: Final = 5
#: Two-input gates of a 2:1 multiplexer.
MUX_GATES: Final = 3
#: Two-input gates that tell zero, minus one and illegal from a 2-bit field.
FIELD_GATES: Final = 3
#: Register bits beside the data of scale and shift, of the queue of sums, of the rounder: what is
#: valid, first, last, not finite, negative.
SCALE_TAG_BITS: Final = 13
QUEUE_TAG_BITS: Final = 9
ROUNDER_TAG_BITS: Final = 6
#: Digits of a base-3 byte that stand in a register in the middle of its decoder.
EARLY_DIGITS: Final = 3


@dataclass(frozen=True, order=True)
class Action:
    """One kind of work, of one width; how often it is done is counted beside it."""

    #: "add", "multiply", "gate", "register", "read", "write", or a floating-point operation
    #: ("fp16_add", "fp16_mul", "bf16_add", ...).
    component: str
    #: Width of an add, first factor of a multiply, bits of a register or of a memory's word;
    #: gates that work at once.
    bits: int = 0
    #: Second factor's width of a multiply.
    by: int = 0
    #: Trits below an add; 0 where none decide whether its operands are zero.
    lanes: int = 0
    #: Size of the memory that is read or written.
    capacity_bytes: int = 0


def row_step(config: ArrayConfig) -> Counter[Action]:
    """Return what one row does in one step: decode, select, add up the lanes, sum the group."""
    if config.dot is not Dot.TREE:
        raise TernError(f"dot must be tree where actions are counted, not {config.dot}")
    lanes, bits = config.lanes, config.fixed_bits
    counts = _decode(config)
    # A lane is its activation, complemented or not, or zero: an XOR and an AND a bit.
    counts[Action("gate", bits=2 * lanes * bits)] += 1
    counts += _tree(lanes, bits)
    counts[Action("add", bits=config.sum_bits, lanes=config.step_inputs)] += 1
    counts[Action("register", bits=config.sum_bits)] += 1
    return counts


def _decode(config: ArrayConfig) -> Counter[Action]:
    counts: Counter[Action] = Counter()
    digits = config.row_beat_bytes * config.packing.digits_per_byte
    if config.packing is Packing.BITS2:
        counts[Action("gate", bits=FIELD_GATES * digits)] += 1
    else:
        # A chain of five multiplications by 3, each an add of 10 bits, and a comparison.
        counts[Action("add", bits=10)] += 5 * config.row_beat_bytes
        counts[Action("add", bits=8)] += config.row_beat_bytes
        counts[Action("gate", bits=2 * digits)] += 1
        middle = config.row_beat_bytes * (2 * EARLY_DIGITS + 8)
        # The mask of the segment's lanes, and whether all are +1, wait as long.
        counts[Action("register", bits=middle + config.lanes + 1)] += 1
    counts[Action("register", bits=2 * config.lanes + 1)] += 1
    return counts


def _tree(lanes: int, bits: int) -> Counter[Action]:
    """Return the adders of a tree over the lanes, and its registers of sum and carry."""
    counts: Counter[Action] = Counter()
    level = [1] * lanes
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [sum(pair) for pair in pairs]
        for pair, below in zip(pairs, level, strict=True):
            width = bits + (below - 1).bit_length()
            if len(pair) == 2:
                counts[Action("add", bits=width, lanes=below)] += 1
            counts[Action("register", bits=width + 1)] += 1
    return counts


def group_end(config: ArrayConfig) -> Counter[Action]:
    """Return what one row does where a group ends: scale and shift, and the sum over the row."""
    bits = config.sum_bits
    placed = bits + FP16_MAX_UNITS.bit_length()
    product = bits + SIGNIFICAND_BITS
    factor = 1 + SIGNIFICAND_BITS + SHIFT_BITS
    counts: Counter[Action] = Counter()
    counts[Action("multiply", bits=bits, by=SIGNIFICAND_BITS)] = 2
    # Each product is moved to its place and complemented where its factor is negative.
    counts[Action("gate", bits=placed * (MUX_GATES * SHIFT_BITS + 1))] = 2
    counts[Action("add", bits=placed + 1)] = 1
    counts[Action("add", bits=config.accumulator_bits)] = 1
    counts[Action("register", bits=bits + factor + 1)] = 2
    counts[Action("register", bits=product + SHIFT_BITS + 1)] = 2
    counts[Action("register", bits=placed + 1)] = 2
    counts[Action("register", bits=placed + 2)] = 1
    counts[Action("register", bits=config.accumulator_bits)] = 1
    counts[Action("register", bits=SCALE_TAG_BITS)] = 1
    return counts


def result(config: ArrayConfig) -> Counter[Action]:
    """Return what an output takes: its place in the queue of sums, and the rounding."""
    width = config.accumulator_bits
    exponent_bits = 8 if config.output is OutputFormat.FP32 else 5
    bias = (1 << (exponent_bits - 1)) - 1
    top_exponent = width - 2 - config.accumulator_fraction_bits + bias
    counts: Counter[Action] = Counter()
    counts[Action("add", bits=width)] = 1  # the magnitude
    counts[Action("gate", bits=MUX_GATES * width)] = 1  # leading zeros
    counts[Action("gate", bits=MUX_GATES * width * width.bit_length())] = 1  # normalise
    counts[Action("add", bits=config.result_bits)] = 1  # round up
    # The queue of the rows' sums moves up by one for each output.
    counts[Action("register", bits=config.rows * (width + 2) + QUEUE_TAG_BITS)] = 1
    counts[Action("register", bits=width - 1)] = 3
    counts[Action("register", bits=(width - 2).bit_length())] += 1
    exponent = max(exponent_bits, top_exponent.bit_length()) + 2
    counts[Action("register", bits=exponent + config.result_bits + ROUNDER_TAG_BITS)] += 1
    counts[Action("register", bits=config.result_bits + 1)] += 2  # in and out of the FIFO
    return counts


def load_chunk(config: ArrayConfig) -> Counter[Action]:
    """Return what a beat of activations takes on its way into the activation memory."""
    lanes, bits = config.lanes, config.fixed_bits
    counts: Counter[Action] = Counter()
    counts[Action("gate", bits=lanes * config.activation_bits)] = 1  # lanes beyond K are zero
    if config.activation is Activation.FP16:
        counts[Action("gate", bits=lanes * MUX_GATES * SHIFT_BITS * (bits - 1))] = 1
        counts[Action("add", bits=bits)] = lanes  # the negation
        counts[Action("register", bits=lanes * bits + 1)] = 1
    counts[activation_word(config, "write")] = 1
    return counts


def scale_beat(config: ArrayConfig) -> Counter[Action]:
    """Return what a beat of scales and shifts takes: into its FIFO and out."""
    return Counter({Action("register", bits=8 * config.scale_beat_bytes): 2})


def activation_word(config: ArrayConfig, component: str) -> Action:
    """Return the read or write of a word of the activation memory."""
    bits = config.lanes * config.fixed_bits
    return Action(component, bits=bits, capacity_bytes=bits * config.max_chunks // 8)


def sum_word(config: ArrayConfig, component: str) -> Action:
    """Return the read or write of a group's X."""
    bits = config.sum_bits
    return Action(component, bits=bits, capacity_bytes=-(-bits * config.max_groups // 8))
