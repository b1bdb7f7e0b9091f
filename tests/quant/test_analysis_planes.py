"""quant.analysis.planes: FDB's planes by hand and against the layer's own weight."""

import math

import pytest
import torch

from quant.analysis.models import QuantizedLayer
from quant.analysis.planes import contributions, cosine, pearson, planes_of
from quant.methods import method_config, named_method
from tern_hw.errors import TernError

NAME = "model.layers.0.mlp.up_proj"


def layer_of(weight, method="fdb", **options):
    quantizer = named_method(method).quantizer(weight, method_config(method, options), NAME)
    return QuantizedLayer(NAME, weight, quantizer)


def exact_layer(weight, high, low):
    layer = layer_of(weight, group_size="row")
    with torch.no_grad():
        layer.quantizer.scale_high.fill_(high)
        layer.quantizer.scale_low.fill_(low)
    return layer


@pytest.mark.parametrize("group_size", [16, 64, "row"])
def test_contributions_add_up_to_the_layers_weight(group_size):
    weight = torch.randn(7, 40, generator=torch.Generator().manual_seed(1))
    layer = layer_of(weight, group_size=group_size)
    first, second = contributions(layer)
    assert torch.equal(first + second, layer.quantizer(weight).detach())


def test_planes_of_a_small_layer_by_hand():
    # Levels -1, 0, 1 and 2 with a1 = 2, a2 = -1; weights at the levels: the residual is all mended.
    weight = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    layer = exact_layer(weight, 2.0, -1.0)
    first, second = contributions(layer)
    assert first.tolist() == [[0.0, 0.0, 2.0, 2.0]]
    assert second.tolist() == [[-1.0, 0.0, -1.0, 0.0]]
    row = planes_of("x", [layer]).rows[-1]
    assert row.correlation == pytest.approx(0)
    assert row.alignment == pytest.approx(1)
    assert row.zeros == (0.5, 0.5)
    assert row.levels == (0.25, 0.25, 0.25, 0.25)
    assert row.error == 0
    assert row.bits_per_weight == 2 + 32 / 4


def test_alignment_is_the_cosine_with_what_the_first_plane_leaves():
    weight = torch.tensor([[-0.8, 0.2, 1.3, 2.4]])
    row = planes_of("x", [exact_layer(weight, 2.0, -1.0)]).rows[-1]
    left, second = [-0.8, 0.2, -0.7, 0.4], [-1.0, 0.0, -1.0, 0.0]
    dot = sum(a * b for a, b in zip(left, second, strict=True))
    norm = math.sqrt(sum(a * a for a in left) * 2)
    assert row.alignment == pytest.approx(dot / norm, rel=1e-6)
    error = sum((a - b) ** 2 for a, b in zip(left, second, strict=True))
    assert row.error == pytest.approx(error / float(weight.square().sum()), rel=1e-6)


def test_planes_that_move_together_correlate_against_each_other_in_sign():
    # Only the levels -1 and 2: where b1 is set b2 is not.
    row = planes_of("x", [exact_layer(torch.tensor([[-1.0, 2.0, 2.0, -1.0]]), 2.0, -1.0)]).rows[-1]
    assert row.correlation == pytest.approx(1)
    # Only 0 and 1: both planes are set or none.
    row = planes_of("x", [exact_layer(torch.tensor([[0.0, 1.0, 1.0, 0.0]]), 2.0, -1.0)]).rows[-1]
    assert row.correlation == pytest.approx(-1)


def test_layers_are_averaged_by_their_weights():
    one = exact_layer(torch.tensor([[-1.0, 2.0]]), 2.0, -1.0)
    other = exact_layer(torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, 0.0]]), 2.0, -1.0)
    row = planes_of("x", [one, other]).rows[-1]
    assert (row.layers, row.weights) == (2, 8)
    assert row.correlation == pytest.approx((2 * 1 + 6 * -1) / 8)


def test_cosine_and_correlation_against_torch():
    one, other = torch.randn(2, 50, generator=torch.Generator().manual_seed(2)).double()
    assert cosine(one, other) == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)))
    assert pearson(one, other) == pytest.approx(
        float(torch.corrcoef(torch.stack([one, other]))[0, 1])
    )
    assert cosine(one, one * 0) == 0
    assert pearson(one, torch.ones(50)) == 0


def test_other_methods_are_refused():
    layer = layer_of(torch.ones(2, 8), method="dlt")
    with pytest.raises(
        TernError, match=f"{NAME} must have the two planes of fdb, not the codes of dlt"
    ):
        contributions(layer)
