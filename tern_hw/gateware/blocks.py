"""Blocks of the array that can be emitted alone, to be synthesised and measured by themselves."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from tern_hw.config import ArrayConfig, Packing, Weights
from tern_hw.errors import TernError
from tern_hw.gateware.adders import adders_of
from tern_hw.gateware.array import TernaryArray
from tern_hw.gateware.convert import ActivationConverter
from tern_hw.gateware.core import ArrayCore
from tern_hw.gateware.decode import TritDecoder
from tern_hw.gateware.dot import GroupDot
from tern_hw.gateware.emit import convert
from tern_hw.gateware.fp16_mac import Fp16Mac
from tern_hw.gateware.int8_mac import Int8Mac
from tern_hw.gateware.mac_array import MacArray
from tern_hw.gateware.mac_core import MacCore
from tern_hw.gateware.mac_loop import MacLoop
from tern_hw.gateware.registers import RegisterFile
from tern_hw.gateware.rounder import Rounder
from tern_hw.gateware.scale import ScaleShift
from tern_hw.gateware.table import TableDot

__all__ = ["BLOCKS", "Block", "Rows", "TritPorts", "blocks_of", "emit_block"]


class TritPorts(TritDecoder):
    """In a decoder's place: the codes are the decoded trits themselves.

    Latency: `latency` = 0. Throughput: a beat a cycle. Backpressure: none.

    Members
    -------
    codes : In
        `nonzero` of every lane, then `negative` of every lane.
    (others)
        As `TritDecoder`'s; its other inputs are not looked at, and nothing is illegal.
    """

    def __init__(self, config: ArrayConfig):
        # Two bits of codes a lane, whatever the array's own packing.
        super().__init__(dataclasses.replace(config, packing=Packing.BITS2))
        self.latency = 0

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lanes
        m.d.comb += [
            self.nonzero.eq(self.codes[:lanes]),
            self.negative.eq(self.codes[lanes : 2 * lanes]),
        ]
        return m


class Rows(wiring.Component):
    """Units of one row beside each other, as the array has them.

    Latency, throughput, backpressure: the unit's.

    Parameters
    ----------
    units : list of wiring.Component
        One a row, all alike.
    own : collection of str
        Members that each row has for itself, side by side, row 0 lowest.
    first_only : collection of str
        Inputs of row 0 alone; 0 in the others.

    Members
    -------
    (as the unit's)
        A member in `own` is `rows` times as wide; an input that is not goes to all rows alike.
    """

    def __init__(self, units, *, own, first_only=()):
        self.units = units
        self.own = frozenset(own)
        self.first_only = frozenset(first_only)
        members = {}
        for name, member in units[0].signature.members.items():
            bits = len(Signal(member.shape))
            members[name] = member.flow(bits * len(units) if name in self.own else bits)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for row, unit in enumerate(self.units):
            m.submodules[f"row_{row}"] = unit
        for name, member in self.signature.members.items():
            ports = [getattr(unit, name) for unit in self.units]
            outer = getattr(self, name)
            if member.flow is Out:
                m.d.comb += outer.eq(Cat(*ports))
            elif name in self.own:
                m.d.comb += Cat(*ports).eq(outer)
            else:
                for row, port in enumerate(ports):
                    m.d.comb += port.eq(0 if row and name in self.first_only else outer)
        return m


class UncheckedDecoder(TritDecoder):
    """A `TritDecoder` that takes every code for legal: what the check costs is the difference."""

    def _two_bit(self, m):
        zero, negative, _ = super()._two_bit(m)
        return zero, negative, [Const(0)]

    def _byte(self, m, byte, index):
        digits, _ = super()._byte(m, byte, index)
        return digits, Const(0)


def _rows_of(config: ArrayConfig, decoder: Callable[[ArrayConfig], wiring.Component]) -> Rows:
    """Return the rows' dot products, as the array has them, each with a decoder of this kind."""
    units = [GroupDot(config, decoder(config)) for _ in range(config.rows)]
    # Row 0 alone sums the activations themselves.
    return Rows(units, own=("codes", "illegal", "total"), first_only=("ones",))


def _dots(config: ArrayConfig) -> Rows:
    return _rows_of(config, TritDecoder)


def _trees(config: ArrayConfig) -> Rows:
    return _rows_of(config, TritPorts)


def _core(config: ArrayConfig) -> ArrayCore | MacCore:
    return ArrayCore(config) if config.weights is Weights.TERNARY else MacCore(config)


def _fp16_mac(config: ArrayConfig, **options) -> MacLoop:
    return MacLoop(Fp16Mac(config.output, adders=adders_of(config), **options))


def _pipelined_mac(config: ArrayConfig) -> MacLoop:
    return _fp16_mac(config, registers=config.mac_registers)


def _dsp_mac(config: ArrayConfig) -> MacLoop:
    return _fp16_mac(config, dsp=True)


def _int8_mac(config: ArrayConfig, **options) -> MacLoop:
    return MacLoop(Int8Mac(adders=adders_of(config), **options))


def _int8_dsp_mac(config: ArrayConfig) -> MacLoop:
    return _int8_mac(config, dsp=True)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One entry of the registry: how it is made, and what its size is divided by."""

    #: One line that says what it holds.
    about: str
    #: Makes the component; its ports become the module's.
    build: Callable[[ArrayConfig], wiring.Component]
    #: What it has many of, such as "MAC" or "weight".
    unit: str
    #: How many of them.
    units: Callable[[ArrayConfig], int]
    #: How many of it the array has.
    copies: Callable[[ArrayConfig], int] = lambda config: 1
    #: It is a part of arrays with ternary weights alone.
    ternary: bool = False


def _one(config: ArrayConfig) -> int:
    return 1


def _macs(config: ArrayConfig) -> int:
    return config.lanes * config.rows


def _lanes(config: ArrayConfig) -> int:
    return config.lanes


def _rows(config: ArrayConfig) -> int:
    return config.rows


#: Name -> block, from the whole to its parts.
BLOCKS: dict[str, Block] = {
    "array": Block(
        about="the whole accelerator with its AXI ports",
        build=TernaryArray,
        unit="MAC",
        units=_macs,
    ),
    "core": Block(
        about="the accelerator without its AXI4-Lite registers",
        build=_core,
        unit="MAC",
        units=_macs,
    ),
    "dots": Block(
        about="the rows' dot products: decoder, tree and group sum, activations shared",
        build=_dots,
        unit="MAC",
        units=_macs,
        ternary=True,
    ),
    "dot": Block(
        about="the dot product of one row: decoder, tree and group sum",
        build=GroupDot,
        unit="MAC",
        units=_lanes,
        copies=_rows,
        ternary=True,
    ),
    "trees": Block(
        about="the rows' bare dot products: tree and group sum, trits decoded outside",
        build=_trees,
        unit="MAC",
        units=_macs,
        ternary=True,
    ),
    "converter": Block(
        about="activations to integers, all lanes, shared by the rows",
        build=ActivationConverter,
        unit="lane",
        units=_lanes,
        ternary=True,
    ),
    "decoder": Block(
        about="the trit decoder of one row",
        build=TritDecoder,
        unit="weight",
        units=_lanes,
        copies=_rows,
        ternary=True,
    ),
    "decoder-unchecked": Block(
        about="the same without the check for illegal codes",
        build=UncheckedDecoder,
        unit="weight",
        units=_lanes,
        copies=_rows,
        ternary=True,
    ),
    "scale": Block(
        about="scale and shift of one row, and its sum over the groups",
        build=ScaleShift,
        unit="row",
        units=_one,
        copies=_rows,
        ternary=True,
    ),
    "rounder": Block(
        about="the one rounding, shared by the rows",
        build=Rounder,
        unit="array",
        units=_one,
        ternary=True,
    ),
    "registers": Block(
        about="the AXI4-Lite registers",
        build=RegisterFile,
        unit="array",
        units=_one,
    ),
    "table": Block(
        about="one row's dot product from tables in distributed RAM: bare, in no array",
        build=TableDot,
        unit="MAC",
        units=_lanes,
        copies=_rows,
        ternary=True,
    ),
    "macs": Block(
        about="the opponent's multiply-adds of binary16, lanes x rows, as its array has them",
        build=MacArray,
        unit="MAC",
        units=_macs,
    ),
    "mac": Block(
        about="one multiply-add of binary16, unpipelined, its operands and sum in registers",
        build=_fp16_mac,
        unit="MAC",
        units=_one,
        copies=_macs,
    ),
    "mac-pipelined": Block(
        about="the same with the registers that the array gives it",
        build=_pipelined_mac,
        unit="MAC",
        units=_one,
        copies=_macs,
    ),
    "mac-dsp": Block(
        about="the unpipelined one, its product left to a multiplier",
        build=_dsp_mac,
        unit="MAC",
        units=_one,
        copies=_macs,
    ),
    "int8-mac": Block(
        about="one multiply-add of 8-bit integers into 32 bits, likewise",
        build=_int8_mac,
        unit="MAC",
        units=_one,
        copies=_macs,
    ),
    "int8-mac-dsp": Block(
        about="the same, its product left to a multiplier",
        build=_int8_dsp_mac,
        unit="MAC",
        units=_one,
        copies=_macs,
    ),
}


def blocks_of(config: ArrayConfig) -> list[str]:
    """Return the names of the blocks that may be measured beside an array."""
    ternary = config.weights is Weights.TERNARY
    return [name for name, block in BLOCKS.items() if ternary or not block.ternary]


def emit_block(config: ArrayConfig, name: str) -> tuple[str, str]:
    """Emit the Verilog of one block of an array.

    Parameters
    ----------
    config : ArrayConfig
    name : str
        One of `BLOCKS`.

    Returns
    -------
    module, text : str
        Name of the top module; "array" has the array's own, the others the block's added.

    Raises
    ------
    TernError
        If there is no such block, or only with ternary weights.
    """
    known = blocks_of(config)
    if name not in known:
        raise TernError(f"block must be one of {', '.join(known)}, not {name!r}")
    suffix = "" if name == "array" else f"_{name.replace('-', '_')}"
    module = config.name + suffix
    return module, convert(BLOCKS[name].build(config), module)
