"""One row's dot product over a group: decoder, adder tree and the sum over the group's steps."""

from amaranth.hdl import C, Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import Activation, ArrayConfig, Dot
from tern_hw.gateware.carry import CarryChains
from tern_hw.gateware.decode import TritDecoder
from tern_hw.gateware.pipeline import add_with_carry, delay
from tern_hw.gateware.tree import AdderTree

__all__ = ["GroupDot"]

#: The dot product over the lanes, by its name in the configuration.
DOTS: dict[Dot, type[AdderTree] | type[CarryChains]] = {Dot.TREE: AdderTree, Dot.CARRY: CarryChains}


class GroupDot(wiring.Component):
    """Sum trit * activation over a group, step by step.

    Parameters
    ----------
    config : ArrayConfig
    decoder : wiring.Component, optional
        In place of a `TritDecoder`, with its members and `latency`.

    Latency: `latency` from `codes` to `total`; activations meet the decoded trits in a register,
    and `x` comes `memory_cycles` after the codes. Throughput: a step a cycle. Backpressure: none.

    Members
    -------
    codes, mask, ones : In
        See `TritDecoder`.
    illegal : Out
        A code of the beat (pad digits included) is illegal; `decode_latency` + 1 after the codes.
    x : In, lanes * fixed_bits
        The activations of the step as `ActivationConverter` leaves them, `memory_cycles` after
        the codes.
    valid, last : In
        A step is there, and it ends a group; `latency` - 1 after the codes.
    total : Out, signed(sum_bits)
        Sum of the group so far, the latest step included.
    """

    def __init__(self, config: ArrayConfig, decoder: wiring.Component | None = None):
        self.config = config
        self.decoder = TritDecoder(config) if decoder is None else decoder
        self.tree = DOTS[config.dot](config)
        self.decode_latency = self.decoder.latency
        self.latency = self.decoder.latency + config.operand_cycles + self.tree.latency + 1
        super().__init__(
            {
                "codes": In(self.decoder.codes.shape()),
                "mask": In(config.lanes),
                "ones": In(1),
                "illegal": Out(1),
                "x": In(self.tree.x.shape()),
                "valid": In(1),
                "last": In(1),
                "total": Out(signed(config.sum_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = self.decoder
        m.submodules.tree = tree = self.tree
        m.d.comb += [
            decoder.codes.eq(self.codes),
            decoder.mask.eq(self.mask),
            decoder.ones.eq(self.ones),
        ]
        m.d.sync += self.illegal.eq(decoder.illegal.any())
        late = self.config.operand_cycles - 1
        nonzero = delay(m, decoder.nonzero, late, name="nonzero")
        x, negative = self._operands(nonzero, delay(m, decoder.negative, late, name="negative"))
        # Trits wait for the activations here; a register of the memory's own stands too far from
        # the lanes to be followed by an adder. None needs a reset.
        operands = Signal(self.tree.x.shape(), reset_less=True)
        m.d.sync += [
            operands.eq(x),
            tree.nonzero.eq(nonzero),
            tree.negative.eq(negative),
        ]
        m.d.comb += tree.x.eq(operands)
        # A register that starts each group at 0 costs a reset; a multiplexer before the adder
        # would cost a LUT a bit.
        part = Signal.like(self.total)
        total = add_with_carry(part, tree.total, tree.carry)
        with m.If(self.valid):
            m.d.sync += self.total.eq(total)
        with m.If(self.valid & self.last):
            m.d.sync += part.eq(0)
        with m.Elif(self.valid):
            m.d.sync += part.eq(total)
        return m

    def _operands(self, nonzero, negative):
        """Return (two's-complement activations, whether each is negated)."""
        config = self.config
        if config.activation is Activation.INT8 or config.aligned is not None:
            return self.x, negative
        bits = config.fixed_bits
        lanes = [self.x[at : at + bits] for at in range(0, len(self.x), bits)]
        signs = Cat(lane[-1] for lane in lanes)
        magnitudes = Cat(Cat(lane[:-1], C(0, 1)) for lane in lanes)
        return magnitudes, (negative ^ signs) & nonzero
