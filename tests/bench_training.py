"""What quantising costs a training step: DLT against full-precision fine-tuning, SmolLM2, float32.

Both students follow the same teacher on 2 x 256 tokens with KL and OFF, and AdamW over the same
weights. Each runs in a process of its own, so that its peak memory is its own; the steps of both
take turns, so that a neighbour's load meets both.

    python -m tests.bench_training [--steps 5] [--model smollm2]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from quant.methods import convert
from quant.models.linears import block_linears
from quant.models.sources import find_source
from quant.training.loop import loss_parts
from quant.training.recipe import Recipe
from quant.training.student import make_student, parameter_groups

#: TernaryLLM's losses on windows that fit a small machine.
RECIPE = Recipe(batch=2, window=256)


def serve(model: str, kind: str) -> None:
    """Do a step for each line on stdin; answer with its seconds and the peak memory, in bytes."""
    teacher = find_source(model).model.float().requires_grad_(False)
    student = make_student(teacher, RECIPE)
    if kind == "plain":
        convert(student)
        moving = [linear.weight.requires_grad_() for linear in block_linears(student).values()]
    else:
        moving = [each for group in parameter_groups(student, RECIPE) for each in group["params"]]
    optimizer = torch.optim.AdamW(moving, weight_decay=0.0, fused=True)
    vocabulary = teacher.get_input_embeddings().num_embeddings
    for _ in sys.stdin:
        tokens = torch.randint(vocabulary, (RECIPE.batch, RECIPE.window))
        start = time.perf_counter()
        step(teacher, student, optimizer, tokens)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([seconds, peak]), flush=True)


def step(teacher, student, optimizer, tokens) -> None:
    options = {"output_hidden_states": True, "use_cache": False}
    with torch.no_grad():
        answers = teacher(input_ids=tokens, **options)
    total, _ = loss_parts(RECIPE.losses, student(input_ids=tokens, **options), answers, tokens)
    total.backward()
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--serve", choices=("plain", "dlt"))
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.model, arguments.serve)
        return
    command = [sys.executable, "-m", "tests.bench_training", "--model", arguments.model, "--serve"]
    pipe = subprocess.PIPE
    processes = {
        kind: subprocess.Popen([*command, kind], stdin=pipe, stdout=pipe, text=True)
        for kind in ("plain", "dlt")
    }
    results: dict[str, list[list[float]]] = {kind: [] for kind in processes}
    for turn in range(arguments.steps + 1):
        for kind, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if turn:  # the first one warms up
                results[kind].append(answer)
    for process in processes.values():
        process.communicate()
    seconds = {kind: statistics.median(row[0] for row in rows) for kind, rows in results.items()}
    memory = {kind: max(row[1] for row in rows) for kind, rows in results.items()}
    for kind in processes:
        print(f"{kind:6} median {seconds[kind]:.2f} s a step, peak {memory[kind] / 1e9:.2f} GB")
    ratios = [values["dlt"] / values["plain"] for values in (seconds, memory)]
    print(f"time {ratios[0]:.2f} x, peak memory {ratios[1]:.2f} x")


if __name__ == "__main__":
    main()
