"""A small model, and sweeps of it; evaluators that workers can import."""

import json
import os
import signal
import subprocess

from tern_hw.estimate import estimate_parser
from tern_hw.exploration.axes import axis_actions, read_axes
from tern_hw.exploration.plan import make_plan
from tern_hw.exploration.synthesis import tools_digest
from tern_hw.flows.targets import KINDS

#: A model of one block.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
}
#: Twelve combinations of which eight go together.
SMALL = {"lanes": "16,32,64", "rows": "2,4", "group_size": "48,64"}
#: The same as options.
OPTIONS = ["--lanes", "16,32,64", "--rows", "2,4", "--packing", "2bit", "--group-size", "48,64"]


def save_model(folder):
    """Write the model's config.json; returns its path."""
    path = folder / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def sweep_arguments(model, **lists):
    """Return (parser of estimate, arguments of a sweep): lists as typed, by option."""
    parser = estimate_parser()
    args = parser.parse_args(["--model", model])
    for action in axis_actions(parser):
        setattr(args, action.dest, lists.pop(action.dest, None))
    vars(args).update(lists)
    return parser, args


def planned(model, limit=None, **lists):
    """Return the plan of a sweep."""
    parser, args = sweep_arguments(model, **lists)
    return make_plan(parser, args, read_axes(parser, args), limit)


def made_up(job):
    """Return cells that tell the array, at once."""
    array = job.array
    kinds = dict.fromkeys(KINDS, 0) | {"lut": array.lanes * array.rows, "ff": array.lanes}
    return {
        "module": array.name,
        "area": float(array.lanes * array.rows + 2 * array.rows),
        **kinds,
        "others": {},
        "yosys_seconds": 0.1,
        "tools": tools_digest(),
    }


def dies(job):
    """End the process that evaluates a job, as running out of memory does."""
    os._exit(1)


def begun(command):
    """Start a command that SIGINT ends even where the tests run as a shell's background job."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
