"""Memories of two ports, one that writes and one that reads a cycle later, and a queue in one."""

from typing import Final

from amaranth.lib import fifo, memory

__all__ = ["Queue", "memory_depth", "two_port_memory"]

#: Tells synthesis, as Yosys reads it, that no read needs the word that is being written.
COLLISION_FREE: Final = {"no_rw_check": True}


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


class Queue(fifo.SyncFIFOBuffered):
    """A `SyncFIFOBuffered` whose memory is as `two_port_memory`'s: it reads what was written."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.submodules.storage.attrs.update(COLLISION_FREE)
        return m
