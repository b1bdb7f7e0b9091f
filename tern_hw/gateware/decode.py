"""Packed codes of one row's beat to two controls a lane: take the activation, and negate it."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, Packing

__all__ = ["TritDecoder"]


def digits_of(pair):
    """Return (zero, negative) of the two digits of a number from 0 to 8, the higher first."""
    values = range(9)
    high, low = [value // 3 for value in values], [value % 3 for value in values]
    return [
        tuple(chosen(pair, [digit == trit for digit in digits]) for trit in (1, 0))
        for digits in (high, low)
    ]


def chosen(index, bits):
    """Return whether `index` is one whose bit is set."""
    # Verilator objects to the `!index` that a comparison with 0 turns into.
    places = [index == at if at else ~index.any() for at in range(len(bits))]
    return Cat(place for place, bit in zip(places, bits, strict=True) if bit).any()


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
    illegal : Out, illegal_flags
        One of a few codes (pad digits included) is illegal; not masked.
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
                "illegal": Out(config.illegal_flags),
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
            self.illegal.eq(Cat(*illegal)),
        ]
        return m

    def _two_bit(self, m):
        fields = [self.codes[at : at + 2] for at in range(0, len(self.codes), 2)]
        # Digits 0, 1, 2 are trits -1, 0, +1; field 3 is illegal: a set low bit means zero.
        zero = [field[0] for field in fields]
        negative = [~field.any() for field in fields]
        pairs = [fields[at : at + 2] for at in range(0, len(fields), 2)]
        illegal = [Cat(field.all() for field in pair).any() for pair in pairs]
        return zero, negative, illegal

    def _base3(self, m):
        zero, negative, illegal = [], [], []
        for index in range(self.config.row_beat_bytes):
            digits, bad = self._byte(m, self.codes[8 * index : 8 * index + 8], f"b{index}")
            zero += [is_zero | bad for is_zero, _ in digits]
            negative += [is_negative & ~bad for _, is_negative in digits]
            illegal.append(bad)
        return zero, negative, illegal

    def _byte(self, m, byte, name):
        """Return (zero, negative) of a byte's five digits, and whether it is illegal.

        A byte is its five digits as a fraction, in 256ths: multiplied by 9, what is above the
        point is two digits at once. Two such pairs, a register, and the fifth digit.
        """
        pairs = []
        residue = byte
        for at in range(2):
            pair, residue = self._times(m, residue, 9, f"{name}_{at}")
            pairs.append(pair)
        pairs_now = Signal(8, name=f"{name}_pairs")
        residue_now = Signal(8, name=f"{name}_residue")
        m.d.sync += [pairs_now.eq(Cat(*pairs)), residue_now.eq(residue)]
        digits = [*digits_of(pairs_now[:4]), *digits_of(pairs_now[4:])]
        last, rest = self._times(m, residue_now, 3, f"{name}_2")
        # A digit is never 3: its lowest bit alone says 1, which is trit 0.
        digits.append((last[0], ~last.any()))
        # What is left after five digits is (243 * byte) mod 256.
        return digits, rest >= 243

    @staticmethod
    def _times(m, residue, factor, name):
        """Return what is above the point and what is below it, of 8 bits times 3 or 9."""
        product = Signal(8 + (factor - 1).bit_length(), name=name)
        m.d.comb += product.eq(residue + (residue << (factor - 1).bit_length() - 1))
        return product[8:], product[:8]
