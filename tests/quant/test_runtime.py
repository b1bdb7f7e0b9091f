"""`quant.runtime`: an artifact as a transformers model on the kernels, layer by layer exact."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from quant import evaluate
from quant.exports.convert import export_model
from quant.models.opening import open_model
from quant.runtime import TernaryLinear, kernel_layers
from quant.runtime import load as load_with
from quant.runtime.speed import split_of_time
from tern_hw import kernels, reference
from tern_hw.artifact import load_artifact
from tern_hw.errors import TernError
from tern_hw.kernels import product
from tests.kernels import trained_layer
from tests.quant.families import FAMILIES, family_model
from tests.quant.models import random_llama

ROOT = Path(__file__).parents[2]


def load(path, **options):
    return load_with(path, tokenizer="tiny", **options)


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    export_model(
        random_llama(attention_bias=True),
        folder,
        origin="random",
        group_size=16,
    )
    return folder


def logits(model, tokens=12, **options):
    ids = torch.arange(1, 2 * tokens + 1).reshape(2, tokens) % 31
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False, **options).logits


@pytest.mark.parametrize("packing", ["2bit", "base3"])
@pytest.mark.parametrize("activation", ["int8", "fp16"])
def test_a_layer_is_the_reference_s_product(artifact, activation, packing):
    model, _ = load(artifact, activation=activation, packing=packing)
    layers = dict(kernel_layers(model))
    assert tuple(layers) == load_artifact(artifact).layers
    rng = np.random.default_rng(1)
    for name, layer in layers.items():
        matrix = load_artifact(artifact).layer(name)
        for shape in ((1, 1), (2, 3), (1, 40)):
            x = rng.normal(size=(*shape, layer.in_features)).astype(np.float32)
            flat = x.reshape(-1, layer.in_features)
            if activation == "int8":
                wanted = reference.matmul_quantized(flat, matrix)
            else:
                wanted = reference.matmul(flat.astype(np.float16), matrix)
            if layer.bias is not None:
                wanted = wanted + layer.bias.numpy()
            got = layer(torch.from_numpy(x))
            assert got.shape == (*shape, layer.out_features)
            assert got.numpy().reshape(wanted.shape).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_dequantised_model(family, tmp_path):
    """Next to those of float64: what is left is the rounding of activations and of torch."""
    export_model(family_model(family), tmp_path / "a", origin="random", group_size=16)
    exact = open_model(tmp_path / "a", tokenizer="tiny", dtype=torch.float64).model
    wanted = logits(exact)
    for activation, bound in (("fp16", 4e-3), ("int8", 0.15)):
        model, _ = load(tmp_path / "a", activation=activation)
        apart = (logits(model).double() - wanted).norm() / wanted.norm()
        assert 0 < apart < bound


def test_caches_and_generation_as_any_model_s(artifact):
    model, tokenizer = load(artifact, activation="fp16")
    dequantised = open_model(artifact, tokenizer="tiny").model
    read = tokenizer("ternary", return_tensors="pt")
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    written = model.generate(**read, **options)
    assert torch.equal(written, model.generate(**read, **options, use_cache=False))
    assert torch.equal(written, dequantised.generate(**read, **options))


def test_threads_do_not_change_a_bit(artifact, monkeypatch):
    monkeypatch.setattr(product, "PRODUCTS_PER_THREAD", 1)
    outputs = [logits(load(artifact, threads=threads)[0]) for threads in (1, 2)]
    assert torch.equal(*outputs)


def test_the_folder_may_go_once_it_is_loaded(artifact):
    model, _ = load(artifact)
    wanted = logits(model)
    for path in artifact.iterdir():
        # Cut short as well as removed: pages of a mapped file would be gone.
        os.truncate(path, 0)
    shutil.rmtree(artifact)
    assert torch.equal(logits(model), wanted)


def test_other_types_around_the_layers(artifact):
    model, _ = load(artifact, dtype=torch.bfloat16)
    assert model.dtype is torch.bfloat16
    wanted = logits(load(artifact)[0])
    assert (logits(model).float() - wanted).norm() / wanted.norm() < 0.1


def test_a_tied_head_stays_tied(tmp_path):
    export_model(random_llama(tie_word_embeddings=True), tmp_path / "a", origin="random")
    model, _ = load(tmp_path / "a")
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight.data_ptr() == embedding.weight.data_ptr()
    wanted = logits(open_model(tmp_path / "a", tokenizer="tiny").model)
    assert (logits(model) - wanted).norm() / wanted.norm() < 0.1


def test_evaluation_on_the_kernels(artifact, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 4)
    common = [str(artifact), "--tokenizer", "tiny", "--text", str(text), "--window", "32"]
    found = []
    for more in ([], ["--activation", "fp16"], ["--activation", "int8"]):
        assert evaluate.main([*common, *more, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    plain, fp16, int8 = (each["texts"][0]["perplexity"] for each in found)
    assert plain != fp16 != int8
    assert fp16 == pytest.approx(plain, rel=1e-3)
    assert int8 == pytest.approx(plain, rel=0.05)
    assert found[2]["kind"] == "ternary artifact on the kernels, int8 activations"
    with pytest.raises(TernError, match="--activation must be given with an artifact, not with"):
        evaluate.main(["tiny", "--text", str(text), "--activation", "int8"])


def test_the_split_of_time_adds_up(artifact):
    model, tokenizer = load(artifact)
    read = tokenizer("ternary", return_tensors="pt")
    start = time.perf_counter()
    split = split_of_time(model, read, 8, rounds=1)
    whole = 1e3 * (time.perf_counter() - start) / 8
    assert 0.5 * whole < sum(split.values()) <= whole
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_says_what_it_is():
    repacked = kernels.repack(trained_layer(np.random.default_rng(2), 64, 256, 128))
    text = repr(TernaryLinear(repacked))
    assert "in_features=256, out_features=64, bits=" in text


@pytest.mark.parametrize("activation", ["int8", "fp16"])
def test_activations_that_are_not_finite_are_refused(activation):
    layer = TernaryLinear(
        kernels.repack(trained_layer(np.random.default_rng(3), 8, 40, 16)), activation=activation
    )
    x = torch.ones(1, 2, 40)
    x[0, 1, 5] = torch.inf
    with pytest.raises(TernError, match=r"activations must be finite, not inf at \[1, 5\]"):
        layer(x)


def test_what_is_no_artifact_is_refused(artifact, tmp_path):
    with pytest.raises(TernError, match="activation must be one of int8, fp16, not 'fp8'"):
        load(artifact, activation="fp8")
    with pytest.raises(TernError, match="packing must be one of 2bit, base3, not 'ascii'"):
        load(artifact, packing="ascii")
    with pytest.raises(TernError, match="nothing"):
        load(tmp_path / "nothing")
    weights = artifact / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(TernError, match="checksum differs"):
        load(artifact)


#: Prints how much resident memory a model takes, and what it should: all in bytes.
MEMORY = """
import sys
from quant.runtime import kernel_layers, load
import torch, transformers.models.llama.modeling_llama
def resident():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["VmRSS"].split()[0]) * 1024
def opened(path):
    model, _ = load(path, tokenizer="tiny")
    with torch.inference_mode():
        model(input_ids=torch.arange(8)[None])
    return model
opened(sys.argv[1])  # a small one: what it brings is not the model's
before = resident()
model = opened(sys.argv[2])
layers = sum(layer.matrix.nbytes for _, layer in kernel_layers(model))
others = sum(p.untyped_storage().nbytes() for p in model.parameters())
print(resident() - before, layers + others)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_is_that_of_the_layers_and_the_rest(tmp_path):
    # SmolLM2-135M's shape.
    changes = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30}
    export_model(random_llama(), tmp_path / "small", origin="random")
    model = random_llama(**changes, **heads, tie_word_embeddings=True)
    export_model(model, tmp_path / "large", origin="random")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    taken, needed = map(int, done.stdout.split())
    assert needed > 130e6
    assert taken < 1.3 * needed
