"""The configurations that have a name."""

from typing import Final

from tern_hw.config.array import ArrayConfig
from tern_hw.config.formats import Activation, OutputFormat, Packing

__all__ = ["NAMED_CONFIGS"]

#: Configurations with a name, whose Verilog `rtl/` holds.
NAMED_CONFIGS: Final[dict[str, ArrayConfig]] = {
    "tiny": ArrayConfig(lanes=8, rows=1, group_size="row", max_k=1024, max_n=4096),
    "base": ArrayConfig(),
    "base3": ArrayConfig(packing=Packing.BASE3),
    "fine": ArrayConfig(lanes=32, rows=2, group_size=16, packing=Packing.BASE3),
    "half": ArrayConfig(
        lanes=32, rows=2, activation=Activation.FP16, output=OutputFormat.FP16, max_k=4096
    ),
}
