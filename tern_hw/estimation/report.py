"""The facts of an estimate as tables that a person reads."""

from typing import Any, Final, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["print_report", "print_sources", "si"]

Justify = Literal["left", "right"]
#: Columns of the terminal that the tables are made for, where there is none to ask.
WIDTH: Final = 100
#: Columns of energy, and the parts in each; leakage is in the total.
PARTS: Final = {
    "compute": ("compute",),
    "memory": ("weights", "kv"),
    "chip": ("activations",),
    "total": ("total",),
}
#: Rows of the table of what moves the answer.
MOST_SWINGS: Final = 8
PREFIXES: Final = (
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "u"),
    (1e-9, "n"),
    (1e-12, "p"),
)


def si(value: float, unit: str) -> str:
    """Return a number with three digits and the prefix of its unit that fits: 0.0077 J, 7.69 mJ."""
    for factor, prefix in PREFIXES:
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def print_report(facts: dict[str, Any]) -> None:
    """Print what is asked, a token's cost by kind of work, other formats, ratios, and swings."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    _print_question(console, facts)
    console.print(_kinds_table(facts))
    _print_totals(console, facts)
    console.print(_opponents_table(facts))
    for each in facts["opponents"]["decode"]:
        if "missing" in each:
            console.print(f"{each['title']}: not in {facts['technology']}", markup=False)
    _print_ratios(console, facts)
    console.print(_swings_table(facts))


def print_sources(facts: dict[str, Any]) -> None:
    """Print every coefficient with its bounds, unit and source."""
    for key, each in facts["sources"].items():
        print(f"{key} = {each['value']:g} {each['unit']} ({each['low']:g} to {each['high']:g})")
        print(f"    {each['source']}")
        if each["note"]:
            print(f"    note: {each['note']}")


def _print_question(console: Console, facts: dict[str, Any]) -> None:
    model, array, memory = facts["model"], facts["array"], facts["memory"]
    bits, banks = facts["bits_per_weight"], array["on_chip_banks_mm2"]
    lines = {
        "model": f"{model['name']}: {model['parameters'] / 1e6:,.1f} M parameters, "
        f"{model['block_linear_weights'] / 1e6:,.1f} M of them in the blocks' linear layers",
        "array": f"{array['name']} at {facts['clock_mhz']:g} MHz"
        + (f", {bits:.4g} bits a weight with scales" if bits else ""),
        "beside it": f"{array['companion_fp16_macs_per_cycle']} fp16 multiply-accumulates a cycle "
        "for what is not ternary",
        "technology": f"{facts['technology']}: {array['engine_mm2']:.3g} mm2 of array, "
        f"{array['companion_mm2']:.3g} mm2 beside it, without wires and control",
        "memory": f"{memory['name']}; its energy is of {memory['energy_is_of']}"
        + (f", {banks:,.0f} mm2 for all weights and the cache" if banks else ""),
        "zeros": f"{facts['sources']['data.zero_fraction']['value']:.1%} of trits",
    }
    if "fpga" in array:
        lines["on an FPGA"] = _fpga_line(array["fpga"])
    for name, text in lines.items():
        console.print(f"{name:<11}{text}", markup=False)


def _fpga_line(fpga: dict[str, Any]) -> str:
    return (
        f"{fpga['target']}: {fpga['area']:,.0f} {fpga['unit']} of array by a fit to synthesis, "
        f"{fpga['share']:.1%} of an {fpga['device']} ({fpga['device_luts']:,} LUTs); DSP blocks, "
        "block RAM and energy there are not estimated"
    )


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))


def _fp16(facts: dict[str, Any], phase: str = "decode") -> dict[str, Any]:
    return next(each for each in facts["opponents"][phase] if each["format"] == "fp16")


def _kinds_table(facts: dict[str, Any]) -> Table:
    found, fp16 = facts["decode"], _fp16(facts)
    title = f"a token at a context of {found['context']}, batch {found['batch']}; energies in mJ"
    table = _table(title)
    table.add_column("", no_wrap=True)
    for name in ("MB", "kcycles", "waits", "bound by", *PARTS, "FP16"):
        justify: Justify = "left" if name == "bound by" else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    theirs = {each["kind"]: each["joules_per_token"]["total"] for each in fp16.get("kinds", [])}
    for each in found["kinds"]:
        name = each["kind"] + (" *" if each["ternary"] else "")
        table.add_row(name, *_cost_cells([each], found["tokens"]), _mj(theirs.get(each["kind"])))
    table.add_section()
    cells = _cost_cells(found["kinds"], found["tokens"], bound=found["bound"])
    table.add_row("all", *cells, _mj(fp16.get("joules_per_token")), style="bold")
    return table


def _mj(joules: float | None) -> str:
    """Return mJ with three digits, and no more than a bound below a microjoule."""
    if joules is None:
        return "-"
    millis = joules * 1e3
    if 0 < millis < 0.001:
        return "<0.001"
    if millis < 1:
        return f"{millis:.3f}" if millis else "0"
    return _digits(millis)


def _digits(value: float) -> str:
    """Return a number with three digits, or all before the point where there are more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cost_cells(kinds: list[dict[str, Any]], tokens: int, bound: str | None = None) -> list[str]:
    """Return the cells of some kinds of work together."""
    stalls = sum(each["stall_cycles"] for each in kinds)
    cycles = sum(each["cycles"] for each in kinds) + stalls
    energy = [
        sum(each["joules_per_token"][part] for each in kinds for part in parts)
        for parts in PARTS.values()
    ]
    return [
        f"{sum(each['bytes_per_token'] for each in kinds) / 1e6:,.1f}",
        f"{cycles / tokens / 1e3:,.0f}",
        f"{stalls / cycles:.0%}" if cycles else "-",
        bound or kinds[0]["bound"],
        *(_mj(joules) for joules in energy),
    ]


