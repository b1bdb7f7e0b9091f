"""Blocks of an array through synthesis, placement and routing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tern_hw.config import ArrayConfig
from tern_hw.flows.nextpnr import Placement, place_and_route
from tern_hw.flows.pins import module_ports, pins_verilog
from tern_hw.flows.synthesis import (
    SynthesisOptions,
    SynthesisResult,
    save_synthesis,
    synthesize,
)
from tern_hw.gateware.blocks import BLOCKS, emit_block

__all__ = ["OVERHEAD_BLOCKS", "Measured", "Surroundings", "measure", "save"]

#: What the overhead of an array is computed from.
OVERHEAD_BLOCKS = ("array", "dots", "converter")
#: Names of what a block may be placed in.
REGISTERED, BARE = "registered_pins", "out_of_context"
Surroundings = str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One block of an array on one target."""

    block: str
    unit: str
    #: Of `unit` in the block, and of the block in the array.
    units: int
    copies: int
    #: Lanes x rows of the array.
    macs: int
    synthesis: SynthesisResult
    #: Surroundings -> one placement a seed; empty where nothing was placed.
    placements: dict[Surroundings, list[Placement]] = field(default_factory=dict)

    @property
    def area(self) -> float:
        return self.synthesis.counts.area

    @property
    def area_per_unit(self) -> float:
        return self.area / self.units

    @property
    def area_per_mac(self) -> float:
        """The array's share: all copies, over lanes x rows."""
        return self.area * self.copies / self.macs


def measure(
    config: ArrayConfig,
    block: str,
    options: SynthesisOptions,
    *,
    surroundings: Sequence[Surroundings] = (),
    seeds: int = 1,
    clock_mhz: float = 200.0,
    notify: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Synthesise a block, and place it once for each seed in each of its surroundings.

    Parameters
    ----------
    config
        The array.
    block
        One of `tern_hw.gateware.blocks.BLOCKS`.
    options
        Target, and what the design may use.
    surroundings
        Of "registered_pins" (within a top of four pins) and "out_of_context" (without pads).
    seeds
        Placements in each: seeds 1 to this.
    clock_mhz
        What the placer aims at.
    notify
        Called with a line where a tool has to run.

    Raises
    ------
    TernError
        If there is no such block, or a tool is missing or fails.
    """
    module, text = emit_block(config, block)
    bare = synthesize(text, module, options, notify=notify)
    placements = {}
    for where in surroundings:
        design = bare if where == BARE else _with_pins(text, module, options, notify)
        placements[where] = [
            place_and_route(
                design,
                seed=seed,
                clock_mhz=clock_mhz,
                out_of_context=where == BARE,
                notify=notify,
            )
            for seed in range(1, seeds + 1)
        ]
    entry = BLOCKS[block]
    return Measured(
        block=block,
        unit=entry.unit,
        units=entry.units(config),
        copies=entry.copies(config),
        macs=config.lanes * config.rows,
        synthesis=bare,
        placements=placements,
    )


def _with_pins(
    text: str, module: str, options: SynthesisOptions, notify: Callable[[str], None]
) -> SynthesisResult:
    top = f"{module}_pins"
    shell = pins_verilog(module, module_ports(text, module), top)
    return synthesize(text + shell, top, options, notify=notify)


def save(measured: Measured, folder: Path) -> None:
    """Copy what the tools wrote for a block into a folder: Verilog, netlists, logs, reports."""
    save_synthesis(measured.synthesis, folder / measured.block)
    for where, placements in measured.placements.items():
        for each in placements:
            each.save(folder / measured.block / where / f"seed{each.seed}")
