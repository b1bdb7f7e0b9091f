"""The array without its registers: packets in, one job at a time, results out."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring

from tern_hw.config import Activation, ArrayConfig
from tern_hw.gateware.align import AlignedLoader
from tern_hw.gateware.convert import ActivationConverter
from tern_hw.gateware.credit import CreditCounter
from tern_hw.gateware.dot import GroupDot
from tern_hw.gateware.frame import packet_gate
from tern_hw.gateware.lanes import LaneMask
from tern_hw.gateware.memories import Ring, two_port_memory
from tern_hw.gateware.pipeline import delay, delay_lines
from tern_hw.gateware.results import ResultUnit
from tern_hw.gateware.scale import ScaleShift
from tern_hw.gateware.sequencer import Sequencer, State, is_in
from tern_hw.gateware.streams import core_ports
from tern_hw.gateware.walk import JobWalk

__all__ = ["INPUTS", "ArrayCore"]

#: The input streams, in the order of their error flags and stall counters.
INPUTS = ("activation", "weight", "scale")


class ArrayCore(wiring.Component):
    """Run jobs: load the activations, stream the weights and scales through, stream results out.

    The data path is a pipeline without a stall: a step is issued only when its beats are there
    and its results will find a place, so nothing behind the issue ever waits.

    Latency: `latency` from a row block's last step to the transfer of its first result.
    Throughput: a step (`lanes` x `rows` trits) a cycle; a row block takes at least `rows`
    cycles, and where products are computed in turn, groups end at most every other one.
    Backpressure: at the issue, by credits.

    Members
    -------
    activation_t*, weight_t*, scale_t* : In, AXI4-Stream
    result_t* : Out, AXI4-Stream
    start, last_n, last_k : In
        See `Sequencer`.
    busy, finished, counting, faults, stalls : Out
        See `RegisterFile`.
    """

    def __init__(self, config: ArrayConfig):
        self.config = config
        aligned = config.aligned is not None
        self.converter = AlignedLoader(config) if aligned else ActivationConverter(config)
        self.dots = [GroupDot(config) for _ in range(config.rows)]
        self.scales = [ScaleShift(config) for _ in range(config.rows)]
        self.sum_latency = config.issue_cycles + self.dots[0].latency + self.scales[0].latency
        self.results = ResultUnit(config, depth=config.result_places)
        self.latency = self.sum_latency + self.results.latency
        super().__init__(core_ports(config))

    def blocks(self) -> dict[str, int]:
        """Return the latency by block."""
        return {
            "issue": self.config.issue_cycles,
            "decoder": self.dots[0].decoder.latency,
            "operands": self.config.operand_cycles,
            "tree": self.dots[0].tree.latency,
            "group_sum": 1,
            "scale_shift": self.scales[0].latency,
            "results": self.results.latency,
        }

    def elaborate(self, platform):
        m = Module()
        m.submodules.sequencer = sequencer = Sequencer(self.config)
        gates = self._gates(m, sequencer)
        m.d.comb += [
            sequencer.start.eq(self.start),
            sequencer.last_n.eq(self.last_n),
            sequencer.last_k.eq(self.last_k),
            self.busy.eq(sequencer.busy),
        ]
        nonfinite = Signal()
        x = self._activations(m, sequencer)
        mask = self._lanes(m, sequencer, nonfinite)
        illegal = Signal()
        tags = self._dots(m, sequencer, x, mask, illegal)
        scale_nonfinite = Signal()
        summed = self._scales(m, sequencer, gates["scale"], tags, scale_nonfinite)
        over = self._results(m, sequencer, summed, nonfinite)
        closed = Cat(gates[name].closed for name in INPUTS).all()
        finishing = is_in(sequencer.state, State.FINISH)
        m.d.comb += [
            sequencer.over.eq(over & closed),
            self.finished.eq(finishing & over & closed),
            self.counting.eq(sequencer.busy & ~over),
            self.faults.eq(
                Cat(
                    nonfinite,
                    scale_nonfinite,
                    illegal,
                    *(gates[name].misframed for name in INPUTS),
                )
            ),
            self.stalls.eq(
                Cat(
                    sequencer.activation_stall,
                    sequencer.weight_stall,
                    sequencer.scale_stall,
                    sequencer.room_stall | (finishing & self.result_tvalid & ~self.result_tready),
                )
            ),
        ]
        return m

    def _gates(self, m, sequencer):
        """Put a gate on every input; the sequencer takes activations and weights itself."""
        gates = {name: packet_gate(m, self, name) for name in INPUTS}
        for name in ("activation", "weight"):
            m.d.comb += [
                gates[name].take.eq(getattr(sequencer, f"{name}_take")),
                gates[name].final.eq(getattr(sequencer, f"{name}_final")),
                getattr(sequencer, f"{name}_present").eq(gates[name].present),
                getattr(sequencer, f"{name}_late").eq(gates[name].late),
            ]
        m.d.comb += sequencer.activation_closed.eq(gates["activation"].closed)
        return gates

    def _activations(self, m, sequencer):
        """Write what is loaded; return the activations of a step, `memory_cycles` after it."""
        config = self.config
        m.submodules.converter = converter = self.converter
        m.submodules.activations = words = two_port_memory(
            config.lanes * config.fixed_bits, config.max_chunks
        )
        write, read = words.write_port(), words.read_port()
        beat = Signal.like(self.activation_tdata, name="arrived_activations", reset_less=True)
        m.d.sync += beat.eq(self.activation_tdata)
        late = converter.latency
        written = delay(m, sequencer.load_open, late, name="written")
        chunk = sequencer.step.chunk
        m.d.comb += [
            converter.beat.eq(beat),
            write.data.eq(converter.fixed),
            write.addr.eq(delay(m, sequencer.load_chunk, late, name="load_chunk")),
            write.en.eq(written),
            read.addr.eq(chunk),
            read.en.eq(1),
        ]
        if config.aligned is not None:
            m.d.comb += [
                converter.last.eq(sequencer.load_last),
                converter.chunk.eq(sequencer.load_chunk),
                converter.step.eq(sequencer.beat_step),
                converter.align.eq(sequencer.load_write),
            ]
        # No reset: a block RAM's own output register can be this one.
        x = Signal.like(read.data, name="read_activations", reset_less=True)
        m.d.sync += x.eq(read.data)
        return x

    def _lanes(self, m, sequencer, nonfinite):
        """Return the lanes of a step that count, by the last cycle of its decoder."""
        m.submodules.lanes = lanes = LaneMask(self.config)
        step = sequencer.step
        exact = self.config.activation is Activation.FP16 and self.config.aligned is None
        last = sequencer.load_last[: len(lanes.last)]
        if exact:
            # In every beat one looks for infinities; but for the last one's, all lanes are real.
            last |= (~sequencer.load_final).replicate(len(last))
        m.d.comb += [
            lanes.load.eq(sequencer.load_open),
            lanes.last.eq(last),
            lanes.segment.eq(step.segment),
            lanes.ragged.eq(step.ragged),
        ]
        if self.config.aligned is not None:
            m.d.comb += nonfinite.eq(self.converter.nonfinite)
        elif exact:
            written = delay(m, sequencer.load_write, self.converter.latency, name="converted")
            m.d.sync += nonfinite.eq(written & (self.converter.nonfinite & lanes.real).any())
        return delay(m, lanes.mask, self.config.decode_cycles - 1, name="mask")

    def _dots(self, m, sequencer, x, mask, illegal):
        """Feed the rows' dot products; return the step's tag, by cycles since its issue."""
        config = self.config
        dot = self.dots[0]
        step = sequencer.step
        tags = delay_lines(m, step, dot.latency, name="step")
        decoded = tags[dot.decode_latency + 1]
        masked = tags[dot.decode_latency - 1]
        checked = decoded.valid & ~decoded.load & decoded.weighted
        flags = []
        bits = 8 * config.row_beat_bytes
        # A beat's way into the array begins with a register; no reset, as its tag has one.
        codes = Signal.like(self.weight_tdata, name="arrived_weights", reset_less=True)
        m.d.sync += codes.eq(self.weight_tdata)
        for row, unit in enumerate(self.dots):
            m.submodules[f"dot_{row}"] = unit
            m.d.comb += [
                unit.codes.eq(codes[row * bits : (row + 1) * bits]),
                unit.mask.eq(mask),
                # Row 0 sums the activations while they are loaded: X needs no tree of its own.
                unit.ones.eq(masked.load if row == 0 else 0),
                unit.x.eq(x),
                unit.valid.eq(tags[dot.latency - 1].valid),
                unit.last.eq(tags[dot.latency - 1].group_last),
            ]
            flags.append(unit.illegal & decoded.rows[row])
        m.d.sync += illegal.eq(checked & Cat(*flags).any())
        return tags

    def _scales(self, m, sequencer, gate, tags, nonfinite):
        """Take scale beats, keep the sums X, and scale; return the tag of finished row sums."""
        config = self.config
        ring = self._scale_ring(m, sequencer, gate)
        m.submodules.group_sums = sums = two_port_memory(config.sum_bits, config.max_groups)
        write, read = sums.write_port(), sums.read_port()
        before, tag = tags[-2], tags[-1]
        ends = tag.valid & tag.group_last
        # The factors come a cycle before the sums.
        ahead = ring.LATENCY + 2
        taken = tags[-ahead - 2]
        m.d.sync += ring.take.eq(taken.valid & ~taken.load & taken.scaled)
        scaled = delay(m, ring.take, ahead, name="scaled")
        m.d.comb += [
            write.addr.eq(tag.group),
            write.data.eq(self.dots[0].total),
            write.en.eq(ends & tag.load),
            read.addr.eq(before.group),
            read.en.eq(1),
        ]
        pairs = data.ArrayLayout(data.StructLayout({"scale": 16, "shift": 16}), config.rows)
        # A block RAM answers late in the cycle: its word goes on from a register of its own.
        word = Signal.like(ring.word, name="read_factors", reset_less=True)
        m.d.sync += word.eq(ring.word)
        factors = data.View(pairs, word)
        for row, (dot, unit) in enumerate(zip(self.dots, self.scales, strict=True)):
            m.submodules[f"scale_{row}"] = unit
            m.d.comb += [
                unit.valid.eq(ends & ~tag.load),
                unit.last.eq(tag.row_last),
                unit.dot.eq(dot.total),
                unit.inputs.eq(read.data.as_signed()),
                unit.scale.eq(factors[row].scale),
                unit.shift.eq(factors[row].shift),
                unit.scaled.eq(scaled & tag.rows[row]),
            ]
            if config.aligned is not None:
                m.d.comb += unit.unit.eq(self.converter.unit)
        if config.aligned is not None:
            m.d.comb += self.converter.used.eq(before)
        m.d.comb += nonfinite.eq(Cat(unit.nonfinite for unit in self.scales).any())
        return delay(m, tag, self.scales[0].latency, name="summed")

    def _scale_ring(self, m, sequencer, gate):
        config = self.config
        m.submodules.scale_ring = ring = Ring(
            width=8 * config.scale_beat_bytes, depth=config.scale_depth
        )
        m.submodules.scale_walk = walk = JobWalk(
            rows=config.rows,
            quantum=None if config.group_size == "row" else config.group_size,
            max_n=config.max_n,
            max_k=config.max_k,
        )
        m.submodules.scale_credit = credit = CreditCounter(
            limit=config.scale_places, initial=0, cost=1
        )
        arrives = gate.present & credit.spare
        m.d.comb += [
            walk.start.eq(self.start),
            walk.last_n.eq(sequencer.last_n),
            walk.last_k.eq(sequencer.last_k),
            walk.advance.eq(self.start | arrives),
            gate.take.eq(credit.spare),
            gate.final.eq(walk.row_last & walk.block_last),
            ring.data.eq(self.scale_tdata),
            ring.write.eq(arrives),
            credit.start.eq(self.start),
            credit.give.eq(arrives),
            credit.claim.eq(sequencer.scale_claim),
            credit.waive.eq(gate.closed),
            sequencer.scale_ready.eq(credit.enough),
            sequencer.scale_available.eq(credit.backed),
        ]
        return ring

    def _results(self, m, sequencer, tag, nonfinite):
        """Send finished rows out; return whether the job's last result has left."""
        config = self.config
        m.submodules.results = results = self.results
        m.submodules.room = room = CreditCounter(
            limit=results.depth, initial=results.depth, cost=config.rows
        )
        leaves = self.result_tvalid & self.result_tready
        over = Signal(init=1)
        with m.If(self.start):
            m.d.sync += over.eq(0)
        with m.Elif(leaves & self.result_tlast):
            m.d.sync += over.eq(1)
        hopeless = Signal()
        with m.If(self.start):
            m.d.sync += hopeless.eq(0)
        with m.Elif(nonfinite | sequencer.activation_missing):
            m.d.sync += hopeless.eq(1)
        m.d.comb += [
            room.start.eq(self.start),
            room.give.eq(leaves),
            room.claim.eq(sequencer.room_claim),
            sequencer.room.eq(room.enough),
            results.valid.eq(tag.valid & ~tag.load & tag.row_last),
            results.rows.eq(tag.rows),
            results.last.eq(tag.block_last),
            results.totals.eq(Cat(unit.total for unit in self.scales)),
            results.nans.eq(
                Cat(unit.nan for unit in self.scales) | tag.poison.replicate(config.rows)
            ),
            results.all_nan.eq(hopeless),
            self.result_tdata.eq(results.results.payload.value),
            self.result_tlast.eq(results.results.payload.last),
            self.result_tvalid.eq(results.results.valid),
            results.results.ready.eq(self.result_tready),
        ]
        return over
