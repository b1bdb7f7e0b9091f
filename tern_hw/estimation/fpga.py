"""The area of an array on an FPGA, by the fit to our own synthesis, and its share of a device."""

from typing import Any, Final

from tern_hw.config import ArrayConfig
from tern_hw.costs.fpga import fitted_area
from tern_hw.errors import TernError

__all__ = ["DEVICES", "fpga_facts"]

#: Family -> largest device that nextpnr places, and its LUTs (TRELLIS_COMB in nextpnr's report).
DEVICES: Final[dict[str, tuple[str, int]]] = {"ecp5": ("LFE5U-85F", 83_640)}


def fpga_facts(target: str, array: ArrayConfig) -> dict[str, Any]:
    """Return the fitted area of an array.

    There is no energy: nothing here measures what a LUT or a wire of such a device takes, and what
    is published is the power of other people's whole boards.

    Raises
    ------
    TernError
        If there is no such family or no fit for it, or the array is none that the fit knows.
    """
    if target not in DEVICES:
        raise TernError(f"--fpga must be one of {', '.join(DEVICES)}, not {target!r}")
    model = fitted_area(target)
    device, luts = DEVICES[target]
    parts = model.parts(array)
    area = sum(parts.values())
    return {
        "target": target,
        "unit": model.unit,
        "area": area,
        "parts": parts,
        "device": device,
        "device_luts": luts,
        "share": area / luts,
        "source": model.source,
        "tools": model.tools,
    }
