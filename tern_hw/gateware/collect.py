"""From the sums of a block of outputs to the result stream: kept in two banks, sent one by one."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tern_hw.config import ArrayConfig, OutputFormat
from tern_hw.gateware.credit import CreditCounter
from tern_hw.gateware.memories import two_port_memory
from tern_hw.gateware.pipeline import index_bits
from tern_hw.gateware.results import result_layout

__all__ = ["Collector"]

#: Blocks of outputs that are kept: one is sent while the next is summed.
BANKS = 2


class Collector(wiring.Component):
    """Keep the sums of a block, a word of `lanes * rows` a cycle, and send them in order.

    Latency: `latency` from a block's last word to the transfer of its first output. Throughput: an
    output a cycle. Backpressure: none at `write`; who begins a block has claimed a bank.

    Members
    -------
    start, last_n : In
        A job begins; its last output's index.
    claim : In
        A block begins: only where `room`.
    room : Out
    write : In
        A word of sums is there, of context `context`; the contexts of a block in order.
    context : In
    words : In, lanes * rows * result_bits
    poison : In
        With a block's last word: all of its results are NaN.
    all_nan : In
        Every result of the job is NaN.
    results : Out, stream
    """

    #: Credit, register of the word, transfer.
    LATENCY = 3

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.latency = self.LATENCY
        super().__init__(
            {
                "start": In(1),
                "last_n": In(config.max_n.bit_length()),
                "claim": In(1),
                "room": Out(1),
                "write": In(1),
                "context": In(index_bits(config.mac_contexts)),
                "words": In(config.result_bits * config.lanes * config.rows),
                "poison": In(1),
                "all_nan": In(1),
                "results": Out(stream.Signature(result_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bits, count = config.result_bits, config.lanes * config.rows
        last_context = config.mac_contexts - 1
        m.submodules.room = room = CreditCounter(limit=BANKS, initial=BANKS, cost=1)
        m.submodules.whole = whole = CreditCounter(limit=BANKS, initial=0, cost=1)
        m.submodules.banks = banks = two_port_memory(bits * count, BANKS << len(self.context))
        write, read = banks.write_port(), banks.read_port()
        into, out_of = Signal(), Signal()
        poisoned = Signal(BANKS)
        ends = self.write & (self.context == last_context)
        m.d.comb += [
            write.addr.eq(Cat(self.context, into)),
            write.data.eq(self.words),
            write.en.eq(self.write),
            room.start.eq(self.start),
            room.claim.eq(self.claim),
            self.room.eq(room.enough),
            whole.start.eq(self.start),
            whole.give.eq(ends),
        ]
        with m.If(self.start):
            m.d.sync += into.eq(0)
        with m.Elif(ends):
            m.d.sync += [poisoned.bit_select(into, 1).eq(self.poison), into.eq(~into)]

        # Sending: a word in a shift register, the next one on the memory's output.
        sending, lost = Signal(), Signal()
        context = Signal(index_bits(config.mac_contexts + 1))
        word = Signal(bits * count)
        in_word = Signal(index_bits(count + 1))
        outputs = Signal.like(self.last_n)
        sent = self.results.valid & self.results.ready
        final = outputs == 0
        emptied = (in_word == 0) | ((in_word == 1) & sent)
        done = sending & emptied & (context == config.mac_contexts)
        fetch = sending & emptied & ~done & ~(sent & final)
        m.d.comb += [
            read.addr.eq(Cat(context[: len(self.context)], out_of)),
            read.en.eq(1),
            whole.claim.eq(whole.enough & ~sending),
            room.give.eq(done),
            self.results.valid.eq(in_word != 0),
            self.results.payload.last.eq(final),
            self.results.payload.value.eq(Mux(lost | self.all_nan, self._nan, word[:bits])),
        ]
        with m.If(fetch):
            m.d.sync += [word.eq(read.data), in_word.eq(count), context.eq(context + 1)]
        with m.Elif(sent):
            m.d.sync += [word.eq(word >> bits), in_word.eq(in_word - 1)]
        with m.If(self.start):
            m.d.sync += outputs.eq(self.last_n)
        with m.Elif(sent):
            m.d.sync += outputs.eq(outputs - 1)
        with m.If(self.start | (sent & final)):
            m.d.sync += [sending.eq(0), out_of.eq(0), context.eq(0), in_word.eq(0)]
        with m.Elif(whole.claim):
            m.d.sync += [sending.eq(1), lost.eq(poisoned.bit_select(out_of, 1))]
        with m.Elif(done):
            m.d.sync += [sending.eq(0), out_of.eq(~out_of), context.eq(0)]
        return m

    @property
    def _nan(self) -> int:
        return 0x7FC00000 if self.config.output is OutputFormat.FP32 else 0x7E00
