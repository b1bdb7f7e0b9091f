"""The floating-point opponent: a fused multiply-add of binary16 operands, written for area."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import OutputFormat
from tern_hw.gateware.adders import Adders
from tern_hw.gateware.fp16_model import FORMATS, FloatFormat, multiply_add
from tern_hw.gateware.fp16_window import HALF_BITS, WINDOWS
from tern_hw.gateware.pipeline import add_with_carry

__all__ = ["BOUNDARIES", "Fp16Mac"]

#: Where a register may stand, in the order of the data. Those of the product are outside the loop
#: that an accumulator closes.
BOUNDARIES = ("rows", "product", "align", "place", "add", "coarse", "fine", "normal", "round")
#: The same in the order in which a deeper pipeline takes them.
PRIORITY = ("round", "product", "add", "coarse", "place", "normal", "rows", "align", "fine")


class Fp16Mac(wiring.Component):
    """Round a * b + c once, to nearest even, in the format of c (IEEE 754-2019, 5.4.1).

    Subnormals, signed zeros and infinities are handled; every NaN out is the canonical quiet
    one. The product is exact, stands still, and the accumulator is shifted to it: one shifter
    before the adder, one behind it. A negative difference stays as it is until the rounding,
    which completes its negation; the normalising shift ends where the exponent does, so that
    subnormal results need nothing of their own.

    Latency: `latency` = `registers` cycles from `a`, `b`; `loop` of them from `c`, which comes
    `latency` - `loop` cycles later. Throughput: a result a cycle. Backpressure: none.

    Parameters
    ----------
    accumulator : OutputFormat
        Format of `c` and `result`.
    registers : int
        Pipeline registers, 0 (combinational) to 9; their places are `boundaries`.
    adders : Adders
        How carry chains are made.
    dsp : bool
        Leave the significands' product to synthesis, which takes a multiplier where it may.

    Members
    -------
    a, b : In, 16
        binary16.
    c : In, result bits
    result : Out, result bits
    """

    def __init__(
        self,
        accumulator: OutputFormat = OutputFormat.FP16,
        *,
        registers: int = 0,
        adders: Adders | None = None,
        dsp: bool = False,
    ):
        if not 0 <= registers <= len(BOUNDARIES):
            raise ValueError(f"registers must be 0 to {len(BOUNDARIES)}, not {registers!r}")
        self.format: FloatFormat = FORMATS[accumulator]
        self.window = WINDOWS[accumulator]
        self.wide = accumulator is OutputFormat.FP32
        self.adders = adders or Adders()
        self.dsp = dsp
        self.boundaries = frozenset(PRIORITY[:registers])
        self.latency = registers
        self.loop = len(self.boundaries - {"rows", "product"})
        bits = self.format.bits
        super().__init__({"a": In(16), "b": In(16), "c": In(bits), "result": Out(bits)})

    def model(self, a: int, b: int, c: int) -> int:
        """Return the result's bits, by exact integer arithmetic."""
        return multiply_add(a, b, c, self.format)

    def elaborate(self, platform):
        m = Module()
        now = self._product(m)
        now = self._align(m, now)
        now = self._place(m, now)
        now = self._add(m, now)
        now = self._coarse(m, now)
        now = self._fine(m, now)
        now = self._last(m, now)
        result = self._round(m, now)
        m.d.comb += self.result.eq(self._boundary(m, "round", {"result": result})["result"])
        return m

    def _boundary(self, m, name, values):
        """Return the values, registered if a register stands here."""
        held = {}
        for key, value in values.items():
            held[key] = Signal.like(value, name=f"{name}_{key}")
            domain = m.d.sync if name in self.boundaries else m.d.comb
            domain += held[key].eq(value)
        return held

    # ----------------------------------------------------------------- product

    def _product(self, m):
        """Return the product's 22 bits, sign, exponent e_a + e_b + offset, and what it is."""
        sides = [self._operand(m, half, name) for half, name in ((self.a, "a"), (self.b, "b"))]
        (sig_a, exp_a, zero_a, top_a, some_a), (sig_b, exp_b, zero_b, top_b, some_b) = sides
        nan = (top_a & some_a) | (top_b & some_b) | (top_a & zero_b) | (top_b & zero_a)
        exponent = Signal(signed(7), name="exponent_sum")
        m.d.comb += exponent.eq(exp_a + exp_b)
        values = {
            "sign": self.a[15] ^ self.b[15],
            "exponent": exponent,
            "zero": zero_a | zero_b,
            "special": top_a | top_b,
            "nan": nan,
        }
        if self.dsp:
            now = self._boundary(m, "rows", values | {"x": sig_a, "y": sig_b})
            now["product"] = now.pop("x") * now.pop("y")
            return self._boundary(m, "product", now)
        # The first half of the rows, a register, the others.
        half = HALF_BITS // 2
        part, done = self.adders.add_rows(m, sig_a, sig_b[:half])
        values |= {"part": part, "done": done, "x": sig_a, "y": sig_b[half:]}
        values = self._boundary(m, "rows", values)
        x, y = values.pop("x"), values.pop("y")
        part, done = self.adders.add_rows(m, x, y, values.pop("part"))
        values["product"] = Cat(values.pop("done"), done, part)
        return self._boundary(m, "product", values)

    def _operand(self, m, half, name):
        """Return (significand, exponent, is zero, exponent all ones, fraction not zero)."""
        fraction, field = half[:10], half[10:15]
        normal, some = Signal(name=f"{name}_normal"), Signal(name=f"{name}_some")
        m.d.comb += [normal.eq(field.any()), some.eq(fraction.any())]
        zero, top = ~normal & ~some, field.all()
        if not self.wide:
            return Cat(fraction, normal), Cat(field[0] | ~normal, field[1:]), zero, top, some
        return *self._normalised(m, fraction, field, normal, name), zero, top, some

    def _normalised(self, m, fraction, field, normal, name):
        """Return (significand with its highest bit set, exponent), shifting a subnormal."""
        value = Cat(fraction, normal)
        shift: list[Signal] = []
        for distance in (8, 4, 2, 1):
            empty = Signal(name=f"{name}_empty_{distance}")
            m.d.comb += empty.eq(~value[-distance:].any())
            shift.insert(0, empty)
            moved = Signal(HALF_BITS, name=f"{name}_moved_{distance}")
            m.d.comb += moved.eq(Mux(empty, value << distance, value))
            value = moved
        # A subnormal's exponent is 1, less the shift: ~shift + 2, and its shift is at least 1.
        exponent = Signal(signed(6), name=f"{name}_exponent")
        m.d.comb += exponent.eq(Mux(normal, field, 1 - Cat(*shift)))
        return value, exponent

    # --------------------------------------------------------------- alignment

    def _align(self, m, now):
        """Unpack c and shift it by its distance modulo 16."""
        form = self.format
        fraction = self.c[: form.precision - 1]
        field, sign = self.c[form.precision - 1 : -1], self.c[-1]
        normal, top = field.any(), field.all()
        exponent = Signal(form.exponent_bits)
        m.d.comb += exponent.eq(Cat(field[0] | ~normal, field[1:]))
        anchor = Signal(signed(form.exponent_bits + 2))
        m.d.comb += anchor.eq(_plus_power(now.pop("exponent"), self.window.offset))
        distance = Signal(signed(form.exponent_bits + 2))
        m.d.comb += distance.eq(anchor - exponent)
        # An accumulator far above the product, or alone, stands at the top.
        near, alone = Signal(), now.pop("zero")
        m.d.comb += near.eq(~distance[-1] & ~alone)
        moved = Cat(fraction, normal)
        for at in range(4):
            by = 1 << at
            grown = Signal(len(moved) + by, name=f"aligned_{by}")
            chosen = distance[at] & near
            m.d.comb += grown.eq(Mux(chosen, moved, Cat(Const(0, by), moved)))
            moved = grown
        now["nan"] = now["nan"] | (top & fraction.any())
        now |= {
            "moved": moved,
            "blocks": distance[4 : form.exponent_bits + 1] & near.replicate(form.exponent_bits - 3),
            "sign_c": sign,
            "limit": Mux(near, anchor[:-1], exponent)[: form.exponent_bits + self._spare],
            "special_c": top,
        }
        if self.wide:
            now["alone"] = alone
        return self._boundary(m, "align", now)

    @property
    def _spare(self) -> int:
        """Exponent bits beyond the format's: a product of binary16 may exceed it."""
        return 0 if self.wide else 1

    def _place(self, m, now):
        """Put the shifted c into the window by multiples of 16; what falls out is sticky."""
        moved, blocks = now.pop("moved"), now.pop("blocks")
        width = self.window.bits(self.format.precision)
        places = [j for j in range(4) if 16 * j < width]
        hot = Signal(len(places))
        m.d.comb += hot.eq(Cat(blocks == j for j in places))
        top_first = list(reversed(moved))
        bits = []
        for at in range(width):
            sources = [(j, at - 16 * j) for j in places if 0 <= at - 16 * j < len(moved)]
            bits.append([(hot[j], top_first[index]) for j, index in sources])
        lost = [~hot.any() & moved.any()]
        for j in places:
            fallen = top_first[max(0, width - 16 * j) :]
            if fallen:
                lost.append(hot[j] & Cat(*fallen).any())
        now |= {"sub": now["sign"] ^ now["sign_c"], "sticky": Cat(*lost).any()}
        # A bit with one source is masked in the adder, one with several before it.
        ors = [
            single[0][1] if len(single) == 1 else Cat(*(h & x for h, x in single)).any()
            for single in bits
        ]
        masks = [single[0][0] if len(single) == 1 else Const(1) for single in bits]
        now |= {"operand": Cat(*reversed(ors)), "mask": Cat(*reversed(masks))}
        return self._boundary(m, "place", now)

    def _add(self, m, now):
        """Add or subtract; a negative difference is left as it is."""
        width = self.window.bits(self.format.precision)
        sub, sticky = now["sub"], now["sticky"]
        product = Cat(Const(0, self.window.low), now.pop("product"))
        padded = Cat(product, Const(0, width - len(product)))
        total = self.adders.add(
            m,
            padded,
            now.pop("operand"),
            now.pop("mask"),
            sub.replicate(width),
            sub & ~sticky,
        )
        now["negative"] = sub & ~total[width]
        now["total"] = total[:width]
        return self._boundary(m, "add", now)

    # ----------------------------------------------------------- normalisation

    def _coarse(self, m, now):
        """Shift the leading one up by multiples of 16, no further than the exponent allows."""
        negative, limit = now["negative"], now["limit"]
        keep = self.format.precision + 1 + 15
        # The bit above the window is that of a sign; highest first.
        bits = [negative, *reversed(now.pop("total"))]
        steps = (len(bits) - 1) // 16
        empty = Signal(steps)
        for j in range(steps):
            block = Cat(*bits[16 * j : 16 * j + 16])
            # 16, 32; only a wide window has 48, and asks no exponent.
            allowed = self._at_least(now, limit, 16 << j)
            before = empty[j - 1] if j else Const(1)
            m.d.comb += empty[j].eq(before & allowed & _uniform(block, negative))
        # Blocks to skip, one-hot.
        hot = Signal(steps + 1)
        m.d.comb += hot.eq(Cat(Const(1), empty) & ~Cat(empty, Const(0)))
        kept = []
        for at in range(keep):
            sources = [(j, at + 16 * j) for j in range(steps + 1) if at + 16 * j < len(bits)]
            kept.append(Cat(*(hot[j] & bits[index] for j, index in sources)).any())
        rest = [
            hot[j] & Cat(*bits[keep + 16 * j :]).any()
            for j in range(steps + 1)
            if bits[keep + 16 * j :]
        ]
        now["rest"] = Cat(*rest).any()
        now["kept"] = Cat(*reversed(kept))
        now["limit"] = self._less(m, limit, empty, 4)
        return self._boundary(m, "coarse", now)

    def _at_least(self, now, limit, distance):
        """Return whether the exponent allows a shift by a power of two."""
        if self.wide:
            # Only an accumulator alone may be subnormal, and it stands where it belongs.
            return ~now["alone"]
        return limit[distance.bit_length() - 1 :].any()

    def _less(self, m, limit, ones, at):
        """Return limit - 2**at for each of the (sorted) ones."""
        value = limit
        for index in range(len(ones)):
            lower = Signal.like(limit)
            taken, bits = ones[index], []
            for bit in range(len(limit)):
                if bit < at:
                    bits.append(value[bit])
                else:
                    bits.append(value[bit] ^ taken)
                    taken = taken & ~value[bit]
            m.d.comb += lower.eq(Cat(*bits))
            value = lower
        return value

    def _fine(self, m, now):
        """Shift by 8 and by 4."""
        for distance, at in ((8, 3), (4, 2)):
            chosen = self._step(m, now, distance, self._at_least(now, now["limit"], distance))
            now["limit"] = self._less(m, now["limit"], chosen, at)
        return self._boundary(m, "fine", now)

    def _last(self, m, now):
        """Shift by 2 and by 1; their exponent goes into the rounding's adder."""
        limit = now["limit"]
        many = limit[2:].any()
        two = self._step(m, now, 2, self._at_least(now, limit, 2))
        allowed = many | Mux(two, limit[:2].all(), limit[:2].any())
        one = self._step(m, now, 1, Const(1) if self.wide else allowed)
        now |= {"two": two, "one": one}
        return self._boundary(m, "normal", now)

    def _step(self, m, now, distance, allowed):
        """Shift `kept` left by a distance if its top is empty; its lowest bits go to the rest."""
        kept, negative = now["kept"], now["negative"]
        chosen = Signal(name=f"shift_{distance}")
        m.d.comb += chosen.eq(allowed & _uniform(kept[-distance:], negative))
        width = len(kept) - distance
        moved = Signal(width, name=f"shifted_{distance}")
        m.d.comb += moved.eq(Mux(chosen, kept[:width], kept[distance:]))
        now["rest"] = now["rest"] | (~chosen & kept[:distance].any())
        now["kept"] = moved
        return chosen

    # ---------------------------------------------------------------- rounding

    def _round(self, m, now):
        """Round, complete a negation, pack; infinities and NaN last."""
        form = self.format
        kept, negative = now["kept"], now["negative"]
        value = kept ^ negative.replicate(len(kept))
        guard, last, top = value[0], value[1], value[-1]
        rest = now["rest"] | now["sticky"]
        # The negation lacks its +1: with nothing below the guard it arrives there.
        up = Mux(negative, Mux(rest, guard, guard | last), guard & (rest | last))
        # The exponent's field: limit - 2 * two - one + top.
        down = Signal(signed(3))
        m.d.comb += down.eq(Cat(now["one"] ^ top, *_borrow(now["two"], now["one"] & ~top)))
        body_bits = form.precision - 1 + form.exponent_bits + self._spare
        limit = Cat(Const(0, form.precision - 1), now["limit"], 0).as_signed()
        change = Cat(value[1:-1], down).as_signed()
        body = Signal(body_bits)
        m.d.comb += body.eq(add_with_carry(limit, change, up))
        zero = Signal()
        m.d.comb += zero.eq(now["sub"] & ~negative & ~kept.any() & ~rest)
        field = body[form.precision - 1 :]
        if self.wide:
            # The shift does not end with the exponent, and leaves one to a sum of zero.
            field = field & ~zero.replicate(len(field))
        return self._pack(m, now, body[: form.precision - 1], field, zero)

    def _pack(self, m, now, fraction, field, zero):
        """Put the result together; infinities and NaN take the place of numbers."""
        form = self.format
        special, special_c = now["special"], now["special_c"]
        nan = now["nan"] | (special & special_c & now["sub"])
        exponent = field[: form.exponent_bits]
        infinite = Signal()
        m.d.comb += infinite.eq(
            special | special_c | exponent.all() | field[form.exponent_bits :].any()
        )
        # A sum is zero only where nothing is special, but then an infinity may look so.
        of_c = ~special & (special_c | now["negative"])
        sign = Mux(of_c, now["sign_c"], now["sign"])
        positive = Mux(special | special_c, nan, zero)
        result = Signal(form.bits)
        body = Cat(
            fraction & ~infinite.replicate(len(fraction)),
            exponent | infinite.replicate(form.exponent_bits),
        )
        m.d.comb += result.eq(Cat(body, sign & ~positive) | nan << (form.precision - 2))
        return result


def _uniform(bits, negative):
    """Return whether all bits are those of the sign."""
    return ~(bits ^ negative.replicate(len(bits))).any()


def _borrow(two, more):
    """Return bits 1 and 2 of -(2 * two) - 2 * more for two bits."""
    return two ^ more, two | more


def _plus_power(value, power):
    """Return a signed value plus a power of two above its bits, which needs no adder."""
    if power == 0:
        return value
    at = power.bit_length() - 1
    padding = at - len(value)
    extended = Cat(value, value[-1].replicate(padding + 2))
    # The sum is not negative: the power's own bit is the complement of the sign.
    return Cat(extended[:at], ~value[-1])
