"""Post-training methods on real layers: the order of their errors on text not calibrated on."""

import pytest
import torch

from quant.errors import UnreachableError
from quant.methods import METHODS, method_config
from quant.methods.calibration import walk_blocks
from quant.methods.hessian import output_error
from quant.models.linears import block_linears, select_linears
from quant.models.sources import find_source
from quant.text.excerpt import excerpt

pytestmark = pytest.mark.slow

#: Layers of the first two blocks, so that the walk is short.
LAYERS = ("*.0.self_attn.o_proj", "*.1.self_attn.q_proj", "*.1.mlp.up_proj", "*.1.mlp.down_proj")
METHODS_COMPARED = ("rtn", "twn", "als", "gptq", "pt2_llm", "aware")


def grams(source, windows):
    """H of each layer's inputs, the blocks unquantised."""
    linears = select_linears(block_linears(source.model), LAYERS)
    found = {}
    for block in walk_blocks(source.model, linears, windows):
        found.update(block.statistics())
    return found


def test_als_has_the_least_weight_error_and_aware_the_least_output_error_held_out(record_property):
    try:
        source = find_source("smollm2")
    except UnreachableError as error:
        pytest.skip(str(error))
    ids = torch.tensor(source.tokenizer(excerpt(), add_special_tokens=False).input_ids)
    windows = ids[: len(ids) // 256 * 256].view(-1, 256)
    seen, other = grams(source, windows[:8]), grams(source, windows[8:])
    errors = {label: [] for label in METHODS_COMPARED}
    for name, statistics in seen.items():
        weight = source.model.get_submodule(name).weight.detach().float()
        held_out, on_weight = {}, {}
        for label in METHODS_COMPARED:
            method, config = METHODS[label], method_config(label, {})
            given = (weight, statistics) if method.calibrated else (weight,)
            levels = method.quantizer(*given, config, name)(weight).detach()
            held_out[label] = output_error(weight, levels, other[name].gram)
            on_weight[label] = float((weight - levels).square().sum() / weight.square().sum())
        for label, pairs in errors.items():
            pairs.append((on_weight[label], held_out[label]))
        assert min(held_out, key=held_out.get) == "aware", name
        assert min(on_weight, key=on_weight.get) == "als", name
    record_property("training-free methods on four layers of SmolLM2", table(errors))


def table(errors):
    """Geometric means over the layers, in percent."""
    lines = [f"{'method':<10}{'weight error':>14}{'output error, held out':>25}"]
    for label, pairs in errors.items():
        weight, output = torch.tensor(pairs).log().mean(0).exp().tolist()
        lines.append(f"{label:<10}{weight:>14.2%}{output:>25.2%}")
    return "\n".join(lines)
