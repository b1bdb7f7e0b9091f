"""A block's emitted Verilog within an Amaranth module that states what must hold of it."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from amaranth.back import rtlil, verilog
from amaranth.hdl import (
    Assert,
    Assume,
    ClockDomain,
    ClockSignal,
    Const,
    Elaboratable,
    Instance,
    Module,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import wiring

from tern_hw.flows.smt import TOP, Method, Model, Verdict, decide

__all__ = ["Emitted", "Harness", "Property", "emitted_verilog", "history"]

#: Module name of the block in its Verilog.
NAME = "block"


def emitted_verilog(block: wiring.Component) -> str:
    """Return a block's Verilog, as `generate` would emit it."""
    text: str = verilog.convert(block, name=NAME, emit_src=False, strip_internal_attrs=True)
    return text


class Emitted(Elaboratable):
    """A block's Verilog as a submodule; its members are attributes, as the block's own are.

    As a part of an array a block lacks the ports that nobody there uses, and those members: `has`
    tells. It may have a reset besides, which stays 0.

    Parameters
    ----------
    block
        The component, for the shapes of its members.
    text
        What was emitted of it.
    """

    def __init__(self, block: wiring.Component, text: str) -> None:
        self._ports: dict[str, Any] = {}
        head = text[text.index(f"module {NAME}(") :]
        head = head[: head.index("endmodule")]
        present = re.findall(r"^  (input|output) (?:\[.*\] )?\\?(\S+?) ?;", head, re.MULTILINE)
        names = {name for _, name in present}
        self._clocked = "clk" in names
        for path, member, value in block.signature.flatten(block):
            name = "__".join(str(part) for part in path)
            if name in names:
                port = Signal(Value.cast(value).shape(), name=name)
                setattr(self, name, port)
                self._ports[f"{'i' if member.flow.name == 'In' else 'o'}_{name}"] = port
        for direction, name in present:
            if direction == "input" and name not in ("clk", "rst") and not self.has(name):
                self._ports[f"i_{name}"] = Const(0)

    def has(self, name: str) -> bool:
        """Return whether the block has this member."""
        return hasattr(self, name)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        clock = (
            {"i_clk": ClockSignal(), "i_rst": ResetSignal(allow_reset_less=True)}
            if self._clocked
            else {}
        )
        m.submodules.block = Instance(NAME, **clock, **self._ports)
        return m


class Harness(ABC):
    """Free inputs, assumptions and assertions around one emitted block.

    Members
    -------
    m : Module
        Statements go here.
    dut : Emitted
    freed : tuple of str
        Patterns of modules within the block whose outputs may be anything.
    """

    freed: tuple[str, ...] = ()

    def __init__(self, block: wiring.Component, text: str) -> None:
        self.block = block
        self.m = Module()
        self.dut = Emitted(block, text)
        self._free: list[Signal] = []

    @abstractmethod
    def state(self) -> None:
        """Add the statements."""

    def free(self, shape: Any, name: str) -> Signal:
        """Return a signal that may have any value in any cycle."""
        signal = Signal(shape, name=name)
        self._free.append(signal)
        return signal

    def free_inputs(self, *names: str) -> None:
        """Let inputs of the block have any value in any cycle."""
        for name in names:
            port = getattr(self.dut, name)
            self.m.d.comb += port.eq(self.free(port.shape(), f"any_{name}"))

    def chosen(self, shape: Any, name: str) -> Signal:
        """Return a signal that has any value, the same in all cycles."""
        signal = self.free(shape, name)
        before = Signal.like(signal, name=f"{name}_before")
        begun = Signal(name=f"{name}_begun")
        self.m.d.sync += [before.eq(signal), begun.eq(1)]
        self.assume(~begun | (signal == before))
        return signal

    def holds(self, condition: Any) -> None:
        """Say what must be true in every cycle."""
        self.m.d.comb += Assert(condition)

    def assume(self, condition: Any) -> None:
        """Say what the block may rely on, in every cycle."""
        self.m.d.comb += Assume(condition)

    def model(self, text: str) -> Model:
        """Return the harness with the block's Verilog, for a solver."""
        domain = ClockDomain("sync", reset_less=True)
        self.m.domains.sync = domain
        self.m.submodules.dut = self.dut
        self.state()
        ports = [domain.clk, *self._free]
        harness = rtlil.convert(self.m, name=TOP, ports=ports, emit_src=False)
        return Model(harness=harness, verilog=text, freed=self.freed)


def history(m: Module, value: Any, cycles: int, name: str) -> Any:
    """Return a value as it was so many cycles ago, and 0 before the first."""
    for index in range(cycles):
        earlier = Signal(Value.cast(value).shape(), name=f"{name}_{index + 1}_ago")
        m.d.sync += earlier.eq(value)
        value = earlier
    return value


@dataclass(frozen=True, kw_only=True)
class Property:
    """One promise of one block, and how it is decided."""

    block: str
    #: What holds, in words.
    text: str
    build: Callable[[], wiring.Component]
    harness: Callable[..., Harness]
    method: Method
    #: k of an induction, cycles of a bounded check, those of a pipeline beyond its latency.
    cycles: int = 0
    #: More parameters of the harness, a case each; the property is all of them.
    cases: tuple[dict[str, Any], ...] = ({},)
    #: Seconds, not minutes.
    quick: bool = True

    @property
    def is_proof(self) -> bool:
        """Whether it is decided for runs of any length."""
        return self.method is not Method.BOUNDED

    def decide(self, change: Callable[[str], str] = lambda text: text) -> tuple[Verdict, int]:
        """Return what the solver finds, up to the first case that does not hold, and the cycles.

        Parameters
        ----------
        change
            Applied to the block's Verilog before it is looked at.
        """
        begun = time.monotonic()
        block = self.build()
        text = change(emitted_verilog(block))
        flushed = block.latency + 1 if self.method is Method.PIPELINE else 0
        cycles = flushed + self.cycles
        for case in self.cases:
            model = self.harness(block, text, **case).model(text)
            verdict = decide(model, self.method, cycles)
            if not verdict.holds:
                break
        return replace(verdict, seconds=time.monotonic() - begun), cycles
