"""Which lanes count: those of a step's segment, and in a row's last beat those that hold inputs."""

from amaranth.hdl import Cat, Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.pipeline import index_bits

__all__ = ["LaneMask", "lanes_within"]


def thermometer(value, count: int) -> list:
    """Return bits 0 ... count - 1, of which bit i says value > i; one LUT4 a bit or little more."""
    if not len(value):
        return [Const(0, 1)] * count
    half = 1 << (len(value) - 1)
    high, low = value[-1], thermometer(value[:-1], min(half, count))
    # Of the lower half none is above 2**(n-1) - 1, its last place: `high` alone decides that.
    return [*(high | bit for bit in low), *(high & bit for bit in low)][:count]


def lanes_within(last, lanes: int):
    """Return a bit for each lane of a beat: whether it is not behind `last`, an index."""
    bits = (lanes - 1).bit_length()
    within = Cat(1, *thermometer(last[:bits], lanes - 1))
    return within | last[bits:].any().replicate(lanes) if len(last) > bits else within


class LaneMask(wiring.Component):
    """Mask a step's lanes; what lies beyond K in a row's last beat is learnt while it is loaded.

    Latency: 0 from `segment`, `ragged` to `mask`; 1 from a load to what it tells. Throughput: a
    step a cycle. Backpressure: none.

    Members
    -------
    load : In
        A beat of activations is loaded.
    last : In
        Index of the row's last lane in the beat: lane i is real when i <= last.
    segment : In
        The group within the lanes whose inputs count.
    ragged : In
        The step belongs to the row's last beat.
    real : Out, lanes
        Real lanes of the beat that was loaded last.
    mask : Out, lanes
        Lanes that count.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        super().__init__(
            {
                "load": In(1),
                "last": In(index_bits(config.lanes)),
                "segment": In(index_bits(config.segments)),
                "ragged": In(1),
                "real": Out(config.lanes),
                "mask": Out(config.lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, size = self.config.lanes, self.config.step_inputs
        with m.If(self.load):
            m.d.sync += self.real.eq(lanes_within(self.last, lanes))
        for segment in range(self.config.segments):
            chosen = self._is(segment) if self.config.segments > 1 else 1
            for lane in range(segment * size, (segment + 1) * size):
                m.d.comb += self.mask[lane].eq(chosen & (~self.ragged | self.real[lane]))
        return m

    def _is(self, segment):
        # Verilator objects to the `!segment` that a comparison with 0 turns into.
        return self.segment == segment if segment else ~self.segment.any()
