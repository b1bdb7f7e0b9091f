"""What a synthesis measured: as facts that JSON holds, and as tables."""

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tern_hw.config import Activation, ArrayConfig
from tern_hw.flows.nextpnr import Placement, find_nextpnr, spread
from tern_hw.flows.synthesis import SynthesisOptions, yosys_version
from tern_hw.flows.targets import KINDS, CellCount
from tern_hw.synthesis import Measured

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["overhead_facts", "print_report", "report_facts"]

#: Version of the JSON's layout.
REPORT_FORMAT = 1
#: The number of an instance among its like.
NUMBER = re.compile(r"_\d+\b")


def report_facts(
    config: ArrayConfig, options: SynthesisOptions, measured: Sequence[Measured]
) -> dict[str, Any]:
    """Return all that was measured on one array and target."""
    target = options.target
    tools = {"yosys": yosys_version()}
    if target.device and any(each.placements for each in measured):
        tools["nextpnr"] = find_nextpnr(target.device)
    return {
        "format": REPORT_FORMAT,
        "configuration": config.as_dict(),
        "target": target.name,
        "dsp": options.dsp and bool(target.no_dsp),
        "area_unit": target.area_unit,
        "area_rule": target.area_rule,
        "tools": tools,
        "blocks": [_block_facts(each) for each in measured],
    }


def _block_facts(measured: Measured) -> dict[str, Any]:
    synthesis = measured.synthesis
    return {
        "block": measured.block,
        "module": synthesis.top,
        "area": measured.area,
        "unit": measured.unit,
        "units": measured.units,
        "area_per_unit": round(measured.area_per_unit, 3),
        "copies": measured.copies,
        "area_per_mac": round(measured.area_per_mac, 3),
        "cells": dataclasses.asdict(synthesis.counts),
        "parts": _parts(synthesis.parts),
        "yosys_seconds": synthesis.seconds,
        "clock": {
            where: _clock_facts(synthesis.target.device, placements)
            for where, placements in measured.placements.items()
        },
    }


def _parts(parts: Mapping[str, CellCount]) -> dict[str, dict[str, float]]:
    """Add up the parts that differ in a number alone: "dot_0" and "dot_1" are "dot_*"."""
    names = ("area", *KINDS)
    sums: dict[str, dict[str, float]] = {}
    for part, count in parts.items():
        total = sums.setdefault(NUMBER.sub("_*", part), dict.fromkeys(names, 0))
        for name in names:
            total[name] += getattr(count, name)
    return dict(sorted(sums.items(), key=lambda item: -item[1]["area"]))


def _clock_facts(device: Any, placements: Sequence[Placement]) -> dict[str, Any]:
    middle = statistics.median_low([each.fmax_mhz for each in placements])
    typical = next(each for each in placements if each.fmax_mhz == middle)
    return {
        "device": device.about,
        **spread(placements),
        "seeds": [
            {"seed": each.seed, "fmax_mhz": round(each.fmax_mhz, 1), "seconds": each.seconds}
            for each in placements
        ],
        "used": typical.used,
        "absorbed_registers": typical.absorbed,
        "critical_path": {
            "seed": typical.seed,
            "from": typical.start,
            "to": typical.end,
            "hops": [dataclasses.asdict(hop) for hop in typical.path],
        },
    }


