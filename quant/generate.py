"""`python -m quant.generate`: text from a ternary artifact, on the kernels, as it comes."""

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, integer, progress, run
from tern_hw.errors import TernError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["main"]

EXAMPLE = """example:
  python -m quant.export run/model --output artifact/
  python -m quant.generate --model artifact/ --prompt "The committee said that" --tokens 64

The text goes to standard output as it comes, the speed to standard error when it is done.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    # Tokens follow one another: threads that sleep between them take longer to wake than to work.
    os.environ.setdefault("OMP_WAIT_POLICY", "active")
    import torch

    from quant.runtime import kernel_layers, load

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    start = time.monotonic()
    model, tokenizer = load(
        arguments.model,
        activation=arguments.activation,
        packing=arguments.packing,
        threads=arguments.threads,
        tokenizer=arguments.tokenizer,
        dtype=getattr(torch, arguments.dtype),
        progress=progress,
    )
    loaded = time.monotonic() - start
    report = {
        "model": arguments.model,
        "activation": arguments.activation,
        "seconds_to_load": round(loaded, 2),
        "layer_bytes": sum(layer.matrix.nbytes for _, layer in kernel_layers(model)),
        **_generate(model, tokenizer, arguments),
    }
    if arguments.beside_torch:
        report["beside_torch"] = _beside_torch(model, tokenizer, arguments)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print(
            f"{report['prompt_tokens']} tokens read at {report['prompt_tokens_per_s']:.1f} "
            f"tokens/s, {report['tokens']} written at {report['tokens_per_s']:.1f} tokens/s "
            f"(layers: {report['layer_bytes'] / 1e6:.1f} MB; loaded in {loaded:.1f} s)",
            file=sys.stderr,
        )
        for line in _beside_lines(report):
            print(line, file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.generate",
        description="Generate text with a ternary artifact; its layers never leave packed trits.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, metavar="ARTIFACT", help="an artifact's folder (quant.export)"
    )
    parser.add_argument("--prompt", required=True, help="the text to go on from")
    parser.add_argument(
        "--tokens", type=integer, default=128, help="at most so many new tokens (default: 128)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 takes the likeliest token (default), more draws at random",
    )
    parser.add_argument("--seed", type=integer, default=0, help="of the draws (default: 0)")
    parser.add_argument("--tokenizer", metavar="MODEL", help="take this model's tokenizer")
    speed = parser.add_argument_group("how it computes")
    speed.add_argument(
        "--activation",
        choices=("int8", "fp16"),
        default="int8",
        help="what enters the ternary layers: int8, a scale a token (default), or fp16, exactly",
    )
    speed.add_argument(
        "--packing",
        choices=("2bit", "base3"),
        default="2bit",
        help="how the layers lie in memory (default: 2bit)",
    )
    speed.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what all else computes in (default: float32)",
    )
    speed.add_argument("--threads", type=integer, help="threads (default: one a processor)")
    speed.add_argument(
        "--beside-torch",
        action="store_true",
        help="then decode in turns with the same weights in PyTorch, float32 and bfloat16, and "
        "tell where a token's time goes",
    )
    parser.add_argument("--json", action="store_true", help="print text and figures as JSON")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuse at once what would be refused after the model was read."""
    for name in ("tokens", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise TernError(f"--{name} must be a positive integer, not {value}")
    if not 0 <= arguments.temperature <= 100:
        raise TernError(f"--temperature must be from 0 to 100, not {arguments.temperature}")
    if arguments.seed < 0:
        raise TernError(f"--seed must not be negative, not {arguments.seed}")


def _generate(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", arguments: argparse.Namespace
) -> dict[str, Any]:
    """Generate, and return the text and how fast it came."""
    import torch
    from transformers import TextStreamer, set_seed

    from quant.models.limits import check_window

    read = tokenizer(arguments.prompt, return_tensors="pt")
    count = read["input_ids"].shape[1]
    if count == 0:
        raise TernError("--prompt must be a text of one token or more, not empty")
    check_window(model, count + arguments.tokens)
    clock = _Clock()
    streamers = [clock]
    if not arguments.json:
        print(arguments.prompt, end="", flush=True)
        streamers.append(TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True))
    set_seed(arguments.seed)
    drawn = arguments.temperature > 0
    with torch.inference_mode():
        written = model.generate(
            **read,
            max_new_tokens=arguments.tokens,
            do_sample=drawn,
            temperature=arguments.temperature if drawn else None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.eos_token_id,
            streamer=_Both(streamers),
        )
    new = written[0, count:]
    return {
        "prompt_tokens": count,
        "prompt_tokens_per_s": count / clock.first,
        "tokens": len(new),
        "tokens_per_s": (len(new) - 1) / clock.rest if len(new) > 1 else 1 / clock.first,
        "text": tokenizer.decode(new, skip_special_tokens=True),
    }


def _beside_torch(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return tokens a second, here and in PyTorch, and where a token's time goes."""
    import torch

    from quant.models.opening import open_model
    from quant.runtime.speed import decode_speeds, median_ratio, split_of_time

    models = {"kernels": model}
    for dtype in (torch.float32, torch.bfloat16):
        opened = open_model(arguments.model, tokenizer=arguments.tokenizer, dtype=dtype)
        models[f"torch {str(dtype).partition('.')[2]}"] = opened.model
    read = tokenizer(arguments.prompt, return_tensors="pt")
    tokens = max(2, arguments.tokens)
    speeds = decode_speeds(models, read, tokens, progress=progress)
    return {
        "tokens_per_s": speeds,
        "times": {name: median_ratio(speeds["kernels"], speeds[name]) for name in list(speeds)[1:]},
        "ms_a_token": split_of_time(model, read, tokens),
    }


def _beside_lines(report: dict[str, Any]) -> list[str]:
    if "beside_torch" not in report:
        return []
    beside = report["beside_torch"]
    middle = {name: sorted(each)[len(each) // 2] for name, each in beside["tokens_per_s"].items()}
    times = {name: f" ({ratio:.2f} times)" for name, ratio in beside["times"].items()}
    split = ", ".join(f"{name} {each:.1f}" for name, each in beside["ms_a_token"].items())
    return [
        *(f"{name}: {speed:.1f} tokens/s{times.get(name, '')}" for name, speed in middle.items()),
        f"ms a token on the kernels, clocks included: {split}",
    ]


class _Both:
    """Hands tokens on to several streamers."""

    def __init__(self, streamers: list[Any]) -> None:
        self._streamers = streamers

    def put(self, value: Any) -> None:
        for each in self._streamers:
            each.put(value)

    def end(self) -> None:
        for each in self._streamers:
            each.end()


class _Clock:
    """Takes the time of the prompt with the first token, and of all others."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def put(self, value: Any) -> None:
        """Note a token; the first call is the prompt's, before anything is computed."""
        self._times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing more comes."""

    @property
    def first(self) -> float:
        """Seconds from the prompt to the first token."""
        return self._times[1] - self._times[0]

    @property
    def rest(self) -> float:
        """Seconds from the first token to the last."""
        return self._times[-1] - self._times[1]


if __name__ == "__main__":
    raise SystemExit(run(main))
