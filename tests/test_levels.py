"""One seeded layer through every level, each equal to its neighbour bit for bit.

Where this fails, the bug is between the last level that agreed and the first that did not.
"""

import numpy as np
import pytest
import torch
from torch import nn

from quant.exports.convert import convert_linear
from quant.ternary import ternarize
from tern_hw.artifact import load_artifact, save_artifact
from tern_hw.config import ArrayConfig
from tern_hw.reference import matmul
from tern_hw.simulation import simulate_layer
from tests import naive
from tests.gateware.jobs import run_jobs
from tests.gateware.layers import job_of

OUTPUTS, INPUTS, TOKENS = 13, 41, 2
CONFIGS = [
    ArrayConfig(lanes=8, rows=2, group_size=16, max_k=64, max_n=64),
    ArrayConfig(
        lanes=8, rows=3, group_size=16, activation="fp16", packing="base3", max_k=64, max_n=64
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_one_layer_agrees_at_every_level(config, tmp_path):
    torch.manual_seed(20)
    linear = nn.Linear(INPUTS, OUTPUTS, bias=False)
    x = torch.randn(TOKENS, INPUTS)
    activations = (
        x.half().numpy() if config.activation == "fp16" else (x * 40).round().char().numpy()
    )

    # torch -> artifact -> back: the same trits, scales and shifts.
    fit = ternarize(linear.weight.detach(), config.group_size)
    matrix, report = convert_linear("layer", linear, group_size=16, packing="base3")
    folder = tmp_path / "artifact"
    save_artifact(folder, layers={"layer": matrix}, tensors={}, model_config={}, metadata={})
    stored = load_artifact(folder).layer("layer")
    assert np.array_equal(stored.digits(), fit.digits.numpy())
    assert stored.scale.tobytes() == fit.scale.numpy().tobytes()
    assert stored.shift.tobytes() == fit.shift.numpy().tobytes()
    assert report.shape == (OUTPUTS, INPUTS)

    # artifact -> reference: as the naive oracle computes from torch's own tensors.
    outputs = matmul(activations, stored, output=str(config.output))
    expected = naive.matmul(
        activations.tolist(), fit.trits.tolist(), fit.scale.tolist(), fit.shift.tolist(), 16
    )
    assert outputs.view(np.uint32).tolist() == expected

    # reference -> gateware in Amaranth's simulator -> emitted Verilog in Verilator.
    gateware = run_jobs(config, [job_of(config, token, stored) for token in activations])
    assert [outcome.results for outcome in gateware] == expected
    verilog = simulate_layer(stored, activations, config)
    assert verilog.outputs.view(np.uint32).tolist() == expected
    assert set(verilog.cycles) == {outcome.cycles for outcome in gateware}
