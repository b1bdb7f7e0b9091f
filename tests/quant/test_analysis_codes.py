"""quant.analysis.codes: shares, dead zones and flow by hand, and every method's thresholds."""

import math

import pytest
import torch

from quant.analysis.codes import (
    code_flow,
    codes_of,
    entropy_bits,
    flow_between,
    layer_codes,
    threshold_distance,
)
from quant.analysis.models import QuantizedLayer
from quant.methods import method_config, named_method
from quant.methods.base import Quantizer
from quant.ternary import TernaryFit
from tern_hw.errors import TernError


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(method, weight, name="model.layers.0.mlp.up_proj", **options):
    quantizer = named_method(method).quantizer(weight, method_config(method, options), name)
    return QuantizedLayer(name, weight, quantizer)


def dlt_layer(weight, alpha, gamma, **options):
    """A DLT layer of one group a row with a given scale and shift, codes by the nearest level."""
    layer = layer_of("dlt", weight, codes="nearest", group_size="row", **options)
    with torch.no_grad():
        layer.quantizer.scale.fill_(alpha)
        layer.quantizer.shift.fill_(gamma)
    return layer


# -------------------------------------------------------------------------------------- entropy


def test_entropy_of_known_shares():
    assert entropy_bits((1 / 3, 1 / 3, 1 / 3)) == pytest.approx(math.log2(3))
    assert entropy_bits((0.25, 0.5, 0.25)) == 1.5
    assert entropy_bits((0.0, 1.0, 0.0)) == 0.0


# -------------------------------------------------------------------------------------- distance


def test_distance_of_nearest_codes_by_hand():
    # Levels -1, 1 and 3; thresholds at 0 and 2.
    weight = torch.tensor([[-1.0, -0.5, 0.5, 1.0, 1.75, 2.5]])
    layer = dlt_layer(weight, 2.0, 1.0)
    distance = threshold_distance(layer, layer_codes(layer))
    assert distance.tolist() == [[0.5, 0.25, 0.25, 0.5, 0.125, 0.25]]


def test_distance_of_threshold_codes_is_from_the_mean_of_the_magnitudes():
    weight = torch.tensor([[1.0, -1.0, 0.25, 0.0, 2.0, -1.75]])
    layer = layer_of("twn", weight, group_size="row", factor=0.5)
    fit = layer_codes(layer)
    delta = 0.5  # half of the mean magnitude, which is 1
    assert fit.trits.tolist() == [[1, -1, 0, 0, 1, -1]]
    expected = (weight.abs() - delta).abs() / fit.scale.float()
    assert torch.equal(threshold_distance(layer, fit), expected)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dlt", {}),
        ("dlt", {"center": True}),
        ("dlt", {"codes": "nearest"}),
        ("dlt", {"factor": 0.75, "shift": False}),
        ("twn", {}),
        ("seq", {}),
        ("absmean", {}),
        ("absmean", {"per_tensor": True}),
    ],
)
def test_every_ternary_method_has_its_threshold_found(method, options):
    weight = normal(12, 200, seed=1) * 0.02 + 0.004
    layer = layer_of(method, weight, group_size=64, **options)
    fit = layer_codes(layer)
    distance = threshold_distance(layer, fit)
    assert distance is not None
    # Moved by less than its distance no weight changes its code under the same thresholds:
    # a dead one can lie no further from one than half the dead zone.
    assert float(distance[fit.trits == 0].min()) >= 0
    if method in ("seq", "absmean"):
        assert float(distance[fit.trits == 0].max()) <= 0.5 + 1e-3


class _Arbitrary(Quantizer):
    """Codes that no threshold on the weight explains."""

    ternary = True

    def forward(self, weight):
        return self.fit(weight).dequantize()

    def fit(self, weight):
        trits = torch.randint(-1, 2, weight.shape, generator=torch.Generator().manual_seed(0))
        groups = torch.ones(len(weight), 1)
        return TernaryFit(trits.to(torch.int8), groups.half(), (0 * groups).half(), "row")

    def bits_per_weight(self, weight):
        return 2.0


def test_codes_without_a_threshold_have_no_distance():
    layer = QuantizedLayer("a", normal(8, 64, seed=2), _Arbitrary())
    assert threshold_distance(layer, layer_codes(layer)) is None
    report, _ = codes_of("x", "arbitrary", [layer])
    row = report.rows[-1]
    assert (row.dead_distance, row.dead_near, row.near) == (None, None, None)
    assert report.dead_histogram == []


# ---------------------------------------------------------------------------------------- shares


