"""A training recipe: every number that decides the result, read from a TOML file or made here."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from quant.losses.features import FeatureLoss, Features
from quant.losses.logits import DAD_EXPONENT
from quant.methods import MethodConfig, method_config
from quant.methods.config import settle_fields
from tern_hw.errors import TernError

__all__ = [
    "Losses",
    "Precision",
    "Recipe",
    "Trained",
    "load_recipe",
    "parse_losses",
    "recipe_names",
]


class Precision(StrEnum):
    """What matrix products are computed in; weights and optimiser are always float32."""

    FP32 = "fp32"
    #: The teacher is held in bfloat16, too.
    BF16 = "bf16"


class Trained(StrEnum):
    """Which parameters move."""

    #: The quantised layers' weights, scales and shifts.
    LINEARS = "linears"
    #: Also norms and biases.
    NORMS = "norms"
    #: Also embeddings and head.
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Weight of each part of the loss; a part of weight 0 is not computed."""

    #: Cross-entropy with the text itself.
    label: float = 0.0
    #: KL(teacher || student).
    kl: float = 1.0
    #: Deviation-aware distillation (DB-LLM), beside or instead of `kl`.
    dad: float = 0.0
    dad_exponent: float = DAD_EXPONENT
    #: Weight of the loss on features.
    features: float = 10.0
    feature_loss: FeatureLoss = FeatureLoss.OFF
    feature_layers: Features = Features.ALL

    def __post_init__(self) -> None:
        settle_fields(self)
        for name in ("label", "kl", "dad", "features", "dad_exponent"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TernError(f"loss {name} must be finite and not negative, not {value}")
        if not any((self.label, self.kl, self.dad, self.features and self.compares_features)):
            raise TernError("losses must have a weight above 0, not none")

    @property
    def compares_features(self) -> bool:
        """Whether features take part."""
        return self.features > 0 and self.feature_loss is not FeatureLoss.NONE


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student is trained. Defaults are TernaryLLM's, as others report them.

    AdamW without decay, cosine after a warm-up, scales and shifts at a tenth of the weights' rate,
    batch 16, 10,000 steps, 500 of them warm-up: second-hand accounts of arXiv:2406.07177, whose
    own text was not to be had. Learning rate, window, betas and the losses' weights are ours.
    """

    method: str = "dlt"
    options: MethodConfig = field(default_factory=lambda: method_config("dlt", {}))
    losses: Losses = field(default_factory=Losses)
    #: What levels to begin with: those of a training-free method, by its name; those in the folder
    #: of an artifact or of a trained model; or, where this is empty, the method's own fit.
    start_from: str = ""
    steps: int = 10_000
    warmup_steps: int = 500
    #: Windows a step, over all processes.
    batch: int = 16
    #: Tokens of a window.
    window: int = 2048
    #: Parts a process cuts its windows into, one after another, to save memory.
    accumulation: int = 1
    #: Peak rate of the weights.
    learning_rate: float = 4e-4
    #: Rate of scales and shifts over that of the weights.
    scale_rate: float = 0.1
    #: Rate at the end over the peak.
    final_rate: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    #: Largest norm of the gradient; 0: not clipped.
    clip_norm: float = 1.0
    trained: Trained = Trained.LINEARS
    precision: Precision = Precision.FP32
    #: Recompute activations in the backward pass.
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        settle_fields(self, but=("options", "losses"))
        for name in ("steps", "batch", "window", "accumulation"):
            if getattr(self, name) < 1:
                raise TernError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise TernError(
                f"warmup_steps must be from 0 to steps ({self.steps}), not {self.warmup_steps}"
            )
        for name in ("learning_rate", "scale_rate", "epsilon", "clip_norm", "final_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TernError(f"{name} must be finite and not negative, not {value}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TernError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise TernError(f"seed must be 0 or more, not {self.seed}")
        if self.window < 2:
            raise TernError(f"window must be at least 2 tokens, not {self.window}")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (from 0) over its peak: linear up, cosine down."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * done)) / 2

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a step reads, over all processes."""
        return self.batch * self.window

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON holds it."""
        return {**dataclasses.asdict(self), "options": self.options.to_json()}

    def changed(self, **fields: Any) -> Self:
        """Return the recipe with some fields changed; None leaves a field as it is."""
        return dataclasses.replace(
            self, **{name: value for name, value in fields.items() if value is not None}
        )

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Self:
        """Build a recipe from a file's tables: [method] (with its `name`), [losses], [training]."""
        unknown = tables.keys() - {"method", "losses", "training"}
        if unknown:
            raise TernError(
                f"recipe must have tables method, losses and training, not {sorted(unknown)[0]!r}"
            )
        method = dict(tables.get("method", {}))
        name = method.pop("name", "dlt")
        losses = _known(Losses, tables.get("losses", {}))
        training = _known(cls, tables.get("training", {}), but=("method", "options", "losses"))
        return cls(
            method=name, options=method_config(name, method), losses=Losses(**losses), **training
        )


def recipe_names() -> list[str]:
    """List the recipes that come with the package."""
    folder = files("quant") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def load_recipe(name: str) -> Recipe:
    """Read a recipe: one that comes with the package, by name, or a TOML file.

    Raises
    ------
    TernError
        If there is none of that name, or it is not a recipe.
    """
    if name in recipe_names():
        text = (files("quant") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise TernError(f"recipe must be a UTF-8 text, not {name}") from None
    else:
        raise TernError(
            f"recipe must be a TOML file or one of {', '.join(recipe_names())}, not {name!r}"
        )
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TernError(f"recipe {name} must be TOML ({error})") from None
    return Recipe.from_tables(tables)


def parse_losses(texts: Sequence[str], base: Losses) -> Losses:
    """Return the losses with what `name=value` texts change, as a command line has them.

    Raises
    ------
    TernError
        If a name is no loss, or a value no weight.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise TernError(f"loss must be written name=value, not {text!r}")
        try:
            given[name] = float(value)
        except ValueError:
            given[name] = value
    return dataclasses.replace(base, **_known(Losses, given))


def _known(kind: type, table: Any, but: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a table after refusing names that are no fields of a dataclass."""
    if not isinstance(table, Mapping):
        raise TernError(f"recipe's parts must be tables, not {table!r:.40}")
    names = [each.name for each in dataclasses.fields(kind) if each.name not in but]
    for name in table:
        if name not in names:
            raise TernError(f"recipe must have fields among {', '.join(names)}, not {name!r}")
    return dict(table)
