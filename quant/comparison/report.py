"""The table and the pictures of a comparison, from the results of its runs."""

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant.comparison.suites import Suite
from tern_hw.files import write_atomic

__all__ = ["Row", "markdown", "picture", "rows_of"]


@dataclass(frozen=True)
class Row:
    """An entry's results over its seeds: means, and the sample's standard deviation."""

    name: str
    seeds: int
    #: Runs of this entry that the suite asks for.
    wanted: int
    #: None, as the next ones, of the teacher itself.
    bits: float | None
    megabytes: float | None
    #: Trained or calibrated on.
    tokens: int
    trained: bool
    weight_error: float | None
    output_error: float | None
    divergence: tuple[float, float]
    cosine: tuple[float, float]
    #: By text.
    perplexity: dict[str, tuple[float, float]]
    #: By task: share of right answers, by length-normalised likelihood where the task has it.
    zero_shot: dict[str, tuple[float, float]]
    seconds: float
    peak_gb: float
    #: Above this perplexity a model says less than a word drawn at random: it is noise.
    vocabulary: int


def rows_of(suite: Suite, results: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each entry that has results, in the suite's order."""
    rows = []
    for entry in suite.entries:
        runs = [run for run in results if run["entry"] == entry.name]
        if not runs:
            continue
        first = runs[0]
        size = first["quantized_bytes"]
        rows.append(
            Row(
                entry.name,
                len(runs),
                len(entry.seeds),
                first["bits_per_weight"],
                None if size is None else size / 1e6,
                first["tokens"],
                first["losses"] is not None,
                _mean([run["weight_error"] for run in runs]),
                _mean([run["output_error"] for run in runs]),
                _spread([run["divergence"] for run in runs]),
                _spread([run["cosine"] for run in runs]),
                {
                    text: _spread([run["perplexity"][text] for run in runs])
                    for text in first["perplexity"]
                },
                {
                    task: _spread([_accuracy(run["zero_shot"][task]) for run in runs])
                    for task in first.get("zero_shot", {})
                },
                statistics.mean(run["seconds"] for run in runs),
                max(run["peak_bytes"] for run in runs) / 1e9,
                first["vocabulary"],
            )
        )
    return rows


def markdown(suite: Suite, rows: Sequence[Row]) -> str:
    """Return the table in Markdown; ± is the standard deviation over seeds."""
    texts = list(rows[0].perplexity) if rows else []
    tasks = list(rows[0].zero_shot) if rows else []
    head = ["method", "seeds", "bits", "MB", "tokens", "weight error", "output error"]
    head += ["KL", "1 − cos", *(f"perplexity, {text}" for text in texts), *tasks]
    head += ["time (s)", "peak (GB)"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        cells = [row.name, f"{row.seeds} of {row.wanted}"]
        cells += [_known(row.bits, ".3f"), _known(row.megabytes, ".1f"), f"{row.tokens:,}"]
        cells += [_known(row.weight_error, ".1%"), _known(row.output_error, ".1%")]
        cells += [_cell(row.divergence, ".3f"), _cell(row.cosine, ".4f")]
        cells += [_perplexity_cell(row.perplexity[text], row.vocabulary) for text in texts]
        cells += [_cell(row.zero_shot[task], ".1%") for task in tasks]
        cells += [f"{row.seconds:.0f}", f"{row.peak_gb:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(suite: Suite, rows: Sequence[Row], path: Path) -> None:
    """Draw each row's divergence from the teacher as a bar, its spread as a line; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    students = [row for row in rows if row.bits is not None]
    ordered = sorted(students, key=lambda row: row.divergence[0], reverse=True)
    figure = Figure(figsize=(8, 0.28 * len(ordered) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    colors = ["#0072B2" if row.trained else "#E69F00" for row in ordered]
    means, spreads = ([row.divergence[i] for row in ordered] for i in (0, 1))
    axes.barh([row.name for row in ordered], means, xerr=spreads, color=colors, height=0.7)
    axes.set(xlabel="KL(teacher || student) on held-out text (nats a token); lower is better")
    axes.set_title(f"suite {suite.name}: trained (blue) and training-free (orange)")
    axes.grid(axis="x", alpha=0.3)
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_atomic(path, image.getvalue())


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _accuracy(score: Mapping[str, Any]) -> float:
    return score["acc"] if score["acc_norm"] is None else score["acc_norm"]


def _known(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _cell(value: tuple[float, float], form: str) -> str:
    mean, spread = value
    return format(mean, form) + (f" ± {format(spread, form)}" if spread else "")


def _perplexity_cell(value: tuple[float, float], vocabulary: int) -> str:
    return "noise" if value[0] > vocabulary else _cell(value, ".1f")
