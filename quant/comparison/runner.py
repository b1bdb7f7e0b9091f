"""One run of a comparison: prepare, perhaps train, measure; the result is a small JSON file."""

import hashlib
import json
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quant.comparison.measures import Tasks, measure, sizes
from quant.comparison.suites import Entry, Suite
from quant.methods import convert, named_method
from quant.models.prepared import save_prepared
from quant.models.sources import ModelSource
from quant.progress import Progress, silent
from quant.text.loading import load_tokens, named_split
from quant.text.packed import is_packed, read_packed, write_packed
from quant.training.fitting import fitted_copy
from quant.training.loop import CHECKPOINT, Trainer
from quant.training.recipe import Recipe
from quant.training.start import Start, begin_from, fit_start
from quant.training.student import make_student
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

__all__ = ["RESULT", "first_blocks", "read_result", "run_entry"]

#: The file that says that a run is done.
RESULT: Final = "result.json"


@dataclass(frozen=True)
class _Texts:
    """Tokens of a run: for training and calibration, and those to measure on."""

    training: Tensor
    #: By name of the text, int64 [T].
    held_out: dict[str, Tensor]


@dataclass(frozen=True)
class _Run:
    """One run, and how its model is made."""

    suite: Suite
    entry: Entry
    recipe: Recipe
    #: What the teacher is, in words.
    origin: str
    folder: Path
    progress: Progress

    def start(self, teacher: PreTrainedModel, tokens: Tensor) -> Start | None:
        """Return what training starts from, if that is a method's levels.

        The first run to need them makes them, and every seed trains from the same.
        """
        if not self.recipe.start_from:
            return None
        return fit_start(
            self.folder.parent / f"start-{self.recipe.start_from}",
            teacher,
            self.recipe,
            tokens,
            origin=self.origin,
            windows=self.suite.calibration_windows,
            progress=self.progress,
        )

    def make(
        self, teacher: PreTrainedModel, tokens: Tensor, start: Start | None
    ) -> PreTrainedModel:
        """Return the prepared, and where the entry has losses trained, model."""
        if not self.entry.method:
            return teacher
        if self.entry.losses is None:
            return self._fitted(teacher, tokens)
        student = make_student(teacher, self.recipe, progress=self.progress)
        if start is not None:
            begin_from(student, start, self.recipe)
        trainer = Trainer(teacher, student, self.recipe, tokens, self.folder, origin=self.origin)
        with self.progress(f"training {self.entry.name}", self.recipe.steps) as advance:
            trainer.train(lambda row: advance(1))
        return trainer.model

    def _fitted(self, teacher: PreTrainedModel, tokens: Tensor) -> PreTrainedModel:
        recipe = self.recipe
        return fitted_copy(
            teacher,
            named_method(recipe.method),
            recipe.options,
            tokens,
            window=recipe.window,
            windows=self.suite.calibration_windows,
            seed=recipe.seed,
            progress=self.progress,
        )

    def tokens_seen(self) -> int:
        """Return the tokens that a run trains and calibrates on."""
        trained = self.recipe.steps * self.recipe.tokens_per_step if self.entry.losses else 0
        fitted = self.entry.start_from or self.entry.method
        calibrated = bool(fitted) and named_method(fitted).calibrated
        return trained + calibrated * self.suite.calibration_windows * self.recipe.window


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
    run = _Run(suite, entry, recipe, source.origin, folder, progress)
    start = run.start(teacher, texts.training)
    begun = time.monotonic()
    model = run.make(teacher, texts.training, start)
    made = {
        "tokens": run.tokens_seen(),
        **sizes(model, teacher),
        "seconds": round(time.monotonic() - begun, 1),
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
        result["zero_shot"] = tasks.scores(model, source.tokenizer, suite)
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
