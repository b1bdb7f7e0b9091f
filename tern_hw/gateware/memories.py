"""Memories of two ports, one that writes and one that reads a cycle later, and a ring in one."""

from typing import Final

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.gateware.pipeline import index_bits

__all__ = ["Ring", "memory_depth", "two_port_memory"]

#: Tells synthesis, as Yosys reads it, that no read needs the word that is being written.
COLLISION_FREE: Final = {"no_rw_check": True}
#: Asks for block RAM where a memory is so small that LUTs would be taken.
IN_BLOCK_RAM: Final = {"ram_style": "block"}


def memory_depth(words: int) -> int:
    """Return a memory's depth: at least 2, as an address of 0 bits is not legal Verilog."""
    return max(2, words)


def two_port_memory(shape: int, words: int) -> memory.Memory:
    """Return a memory whose reader never uses a word that is being written in the same cycle.

    Block RAM leaves open what such a read gives. Verilog says the old word, and synthesis would
    add a bypass (a multiplexer and two registers a bit) to keep that; an attribute tells it that
    nobody minds. `tests/test_collisions.py` gives garbage instead.

    Parameters
    ----------
    shape
        Bits of a word.
    words
        Words, at least 1.
    """
    return memory.Memory(shape=shape, depth=memory_depth(words), init=[], attrs=COLLISION_FREE)


class Ring(wiring.Component):
    """Words in their order, in block RAM, without a count: who writes and takes keeps that.

    Latency: 1 from a write to when it may be taken, 1 from `take` to `word`, where it stays.
    Throughput: a word in and one out a cycle. Backpressure: none.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words that it has to hold.

    Members
    -------
    write : In
        Keep `data`; never where `depth` words are kept.
    data : In
    take : In
        Go on to the next word; never where none is kept.
    word : Out
        What was taken last.
    """

    LATENCY = 1

    def __init__(self, *, width: int, depth: int):
        self.depth = 1 << index_bits(depth)
        super().__init__({"write": In(1), "data": In(width), "take": In(1), "word": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = memory.Memory(
            shape=len(self.data), depth=self.depth, init=[], attrs=COLLISION_FREE | IN_BLOCK_RAM
        )
        write, read = storage.write_port(), storage.read_port()
        into = Signal(range(self.depth))
        out_of = Signal(range(self.depth))
        m.d.comb += [
            write.addr.eq(into),
            write.data.eq(self.data),
            write.en.eq(self.write),
            read.addr.eq(out_of),
            read.en.eq(self.take),
            self.word.eq(read.data),
        ]
        for moves, place in ((self.write, into), (self.take, out_of)):
            with m.If(moves):
                m.d.sync += place.eq(place + 1)
        return m
