"""What the tests of exports share: the command, and a prepared model on disk."""

import torch

from quant import export
from quant.methods import method_config, named_method, quantized_linears
from quant.models.prepared import save_prepared
from quant.models.tiny import byte_tokenizer
from tern_hw.cli import run
from tests.quant.models import random_llama


def torch_bytes(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def command(*arguments):
    """Run the command line in this process; returns its status as the shell would see it."""
    try:
        return run(lambda: export.main([str(argument) for argument in arguments]))
    except SystemExit as stopped:
        return stopped.code


def prepared_folder(path, method="dlt", training=None, model=None, **options):
    """Write a small model prepared by a method, its scales moved as training would."""
    model = model if model is not None else random_llama()
    config = method_config(method, {"group_size": 16, **options})
    named_method(method).prepare(model, config)
    with torch.no_grad():
        for _, _, quantizer in quantized_linears(model):
            for parameter in quantizer.parameters():
                parameter.mul_(1.01).add_(1e-4)
    names = {"method": method, "config": config, "origin": "random weights"}
    save_prepared(path, model, byte_tokenizer(), training=training, **names)
    return path
