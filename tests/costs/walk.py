"""A product on an array, walked step by step: every action written down as it happens."""

from collections import Counter


def width_of(lanes, bits):
    """Return the bits of any sum of so many numbers of `bits` bits, by trying."""
    width = 1
    while lanes * 2 ** (bits - 1) > 2 ** (width - 1):
        width += 1
    return width


def tree_step(done, lanes, bits):
    """Write down one pass through an adder tree."""
    level = [1] * lanes
    while len(level) > 1:
        above = []
        while level:
            left = level.pop(0)
            if level:
                both = left + level.pop(0)
                done["add", width_of(both, bits), both] += 1
                above.append(both)
            else:
                above.append(left)
        level = above


def chains_step(done, lanes, bits):
    """Write down one pass through chains of at most eight lanes, then through a tree."""
    chains = -(-lanes // 8)
    ends = [lanes * (at + 1) // chains for at in range(chains)]
    sizes = []
    for end in ends:
        size = end - sum(sizes)
        for below in range(2, size + 1):
            done["add", width_of(below, bits), below] += 1
        sizes.append(size)
    while len(sizes) > 1:
        pairs = [sum(sizes[at : at + 2]) for at in range(0, len(sizes) - 1, 2)]
        for both in pairs:
            done["add", width_of(both, bits), both] += 1
        sizes = pairs + sizes[2 * len(pairs) :]


def walk(config, tokens, n, k):
    """Return everything that happens, by the README's schedule.

    Keys: ("add", width, lanes), ("multiply", a, b), ("read", bits), ("write", bits), and the
    names of steps, beats, bytes and group sums.
    """
    done = Counter()
    size = config.group_size if config.group_size != "row" else config.max_k
    quantum = min(config.lanes, size)
    for _ in range(tokens):
        _load(config, done, k, quantum, size)
        for block in range(0, n, config.rows):
            for first in range(0, k, quantum):
                done["compute_steps"] += 1
                _step(config, done, size)
                if first % config.lanes == 0:
                    done["weight_beats"] += 1
                last = min(first + quantum, k)
                if last == k or last % size == 0:
                    _group_end(config, done, quantum)
            for _ in range(block, min(block + config.rows, n)):
                done["result_beats"] += 1
                done["add", config.accumulator_bits - 1, 0] += 1
                done["add", config.result_bits, 0] += 1
    return done


def _load(config, done, k, quantum, size):
    for first in range(0, k, quantum):
        done["load_steps"] += 1
        _step(config, done, size)
        if first % config.lanes == 0:
            done["activation_beats"] += 1
            done["write", config.lanes * config.fixed_bits] += 1
            if config.aligned:
                _align(config, done, quantum)
        last = min(first + quantum, k)
        if last == k or last % size == 0:
            done["write", config.sum_bits] += 1


def unit_bits(config):
    """Return the bits of u, which is from 0 to what 41 bits leave."""
    return len(f"{41 - config.aligned:b}")


def _align(config, done, quantum):
    """Write down a beat's search for units, and the alignment of its word."""
    groups = config.lanes // quantum
    for _ in range(groups):
        # Two comparisons of exponents; the unit from one, and back.
        done["add", 5, 0] += 4
    for component in ("write", "read"):
        done[component, config.lanes * 16] += 1
        done[component, groups * unit_bits(config)] += 1
    for _ in range(config.lanes):
        done["add", 5, 0] += 1
        done["add", config.aligned, 0] += 1


def _step(config, done, size):
    done["read", config.lanes * config.fixed_bits] += 1
    for _ in range(config.rows):
        dot_step = chains_step if config.dot == "carry" else tree_step
        dot_step(done, config.lanes, config.fixed_bits)
        done["add", config.sum_bits, min(config.lanes, size)] += 1
        if config.packing == "base3":
            for _ in range(config.row_beat_bytes):
                done["add", 12, 0] += 2
                done["add", 10, 0] += 1
                done["add", 8, 0] += 1


def _group_end(config, done, quantum):
    done["scale_beats"] += 1
    done["read", config.sum_bits] += 1
    if config.aligned:
        done["read", config.lanes // quantum * unit_bits(config)] += 1
    for _ in range(config.rows):
        done["group_sums"] += 1
        # A significand of 11 bits that is shifted by up to three places.
        done["multiply", config.sum_bits, 14] += 2
        # 41 bits hold any binary16 in units of 2**-24; more places where u is largest.
        places = 41 + (41 - config.aligned if config.aligned else 0)
        # Each sum in two halves: of both products and then the row's, or twice the row's.
        low = config.accumulator_bits // 2
        first = config.sum_bits + places if config.products == 2 else config.accumulator_bits
        for bits in (first, config.accumulator_bits):
            done["add", low, 0] += 1
            done["add", bits - low, 0] += 1
