"""Models by name: the published ones, and the configurations on disk."""

import difflib
import json
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tern_hw.costs.models import Model, model_from_config
from tern_hw.errors import TernError

__all__ = ["CATALOGUE", "catalogue", "open_model"]

#: Largest config.json that is read, in bytes (an artifact's lists all tensors).
MAX_BYTES: Final = 64 << 20
CATALOGUE: Final = Path(__file__).resolve().parent / "tables" / "models.toml"


@lru_cache
def catalogue() -> dict[str, Model]:
    """Return the published models that are known by name.

    Raises
    ------
    TernError
        If a shape does not have the parameters that its entry says: a mistake of ours.
    """
    models = {}
    for name, entry in tomllib.loads(CATALOGUE.read_text(encoding="utf-8")).items():
        model = model_from_config(entry["config"], name, entry["source"])
        if model.parameters != entry["parameters"]:
            raise TernError(
                f"{name}: parameters must be {model.parameters} by its shape, "
                f"not {entry['parameters']}"
            )
        models[name] = model
    return models


def open_model(name: str) -> Model:
    """Return a model of the catalogue, or that of a config.json or of a folder with one.

    Raises
    ------
    TernError
        If there is none of that name, or its configuration is not understood.
    """
    known = catalogue()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix != ".json" and not path.is_file():
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" (there is {close[0]})" if close else ""
        raise TernError(
            f"model must be a folder, a config.json or one of {', '.join(known)}, "
            f"not {name!r}{hint}"
        )
    label = path.parent.resolve().name if path.name == "config.json" else path.stem
    return model_from_config(_read(path), label, str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TernError(f"{path} must be at most {MAX_BYTES} bytes")
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise TernError(f"{path} must be a readable file ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, TernError):
            raise
        raise TernError(f"{path} must be JSON in UTF-8 ({error})") from None
    if not isinstance(content, dict):
        raise TernError(f"{path} must be a JSON object, not {type(content).__name__}")
    return content
