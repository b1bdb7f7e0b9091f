"""One run of a comparison: prepare, perhaps train, measure; the result is a small JSON file."""

import copy
import hashlib
import json
import resource
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quant.comparison.layer_outputs import mean_output_error
from quant.comparison.suites import Entry, Suite
from quant.losses.features import FeatureLoss, Features, feature_loss
from quant.losses.logits import teacher_divergence
from quant.methods import convert, named_method, quantized_linears
from quant.models.prepared import save_prepared
from quant.models.sources import ModelSource
from quant.progress import Progress, silent
from quant.scoring.perplexity import perplexity
from quant.scoring.zero_shot import zero_shot
from quant.text.loading import load_tokens, named_split, windows
from quant.text.packed import is_packed, read_packed, write_packed
from quant.training.batches import Batches
from quant.training.loop import CHECKPOINT, Trainer
from quant.training.recipe import Precision, Recipe
from quant.training.start import Start, begin_from, fit_start
from quant.training.student import make_student
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

__all__ = ["RESULT", "Tasks", "first_blocks", "measure", "read_result", "run_entry"]

#: The file that says that a run is done.
RESULT: Final = "result.json"


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
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, dict[str, Any]]:
        """Return a plain model's scores by task."""
        found = zero_shot(model, tokenizer, self.names, folder=self.folder, limit=self.limit)
        return {score.task: asdict(score) for score in found.scores}


@dataclass(frozen=True)
class _Texts:
    """Tokens of a run: for training and calibration, and those to measure on."""

    training: Tensor
    #: By name of the text, int64 [T].
    held_out: dict[str, Tensor]


def run_entry(
    suite: Suite,
    entry: Entry,
    seed: int,
    source: ModelSource,
    training_text: str,
    folder: Path,
    *,
    tasks: Tasks | None = None,
    keep_model: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Do one run, or read its result where it is done; an interrupted training goes on.

    Parameters
    ----------
    suite : Suite
    entry : Entry
    seed : int
    source : ModelSource
        The full-precision model.
    training_text : str
        Corpus or file that methods train and calibrate on, its train split.
    folder : Path
        The run's own.
    tasks : Tasks, optional
        Zero-shot questions to score the model on.
    keep_model : bool
        Write the prepared model, too (as large as the model itself).
    progress : Progress

    Returns
    -------
    dict
        As `result.json` holds it.
    """
    recipe = suite.recipe_of(entry, seed)
    asked = {
        "suite": suite.name,
        "entry": entry.name,
        "method": entry.method,
        "options": recipe.options.to_json() if entry.method else {},
        "seed": seed,
        "model": source.origin,
        "text": training_text,
        "losses": recipe.to_json()["losses"] if entry.losses else None,
        "steps": recipe.steps if entry.losses else 0,
        "learning_rate": recipe.learning_rate if entry.losses else None,
        "start": recipe.start_from,
        "tasks": tasks.to_json() if tasks is not None else None,
    }
    if (done := read_result(folder)) is not None:
        _check_same(asked, done, folder)
        return done
    folder.mkdir(parents=True, exist_ok=True)
    teacher = first_blocks(source.model.float(), suite.blocks)
    texts = _texts(suite, source, training_text, folder.parent, progress)
    begin = None
    if recipe.start_from:  # made by the first run to need it: every seed trains from the same one
        begin = fit_start(
            folder.parent / f"start-{recipe.start_from}",
            teacher,
            recipe,
            texts.training,
            origin=source.origin,
            windows=suite.calibration_windows,
            progress=progress,
        )
    start = time.monotonic()
    model = _make(
        suite, entry, recipe, teacher, texts.training, folder, source.origin, begin, progress
    )
    made = {
        "tokens": _tokens_seen(suite, entry, recipe),
        **_sizes(model, teacher),
        "seconds": round(time.monotonic() - start, 1),
        "peak_bytes": _peak_bytes(),
    }
    measured = measure(model, teacher, texts.held_out, suite, progress)
    vocabulary = teacher.get_input_embeddings().num_embeddings
    result = {**asked, **made, **measured, "vocabulary": vocabulary}
    if keep_model and entry.method:
        save_prepared(
            folder / "model",
            model,
            source.tokenizer,
            method=entry.method,
            config=recipe.options,
            origin=source.origin,
            training=recipe.to_json() if entry.losses else None,
            overwrite=True,
        )
    if tasks is not None:
        convert(model)
        with _precision(suite):
            result["zero_shot"] = tasks.scores(model, source.tokenizer)
    write_atomic(folder / RESULT, json.dumps(result, indent=2) + "\n")
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)  # a gigabyte that nobody resumes
    return result


def _check_same(asked: dict[str, Any], done: dict[str, Any], folder: Path) -> None:
    """Refuse a result that is of another suite, model, text or recipe."""
    for name, value in asked.items():
        if done.get(name) != value:
            raise TernError(
                f"{folder / RESULT} must be of {name} {value!r:.80}, not {done.get(name)!r:.80}; "
                "give another --output"
            )


def _tokens_seen(suite: Suite, entry: Entry, recipe: Recipe) -> int:
    """Return the tokens that a run trains and calibrates on."""
    trained = recipe.steps * recipe.tokens_per_step if entry.losses else 0
    fitted = entry.start_from or entry.method
    calibrated = bool(fitted) and named_method(fitted).calibrated
    return trained + calibrated * suite.calibration_windows * recipe.window


def _peak_bytes() -> int:
    """Return the most memory that making the model took: the GPU's where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return a run's result, or None where it is not done."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TernError(
            f"{path} must be a JSON file ({error}); remove it to run it again"
        ) from None
    return result if isinstance(result, dict) else None