def overhead_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what the array takes beyond its dot products, from the facts of all three blocks.

    The conversion of binary16 belongs to the dot products, which cannot do without it (of int8
    the converter only masks the lanes beyond K); the rest is control, streams, scale and shift,
    memory and rounding.
    """
    area = {each["block"]: each["area"] for each in facts["blocks"]}
    converted = facts["configuration"]["activation"] != Activation.INT8
    dots = area["dots"] + (area["converter"] if converted else 0)
    rest = area["array"] - dots
    return {
        "array": area["array"],
        "dots": area["dots"],
        "converter": area["converter"],
        "rest": rest,
        "percent": round(100 * rest / dots, 1),
    }


def print_report(facts: dict[str, Any], *, parts: bool = False) -> None:
    """Print the facts as tables on stdout; `parts`: and each block by the blocks within it."""
    from rich.console import Console

    console = Console(width=max(100, Console().width))
    console.print(_area_table(facts))
    for block in facts["blocks"] if parts else ():
        console.print(_parts_table(block, facts["area_unit"]))
    if any(block["clock"] for block in facts["blocks"]):
        console.print(_clock_table(facts))
        for block in facts["blocks"]:
            for where, clock in block["clock"].items():
                line = _path_line(block["block"], where, clock)
                console.print(line, highlight=False, soft_wrap=True)
    if "overhead" in facts:
        console.print(_overhead_line(facts), highlight=False, soft_wrap=True)
    console.print(_foot(facts), highlight=False, soft_wrap=True)


def _title(facts: dict[str, Any]) -> str:
    config = ArrayConfig.from_dict(facts["configuration"])
    return f"{config.name} on {facts['target']}, {'with' if facts['dsp'] else 'without'} DSP blocks"


def _area_table(facts: dict[str, Any]) -> "Table":
    from rich.table import Table

    unit = facts["area_unit"]
    kinds = [
        kind
        for kind in KINDS
        if kind in ("lut", "carry", "ff") or any(b["cells"][kind] for b in facts["blocks"])
    ]
    table = Table(title=_title(facts), title_justify="left")
    table.add_column("block")
    heads = [KINDS[kind] for kind in kinds]
    for head in [*heads, unit, "each", "a MAC", "seconds"]:
        table.add_column(head, justify="right")
    for block in facts["blocks"]:
        table.add_row(
            block["block"],
            *(f"{block['cells'][kind]}" for kind in kinds),
            f"{block['area']:.0f}",
            f"{block['area_per_unit']:.2f} / {block['unit']}",
            f"{block['area_per_mac']:.2f}",
            f"{block['yosys_seconds']:.0f}",
        )
    return table


def _parts_table(block: dict[str, Any], unit: str) -> "Table":
    from rich.table import Table

    table = Table(title=f"{block['block']} by the names of its cells", title_justify="left")
    table.add_column("part")
    kinds = [kind for kind in KINDS if block["cells"][kind]]
    for head in (*(KINDS[kind] for kind in kinds), unit, "%"):
        table.add_column(head, justify="right")
    for part, counts in block["parts"].items():
        table.add_row(
            part,
            *(f"{counts[kind]}" for kind in kinds),
            f"{counts['area']:.0f}",
            f"{100 * counts['area'] / max(1, block['area']):.1f}",
        )
    return table


def _clock_table(facts: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title="Clock (MHz), placed and routed", title_justify="left")
    for head in ("block", "as"):
        table.add_column(head)
    for head in ("median", "least", "greatest", "seeds", "nextpnr s a seed"):
        table.add_column(head, justify="right")
    for block in facts["blocks"]:
        for where, clock in block["clock"].items():
            seconds = [each["seconds"] for each in clock["seeds"]]
            table.add_row(
                block["block"],
                where.replace("_", " "),
                *(f"{clock[name]:.1f}" for name in ("median_mhz", "least_mhz", "greatest_mhz")),
                f"{len(seconds)}",
                f"{statistics.mean(seconds):.0f}",
            )
    return table


def _path_line(block: str, where: str, clock: dict[str, Any]) -> str:
    path = clock["critical_path"]
    hops = [
        f"{hop['block']} ({hop['cells']} cells, {hop['logic_ns']:.2f} + {hop['routing_ns']:.2f} ns)"
        for hop in path["hops"]
    ]
    line = (
        f"{block}, {where.replace('_', ' ')}: critical path of seed {path['seed']} "
        f"(logic + routing): {' -> '.join(hops)}"
    )
    if absorbed := clock["absorbed_registers"]:
        line += f"; {absorbed} flip-flops are now registers of block RAMs and multipliers"
    return line


def _overhead_line(facts: dict[str, Any]) -> str:
    over, unit = facts["overhead"], facts["area_unit"]
    converted = over["array"] - over["rest"] > over["dots"]
    conversion = f" + {over['converter']:.0f} of conversion" if converted else ""
    return (
        f"overhead: {over['rest']:.0f} {unit} beside {over['dots']:.0f} of dot products"
        f"{conversion}: {over['percent']:.1f} %"
    )


def _foot(facts: dict[str, Any]) -> str:
    lines = [f"{facts['area_unit']} = {facts['area_rule']}"]
    for block in facts["blocks"]:
        sizes = ", ".join(f"{count} {cell}" for cell, count in block["cells"]["luts"].items())
        lines.append(f"{block['block']}: {sizes}")
    for block in facts["blocks"]:
        if others := block["cells"]["others"]:
            lines.append(f"{block['block']}: in no sum: {others}")
    lines.append(", ".join(f"{name} {version}" for name, version in facts["tools"].items()))
    return "\n".join(lines)
