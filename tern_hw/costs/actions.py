"""What a ternary array's parts do in a step, at a group's end, for a result: the actions."""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tern_hw.config import (
    FP16_MAX_UNITS,
    Activation,
    ArrayConfig,
    Dot,
    OutputFormat,
    Packing,
    Weights,
)
from tern_hw.errors import TernError

__all__ = [
    "Action",
    "activation_word",
    "check_counted",
    "fine_widths",
    "group_end",
    "group_end_units",
    "lane_mask",
    "memory_register",
    "normalised_bits",
    "result",
    "row_step",
    "scale_beat",
    "sum_word",
    "weight_beat",
]

#: Bits of a binary16, of its significand, and of that one's places to the left.
HALF_BITS: Final = 16
SIGNIFICAND_BITS: Final = 11
SHIFT_BITS: Final = 5
#: Largest shift of a scale's product, but for the unit of aligned activations.
LARGEST_SHIFT: Final = 28
#: Of the places, those that a scale is shifted by before its multiplier.
SCALE_FINE_BITS: Final = 2
#: Two-input gates of a 2:1 multiplexer.
MUX_GATES: Final = 3
#: Two-input gates that tell zero, minus one and illegal from a 2-bit field.
FIELD_GATES: Final = 3
#: Two-input gates a lane that mask its trit, or make it +1: two for each of its two bits.
MASKED_GATES: Final = 4
#: Register bits beside the data of scale and shift: what is valid, last, scaled, not finite; by
#: the products at once.
SCALE_TAG_BITS: Final = {1: 20, 2: 23}
#: Of a scaled product's shift, the bits that its first cycle does.
NEAR_SHIFT_BITS: Final = 4
#: Two-input gates that find in four bits, of two digits, whether one of them is 0 or 1.
PAIR_GATES: Final = 3
#: Pairs of a base-3 byte's digits, of four bits each.
PAIRS: Final = 2


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


def check_counted(config: ArrayConfig) -> None:
    """Refuse an array whose actions are not counted."""
    if config.weights is not Weights.TERNARY:
        raise TernError(f"weights must be ternary where actions are counted, not {config.weights}")


def row_step(config: ArrayConfig) -> Counter[Action]:
    """Return what one row does in one step: decode, select, add up the lanes, sum the group."""
    check_counted(config)
    lanes, bits = config.lanes, config.fixed_bits
    counts = _decode(config)
    if config.activation is Activation.FP16 and config.aligned is None:
        # The activation's sign joins the trit's: an XOR, and an AND that keeps 0 without sign.
        counts[Action("gate", bits=2 * lanes)] += 1
    # Activations and trits meet in a register; trits that come sooner wait for them.
    counts[Action("register", bits=lanes * (bits + 2))] += 1
    if waits := config.operand_cycles - 1:
        counts[Action("register", bits=2 * lanes)] += waits
    # A lane is its activation, complemented or not, or zero: an XOR and an AND a bit.
    counts[Action("gate", bits=2 * lanes * bits)] += 1
    if config.dot is Dot.CARRY:
        counts += _chains(config)
    else:
        counts += _tree([1] * lanes, bits)
    counts[Action("add", bits=config.sum_bits, lanes=config.step_inputs)] += 1
    # The sum so far, which restarts with each group, and the sum that goes on.
    counts[Action("register", bits=config.sum_bits)] += 2
    return counts