def _print_totals(console: Console, facts: dict[str, Any]) -> None:
    for name in ("decode", "prefill"):
        each = facts[name]
        energy = {end: si(joules, "J") for end, joules in each["joules_per_token"].items()}
        speed = f"{each['tokens_per_second']:.4g} tokens/s, {si(each['bytes_per_token'], 'B')}"
        extremes = f"{energy['low']} to {energy['high']} with every input at its best or worst"
        stack = each["stack_joules_per_token"].items()
        lines = (
            f"{speed} a token, bound by {each['bound']}",
            f"{energy['mid']} a token; {extremes}",
            "mJ: " + ", ".join(f"{part} {_mj(joules)}" for part, joules in stack),
        )
        for head, line in zip((name, "", ""), lines, strict=True):
            console.print(f"{head:<11}{line}", markup=False)
    tokens, kept = facts["prefill"]["context"], facts["prefill_keeping_weights"]
    console.print(
        f"* ternary. Prefill is {tokens} tokens, each of which streams all weights, as the array "
        "has it; an FP16\n"
        f"  array that fetched each weight once a prompt would take {_mj(kept['joules_per_token'])}"
        f" mJ a token at {kept['tokens_per_second']:.4g} tokens/s.",
        markup=False,
    )


def _opponents_table(facts: dict[str, Any]) -> Table:
    table = _table("decode beside other arrays")
    columns: tuple[tuple[str, Justify], ...] = (
        ("", "left"),
        ("\nmJ", "right"),
        ("over\nternary", "right"),
        ("\nMB", "right"),
        ("tokens/s at\nequal lanes", "right"),
        ("at equal\narea", "right"),
        ("by memory\nalone", "right"),
        ("\nmm2", "right"),
    )
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    ours, array = facts["decode"], facts["array"]
    roof = ours["tokens_per_second_of_memory_alone"]
    speed = f"{ours['tokens_per_second']:.4g}"
    parts = ("engine_mm2", "companion_mm2", "on_chip_banks_mm2")
    area = _digits(sum(array[part] for part in parts))
    energy, moved = ours["joules_per_token"]["mid"], ours["bytes_per_token"]
    table.add_row(
        "ternary", _mj(energy), "1.00", f"{moved / 1e6:,.1f}", speed, speed, _speed(roof), area
    )
    for each in facts["opponents"]["decode"]:
        if "missing" in each:
            continue
        speeds = each["tokens_per_second"]
        table.add_row(
            each["title"],
            _mj(each["joules_per_token"]),
            f"{each['energy_ratio']:.2f}",
            f"{each['bytes_per_token'] / 1e6:,.1f}",
            _speed(speeds["equal_lanes"]),
            _speed(speeds["equal_area"]),
            _speed(speeds["memory_alone"]),
            _digits(each["area_mm2"]),
        )
    return table


def _speed(tokens_per_second: float | None) -> str:
    return "no limit" if tokens_per_second is None else f"{tokens_per_second:.4g}"


def _print_ratios(console: Console, facts: dict[str, Any]) -> None:
    found = facts["ratios"]
    if found is None:
        return
    console.print("FP16 (sums in fp16) over ternary, scales and shifts always counted:")
    rows = (
        ("compute", "arithmetic and registers of the linear layers"),
        ("on_chip", "the same and the activation memory"),
        ("memory", f"bits from the memory: 16 over {facts['bits_per_weight']:.4g}"),
        ("linears", "all energy of the linear layers"),
        ("token", "all energy of a token"),
        ("time", "time of a token, at equal lanes"),
    )
    for name, text in rows:
        console.print(f"{found[name]:8.2f}x  {text}", markup=False)
    console.print(f"{found['quoted']:8.2f}x  {facts['quoted_ratio_is']}", markup=False)


def _swings_table(facts: dict[str, Any]) -> Table:
    title = "what moves the energy of a token most: each input at its low and high end"
    table = _table(title)
    table.add_column("input", no_wrap=True)
    for name in ("low", "value", "high", "unit", "mJ at low", "at high", "FP16 / ternary"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for each in facts["tornado"][:MOST_SWINGS]:
        energy, ratio = each["joules_per_token"], each["fp16_energy_ratio"]
        table.add_row(
            each["input"],
            f"{each['low']:g}",
            f"{each['value']:.3g}",
            f"{each['high']:g}",
            each["unit"],
            f"{energy['at_low'] * 1e3:.4g}",
            f"{energy['at_high'] * 1e3:.4g}",
            f"{ratio['at_low']:.2f} to {ratio['at_high']:.2f}",
        )
    return table
