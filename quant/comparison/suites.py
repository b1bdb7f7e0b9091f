"""What a comparison runs: equal text, equal steps, every method and loss by name."""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from quant.losses.features import FeatureLoss
from quant.methods import method_config, named_method
from quant.text.batches import CALIBRATION_WINDOWS
from quant.training.recipe import Losses, Precision, Recipe
from tern_hw.errors import TernError

__all__ = ["SUITES", "TEACHER", "Entry", "Suite", "named_suite"]


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a method, how it is told to work, and for how long it trains."""

    #: The row's name, which is also its folder's.
    name: str
    #: Empty: the teacher itself, as it is.
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    #: None: the method is not trained, only prepared.
    losses: Losses | None = None
    #: The training-free method whose levels the training starts from; empty: the method's own fit.
    start_from: str = ""
    #: Steps, where they differ from the suite's.
    steps: int | None = None
    #: Which seeds to run; a method that is not trained has one.
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Suite:
    """A comparison: a model, its texts, a recipe, and the rows."""

    name: str
    #: What --help and the report say of it.
    purpose: str
    recipe: Recipe
    entries: tuple[Entry, ...]
    #: Only the first blocks of the model, teacher and student alike; None: all.
    blocks: int | None = None
    #: Windows that calibrated methods see: as many as training, where that is not too many.
    calibration_windows: int = CALIBRATION_WINDOWS
    #: Tokens of each text that results are measured on.
    test_tokens: int = 65_536
    #: Texts with their split: what is measured on.
    texts: tuple[tuple[str, str], ...] = (("brown", "test"), ("moby-dick", "test"))
    #: Tokens of a window when measuring.
    test_window: int = 512

    def recipe_of(self, entry: Entry, seed: int) -> Recipe:
        """Return the recipe of one run; the teacher's has nothing to say."""
        if not entry.method:
            return replace(self.recipe, seed=seed)
        return replace(
            self.recipe,
            method=entry.method,
            options=method_config(entry.method, entry.options),
            losses=entry.losses or self.recipe.losses,
            steps=entry.steps or self.recipe.steps,
            start_from=entry.start_from,
            seed=seed,
        )


OFF_KL: Final = Losses()
KL: Final = Losses(feature_loss=FeatureLoss.NONE)

TEACHER: Final = Entry("teacher", "")
#: Post-training methods on ternary and on 2-bit grids, at their defaults.
TRAINING_FREE: Final = (
    Entry("rtn ternary", "rtn"),
    Entry("twn", "twn"),
    Entry("absmean", "absmean"),
    Entry("als", "als"),
    Entry("awq ternary", "awq", {"grid": "ternary"}),
    Entry("gptq ternary", "gptq"),
    Entry("pt2_llm", "pt2_llm"),
    Entry("aware", "aware"),
    Entry("pb_llm", "pb_llm"),
    Entry("rtn 2bit", "rtn", {"grid": "2bit"}),
    Entry("awq 2bit", "awq"),
    Entry("gptq 2bit", "gptq", {"grid": "2bit"}),
    Entry("omniquant 2bit", "omniquant", {"epochs": 4}),
)


#: Every row of DLT has this rule, that of the other methods, but those that compare rules.
IDENTITY: Final = {"ste": "identity"}


def trained(seeds: tuple[int, ...], more: tuple[int, ...]) -> tuple[Entry, ...]:
    """Return the rows that train; `more` are the seeds of those whose spread matters most."""
    return (
        Entry("dlt + off", "dlt", IDENTITY, losses=OFF_KL, seeds=more),
        Entry("symmetric + off", "dlt", {**IDENTITY, "shift": False}, losses=OFF_KL, seeds=more),
        Entry("dlt, kl alone", "dlt", IDENTITY, losses=KL, seeds=more),
        Entry("dlt + mse", "dlt", IDENTITY, Losses(feature_loss=FeatureLoss.MSE), seeds=more),
        Entry(
            "dlt + clipped mse",
            "dlt",
            IDENTITY,
            Losses(feature_loss=FeatureLoss.CLIPPED_MSE),
            seeds=seeds,
        ),
        Entry("dlt + huber", "dlt", IDENTITY, Losses(feature_loss=FeatureLoss.HUBER), seeds=seeds),
        Entry("dlt, nearest codes", "dlt", {**IDENTITY, "codes": "nearest"}, OFF_KL, seeds=seeds),
        Entry(
            "dlt from aware + off",
            "dlt",
            {**IDENTITY, "codes": "nearest"},
            OFF_KL,
            start_from="aware",
            seeds=seeds,
        ),
        Entry("dlt, centred", "dlt", {**IDENTITY, "center": True}, OFF_KL, seeds=seeds),
        Entry("dlt, ttq", "dlt", {"ste": "ttq"}, OFF_KL, seeds=seeds),
        Entry("dlt, clipped", "dlt", {"ste": "clipped"}, OFF_KL, seeds=seeds),
        Entry("dlt from twn", "dlt", {**IDENTITY, "init": "twn"}, OFF_KL, seeds=seeds),
        Entry("dlt from mean", "dlt", {**IDENTITY, "init": "mean"}, OFF_KL, seeds=seeds),
        Entry("twn + off", "twn", losses=OFF_KL, seeds=seeds),
        Entry("seq + off", "seq", losses=OFF_KL, seeds=seeds),
        Entry("absmean + off", "absmean", losses=OFF_KL, seeds=seeds),
        Entry(
            "fdb + dad (2 bits)",
            "fdb",
            losses=Losses(kl=1, dad=1, feature_loss=FeatureLoss.NONE),
            seeds=seeds,
        ),
    )


def _recipe(steps: int, batch: int, window: int, rate: float, precision: str) -> Recipe:
    return Recipe(
        steps=steps,
        warmup_steps=steps // 10,
        batch=batch,
        window=window,
        learning_rate=rate,
        scale_rate=0.5,
        precision=Precision(precision),
    )


SUITES: Final[dict[str, Suite]] = {
    suite.name: suite
    for suite in (
        Suite(
            "quick",
            "the first two blocks of SmolLM2 as a model of its own: minutes on two cores",
            _recipe(8, 2, 64, 2e-3, "fp32"),
            (TEACHER, *TRAINING_FREE, *trained((0,), (0,))),
            blocks=2,
            calibration_windows=16,
            test_tokens=1024,
            test_window=128,
        ),
        Suite(
            "cpu",
            "all of SmolLM2-135M: hours on two cores",
            _recipe(60, 2, 256, 2e-3, "bf16"),
            (TEACHER, *TRAINING_FREE, *trained((0,), (0, 1, 2))),
            calibration_windows=120,
            test_tokens=8192,
        ),
        Suite(
            "gpu",
            "all of SmolLM2-135M for 10,000 steps of 16 x 2048 tokens (give it more than Brown)",
            replace(_recipe(10_000, 16, 2048, 1e-3, "bf16"), warmup_steps=500),
            (TEACHER, *TRAINING_FREE, *trained((0,), (0, 1, 2))),
            calibration_windows=512,
            test_tokens=1 << 20,
            test_window=2048,
        ),
    )
}


def named_suite(name: str) -> Suite:
    """Return a suite by its name, after a look that its methods exist."""
    if name not in SUITES:
        raise TernError(f"suite must be one of {', '.join(SUITES)}, not {name!r}")
    for entry in SUITES[name].entries:
        if entry.method:
            named_method(entry.method)
    return SUITES[name]