def _decode(config: ArrayConfig) -> Counter[Action]:
    counts: Counter[Action] = Counter()
    digits = config.row_beat_bytes * config.packing.digits_per_byte
    if config.packing is Packing.BITS2:
        counts[Action("gate", bits=FIELD_GATES * digits)] += 1
    else:
        # Two multiplications by 9, one by 3, each an add; and a comparison.
        counts[Action("add", bits=12)] += PAIRS * config.row_beat_bytes
        counts[Action("add", bits=10)] += config.row_beat_bytes
        counts[Action("add", bits=8)] += config.row_beat_bytes
        # Each pair's two digits, each zero or negative; then all that is illegal becomes zero.
        found = config.row_beat_bytes * PAIRS * 4 * PAIR_GATES
        counts[Action("gate", bits=found + 2 * digits)] += 1
        middle = config.row_beat_bytes * (4 * PAIRS + 8)
        counts[Action("register", bits=middle)] += 1
    counts[Action("gate", bits=MASKED_GATES * config.lanes)] += 1
    # Trits, and which few codes are illegal; then whether any is.
    counts[Action("register", bits=2 * config.lanes + config.illegal_flags + 1)] += 1
    return counts


def _chains(config: ArrayConfig) -> Counter[Action]:
    """Return the adders of chains, which take a lane a cycle, and of the tree over them.

    A carry cell selects, negates and adds: its gates are counted as the tree's are, apart.
    """
    counts: Counter[Action] = Counter()
    bits, chains = config.fixed_bits, config.dot_chains
    edges = [config.lanes * at // chains for at in range(chains + 1)]
    sizes = [end - first for first, end in pairwise(edges)]
    for size in sizes:
        for below in range(2, size + 1):
            counts[Action("add", bits=_sum_bits(below, bits), lanes=below)] += 1
            # A lane and its trit wait for the sum that comes along.
            if waits := below - 2:
                counts[Action("register", bits=bits + 2)] += waits
        for stage in range(1, config.chain_cycles + 1):
            counts[Action("register", bits=_sum_bits(min(stage + 1, size), bits) + 1)] += 1
    return counts + _tree(sizes, bits)


def _tree(level: list[int], bits: int) -> Counter[Action]:
    """Return the adders of a tree over sums of so many lanes; its registers of sum and carry."""
    counts: Counter[Action] = Counter()
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [sum(pair) for pair in pairs]
        for pair, below in zip(pairs, level, strict=True):
            width = _sum_bits(below, bits)
            if len(pair) == 2:
                counts[Action("add", bits=width, lanes=below)] += 1
            counts[Action("register", bits=width + 1)] += 1
    return counts


def _sum_bits(lanes: int, bits: int) -> int:
    """Return the width of a sum over some lanes."""
    return bits + (lanes - 1).bit_length()


def lane_mask(config: ArrayConfig) -> Counter[Action]:
    """Return what finds the lanes of a step that count; the rows share it."""
    counts: Counter[Action] = Counter()
    # The segment's lanes, of the last beat those within K: an OR and an AND.
    counts[Action("gate", bits=2 * config.lanes)] += 1
    if waits := config.decode_cycles - 1:
        counts[Action("register", bits=config.lanes)] += waits
    return counts


def group_end(config: ArrayConfig) -> Counter[Action]:
    """Return what one row does where a group ends: scale and shift, and the sum over the row."""
    # In turn, its units work once for each of the two products.
    return _times(group_end_units(config), 2 // config.products)


def group_end_units(config: ArrayConfig) -> Counter[Action]:
    """Return a row's units that do `group_end`, each by its action."""
    products = _times(_scaled_product(config), config.products)
    joined = _products_sum(config) if config.products == 2 else _turn(config)
    return products + joined + _row_sum(config)


def _times(counts: Counter[Action], times: int) -> Counter[Action]:
    return Counter({action: times * count for action, count in counts.items()})


def _placed_bits(config: ArrayConfig) -> int:
    """Return the bits of a sum times a factor, in the row's places."""
    return config.sum_bits + FP16_MAX_UNITS.bit_length() + config.unit_max


def _scaled_product(config: ArrayConfig) -> Counter[Action]:
    """Return what a sum times its scale or its shift takes."""
    bits, placed = config.sum_bits, _placed_bits(config)
    coarse_bits = SHIFT_BITS - SCALE_FINE_BITS
    operand_bits = fine_widths(SCALE_FINE_BITS)[-1]
    counts: Counter[Action] = Counter()
    # The factor is shifted a little, its product to its place, and complemented where the factor
    # is negative.
    counts[Action("gate", bits=MUX_GATES * sum(fine_widths(SCALE_FINE_BITS)))] += 1
    counts[Action("multiply", bits=bits, by=operand_bits)] += 1
    counts[Action("gate", bits=placed * (MUX_GATES * coarse_bits + 1))] += 1
    # Its sign, significand, exponent, and whether it is not finite; then the operand and the
    # coarse shift for two of them; the group's unit.
    counts[Action("register", bits=1 + SIGNIFICAND_BITS + SHIFT_BITS + 1)] += 1
    unit_bits = config.unit_max.bit_length()
    counts[Action("register", bits=bits + 1 + operand_bits + coarse_bits + 1 + unit_bits)] += 1
    # Before the multiplication and behind it, the whole shift and the sign beside it.
    shift_bits = (LARGEST_SHIFT + config.unit_max).bit_length()
    counts[Action("register", bits=bits + operand_bits + shift_bits + 1)] += 2
    # After the shift's near bits, with the far ones; after all of it. What is above the row's low
    # half waits a cycle.
    partly = min(bits + operand_bits + (1 << NEAR_SHIFT_BITS) - 1, placed + 1)
    counts[Action("register", bits=partly + shift_bits - NEAR_SHIFT_BITS + 1)] += 1
    counts[Action("register", bits=placed + 1)] += 1
    counts[Action("register", bits=placed - config.accumulator_bits // 2)] += 1
    return counts


def _products_sum(config: ArrayConfig) -> Counter[Action]:
    """Return what the sum of both products takes, in two halves, the high one a cycle later."""
    half, placed = config.accumulator_bits // 2, _placed_bits(config)
    counts: Counter[Action] = Counter()
    counts[Action("add", bits=half)] += 1
    counts[Action("add", bits=placed + 1 - half)] += 1
    # The sum and its two carries.
    counts[Action("register", bits=placed + 1 + 2)] += 1
    return counts


def _turn(config: ArrayConfig) -> Counter[Action]:
    """Return what it takes that a unit's two products have turns: choices, and what waits."""
    unit_bits = config.unit_max.bit_length()
    chosen = config.sum_bits + HALF_BITS + unit_bits
    counts: Counter[Action] = Counter()
    counts[Action("gate", bits=MUX_GATES * chosen)] += 1
    # X, the shift and the unit; whether there is a second product, the row's last, of a real shift.
    counts[Action("register", bits=chosen + 3)] += 1
    return counts


def _row_sum(config: ArrayConfig) -> Counter[Action]:
    """Return what adding to a row's sum takes, in halves as above."""
    half = config.accumulator_bits // 2
    counts: Counter[Action] = Counter()
    counts[Action("add", bits=half)] += 1
    counts[Action("add", bits=config.accumulator_bits - half)] += 1
    # The sum so far, which restarts with each row, its low half once more and its carry; the row's.
    counts[Action("register", bits=config.accumulator_bits)] += 2
    counts[Action("register", bits=half + 1)] += 1
    counts[Action("register", bits=SCALE_TAG_BITS[config.products])] += 1
    return counts


def fine_widths(places: int) -> list[int]:
    """Return the widths of a significand after each of the shifts by 1, 2, 4, ... places."""
    return [SIGNIFICAND_BITS + (2 << place) - 1 for place in range(places)]


def result(config: ArrayConfig) -> Counter[Action]:
    """Return what an output takes: the choice of its row's sum, and the rounding."""
    width = config.accumulator_bits - 1  # of the magnitude
    counts: Counter[Action] = Counter()
    counts[Action("gate", bits=MUX_GATES * (config.rows - 1) * config.accumulator_bits)] += 1
    # A negative sum's complement, and the one that makes it the magnitude.
    counts[Action("gate", bits=width)] += 1
    counts[Action("add", bits=width)] = 1
    # Three times every bit is looked at: where the shift must stop, for zeros, for what is lost.
    counts[Action("gate", bits=3 * width)] += 1
    counts[Action("gate", bits=MUX_GATES * normalised_bits(config))] += 1
    counts[Action("add", bits=config.result_bits)] = 1  # round up
    # Whose turn it is; which rows wait, and which of them are not numbers; the last block.
    turns = max(1, (config.rows - 1).bit_length()) + 2 * config.rows + 1
    counts[Action("register", bits=turns)] += 1
    counts += _rounder_registers(config, width)
    # Into the queue, out of it, and to the port; whether a word is there, in each of the last two.
    counts[Action("register", bits=config.result_bits + 1)] += 3
    counts[Action("register", bits=1)] += 2
    return counts


def normalised_bits(config: ArrayConfig) -> int:
    """Return the bits that the shifts to a sum's first one choose, all shifts together."""
    width = config.accumulator_bits - 1
    widths = _normalised_widths(config, width)
    # Each passes what the one before left; the last two share a cycle.
    return width + sum(widths[:-1]) + widths[-2]


def _normalised_widths(config: ArrayConfig, width: int) -> list[int]:
    """Return the bits that are left after each cycle of normalising shifts.

    What no later shift can bring into significand and guard bit is one bit together.
    """
    exact = _float_format(config)[1] + 2
    shifts = [1 << place for place in reversed(range((width - 1).bit_length()))]
    widths = []
    for places in shifts[:-1]:
        later = places - 1 if places > 2 else 0
        width = min(width, exact + later + 1)
        widths.append(width)
    return widths


def _float_format(config: ArrayConfig) -> tuple[int, int]:
    """Return the bits of a result's exponent and of its fraction."""
    return (8, 23) if config.output is OutputFormat.FP32 else (5, 10)


def _rounder_registers(config: ArrayConfig, width: int) -> Counter[Action]:
    counts: Counter[Action] = Counter()
    # Complement, magnitude, magnitude with the bit that stops, and the value after each shift.
    counts[Action("register", bits=width)] = 3
    widths = _normalised_widths(config, width)
    for at, left in enumerate(widths):
        # Beside it the shifts so far: the last cycle does two.
        decided = at + 1 + (at == len(widths) - 1)
        counts[Action("register", bits=left + decided)] += 1
    # What is rounded, whether it goes up, and the sign.
    counts[Action("register", bits=sum(_float_format(config)) + 2)] += 1
    counts[Action("register", bits=config.result_bits)] += 1
    # Beside it: valid, last, negative, not a number; whether the next shift is due, and too small
    # for the smallest exponent.
    counts[Action("register", bits=4 * config.rounder_cycles - 4)] += 1
    counts[Action("register", bits=2 * len(widths) + 1)] += 1
    return counts


def scale_beat(config: ArrayConfig) -> Counter[Action]:
    """Return what a beat of scales and shifts takes: into its memory, out, and to a register."""
    return Counter({Action("register", bits=8 * config.scale_beat_bytes): 3})


def weight_beat(config: ArrayConfig) -> Counter[Action]:
    """Return what a beat of weights takes before it is decoded: a register."""
    return Counter({Action("register", bits=8 * config.weight_beat_bytes): 1})


def memory_register(config: ArrayConfig) -> Counter[Action]:
    """Return what a step's activations take between their memory and the rows: a register."""
    return Counter({Action("register", bits=config.lanes * config.fixed_bits): 1})


def activation_word(config: ArrayConfig, component: str) -> Action:
    """Return the read or write of a word of the activation memory."""
    bits = config.lanes * config.fixed_bits
    return Action(component, bits=bits, capacity_bytes=bits * config.max_chunks // 8)


def sum_word(config: ArrayConfig, component: str) -> Action:
    """Return the read or write of a group's X."""
    bits = config.sum_bits
    return Action(component, bits=bits, capacity_bytes=-(-bits * config.max_groups // 8))
