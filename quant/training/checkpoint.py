"""What a killed run goes on from: the moving parameters, the optimiser's moments, the step.

A checkpoint is a folder of two safetensors files and a JSON file, written beside its place and
exchanged with the one before in one step, so that at any instant one whole checkpoint exists.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from quant.cache import file_sha256
from quant.models.tensors import save_tensors
from quant.training.sharding import divided_like, whole
from tern_hw.errors import TernError
from tern_hw.files import atomic_directory

__all__ = [
    "fingerprint",
    "has_checkpoint",
    "load_checkpoint",
    "remove_remains",
    "save_checkpoint",
]

PARAMETERS: Final = "parameters.safetensors"
MOMENTS: Final = "optimizer.safetensors"
STATE: Final = "state.json"
#: AdamW's tensors of each parameter.
MOMENT_NAMES: Final = ("exp_avg", "exp_avg_sq", "step")
#: Those that have the parameter's shape.
MOMENTS_LIKE: Final = MOMENT_NAMES[:2]


def fingerprint(recipe: Mapping[str, Any], tokens: Tensor, teacher: nn.Module) -> str:
    """Return a checksum of what must not change between a run and its resumption."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for tensor in (tokens, *teacher.state_dict().values()):
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def remove_remains(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left beside a checkpoint."""
    for path in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def has_checkpoint(folder: Path) -> bool:
    """Tell whether a run was begun here."""
    return (folder / STATE).is_file()


def save_checkpoint(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    identity: str,
    writes: bool = True,
) -> None:
    """Write a checkpoint; every process calls it, one of them `writes`.

    Parameters
    ----------
    folder : Path
    parameters : dict of str to Parameter
        Those that move, by name.
    optimizer : Optimizer
        AdamW over them.
    step : int
        Steps done.
    identity : str
        The run's `fingerprint`.
    writes : bool
        Whether this process is the one that writes.
    """
    values = {name: _kept(parameter, writes) for name, parameter in parameters.items()}
    moments = {
        f"{name}.{moment}": _kept(optimizer.state[parameter][moment], writes)
        for name, parameter in parameters.items()
        for moment in MOMENT_NAMES
        # A parameter that no loss reaches has no moments.
        if parameter in optimizer.state
    }
    if not writes:
        return
    with atomic_directory(folder, overwrite=True) as fresh:
        save_tensors(fresh / PARAMETERS, values)
        save_tensors(fresh / MOMENTS, moments)
        sha256 = {name: file_sha256(fresh / name) for name in (PARAMETERS, MOMENTS)}
        state = {"step": step, "identity": identity, "sha256": sha256}
        (fresh / STATE).write_text(json.dumps(state, indent=2) + "\n")


def load_checkpoint(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    identity: str,
) -> int:
    """Fill parameters and optimiser from a checkpoint, and return the steps done.

    Raises
    ------
    TernError
        If it is damaged, or of another model, text or recipe.
    """
    state = _state(folder)
    if state["identity"] != identity:
        raise TernError(
            f"a resumed run must have the recipe, model and text it began with, not others than "
            f"{folder} records; give a new --output to begin anew"
        )
    values = _tensors(folder, PARAMETERS, state)
    moments = _tensors(folder, MOMENTS, state)
    if values.keys() != parameters.keys():
        raise TernError(f"{folder} must hold the parameters of this model, not of another one")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(_placed(values[name], parameter))
            if f"{name}.step" in moments:
                average, square = (_placed(moments[f"{name}.{m}"], parameter) for m in MOMENTS_LIKE)
                step = moments[f"{name}.step"].to(parameter.device)
                optimizer.state[parameter] = {
                    "exp_avg": average,
                    "exp_avg_sq": square,
                    "step": step,
                }
    return int(state["step"])


def _kept(tensor: Tensor, writes: bool) -> Tensor:
    """Return the whole tensor in memory, of a process that writes; nothing of it of another."""
    gathered = whole(tensor.detach())
    return gathered.cpu().contiguous() if writes else gathered.new_empty(0)


def _placed(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a tensor on its parameter's device, divided among processes as that is."""
    if tensor.shape != parameter.shape:
        raise TernError(
            f"checkpoint's tensors must have the model's shapes, not {list(tensor.shape)} "
            f"for {list(parameter.shape)}"
        )
    return divided_like(tensor, parameter)


def _state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TernError(f"{path} must be a JSON file ({error})") from None
    kinds = {"step": int, "identity": str, "sha256": dict}
    for name, kind in kinds.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise TernError(f"{path} must be a checkpoint's state with {name}, not without")
    return state


def _tensors(folder: Path, name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / name
    if not path.is_file():
        raise TernError(f"checkpoint must hold {name}, which is missing in {folder}")
    if (found := file_sha256(path)) != state["sha256"].get(name):
        raise TernError(f"{path} must have the sha256 that its state records, not {found}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise TernError(f"{path} must be a safetensors file ({error})") from None
