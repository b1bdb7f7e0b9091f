"""The arrays that the cost model is held to: some to fit its area, others that it has not seen."""

from typing import Final

from tern_hw.config import ArrayConfig

__all__ = ["HELD_OUT", "TRAINING"]


def _arrays(*rows: str) -> tuple[ArrayConfig, ...]:
    """Read "lanes rows activation packing group dot output" a line."""
    arrays = []
    for row in rows:
        lanes, high, activation, packing, group, dot, output = row.split()
        fields = {
            "lanes": int(lanes),
            "rows": int(high),
            "activation": activation,
            "packing": packing,
            "group_size": int(group),
            "dot": dot,
            "output": output,
        }
        arrays.append(ArrayConfig.from_dict(ArrayConfig().as_dict() | fields))
    return tuple(arrays)


#: What the coefficients are fitted to; each feature of the model varies among the first eight.
TRAINING: Final = _arrays(
    "8 1 int8 2bit 128 carry fp32",
    "8 1 fp16 2bit 64 tree fp32",
    "16 2 int8 base3 64 carry fp16",
    "8 3 int8 2bit 64 tree fp32",
    "16 1 int8 base3 128 tree fp32",
    "8 2 fp16 base3 128 carry fp32",
    "24 2 int8 2bit 48 tree fp16",
    "32 1 int8 2bit 128 carry fp32",
    "12 2 int8 base3 96 tree fp32",
    "16 4 int8 2bit 128 carry fp16",
    "16 1 fp16 2bit 128 carry fp16",
    "24 3 int8 base3 96 carry fp32",
    "32 2 int8 base3 128 tree fp32",
    "12 1 fp16 base3 48 tree fp32",
    "32 3 int8 2bit 64 tree fp16",
    "8 4 int8 base3 128 carry fp32",
    "16 2 fp16 base3 128 tree fp32",
    "32 4 int8 2bit 128 carry fp32",
    "24 2 fp16 2bit 48 carry fp32",
    "32 4 int8 base3 64 tree fp32",
)
#: What they are judged by; none of these is in the training set.
HELD_OUT: Final = _arrays(
    "8 2 int8 2bit 64 carry fp32",
    "16 1 int8 2bit 64 tree fp32",
    "8 1 fp16 base3 128 tree fp32",
    "12 1 int8 base3 48 carry fp32",
    "16 2 int8 2bit 128 tree fp16",
    "24 1 int8 2bit 96 carry fp32",
    "8 2 fp16 2bit 64 carry fp16",
    "8 2 int8 base3 128 tree fp32",
    "16 3 int8 base3 64 carry fp32",
    "12 1 fp16 2bit 96 carry fp32",
    "32 1 int8 base3 64 tree fp16",
    "12 4 int8 2bit 48 tree fp32",
    "24 2 int8 base3 48 carry fp32",
    "32 2 int8 2bit 128 tree fp32",
    "16 1 fp16 base3 64 carry fp32",
    "24 4 int8 2bit 96 tree fp32",
    "32 3 int8 base3 128 carry fp32",
    "8 3 fp16 2bit 64 tree fp32",
    "32 4 int8 2bit 64 tree fp16",
    "24 4 int8 base3 96 carry fp16",
    "16 2 fp16 2bit 128 tree fp32",
    "32 2 fp16 base3 64 carry fp32",
    "64 1 int8 base3 128 tree fp32",
    "64 4 int8 2bit 128 carry fp32",
)
