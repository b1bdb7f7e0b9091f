"""One block of the array as Verilog of its own, to be synthesised and measured alone."""

from collections.abc import Callable

from amaranth.back import verilog
from amaranth.lib import wiring

from tern_hw.config import ArrayConfig
from tern_hw.gateware.dot import GroupDot
from tern_hw.gateware.scale import ScaleShift

__all__ = ["SINGLE_BLOCKS", "emit_single"]

#: Name -> block: one row's dot product over a group, and one row's scale and shift.
SINGLE_BLOCKS: dict[str, Callable[[ArrayConfig], wiring.Component]] = {
    "dot": GroupDot,
    "scale": ScaleShift,
}


def emit_single(config: ArrayConfig, name: str) -> str:
    """Return the Verilog of one of `SINGLE_BLOCKS`, its module of the same name."""
    block = SINGLE_BLOCKS[name](config)
    return verilog.convert(block, name=name, emit_src=False, strip_internal_attrs=True)
