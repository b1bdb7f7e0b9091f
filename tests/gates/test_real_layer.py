"""The demo's layer through the gates of a 64-lane dot product: right sums, and plausible energy."""

import numpy as np
import pytest

import demo
from quant.exports.convert import convert_layers
from quant.models.linears import named_linear
from tern_hw.config import Activation, ArrayConfig
from tern_hw.flows.netlist import gate_netlist
from tern_hw.gates.energy import DELAY_PS, cell_set, total_energy
from tern_hw.gates.layer import Layer, random_layer
from tern_hw.gates.liberty import OSU018_PATH
from tern_hw.gates.netlist import read_netlist
from tern_hw.gates.simulator import simulate
from tern_hw.gates.stimulus import dot_work
from tern_hw.gateware.blocks import emit_block

pytestmark = pytest.mark.slow

ROWS, TOKENS, PARTS = 32, 16, 4
CONFIG = ArrayConfig(packing="base3")


@pytest.fixture(scope="module")
def real():
    """The layer that `make demo` takes, some of its rows."""
    source = demo._find_model(demo.DEFAULT_MODEL)
    name = demo._layer(source, None)
    half = ArrayConfig(packing="base3", activation="fp16")
    tokens = demo._real_inputs(source, name, TOKENS, half).astype(np.float32)
    linear = named_linear(source.model, name)
    matrices, _ = convert_layers(
        source.model, {name: linear}, group_size=CONFIG.group_size, packing=CONFIG.packing
    )
    weight = linear.weight.detach().numpy().astype(np.float16)
    return Layer(matrix=matrices[name], weight=weight, tokens=tokens, origin=name).some_rows(ROWS)


def dot_energy(layer, activation, library=None):
    """Return the energy of a row's dot product; its sums are checked on the way."""
    config = ArrayConfig(packing="base3", activation=activation)
    work = dot_work(
        config, layer.matrix.digits(), layer.activations(config.activation), parts=PARTS
    )
    cells = cell_set(library)
    top, verilog = emit_block(config, "dot")
    module = gate_netlist(
        verilog,
        top=top,
        liberty=library,
        constraint=cells.constraint,
        delay_ps=DELAY_PS if library else 0,
        unused=cells.unused,
    )
    netlist = read_netlist(module, cells)
    activity = simulate(netlist, work.stimulus, warm_up=work.warm_up)
    seen = activity.outputs["total"][:, work.latency :].astype(np.int64)
    weights = 1 << np.arange(seen.shape[2], dtype=np.int64)
    weights[-1] *= -1
    totals = (seen * weights).sum(axis=2)
    assert (totals == work.expected[:, : totals.shape[1]]).all()
    return total_energy(netlist, cells, activity).per(work.macs_per_cycle).value


@pytest.mark.parametrize("library", [None, OSU018_PATH], ids=["generic", "osu018"])
def test_exact_fp16_takes_more_than_int8_and_less_than_its_width_says(real, library):
    if library and not library.is_file():
        pytest.skip("OSU 0.18 um is not installed (Debian: apt install qflow-tech-osu018)")
    int8, fp16 = (dot_energy(real, activation, library) for activation in Activation)
    print(f"pJ a MAC: int8 {int8:.3f}, exact fp16 {fp16:.3f}, {fp16 / int8:.2f} x")
    # 41 bits are 5.1 times 8; their high bits move together with the sign.
    assert 2 < fp16 / int8 < 41 / 8


def test_zeros_save_energy():
    energies = []
    for zeros in (0.2, 0.5, 0.8):
        layer = random_layer(1, ROWS, 576, TOKENS, CONFIG, zeros=zeros)
        energies.append(dot_energy(layer, Activation.INT8))
    print("pJ a MAC at 20, 50, 80 % zeros:", *(f"{energy:.3f}" for energy in energies))
    assert energies[0] > energies[1] > energies[2]
