"""Multiply-accumulators side by side, each with a loop of outputs of its own."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.adders import adders_of
from tern_hw.gateware.fp16_mac import Fp16Mac
from tern_hw.gateware.pipeline import delay

__all__ = ["MacArray"]


class MacArray(wiring.Component):
    """Give every output of a block its sum, an input a step, in the order of the inputs.

    A pipelined multiply-accumulator needs `mac_contexts` cycles from a sum to its next one, so it
    takes turns among as many outputs: no adder joins partial sums, and each output is the plain
    sequence of rounded multiply-adds that begins with +0. The activation is shared by all.

    Latency: `latency`, a register in front and the multiply-adds. Throughput: a step a cycle.
    Backpressure: none; `advance` low holds everything, between two steps of a loop.

    Members
    -------
    x : In, 16
        Activation of the step, binary16.
    weights : In, lanes * rows * 16
        Its weights, binary16, the first output lowest.
    first : In
        The step is the first of its outputs' sums.
    advance : In
    sums : Out, lanes * rows * result_bits
        The outputs' sums so far, `latency` after the step.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        count = config.lanes * config.rows
        adders, registers = adders_of(config), config.mac_registers
        self.macs = [
            Fp16Mac(config.output, registers=registers, adders=adders) for _ in range(count)
        ]
        self.latency = 1 + self.macs[0].latency
        super().__init__(
            {
                "x": In(16),
                "weights": In(16 * count),
                "first": In(1),
                "advance": In(1),
                "sums": Out(config.result_bits * count),
            }
        )

    def elaborate(self, platform):
        m = Module()
        x, weights, first = (Signal.like(port) for port in (self.x, self.weights, self.first))
        m.d.sync += [x.eq(self.x), weights.eq(self.weights), first.eq(self.first)]
        lead = self.macs[0].latency - self.macs[0].loop
        begins = delay(m, first, lead, name="first")
        for at, mac in enumerate(self.macs):
            m.submodules[f"mac_{at}"] = mac
            m.d.comb += [
                mac.a.eq(x),
                mac.b.eq(weights[16 * at : 16 * at + 16]),
                mac.c.eq(Mux(begins, 0, mac.result)),
            ]
        m.d.comb += self.sums.eq(Cat(mac.result for mac in self.macs))
        return m
