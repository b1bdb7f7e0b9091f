"""What the tests of exports share: the command, and a prepared model on disk."""

import torch

from quant import export
from quant.methods import method_config, named_method, quantized_linears
from quant.models.prepared import Prepared, save_prepared
from quant.models.tiny import byte_tokenizer
from tern_hw.cli import run
from tests.quant.models import random_llama

#: A layer of `random_llama`.
LAYER = "model.layers.1.mlp.gate_proj"


def torch_bytes(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def command(*arguments):
    """Run the command line in this process; returns its status as the shell would see it."""
    try:
        return run(lambda: export.main([str(argument) for argument in arguments]))
    except SystemExit as stopped:
        return stopped.code


def prepared(method="dlt", model=None, training=None, *, moved=True, **options):
    """Return a small model prepared by a method, its scales moved as training would."""
    model = model if model is not None else random_llama()
    config = method_config(method, {"group_size": 16, **options})
    named_method(method).prepare(model, config)
    with torch.no_grad():
        for _, _, quantizer in quantized_linears(model):
            for parameter in quantizer.parameters() if moved else ():
                parameter.mul_(1.01).add_(1e-4)
    return Prepared(model, named_method(method), config, "random", training or {})


def prepared_folder(path, method="dlt", training=None, model=None, **options):
    """Write what `prepared` returns."""
    made = prepared(method, model, **options)
    names = {"method": method, "config": made.config, "origin": "random weights"}
    save_prepared(path, made.model, byte_tokenizer(), training=training, **names)
    return path
