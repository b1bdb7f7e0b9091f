"""An artifact to damage, and how to damage it with a checksum that is right all the same."""

import hashlib
import json
import struct

import numpy as np

from tern_hw.artifact import RawTensor, save_artifact
from tern_hw.matrix import TernaryMatrix, group_count

MODEL_CONFIG = {"model_type": "llama", "hidden_size": 130, "rope": {"theta": 1e4}, "pad": None}
METADATA = {"method": "dlt", "versions": {"tern_hw": "0"}}


def layer(packing, group_size, n=6, k=130, seed=5):
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 3, (n, k), dtype=np.uint8)
    pairs = rng.normal(size=(2, n, group_count(k, group_size))).astype(np.float16)
    return TernaryMatrix.from_digits(digits, *pairs, group_size=group_size, packing=packing)


LAYERS = {"b.q_proj": layer("2bit", 128), "a.k_proj": layer("base3", "row", n=3)}
NORM = np.linspace(0, 1, 7, dtype=np.float32)
TENSORS = {
    "norm": NORM,
    "embed": RawTensor("BF16", (3, 2), bytes(range(12))),
}


def save(path, **changes):
    given = {
        "layers": LAYERS,
        "tensors": TENSORS,
        "model_config": MODEL_CONFIG,
        "metadata": METADATA,
    }
    save_artifact(path, **(given | changes))
    return path


def edit_config(folder, edit, sign=True):
    """Change config.json; with `sign`, as a writer would whose checksum is right."""
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document = edit(document) or document
    if sign:
        document["tern_hw"].pop("sha256", None)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        document["tern_hw"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(document))


def edit_section(folder, **changes):
    edit_config(folder, lambda document: document["tern_hw"].update(changes))


def header_of(folder):
    raw = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), 8 + length


def edit_tensor(folder, name, edit, sign=True):
    """Change a tensor's bytes in place; with `sign`, its checksum too."""
    header, start = header_of(folder)
    first, last = (start + offset for offset in header[name]["data_offsets"])
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[first:last] = edit(bytearray(raw[first:last]))
    path.write_bytes(raw)
    if sign:
        digest = hashlib.sha256(raw[first:last]).hexdigest()
        edit_config(
            folder, lambda document: document["tern_hw"]["tensors"][name].update(sha256=digest)
        )


def edit_header(folder, edit):
    header, start = header_of(folder)
    edit(header)
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + path.read_bytes()[start:])


def set_byte(index, value):
    def edit(data):
        data[index] = value
        return data

    return edit