def first_blocks(model: PreTrainedModel, blocks: int | None) -> PreTrainedModel:
    """Return the model cut to its first blocks, in place; embedding, norm and head stay."""
    if blocks is None:
        return model
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module[:blocks])
            model.config.num_hidden_layers = blocks
            # Types of attention are listed by block.
            if kinds := getattr(model.config, "layer_types", None):
                model.config.layer_types = kinds[:blocks]
            return model
    raise TernError(f"model must have blocks to take the first {blocks} of, not none")


def _precision(suite: Suite) -> torch.autocast:
    """Compute in what the suite trains in: weights are quantised in float32 all the same."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(kind, torch.bfloat16, enabled=suite.recipe.precision is Precision.BF16)


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
        "perplexity" by text (GPTQ's protocol, windows of the suite's size), "divergence" and
        "cosine": KL(teacher || student) a token in nats, and the mean of 1 - cos over blocks, both
        on the first windows of the first text; "output_error" on half of these.
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


def _texts(
    suite: Suite, source: ModelSource, training: str, kept: Path, progress: Progress
) -> _Texts:
    """Return a run's tokens, packed by the first run of a comparison and read by the others."""
    held_out = {
        name: _tokens(source, name, split, kept, progress)[: suite.test_tokens]
        for name, split in suite.texts
    }
    return _Texts(_tokens(source, training, "train", kept, progress), held_out)


def _tokens(source: ModelSource, name: str, split: str, kept: Path, progress: Progress) -> Tensor:
    digest = hashlib.sha256(f"{name}\n{split}\n{source.origin}".encode()).hexdigest()[:16]
    path = kept / f"tokens-{digest}.safetensors"
    if not is_packed(path):
        tokens = load_tokens(name, source.tokenizer, split, progress=progress)
        write_packed(path, tokens, source.tokenizer, name=source.origin, split=named_split(split))
    return read_packed(path, source.tokenizer, named_split(split))


def _make(
    suite: Suite,
    entry: Entry,
    recipe: Recipe,
    teacher: PreTrainedModel,
    tokens: Tensor,
    folder: Path,
    origin: str,
    begin: Start | None,
    progress: Progress,
) -> PreTrainedModel:
    """Return the prepared, and where the entry has losses trained, model."""
    if not entry.method:
        return teacher
    if entry.losses is None:
        return _fitted(suite, recipe, teacher, tokens, progress)
    student = make_student(teacher, recipe, progress=progress)
    if begin is not None:
        begin_from(student, begin, recipe)
    trainer = Trainer(teacher, student, recipe, tokens, folder, origin=origin)
    with progress(f"training {entry.name}", recipe.steps) as advance:
        trainer.train(lambda row: advance(1))
    return trainer.model


def _fitted(
    suite: Suite, recipe: Recipe, teacher: PreTrainedModel, tokens: Tensor, progress: Progress
) -> PreTrainedModel:
    """Return a copy of the teacher, quantised without training."""
    model = copy.deepcopy(teacher)
    method = named_method(recipe.method)
    # From all over the text, as training sees it: its first windows would be of one kind.
    windows = Batches(tokens, recipe.window, suite.calibration_windows, recipe.seed)
    calibration = windows.at(0) if method.calibrated else None
    method.prepare(model, recipe.options, calibration=calibration, progress=progress)
    return model


@torch.no_grad()
def _sizes(model: nn.Module, teacher: nn.Module) -> dict[str, Any]:
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
