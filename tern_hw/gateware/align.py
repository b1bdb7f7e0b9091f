"""Aligned activations: the unit of each group, and binary16 to integers of that unit."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig
from tern_hw.gateware.lanes import lanes_within
from tern_hw.gateware.memories import two_port_memory
from tern_hw.gateware.pipeline import add_with_carry, delay, index_bits, step_layout

__all__ = ["ActivationAligner", "AlignedLoader", "UnitFinder"]

#: Bits of the exponent field of a binary16, and what it holds where the value is not finite.
EXPONENT_BITS = 5
NONFINITE = 31
#: Cycles that the finder takes for each: who has the bit, and whether anybody has.
BIT_CYCLES = 2
#: Bits of the significand of a binary16.
SIGNIFICAND_BITS = 11
#: Bits of a shift that its first cycle does.
SMALL_SHIFT_BITS = 3


def field_of_unit(config: ArrayConfig) -> int:
    """Return the exponent field of the largest activations where a group's unit is 2**-24."""
    assert config.aligned is not None
    return config.aligned - SIGNIFICAND_BITS


class UnitFinder(wiring.Component):
    """Find the least unit in which all activations of a group are integers of W bits.

    The largest exponent is found bit by bit from the top: lanes that lack a bit which another
    has are out. Its unit is 2**(u - 24), u = max(exponent field, 1, W - 11) - (W - 11).

    Latency: `latency` = 12, `config.unit_cycles`. Throughput: a beat a cycle. Backpressure: none.

    Members
    -------
    beat : In, lanes * 16
        Activations, lane 0 lowest.
    last : In
        Index of the row's last input, counted from this beat on: lane i is real when i <= last.
    valid, first : In
        A beat is there, and it begins a group (or all of its groups).
    units : Out, segments * unit_bits
        u of each segment's group so far, this beat included.
    nonfinite : Out
        The beat has an infinity or a NaN; for one cycle.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = 1 + BIT_CYCLES * EXPONENT_BITS + 1
        super().__init__(
            {
                "beat": In(config.lanes * 16),
                "last": In(config.max_k.bit_length()),
                "valid": In(1),
                "first": In(1),
                "units": Out(config.segments * config.unit_max.bit_length()),
                "nonfinite": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        valid = delay(m, self.valid, self.latency - 1, name="valid")
        first = delay(m, self.first, self.latency - 1, name="first")
        units, bad = [], []
        for segment in range(config.segments):
            largest = self._largest(m, segment)
            bad.append(largest == NONFINITE)
            field = Signal(EXPONENT_BITS, name=f"field_{segment}")
            before = Signal(EXPONENT_BITS, name=f"before_{segment}")
            m.d.comb += before.eq(Mux(first, 0, field))
            with m.If(valid):
                m.d.sync += field.eq(Mux(largest > before, largest, before))
            units.append(self._unit(m, field, segment))
        m.d.comb += self.units.eq(Cat(*units))
        m.d.sync += self.nonfinite.eq(valid & Cat(*bad).any())
        return m

    def _largest(self, m, segment):
        """Return the largest exponent field of a segment's real lanes, `latency` - 1 later."""
        lanes = range(segment * self.config.step_inputs, (segment + 1) * self.config.step_inputs)
        real = lanes_within(self.last, self.config.lanes)[lanes.start : lanes.stop]
        able = delay(m, real, 1, name=f"s{segment}_real")
        places = range(EXPONENT_BITS)
        planes = [Cat(self.beat[16 * lane + 10 + at] for lane in lanes) for at in places]
        planes = [delay(m, each, 1, name=f"s{segment}_{at}") for at, each in enumerate(planes)]
        tops = []
        for place in reversed(places):
            bits = planes.pop()
            name = f"s{segment}_bit{place}"
            top = Signal(name=f"{name}_top")
            m.d.sync += top.eq(delay(m, able & bits, 1, name=f"{name}_has").any())
            tops.append(delay(m, top, BIT_CYCLES * place, name=f"{name}_kept"))
            if not place:
                break
            # Then: who has the bit, or all where none has it.
            able_now = delay(m, able, BIT_CYCLES, name=f"{name}_able")
            bits_now = delay(m, bits, BIT_CYCLES, name=f"{name}_plane")
            able = able_now & (bits_now | (~top).replicate(len(lanes)))
            planes = [
                delay(m, each, BIT_CYCLES, name=f"{name}_p{at}") for at, each in enumerate(planes)
            ]
        return Cat(*reversed(tops))

    def _unit(self, m, field, segment):
        lowest = field_of_unit(self.config)
        unit = Signal(self.config.unit_max.bit_length(), name=f"unit_{segment}")
        least = max(lowest, 1)
        m.d.comb += unit.eq(Mux(field > least, field, least) - lowest)
        return unit


