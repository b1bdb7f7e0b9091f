"""The array with binary16 weights, without its registers: the opponent behind the same ports."""

from amaranth.hdl import Cat, EnableInserter, Module, Mux, Signal
from amaranth.lib import data, wiring

from tern_hw.config import ArrayConfig
from tern_hw.gateware.collect import Collector
from tern_hw.gateware.frame import packet_gate
from tern_hw.gateware.mac_array import MacArray
from tern_hw.gateware.memories import two_port_memory
from tern_hw.gateware.pipeline import delay, index_bits
from tern_hw.gateware.sequencer import State
from tern_hw.gateware.streams import core_ports
from tern_hw.gateware.walk import JobWalk

__all__ = ["MacCore"]


class MacCore(wiring.Component):
    """Run jobs with binary16 weights: load the activations, then a weight beat a cycle.

    Output-stationary: `lanes` x `rows` multiply-accumulators, each with `mac_contexts` outputs in
    its loop. A block of that many outputs takes K times `mac_contexts` steps: inputs outside,
    contexts inside. Within a block everything waits for a missing beat, as a sum in the loop must
    meet its next product; between blocks the pipeline goes on, and a block begins when a bank for
    its results is free.

    Latency: `latency` from a block's last step to the transfer of its first result. Throughput: a
    step (`lanes` x `rows` weights) a cycle; a block takes at least `result_interval` cycles, an
    output each. Backpressure: at the issue.

    Members
    -------
    activation_t*, weight_t* : In, AXI4-Stream
    result_t* : Out, AXI4-Stream
    start, last_n, last_k : In
        See `Sequencer`.
    busy, finished, counting, faults, stalls : Out
        See `RegisterFile`.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        self.array = MacArray(config)
        self.collector = Collector(config)
        self.latency = self.array.latency + self.collector.latency
        super().__init__(core_ports(config))

    def blocks(self) -> dict[str, int]:
        """Return the latency by block."""
        return {"multiply_add": self.array.latency, "results": self.collector.latency}

    def elaborate(self, platform):
        m = Module()
        gates = {name: packet_gate(m, self, name) for name in self.config.input_streams}
        state = Signal(State, init=State.IDLE)
        load_write, load_chunk, loaded = self._load(m, gates["activation"], state)
        step, stalls = self._issue(m, gates["weight"], state)
        x = self._activation(m, step, load_write, load_chunk)
        self._sums(m, step, x)
        over = self._results(m, gates["activation"], state)
        closed = Cat(gate.closed for gate in gates.values()).all()
        waiting = (state == State.FINISH) & self.result_tvalid & ~self.result_tready
        m.d.comb += [
            self.busy.eq(state != State.IDLE),
            self.finished.eq((state == State.FINISH) & over & closed),
            self.counting.eq(self.busy & ~over),
            self.faults.eq(Cat(gate.misframed for gate in gates.values()) << 3),
            self.stalls.eq(
                Cat(
                    (state == State.LOAD) & ~gates["activation"].present & ~loaded,
                    stalls[0],
                    0,
                    stalls[1] | waiting,
                )
            ),
        ]
        self._phases(m, state, loaded, step, over & closed)
        return m

    def _walk(self, m, name, quantum):
        config = self.config
        m.submodules[name] = walk = JobWalk(
            rows=config.block_outputs, quantum=quantum, max_n=config.max_n, max_k=config.max_k
        )
        m.d.comb += [
            walk.start.eq(self.start),
            walk.last_n.eq(self.last_n),
            walk.last_k.eq(self.last_k),
        ]
        return walk

    def _load(self, m, gate, state):
        """Take the activations; return (write, address, all taken or none to come)."""
        walk = self._walk(m, "load_walk", self.config.lanes)
        loading = state == State.LOAD
        write, chunk = Signal(), Signal(index_bits(self.config.max_chunks))
        m.d.comb += [
            gate.take.eq(loading),
            gate.final.eq(walk.row_last),
            write.eq(loading & gate.present),
            walk.advance.eq(self.start | write),
        ]
        with m.If(self.start):
            m.d.sync += chunk.eq(0)
        with m.Elif(write):
            m.d.sync += chunk.eq(chunk + 1)
        return write, chunk, (write & walk.row_last) | gate.closed

    def _issue(self, m, gate, state):
        """Issue a step a cycle; return its tag and (weight stall, room stall)."""
        config, collector = self.config, self.collector
        m.submodules.collector = collector
        walk = self._walk(m, "walk", 1)
        layout = data.StructLayout(
            {
                "valid": 1,
                "first": 1,
                "last": 1,
                "job_last": 1,
                "poison": 1,
                "context": index_bits(config.mac_contexts),
            }
        )
        step = Signal(layout)
        context, first = Signal.like(step.context), Signal(init=1)
        last_context = context == config.mac_contexts - 1
        wait = Signal(index_bits(config.result_interval))
        begins = first & (context == 0)
        have_weight = gate.present | gate.closed
        have_room = ~begins | (collector.room & ~wait.any())
        computing = state == State.COMPUTE
        fire = Signal()
        m.d.comb += [
            fire.eq(computing & have_weight & have_room),
            gate.take.eq(computing & have_room),
            gate.final.eq(walk.row_last & walk.block_last & last_context),
            walk.advance.eq(self.start | (fire & last_context)),
            collector.claim.eq(fire & begins),
            step.valid.eq(fire),
            step.first.eq(first),
            step.last.eq(walk.row_last),
            step.job_last.eq(walk.block_last & walk.row_last & last_context),
            step.poison.eq(~gate.present),
            step.context.eq(context),
            # Only within a block does the loop hold sums that must not move.
            self.array.advance.eq(~computing | have_weight | begins),
        ]
        with m.If(self.start):
            m.d.sync += [context.eq(0), first.eq(1)]
        with m.Elif(fire):
            m.d.sync += context.eq(Mux(last_context, 0, context + 1))
            with m.If(last_context):
                m.d.sync += first.eq(walk.row_last)
        with m.If(self.start):
            m.d.sync += wait.eq(0)
        with m.Elif(collector.claim):
            m.d.sync += wait.eq(config.result_interval - 1)
        with m.Elif(wait.any()):
            m.d.sync += wait.eq(wait - 1)
        weight_stall = computing & ~have_weight & have_room
        room_stall = computing & begins & ~wait.any() & ~collector.room
        return step, (weight_stall, room_stall)

    def _activation(self, m, step, write, chunk):
        """Return the activation of the step that is issued."""
        config = self.config
        m.submodules.activations = words = two_port_memory(16 * config.lanes, config.max_chunks)
        into, out_of = words.write_port(), words.read_port()
        at = Signal(data.StructLayout({"lane": index_bits(config.lanes), "chunk": len(chunk)}))
        after = Signal.like(at)
        ends = step.valid & (step.context == config.mac_contexts - 1)
        full = at.lane == config.lanes - 1
        m.d.comb += after.eq(at)
        with m.If(self.start | (ends & step.last)):
            m.d.comb += after.eq(0)
        with m.Elif(ends):
            m.d.comb += [
                after.lane.eq(Mux(full, 0, at.lane + 1)),
                after.chunk.eq(at.chunk + full),
            ]
        m.d.sync += at.eq(after)
        m.d.comb += [
            into.addr.eq(chunk),
            into.data.eq(self.activation_tdata),
            into.en.eq(write),
            # The word of the next step, there when the step is.
            out_of.addr.eq(after.chunk),
            out_of.en.eq(1),
        ]
        return out_of.data.word_select(at.lane, 16)

    def _sums(self, m, step, x):
        """Multiply and add; hand finished sums to the collector."""
        array, collector = self.array, self.collector
        m.submodules.array = EnableInserter(array.advance)(array)
        held = Module()
        late = delay(held, step, array.latency, name="step")
        m.submodules.tags = EnableInserter(array.advance)(held)
        m.d.comb += [
            array.x.eq(x),
            array.weights.eq(self.weight_tdata),
            array.first.eq(step.first),
            collector.start.eq(self.start),
            collector.last_n.eq(self.last_n),
            collector.write.eq(late.valid & late.last & array.advance),
            collector.context.eq(late.context),
            collector.words.eq(array.sums),
            collector.poison.eq(late.poison),
        ]

    def _results(self, m, gate, state):
        """Send results out; return whether the job's last one has left."""
        collector = self.collector
        over, hopeless = Signal(init=1), Signal()
        leaves = self.result_tvalid & self.result_tready
        with m.If(self.start):
            m.d.sync += [over.eq(0), hopeless.eq(0)]
        with m.Else():
            with m.If(leaves & self.result_tlast):
                m.d.sync += over.eq(1)
            with m.If((state == State.LOAD) & gate.closed):
                m.d.sync += hopeless.eq(1)
        m.d.comb += [
            collector.all_nan.eq(hopeless),
            self.result_tdata.eq(collector.results.payload.value),
            self.result_tlast.eq(collector.results.payload.last),
            self.result_tvalid.eq(collector.results.valid),
            collector.results.ready.eq(self.result_tready),
        ]
        return over

    def _phases(self, m, state, loaded, step, over):
        with m.If(state == State.IDLE):
            with m.If(self.start):
                m.d.sync += state.eq(State.LOAD)
        with m.Elif(state == State.LOAD):
            with m.If(loaded):
                m.d.sync += state.eq(State.GAP)
        with m.Elif(state == State.GAP):
            # The last beat is written, and the first word read.
            m.d.sync += state.eq(State.COMPUTE)
        with m.Elif(state == State.COMPUTE):
            with m.If(step.valid & step.job_last):
                m.d.sync += state.eq(State.FINISH)
        with m.Elif(over):
            m.d.sync += state.eq(State.IDLE)
