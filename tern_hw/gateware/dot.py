"""One row's dot product over a group: decoder, adder tree and the sum over the group's steps."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, Dot
from tern_hw.gateware.carry import CarryChains
from tern_hw.gateware.decode import TritDecoder
from tern_hw.gateware.pipeline import add_with_carry
from tern_hw.gateware.tree import AdderTree

__all__ = ["GroupDot"]

#: The dot product over the lanes, by its name in the configuration.
DOTS: dict[Dot, type[AdderTree] | type[CarryChains]] = {Dot.TREE: AdderTree, Dot.CARRY: CarryChains}


class GroupDot(wiring.Component):
    """Sum trit * activation over a group, step by step.

    Latency: `latency` from `codes` to `total`; activations join the decoded trits, so `x` comes
    `decode_latency` after the codes. Throughput: a step a cycle. Backpressure: none.

    Members
    -------
    codes, segment, ones : In
        See `TritDecoder`.
    illegal : Out
        See `TritDecoder`; `decode_latency` after the codes.
    x : In, lanes * fixed_bits
        The activations of the step, `decode_latency` after the codes.
    valid, first : In
        A step is there, and it begins a group; `latency` - 1 after the codes.
    total : Out, signed(sum_bits)
        Sum of the group so far, this step included.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.decoder = TritDecoder(config)
        self.tree = DOTS[config.dot](config)
        self.decode_latency = self.decoder.latency
        self.latency = self.decoder.latency + self.tree.latency + 1
        super().__init__(
            {
                "codes": In(self.decoder.codes.shape()),
                "segment": In(self.decoder.segment.shape()),
                "ones": In(1),
                "illegal": Out(1),
                "x": In(self.tree.x.shape()),
                "valid": In(1),
                "first": In(1),
                "total": Out(signed(config.sum_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = self.decoder
        m.submodules.tree = tree = self.tree
        m.d.comb += [
            decoder.codes.eq(self.codes),
            decoder.segment.eq(self.segment),
            decoder.ones.eq(self.ones),
            self.illegal.eq(decoder.illegal),
            tree.x.eq(self.x),
            tree.nonzero.eq(decoder.nonzero),
            tree.negative.eq(decoder.negative),
        ]
        before = Signal.like(self.total)
        m.d.comb += before.eq(Mux(self.first, 0, self.total))
        with m.If(self.valid):
            m.d.sync += self.total.eq(add_with_carry(before, tree.total, tree.carry))
        return m
