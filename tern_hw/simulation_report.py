"""What a simulation says of itself: the facts of a layer and of many, as JSON and as tables."""

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from tern_hw.matrix import TernaryMatrix
from tern_hw.simulation import SimulationResult

__all__ = ["layer_facts", "layer_table", "layers_facts", "print_layers"]

#: Sentences on what is wrong that a table of many layers prints; JSON has all of them.
MOST_COMPLAINTS: Final = 20
#: Columns of a table of many layers; a line break where two narrow lines read as well as one.
COLUMNS: Final = (
    "count",
    "N x K",
    "results",
    "mis-\nmatches",
    "cycles",
    "cycles by\nformula",
    "weights\na cycle",
)


def layer_facts(result: SimulationResult, matrix: TernaryMatrix) -> dict[str, Any]:
    """Return what there is to say of one layer's simulation, as JSON holds it."""
    n, k = matrix.shape
    tokens = len(result.cycles)
    return {
        "array": result.config.name,
        "layer": matrix.name,
        "outputs": n,
        "inputs": k,
        "tokens": tokens,
        "cycles": list(result.cycles),
        "expected_cycles": result.expected_cycles,
        "weights_per_cycle": round(tokens * n * k / sum(result.cycles), 3),
        "stalls": {name: sum(counts) for name, counts in result.stalls.items()},
        "results": tokens * n,
        "mismatches": result.mismatches,
        "complaints": list(result.complaints),
        "simulated_cycles": result.simulated_cycles,
        "cycles_per_second": round(result.cycles_per_second),
        "build_seconds": round(result.build_seconds, 2),
    }


def layer_table(facts: dict[str, Any]) -> str:
    """Return the facts of one layer as text."""
    low, high = min(facts["cycles"]), max(facts["cycles"])
    lines = {
        "array": facts["array"],
        "layer": f"{facts['layer']}: {facts['outputs']} outputs x {facts['inputs']} inputs",
        "tokens": facts["tokens"],
        "cycles": f"{low if low == high else f'{low} to {high}'} a token",
        "formula": f"{facts['expected_cycles']} a token without stalls",
        "weights": f"{facts['weights_per_cycle']:.1f} a cycle",
        "stalls": _stalls(facts),
        "results": f"{facts['results']}, mismatches: {facts['mismatches']}",
        "speed": f"{facts['cycles_per_second']:,} cycles/s ({facts['build_seconds']} s to build)",
    }
    rows = [f"{name:<9}{text}" for name, text in lines.items()]
    return "\n".join([*rows, *(f"WRONG    {sentence}" for sentence in facts["complaints"])])


def layers_facts(artifact: str, layers: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return what there is to say of several layers' simulations: each one's facts, and totals.

    Parameters
    ----------
    artifact : str
        The folder that they are from.
    layers : sequence of dict
        Of `layer_facts`.
    seconds : float
        What all of it took.
    """
    totals = {**_totals(layers), "seconds": round(seconds, 2)}
    return {"artifact": artifact, "layers": list(layers), "totals": totals}


def print_layers(report: dict[str, Any]) -> None:
    """Print one row for each kind of layer, a total, and every sentence on what is wrong."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Eighty columns hold seven digits of results and cycles beside a layer's name.
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("layer", overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for (name, n, k), members in _kinds(report["layers"]).items():
        table.add_row(name, *_cells(_totals(members), f"{n} x {k}"))
    table.add_section()
    totals = report["totals"]
    table.add_row("all", *_cells(totals, ""))
    Console(file=sys.stdout).print(table)
    for line in _lines(report):
        print(line)


def _kinds(layers: Sequence[dict[str, Any]]) -> dict[tuple[str, int, int], list[dict[str, Any]]]:
    """Group the layers that differ in the number of their block alone."""
    kinds: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for facts in layers:
        # model.layers.7.mlp.up_proj is mlp.up_proj.
        name = re.sub(r"^.*?\.\d+\.", "", facts["layer"])
        kinds.setdefault((name, facts["outputs"], facts["inputs"]), []).append(facts)
    return kinds


def _totals(layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the facts of several layers; cycles are those of all tokens."""

    def added(name: str) -> int:
        return sum(facts[name] for facts in layers)

    cycles = sum(sum(facts["cycles"]) for facts in layers)
    weights = sum(facts["results"] * facts["inputs"] for facts in layers)
    return {
        "layers": len(layers),
        "results": added("results"),
        "mismatches": added("mismatches"),
        "complaints": sum(len(facts["complaints"]) for facts in layers),
        "cycles": cycles,
        "expected_cycles": sum(facts["tokens"] * facts["expected_cycles"] for facts in layers),
        "weights_per_cycle": round(weights / cycles, 3),
        "stalls": {
            name: sum(facts["stalls"][name] for facts in layers) for name in layers[0]["stalls"]
        },
        "simulated_cycles": added("simulated_cycles"),
    }


def _cells(totals: dict[str, Any], shape: str) -> list[str]:
    return [
        str(totals["layers"]),
        shape,
        *(f"{totals[name]:,}" for name in ("results", "mismatches", "cycles", "expected_cycles")),
        f"{totals['weights_per_cycle']:.1f}",
    ]


def _lines(report: dict[str, Any]) -> list[str]:
    """Return what stands below the table."""
    layers, totals = report["layers"], report["totals"]
    names = dict.fromkeys(facts["array"] for facts in layers)
    least, most = (pick(facts["tokens"] for facts in layers) for pick in (min, max))
    tokens = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    lines = [f"{tokens} token(s) a layer, one job each, on {', '.join(names)}"]
    if any(totals["stalls"].values()):
        lines.append(f"stalls: {_stalls(totals)}")
    lines.append(
        f"{totals['simulated_cycles']:,} cycles simulated, register accesses included, in "
        f"{totals['seconds']:.1f} s"
    )
    wrong = [f"WRONG {facts['layer']}: {text}" for facts in layers for text in facts["complaints"]]
    lines += wrong[:MOST_COMPLAINTS]
    if len(wrong) > MOST_COMPLAINTS:
        lines.append(f"WRONG in {len(wrong) - MOST_COMPLAINTS} more ways (--json has them)")
    return lines


def _stalls(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in facts["stalls"].items())