def test_codes_of_a_small_layer_by_hand():
    # Levels -1, 0 and 1, thresholds at +-0.5; the second row is all dead.
    weight = torch.tensor([[1.0, -1.0, 0.45, 0.1], [0.0, 0.2, -0.2, 0.48]])
    report, trits = codes_of("x", "dlt", [dlt_layer(weight, 1.0, 0.0)])
    row = report.rows[-1]
    assert trits["model.layers.0.mlp.up_proj"].tolist() == [[1, -1, 0, 0], [0, 0, 0, 0]]
    assert (row.kind, row.weights, row.shares) == ("all", 8, (0.125, 0.75, 0.125))
    assert row.entropy_bits == pytest.approx(0.25 * 3 + 0.75 * math.log2(4 / 3))
    assert row.bits_per_weight == pytest.approx(8 / 4 + 32 / 4)  # a row of four trits is a byte
    assert row.empty_groups == 0.5
    distances = [0.05, 0.4, 0.5, 0.3, 0.3, 0.02]
    assert row.dead_distance == pytest.approx(sum(distances) / 6, rel=1e-5)
    assert row.dead_near == pytest.approx(2 / 6)
    assert row.near == pytest.approx(2 / 8)
    assert sum(report.dead_histogram) == pytest.approx(1)


def test_all_row_weighs_layers_by_their_weights():
    small = dlt_layer(torch.ones(1, 2), 1.0, 0.0)
    large = dlt_layer(torch.zeros(1, 6), 1.0, 0.0)
    layers = [small, QuantizedLayer("model.layers.0.mlp.down_proj", large.latent, large.quantizer)]
    report, _ = codes_of("x", "dlt", layers)
    assert [row.kind for row in report.rows] == ["mlp.up_proj", "mlp.down_proj", "all"]
    assert report.rows[-1].shares == (0.0, 0.75, 0.25)


def test_short_last_group_is_a_group_of_its_own():
    weight = torch.cat([torch.ones(1, 4), torch.zeros(1, 2)], dim=1)
    report, _ = codes_of("x", "twn", [layer_of("twn", weight, group_size=4)])
    assert report.rows[-1].empty_groups == 0.5


def test_method_with_four_levels_is_refused():
    with pytest.raises(TernError, match=r"up_proj must have ternary codes, not those of fdb"):
        layer_codes(layer_of("fdb", normal(2, 8, seed=3)))


# ------------------------------------------------------------------------------------------ flow


def test_flow_counts_each_transition():
    before = torch.tensor([[-1, -1, 0, 0, 1, 1]], dtype=torch.int8)
    after = torch.tensor([[-1, 0, 0, 1, -1, 1]], dtype=torch.int8)
    assert flow_between(before, after).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]


def test_flow_of_a_model_by_hand():
    before = {"m.layers.0.up": torch.tensor([[-1, 0, 1, 1]], dtype=torch.int8)}
    after = {"m.layers.0.up": torch.tensor([[1, 0, 0, 0]], dtype=torch.int8)}
    rows = code_flow(before, after)
    assert [row.kind for row in rows] == ["up", "all"]
    row = rows[-1]
    assert row.matrix == [[0.0, 0.0, 0.25], [0.0, 0.25, 0.0], [0.0, 0.5, 0.0]]
    assert (row.changed, row.sign_changed, row.net_to_zero) == (0.75, 0.25, 0.5)


def test_flow_back_turns_the_net_flow():
    one = {"a": torch.randint(-1, 2, (9, 9), generator=torch.Generator().manual_seed(4)).char()}
    other = {"a": torch.randint(-1, 2, (9, 9), generator=torch.Generator().manual_seed(5)).char()}
    there, back = code_flow(one, other)[-1], code_flow(other, one)[-1]
    assert there.net_to_zero == -back.net_to_zero != 0
    assert there.changed == back.changed > 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": torch.zeros(2, 3)}, r"a is \[2, 2\] in the one and \[2, 3\] in the other"),
        ({"b": torch.zeros(2, 2)}, r"a is \[2, 2\] in the one and no such layer in the other"),
        (
            {"a": torch.zeros(2, 2), "b": torch.zeros(1, 1)},
            r"b is no such layer in the one and \[1, 1\] in the other",
        ),
    ],
)
def test_flow_between_different_models_is_refused(other, message):
    with pytest.raises(TernError, match=f"folders must be of one model, but {message}"):
        code_flow({"a": torch.zeros(2, 2)}, other)


def test_scale_of_zero_has_no_distance():
    layer = dlt_layer(torch.ones(1, 4), 0.0, 1.0)
    fit = layer_codes(layer)
    assert threshold_distance(layer, fit).isinf().all()
    report, _ = codes_of("x", "dlt", [layer])
    assert report.rows[-1].dead_distance is None
