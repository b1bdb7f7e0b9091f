"""Open the models of an analysis: unquantised teachers, prepared folders, and students."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel

from quant.methods import MethodConfig, Quantizer, convert, named_method, quantized_linears
from quant.methods.base import latent_weight
from quant.models.linears import block_linears, select_linears
from quant.models.prepared import Prepared, is_prepared, load_prepared
from quant.models.sources import ModelSource, find_source
from quant.progress import Progress, silent
from tern_hw.errors import TernError

__all__ = [
    "QuantizedLayer",
    "Student",
    "block_modules",
    "labels_of",
    "open_prepared",
    "open_teacher",
    "prepare_student",
    "prepared_student",
    "quantized_layers",
]

#: A block's name and the rest: model.layers.7 and mlp.up_proj.
BLOCK = re.compile(r"^(.*?\.\d+)\.(.*)$")


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer of a prepared model: its weight before quantisation, and its quantiser."""

    name: str
    #: float [N, K].
    latent: Tensor
    quantizer: Quantizer


@dataclass(frozen=True)
class Student:
    """A model that computes with its quantised weights as plain ones, float32."""

    #: What tables and legends call it.
    label: str
    model: PreTrainedModel


def block_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the model's repeated blocks by name, in order: those that hold its block linears.

    Of nested blocks, as experts are, the outermost.
    """
    names = {match[1]: None for name in block_linears(model) if (match := BLOCK.match(name))}
    return {name: model.get_submodule(name) for name in names}


def open_teacher(name: str, progress: Progress = silent) -> ModelSource:
    """Find an unquantised model by what a user calls it; a prepared folder is refused.

    Raises
    ------
    TernError
        If there is none, or it is a prepared folder: its plain weights are not those that it
        computes with, and after training no longer the teacher's.
    """
    source = find_source(name, progress)
    if is_prepared(source.path):
        raise TernError(f"model must be an unquantised one, not the prepared folder {name}")
    return source


def open_prepared(folder: str) -> Prepared:
    """Read a prepared folder.

    Raises
    ------
    TernError
        If it is none, or damaged.
    """
    if not folder or not is_prepared(Path(folder)):
        raise TernError(f"folder must be a prepared model, with its quantisers, not {folder!r}")
    return load_prepared(Path(folder))


def quantized_layers(prepared: Prepared, globs: Sequence[str] = ("*",)) -> list[QuantizedLayer]:
    """Return the quantised layers of a prepared model whose names match.

    Raises
    ------
    TernError
        If a glob matches none.
    """
    found = {
        name: (linear, quantizer) for name, linear, quantizer in quantized_linears(prepared.model)
    }
    chosen = select_linears({name: linear for name, (linear, _) in found.items()}, globs)
    return [
        QuantizedLayer(name, latent_weight(linear).detach(), found[name][1])
        for name, linear in chosen.items()
    ]


def labels_of(folders: Sequence[str]) -> list[str]:
    """Return short labels of folders: their names, or the paths where two names agree."""
    names = [Path(folder).resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else list(folders)


def prepared_student(folder: str, label: str, teacher: PreTrainedModel) -> Student:
    """Open a prepared folder as a student of a teacher.

    Raises
    ------
    TernError
        If it is no prepared folder, or its blocks or vocabulary are not like the teacher's.
    """
    model = open_prepared(folder).model
    convert(model)
    _check_alike(teacher, model, folder)
    return Student(label, model.float().eval())


def prepare_student(
    teacher: PreTrainedModel, method: str, config: MethodConfig, progress: Progress = silent
) -> Student:
    """Quantise a copy of the teacher by a method that needs neither training nor text.

    Raises
    ------
    TernError
        If the method needs calibration text.
    """
    found = named_method(method)
    if found.calibrated:
        raise TernError(
            f"--method must be one that needs no calibration text, not {method}; "
            "a folder that it prepared may be given instead"
        )
    model = copy.deepcopy(teacher)
    found.prepare(model, config, progress=progress)
    convert(model)
    return Student(f"{method}, not trained", model.float().eval())


def _check_alike(teacher: PreTrainedModel, student: PreTrainedModel, folder: str) -> None:
    """Refuse a student whose features could not be laid beside the teacher's."""

    def shape(model: PreTrainedModel) -> str:
        table = model.get_input_embeddings().weight.shape
        return f"{len(block_modules(model))} blocks, a vocabulary of {table[0]}, width {table[1]}"

    if shape(student) != shape(teacher):
        raise TernError(
            f"student must have {shape(teacher)}, as the teacher has, not {shape(student)} "
            f"as {folder} has"
        )