class ActivationAligner(wiring.Component):
    """Round a word of `lanes` binary16 to integers of W bits, each in its group's unit.

    To nearest, ties away from zero: half a unit more or less is the carry-in that the negation
    has anyway. An integer that would exceed W bits (which only W < 12 allows) is the largest.

    Latency: `latency` = 5. Throughput: a word a cycle. Backpressure: none.

    Members
    -------
    word : In, lanes * 16
        Finite activations, lane 0 lowest.
    last : In
        Index of the row's last input, counted from this word on: lane i is real when i <= last,
        others become 0.
    units : In, segments * unit_bits
        See `UnitFinder`; not less than what it found for the word.
    fixed : Out, lanes * fixed_bits
        Two's-complement integers, lane 0 lowest.
    """

    LATENCY = 5

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = self.LATENCY
        super().__init__(
            {
                "word": In(config.lanes * 16),
                "last": In(config.max_k.bit_length()),
                "units": In(config.segments * config.unit_max.bit_length()),
                "fixed": Out(config.lanes * config.fixed_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bits = config.unit_max.bit_length()
        fixed = []
        real = delay(m, lanes_within(self.last, config.lanes), 1, name="real")
        for segment in range(config.segments):
            # Cycle 1: the exponent field of a significand that fills the W bits.
            full = Signal(
                range(field_of_unit(config) + config.unit_max + 1), name=f"full_{segment}"
            )
            unit = self.units[segment * bits : (segment + 1) * bits]
            m.d.sync += full.eq(unit + field_of_unit(config))
            for lane in range(segment * config.step_inputs, (segment + 1) * config.step_inputs):
                fixed.append(self._lane(m, lane, full, real[lane]))
        m.d.comb += self.fixed.eq(Cat(*fixed))
        return m

    def _lane(self, m, lane, full, real):
        """Return a lane's integer, 5 cycles after its half."""
        width = self.config.fixed_bits
        half = delay(m, self.word[16 * lane : 16 * lane + 16], 1, name=f"half_{lane}")
        fraction, field, sign = half[:10], half[10:15], half[15]
        normal = field.any()
        # Cycle 2: how far below the largest.
        down = Signal(EXPONENT_BITS, name=f"down_{lane}")
        significand = Signal(SIGNIFICAND_BITS, name=f"significand_{lane}")
        sign_2, real_2 = Signal(name=f"sign_{lane}_2"), Signal(name=f"real_{lane}_2")
        m.d.sync += [
            # full - max(field, 1), in one carry chain.
            down.eq(add_with_carry(full.as_signed(), ~field.as_signed(), normal)),
            significand.eq(Cat(fraction, normal)),
            sign_2.eq(sign & real),
            real_2.eq(real),
        ]
        # Cycles 3 and 4: the magnitude, and below it the half unit; the small shifts first.
        spare = width - SIGNIFICAND_BITS
        top = significand << spare if spare >= 0 else significand >> -spare
        partly, placed = Signal(width, name=f"partly_{lane}"), Signal(width, name=f"placed_{lane}")
        far = delay(m, down[SMALL_SHIFT_BITS:], 1, name=f"far_{lane}") << SMALL_SHIFT_BITS
        real_3 = delay(m, real_2, 1, name=f"real_{lane}_3")
        m.d.sync += [
            partly.eq(top >> down[:SMALL_SHIFT_BITS]),
            placed.eq((partly >> far) & real_3.replicate(width)),
        ]
        # Cycle 5: a carry-in negates, or rounds up, or (both) rounds a negative one down.
        magnitude, guard = placed[1:], placed[0]
        if spare < 1:
            guard = guard & ~magnitude.all()
        sign_4 = delay(m, sign_2, 2, name=f"sign_{lane}_2")
        value = Signal(width, name=f"value_{lane}")
        inverted = Cat(magnitude ^ sign_4.replicate(width - 1), sign_4)
        m.d.sync += value.eq(inverted + (sign_4 ^ guard))
        return value


class AlignedLoader(wiring.Component):
    """Keep a token's beats and the units of its groups; give each word back aligned.

    Two passes, since a group's unit is known behind its last beat only: beats come in, and after
    `config.unit_cycles` their words may be asked for. Units stay for the scale and shift.

    Latency: `latency` = 6 from `align` to `fixed`; `unit` 1 from its place.
    Throughput: a beat, and a word, a cycle, one of the two. Backpressure: none.

    Members
    -------
    beat : In, lanes * 16
    last : In
        Index of the row's last input, counted from this beat or word on.
    chunk : In
        Address of the beat or word.
    step : In, step_layout
        Its place; valid when it is a beat.
    align : In
        The word is asked for.
    fixed : Out, lanes * fixed_bits
        See `ActivationAligner`.
    nonfinite : Out
        A beat had an infinity or a NaN; for one cycle.
    used : In, step_layout
        While no word is asked for: the step whose unit is read, and in the next cycle
    unit : Out
        the unit of its group.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.finder = UnitFinder(config)
        self.aligner = ActivationAligner(config)
        self.latency = 1 + self.aligner.latency
        super().__init__(
            {
                "beat": In(config.lanes * 16),
                "last": In(config.max_k.bit_length()),
                "chunk": In(index_bits(config.max_chunks)),
                "step": In(step_layout(config)),
                "align": In(1),
                "fixed": Out(config.lanes * config.fixed_bits),
                "nonfinite": Out(1),
                "used": In(step_layout(config)),
                "unit": Out(config.unit_max.bit_length()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.finder = finder = self.finder
        m.submodules.aligner = aligner = self.aligner
        m.submodules.halves = halves = two_port_memory(
            self.config.lanes * 16, self.config.max_chunks
        )
        write, read = halves.write_port(), halves.read_port()
        # A packet that ended early leaves a group behind that no beat has ended.
        first = Signal(init=1)
        with m.If(self.align):
            m.d.sync += first.eq(1)
        with m.Elif(self.step.valid):
            m.d.sync += first.eq(self.step.group_last)
        m.d.comb += [
            finder.beat.eq(self.beat),
            finder.last.eq(self.last),
            finder.valid.eq(self.step.valid),
            finder.first.eq(first),
            self.nonfinite.eq(finder.nonfinite),
            write.data.eq(self.beat),
            write.addr.eq(self.chunk),
            write.en.eq(self.step.valid),
            read.addr.eq(self.chunk),
            read.en.eq(1),
            aligner.word.eq(read.data),
            aligner.last.eq(delay(m, self.last, 1, name="last")),
            aligner.units.eq(self._units(m, finder)),
            self.fixed.eq(aligner.fixed),
        ]
        return m

    def _units(self, m, finder):
        """Keep what the finder found; return the units of the word, or of the step in use."""
        config = self.config
        # A word of the memory: a group's unit, or those of a beat's groups.
        places = config.max_groups if config.segments == 1 else config.max_chunks
        m.submodules.group_units = units = two_port_memory(len(finder.units), places)
        write, read = units.write_port(), units.read_port()
        late = delay(m, self._place(self.step), finder.latency, name="place")
        # Every beat writes what its group has so far; the last one's stays.
        found = delay(m, self.step.valid, finder.latency, name="found")
        used = self._place(self.used)
        m.d.comb += [
            write.data.eq(finder.units),
            write.addr.eq(late),
            write.en.eq(found),
            read.addr.eq(Mux(self.align, self._place(self.step), used)),
            read.en.eq(1),
        ]
        segment = delay(m, self.used.segment, 1, name="segment")
        m.d.comb += self.unit.eq(read.data.word_select(segment, len(self.unit)))
        return read.data

    def _place(self, step):
        return step.group if self.config.segments == 1 else step.chunk
