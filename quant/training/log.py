"""What a run writes down: a line a step in a CSV file, and a picture of the loss."""

import csv
import io
from pathlib import Path
from typing import Final

from tern_hw.errors import TernError
from tern_hw.files import write_atomic

__all__ = ["COLUMNS", "TrainingLog"]

#: Columns: losses in nats (features: as their loss defines), rate of the weights, norm of the
#: gradient before clipping, tokens/s of the step over all processes.
COLUMNS: Final = (
    "step",
    "tokens",
    "total",
    "kl",
    "features",
    "label",
    "dad",
    "learning_rate",
    "gradient_norm",
    "tokens_per_s",
)


class TrainingLog:
    """A run's log.csv, cut back to a checkpoint's step when the run is taken up again.

    Parameters
    ----------
    path : Path
        The CSV file.
    step : int
        Steps that are done: later lines, of a run that died after its checkpoint, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = [row for row in _read(path) if row["step"] <= step]
        if len(self.rows) != step:
            raise TernError(
                f"{path} must hold the {step} steps of the checkpoint, not {len(self.rows)}"
            )
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_as_text(row) for row in self.rows)
        write_atomic(path, text.getvalue())
        self._file = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")

    def add(self, row: dict[str, float]) -> None:
        """Append a step; it is in the file when this returns."""
        self.rows.append(row)
        self._writer.writerow(_as_text(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def picture(self, path: Path, title: str) -> None:
        """Draw the parts of the loss over the tokens seen, as a PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        tokens = [row["tokens"] / 1e3 for row in self.rows]
        for name, label in CURVES.items():
            values = [row[name] for row in self.rows]
            if any(values):
                axes.plot(tokens, values, label=label, linewidth=1)
        axes.set(
            xlabel="tokens seen (thousands)", ylabel="loss (log scale)", title=title, yscale="log"
        )
        axes.grid(alpha=0.3)
        axes.legend()
        image = io.BytesIO()
        FigureCanvasAgg(figure).print_png(image)
        write_atomic(path, image.getvalue())


#: What the picture shows, and how it names it.
CURVES: Final = {
    "kl": "KL from the teacher (nats a token)",
    "features": "features (1 − cos for OFF)",
    "label": "labels (nats a token)",
    "dad": "DAD (nats a token)",
}


def _as_text(row: dict[str, float]) -> dict[str, str]:
    """Write integers whole, and floats to the nine digits that tell float32 numbers apart."""
    return {
        name: str(value) if isinstance(value, int) else f"{value:.9g}"
        for name, value in row.items()
    }


def _read(path: Path) -> list[dict[str, float]]:
    """Return the rows of a log; a last line that was cut off is dropped."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for fields in csv.DictReader(file):
            try:
                row = {name: float(fields[name]) for name in COLUMNS}
            except (KeyError, TypeError, ValueError):
                break
            rows.append({**row, "step": int(row["step"]), "tokens": int(row["tokens"])})
    return rows
