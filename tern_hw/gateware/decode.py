"""Packed codes of one row's beat to two controls a lane: take the activation, and negate it."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, Packing

__all__ = ["TritDecoder"]

#: Digits of a base-3 byte decoded before the register in the middle of the decoder.
FIRST_DIGITS = 3


class TritDecoder(wiring.Component):
    """Decode one row of a weight beat, and mask it to the lanes that count.

    An illegal code counts as trit 0 (base-3: all five trits of its byte).

    Latency: `latency` (2-bit: 1, base-3: 2 cycles). Throughput: a beat a cycle.
    Backpressure: none.

    Members
    -------
    codes : In, 8 * row_beat_bytes
        Packed digits (trit + 1), first byte lowest.
    mask : In, lanes
        Lanes whose trits count; the others give trit 0. `latency` - 1 after the codes.
    ones : In
        Ignore the codes and give trit +1: the dot product becomes a sum. `latency` - 1 after
        the codes.
    nonzero, negative : Out, lanes
        The trit of each lane; `negative` implies `nonzero`.
    illegal : Out
        A code of the beat (pad digits included) is illegal; not masked.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = config.decode_cycles
        super().__init__(
            {
                "codes": In(8 * config.row_beat_bytes),
                "mask": In(config.lanes),
                "ones": In(1),
                "nonzero": Out(config.lanes),
                "negative": Out(config.lanes),
                "illegal": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        decode = self._two_bit if config.packing is Packing.BITS2 else self._base3
        zero, negative, illegal = decode(m)
        everything = self.ones.replicate(config.lanes)
        m.d.sync += [
            self.nonzero.eq((~Cat(*zero[: config.lanes]) | everything) & self.mask),
            self.negative.eq(Cat(*negative[: config.lanes]) & ~everything & self.mask),
            self.illegal.eq(Cat(*illegal).any()),
        ]
        return m

    def _two_bit(self, m):
        fields = [self.codes[at : at + 2] for at in range(0, len(self.codes), 2)]
        # Digits 0, 1, 2 are trits -1, 0, +1; field 3 is illegal: a set low bit means zero.
        zero = [field[0] for field in fields]
        negative = [~field.any() for field in fields]
        illegal = [field.all() for field in fields]
        return zero, negative, illegal

    def _base3(self, m):
        zero, negative, illegal = [], [], []
        for index in range(self.config.row_beat_bytes):
            digits, bad = self._byte(m, self.codes[8 * index : 8 * index + 8], index)
            zero += [(digit == 1) | bad for digit in digits]
            negative += [~digit.any() & ~bad for digit in digits]
            illegal.append(bad)
        return zero, negative, illegal

    def _byte(self, m, byte, index):
        """Return the five digits of a byte, two cycles' work with a register between."""
        head, residue = self._times_three(m, byte, FIRST_DIGITS, f"b{index}")
        head_now = Signal(2 * FIRST_DIGITS, name=f"b{index}_head")
        residue_now = Signal(8, name=f"b{index}_residue")
        m.d.sync += [head_now.eq(Cat(*head)), residue_now.eq(residue)]
        tail, rest = self._times_three(m, residue_now, 5 - FIRST_DIGITS, f"b{index}_t")
        digits = [head_now[2 * at : 2 * at + 2] for at in range(FIRST_DIGITS)] + tail
        # What is left after five digits is (243 * byte) mod 256.
        return digits, rest >= 243

    @staticmethod
    def _times_three(m, residue, count, name):
        digits = []
        for step in range(count):
            product = Signal(10, name=f"{name}_{step}")
            m.d.comb += product.eq(residue + (residue << 1))
            digits.append(product[8:])
            residue = product[:8]
        return digits, residue
