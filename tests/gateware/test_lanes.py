"""Lanes that count: a segment's, and in a row's last beat those below K."""

import pytest

from tern_hw.gateware.lanes import LaneMask
from tests.gateware.blocks import pack, randoms, respond, small

CONFIGS = [
    small(),
    small(lanes=9, group_size=3),
    small(lanes=16, group_size=1),
    small(lanes=13, max_k=12),
    small(lanes=63, max_k=200),
]


def outputs(config, vectors):
    """Drive the block combinationally: its outputs before the edge, one cycle after a load."""
    mask = LaneMask(config)
    return respond(mask, vectors, ["real", "mask"], latency=0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_real_lanes_are_those_up_to_the_last(config):
    loads = [{"load": 1, "last": last} for last in range(config.lanes)]
    seen = outputs(config, [*loads, {"load": 0, "last": 0}])
    expected = [pack([lane <= load["last"] for lane in range(config.lanes)], 1) for load in loads]
    assert [real for real, _ in seen[1:]] == expected


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_mask_is_the_segment_and_where_ragged_its_real_lanes(config):
    rng = randoms("lanes", config.name)
    vectors = [
        {
            "load": rng.random() < 0.3,
            "last": rng.randrange(config.lanes),
            "segment": rng.randrange(config.segments),
            "ragged": rng.random() < 0.5,
        }
        for _ in range(500)
    ]
    real, expected = 0, []
    for vector in vectors:
        first = vector["segment"] * config.step_inputs
        segment = ((1 << config.step_inputs) - 1) << first
        expected.append([real, segment & real if vector["ragged"] else segment])
        if vector["load"]:
            real = pack([lane <= vector["last"] for lane in range(config.lanes)], 1)
    assert outputs(config, vectors) == expected
