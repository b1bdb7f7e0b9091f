"""A row's dot product over a group: steps add up, bubbles do not, activations join in time."""

import pytest

from tern_hw.gateware.dot import GroupDot
from tests.gateware.blocks import activations, observed_latency, pack, randoms, respond, small

TRITS = (-1, 0, 1)
CONFIGS = [
    small(lanes=8),
    small(lanes=9, group_size=3, activation="fp16"),
    small(lanes=10, packing="base3", group_size=20, max_k=40),
    small(lanes=12, packing="base3", group_size=4, activation="fp16"),
]


def codes_of(config, trits):
    """Return a row's packed digits, pad digits 1."""
    per_byte = config.packing.digits_per_byte
    digits = [trit + 1 for trit in trits] + [1] * (-len(trits) % per_byte)
    parts = [digits[at : at + per_byte] for at in range(0, len(digits), per_byte)]
    if config.packing == "2bit":
        return pack([pack(part, 2) for part in parts], 8)
    values = [sum(digit * 3 ** (4 - at) for at, digit in enumerate(part)) for part in parts]
    return pack([-(-value * 256 // 243) for value in values], 8)


def in_time(dot):
    """Return how long after the codes the other inputs come."""
    late = dot.decode_latency - 1
    return {
        "mask": late,
        "ones": late,
        "x": dot.config.memory_cycles,
        "valid": dot.latency - 1,
        "last": dot.latency - 1,
    }


def held(config, x):
    """Return activations as the array's memory holds them."""
    if config.activation == "fp16":
        sign = 1 << (config.fixed_bits - 1)
        x = [abs(value) | (sign if value < 0 else 0) for value in x]
    return pack(x, config.fixed_bits)


def steps_of(config, rng, count):
    """Return random steps (a third of them bubbles) and the sum that each one leaves behind."""
    steps, sums, total, part = [], [], 0, 0
    longest = config.group_steps or config.chunks(config.max_k)
    length = 0
    for _ in range(count):
        x = activations(config, rng, config.lanes)
        trits = [rng.choice(TRITS) for _ in range(config.lanes)]
        lanes = rng.sample(range(config.lanes), rng.randint(0, config.step_inputs))
        ones = rng.random() < 0.2
        valid = rng.random() < 2 / 3
        last = length == longest - 1 or rng.random() < 0.1
        if valid:
            total = part + sum(x[lane] * (1 if ones else trits[lane]) for lane in lanes)
            part, length = (0, 0) if last else (total, length + 1)
        steps.append(
            {
                "codes": codes_of(config, trits),
                "mask": sum(1 << lane for lane in lanes),
                "ones": ones,
                "x": held(config, x),
                "valid": valid,
                "last": last,
            }
        )
        sums.append(total)
    return steps, sums


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_steps_of_a_group_add_up_and_bubbles_do_not(config):
    dot = GroupDot(config)
    steps, sums = steps_of(config, randoms("dot", config.name), 400)
    seen = respond(dot, steps, ["total"], lag=in_time(dot))
    assert [total for (total,) in seen] == sums


@pytest.mark.parametrize("activation", ["int8", "fp16"])
@pytest.mark.parametrize("lanes", [8, 12])
def test_a_whole_group_of_extremes_fits(lanes, activation):
    config = small(lanes=lanes, activation=activation)
    most = config.fixed_max - (activation == "int8")
    count = config.chunks(config.max_k)
    for x in (-config.fixed_max, most):
        for trit in (-1, 1):
            dot = GroupDot(config)
            left = config.max_k
            steps: list[dict] = []
            for _ in range(count):
                real = min(left, lanes)
                left -= real
                steps.append(
                    {
                        "codes": codes_of(config, [trit] * lanes),
                        "mask": (1 << real) - 1,
                        "x": held(config, [x] * lanes),
                        "valid": 1,
                        "last": left == 0,
                    }
                )
            seen = respond(dot, steps, ["total"], lag=in_time(dot))
            assert seen[-1] == [trit * x * config.max_k]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_illegal_comes_a_cycle_after_the_decoded_trits(config):
    dot = GroupDot(config)
    rng = randoms("illegal", config.name)
    legal = codes_of(config, [1] * config.lanes)
    # 0x0F has the field 3 twice; 0x01 is no base-3 byte.
    illegal = 0x0F if config.packing == "2bit" else 0x01
    flags = [rng.random() < 0.5 for _ in range(100)]
    vectors = [{"codes": legal & ~0xFF | illegal if flag else legal} for flag in flags]
    seen = respond(dot, vectors, ["illegal"], latency=dot.decode_latency + 1)
    assert [flag for (flag,) in seen] == flags


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_latency_is_as_stated(config):
    ones, minus = ([trit] * config.lanes for trit in (1, -1))
    x = pack(ones, config.fixed_bits)
    everything = (1 << config.lanes) - 1
    before = {"codes": codes_of(config, ones), "mask": everything, "x": x, "valid": 1, "last": 1}
    tree = config.operand_cycles + config.tree_levels
    # Whether a group ends shows in the sum of the step after.
    for name, value, late in (
        ("codes", codes_of(config, minus), 0),
        ("x", 0, config.memory_cycles),
        ("mask", 1, config.decode_cycles - 1),
        ("last", 0, config.decode_cycles + tree - 1),
    ):
        dot = GroupDot(config)
        assert dot.latency == config.decode_cycles + tree + 1
        assert observed_latency(dot, before, {name: value}, "total") == dot.latency - late
