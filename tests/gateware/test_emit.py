"""Emission: the same bytes every time, and a side-car that tells the truth about the Verilog."""

import dataclasses
import gc
import hashlib
import re
import subprocess
import sys

import pytest

from tern_hw.config import NAMED_CONFIGS, ArrayConfig, Register
from tern_hw.gateware.emit import emit

SMALL = ArrayConfig(lanes=8, rows=2, group_size=4, packing="base3", max_k=64, max_n=64)
ALIGNED = ArrayConfig(
    lanes=8, rows=2, group_size=16, activation="fp16", aligned=16, max_k=64, max_n=64
)
AGAIN = """
import dataclasses, sys
from tern_hw.config import ArrayConfig
from tern_hw.gateware.emit import emit
sys.stdout.write(emit(ArrayConfig.from_dict({fields!r})).verilog)
"""


@pytest.fixture(scope="module")
def small():
    return emit(SMALL)


def test_emission_is_byte_identical_within_and_across_processes(small):
    assert emit(SMALL).verilog == small.verilog
    again = subprocess.run(
        [sys.executable, "-c", AGAIN.format(fields=SMALL.as_dict())],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"},
    )
    assert again.stdout == small.verilog


def test_verilog_names_no_path_of_the_machine(small):
    assert "/" not in re.sub(r"//|/\*|\*/", "", small.verilog.split("\n", 1)[1])


def test_sidecar_holds_the_digest_and_the_configuration(small):
    assert small.sidecar["sha256"] == hashlib.sha256(small.verilog.encode()).hexdigest()
    assert ArrayConfig.from_dict(small.sidecar["configuration"]) == SMALL
    assert small.sidecar["module"] == SMALL.name


def test_sidecar_lists_exactly_the_ports_of_the_top_module(small):
    header = small.verilog.split(f"module {SMALL.name}(")[1].split("endmodule")[0]
    found = {}
    for direction, high, name in re.findall(
        r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", header, re.MULTILINE
    ):
        found[name] = (direction.removesuffix("put"), int(high or 0) + 1)
    listed = {p["name"]: (p["direction"], p["bits"]) for p in small.sidecar["ports"]}
    assert listed == found


IN_TURN = ArrayConfig(lanes=8, rows=2, group_size=16, products=1, max_k=64, max_n=64)
ROW_IN_TURN = ArrayConfig(lanes=8, rows=1, group_size="row", products=1, max_k=64, max_n=64)


@pytest.mark.parametrize("k", [33, 8, 32])
@pytest.mark.parametrize(
    "config", [SMALL, ALIGNED, IN_TURN, ROW_IN_TURN], ids=lambda config: config.name
)
def test_sidecar_latency_is_the_configurations(config, k):
    latency = emit(config).sidecar["latency"]
    assert latency["cycles"] == sum(latency["blocks"].values()) == config.latency_cycles
    formula, text = latency["job_cycles"].split(";", 1)
    n = 7
    steps = -(-k // latency["step_inputs"])
    (wait,) = re.findall(r"wait = 1 where steps (?:% (\d+) )?= 1, else 0", text) or [None]
    values = {
        "wait": wait is not None and (steps % int(wait) if wait else steps) == 1,
        "steps": -(-k // latency["step_inputs"]),
        "blocks": -(-n // config.rows),
        "load_gap": latency["load_gap_cycles"],
        "unit": latency.get("unit_cycles"),
        "result_interval": latency["result_interval_cycles"],
        "cycles": latency["cycles"],
        "max": max,
    }
    formula = formula.replace("rows of the last block", "1")
    assert eval(formula, {}, values) == config.job_cycles(n, k)


@pytest.mark.parametrize("enabled", [True, False])
def test_emission_leaves_the_garbage_collector_as_it_was(enabled):
    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        emit(ArrayConfig(lanes=8, rows=1, group_size=8, max_k=8, max_n=8))
        assert gc.isenabled() == enabled
    finally:
        gc.enable() if before else gc.disable()


@pytest.mark.parametrize(
    ("group", "units"), [(16, {"words": 4, "bits": 5}), (4, {"words": 8, "bits": 10})]
)
def test_sidecar_tells_what_aligned_activations_take(group, units):
    config = dataclasses.replace(ALIGNED, group_size=group)
    emission = emit(config)
    memories = emission.sidecar["memories"]
    assert memories["activations"] == {"words": 8, "bits": 8 * 16}
    assert memories["loaded_activations"] == {"words": 8, "bits": 8 * 16}
    assert memories["units"] == units
    for memory, depth in (("halves", 8), ("group_units", units["words"])):
        assert re.search(rf"reg \[\d+:0\] {memory} \[{depth - 1}:0\];", emission.verilog)
    assert emission.sidecar["widths_bits"]["fixed"] == 16
    assert ArrayConfig.from_dict(emission.sidecar["configuration"]) == config


def test_sidecar_counts_the_scale_beats():
    scale = {group: ArrayConfig(lanes=8, rows=1, group_size=group) for group in ("row", 8)}
    beats = {g: emit(c).sidecar["streams"]["s_axis_scale"]["beats"] for g, c in scale.items()}
    assert beats["row"].endswith("groups(K) = 1")
    assert beats[8].endswith("groups(K) = ceil(K / 8)")


def test_sidecar_lists_every_register(small):
    assert small.sidecar["registers"]["CYCLES"] == f"0x{Register.CYCLES:02x}"
    assert set(small.sidecar["registers"]) == {register.name for register in Register}


def test_names_of_configurations_differ():
    names = [config.name for config in NAMED_CONFIGS.values()]
    assert len(set(names)) == len(names)


def test_sidecar_of_binary16_weights_names_its_streams_and_its_formula():
    config = ArrayConfig(
        lanes=8, rows=1, activation="fp16", weights="fp16", output="fp16", max_k=64, max_n=64
    )
    sidecar = emit(config).sidecar
    assert "s_axis_scale" not in sidecar["streams"]
    assert not any("scale" in port["name"] for port in sidecar["ports"])
    latency = sidecar["latency"]
    assert latency["cycles"] == sum(latency["blocks"].values()) == config.latency_cycles
    n, k = 60, 33
    values = {
        "load": -(-k // 8),
        "load_gap": latency["load_gap_cycles"],
        "steps": k * latency["contexts"],
        "blocks": -(-n // latency["block_outputs"]),
        "result_interval": latency["result_interval_cycles"],
        "cycles": latency["cycles"],
        "max": max,
    }
    formula = latency["job_cycles"].split(";")[0]
    formula = formula.replace("outputs of the last block", str(n - latency["block_outputs"]))
    assert eval(formula, {}, values) == config.job_cycles(n, k)
