"""The blocks' latencies, as the top adds them, are the configuration's; so is the load gap."""

from itertools import product

import pytest

from tern_hw.config import NAMED_CONFIGS, Activation, ArrayConfig, Dot, OutputFormat, Packing
from tern_hw.gateware.array import TernaryArray

SWEEP = (
    [
        ArrayConfig(
            lanes=lanes,
            rows=rows,
            activation=activation,
            packing=packing,
            output=output,
            group_size=1,
        )
        for (lanes, rows), activation, packing, output in product(
            [(8, 1), (9, 16), (16, 3), (17, 1), (63, 2)],
            Activation,
            Packing,
            OutputFormat,
        )
    ]
    + [
        ArrayConfig(lanes=lanes, rows=1, group_size=group)
        for lanes in (8, 65, 100, 1023, 1024)
        for group in ("row", lanes, 4 * lanes)
    ]
    + [
        ArrayConfig(lanes=lanes, rows=1, dot=Dot.CARRY, activation=activation, group_size="row")
        for lanes in (8, 9, 16, 17, 63, 1023, 1024)
        for activation in Activation
    ]
)
ALIGNED = [
    ArrayConfig(lanes=64, rows=4, activation="fp16", aligned=bits, group_size=group)
    for bits in (8, 16, 40)
    for group in ("row", 128, 16)
]


# An array that nobody elaborates is the point here.
@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
def test_latency_of_the_array_is_the_sum_of_its_blocks():
    for config in SWEEP + ALIGNED:
        core = TernaryArray(config).core
        dot, scale, results = core.dots[0], core.scales[0], core.results
        dots = (dot.decoder.latency, config.operand_cycles, dot.tree.latency, 1)
        assert dot.latency == sum(dots) == config.dot_cycles
        blocks = (config.issue_cycles, *dots, scale.latency, results.latency)
        assert core.latency == sum(blocks) == config.latency_cycles, config.name


@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
@pytest.mark.parametrize("config", ALIGNED, ids=lambda config: config.name)
def test_aligned_configurations(config):
    core = TernaryArray(config).core
    assert core.converter.latency == config.conversion_cycles
    assert core.converter.finder.latency == config.unit_cycles


@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_named_configurations(name):
    config = NAMED_CONFIGS[name]
    core = TernaryArray(config).core
    assert core.latency == config.latency_cycles
    assert core.converter.latency == config.conversion_cycles


@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
@pytest.mark.parametrize("output", OutputFormat)
def test_array_of_multiply_adds(output):
    config = ArrayConfig(lanes=8, rows=2, activation="fp16", weights="fp16", output=output)
    core = TernaryArray(config).core
    assert core.latency == sum(core.blocks().values()) == config.latency_cycles
    assert core.array.macs[0].latency == config.mac_registers
    assert core.array.macs[0].loop == config.mac_contexts
