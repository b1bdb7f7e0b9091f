"""What a comparison measures of a model: perplexity, distance from the teacher, size, zero-shot."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.comparison.layer_outputs import mean_output_error
from quant.comparison.suites import Suite
from quant.losses.features import FeatureLoss, Features, feature_loss
from quant.losses.logits import teacher_divergence
from quant.methods import quantized_linears
from quant.progress import Progress, silent
from quant.scoring.perplexity import perplexity
from quant.scoring.zero_shot import zero_shot
from quant.text.loading import windows
from quant.training.recipe import Precision

__all__ = ["Tasks", "measure", "sizes"]


@dataclass(frozen=True)
class Tasks:
    """Zero-shot questions: which files of a folder, and how many of each."""

    folder: Path
    names: tuple[str, ...]
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what two runs must share to be compared."""
        return {"names": list(self.names), "limit": self.limit}

    def scores(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: Suite
    ) -> dict[str, dict[str, Any]]:
        """Return a plain model's scores by task, computed in the suite's precision."""
        with _precision(suite):
            found = zero_shot(model, tokenizer, self.names, folder=self.folder, limit=self.limit)
        return {score.task: asdict(score) for score in found.scores}


def measure(
    model: PreTrainedModel,
    teacher: PreTrainedModel,
    held_out: dict[str, Tensor],
    suite: Suite,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a prepared model on held-out texts.

    Returns
    -------
    dict
        "perplexity" by text (GPTQ's protocol, windows of the suite's size, in its precision),
        "divergence" and "cosine": KL(teacher || student) a token in nats, and the mean of 1 - cos
        over blocks, both in float32 on the first windows of the first text; "output_error" on
        half of these, None of the teacher itself.
    """
    with _precision(suite):
        perplexities = {
            name: perplexity(model, tokens, window=suite.test_window, progress=progress).perplexity
            for name, tokens in held_out.items()
        }
    numbers: dict[str, Any] = {
        "perplexity": perplexities,
        "tokens_measured": {name: len(tokens) for name, tokens in held_out.items()},
        "window": suite.test_window,
    }
    first = windows(next(iter(held_out.values())), suite.test_window)[:8]
    divergence, cosine = _against(model, teacher, first)
    own = model is teacher
    error = None if own else mean_output_error(model, teacher, first[: len(first) // 2])
    return {**numbers, "divergence": divergence, "cosine": cosine, "output_error": error}


@torch.no_grad()
def _against(
    model: PreTrainedModel, teacher: PreTrainedModel, tokens: Tensor
) -> tuple[float, float]:
    """Return the divergence from the teacher, and the features' distance, over windows."""
    divergence = cosine = 0.0
    for window in tokens:
        ours, theirs = (
            each(input_ids=window[None].to(each.device), output_hidden_states=True, use_cache=False)
            for each in (model, teacher)
        )
        divergence += float(teacher_divergence(ours.logits, theirs.logits)) / len(tokens)
        pairs = (ours.hidden_states, theirs.hidden_states)
        cosine += float(feature_loss(FeatureLoss.OFF, Features.ALL, *pairs)) / len(tokens)
    return divergence, cosine


@torch.no_grad()
def sizes(model: nn.Module, teacher: nn.Module) -> dict[str, Any]:
    """Return bits a weight, size, and the error against the teacher's weights, over all layers.

    None of the teacher itself, whose bits are another's matter.
    """
    if model is teacher:
        return {"bits_per_weight": None, "quantized_bytes": None, "weight_error": None}
    bits = weights = 0.0
    error = norm = 0.0
    for name, linear, quantizer in quantized_linears(model):
        exact = teacher.get_submodule(name).weight
        bits += quantizer.bits_per_weight(exact) * exact.numel()
        weights += exact.numel()
        error += float((linear.weight.to(exact.device) - exact).double().square().sum())
        norm += float(exact.double().square().sum())
    return {
        "bits_per_weight": bits / weights,
        "quantized_bytes": round(bits / 8),
        "weight_error": error / norm,
    }


def _precision(suite: Suite) -> torch.autocast:
    """Compute in what the suite trains in: weights are quantised in float32 all the same."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(kind, torch.bfloat16, enabled=suite.recipe.precision is Precision.BF16)
