"""Place and route with nextpnr from pip: the clock it reaches, the critical path, what it takes."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tern_hw.errors import TernError
from tern_hw.flows.cache import cached
from tern_hw.flows.hard_registers import absorb_registers
from tern_hw.flows.parts import part_of
from tern_hw.flows.process import failure, run_tool
from tern_hw.flows.synthesis import SynthesisResult
from tern_hw.flows.targets import Device

__all__ = ["Hop", "Placement", "find_nextpnr", "place_and_route", "spread"]

#: Changes with what an entry of the store holds.
STORE_FORMAT = "nextpnr 3"
#: Seconds after which nextpnr is stopped.
PLACE_LIMIT_S = 7200
#: Calls the package's command; its own script would need the environment on the PATH.
DRIVER = "import sys, {package} as tool; sys.exit(tool._run_{command}_argv())"


@dataclass(frozen=True)
class Hop:
    """A stretch of the critical path within one block."""

    block: str
    #: Nanoseconds through cells, and on wires to and between them.
    logic_ns: float
    routing_ns: float
    #: Cells passed, registers at the ends included.
    cells: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One design placed and routed with one seed."""

    seed: int
    fmax_mhz: float
    #: From register to register.
    path: list[Hop]
    #: Names of the cells at the path's ends.
    start: str
    end: str
    #: Cells that nextpnr used, by its own types.
    used: dict[str, int]
    #: Registers of the netlist that went into block RAMs and multipliers before the placement.
    absorbed: int
    #: Seconds that nextpnr took, when it ran.
    seconds: float
    #: Holds nextpnr.log and report.json; not to be written to.
    folder: Path

    def save(self, folder: Path) -> None:
        """Copy nextpnr's log and report into a folder of the user's."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("nextpnr.log", "report.json"):
            shutil.copyfile(self.folder / name, folder / name)


def find_nextpnr(device: Device) -> str:
    """Return the version of a device's nextpnr.

    Raises
    ------
    TernError
        If its package is not installed.
    """
    if importlib.util.find_spec(device.package) is None:
        name = device.package.replace("_", "-")
        raise TernError(f"{name} must be installed: pip install 'tern-hw[synth]'")
    return importlib.metadata.version(device.package)


def place_and_route(
    design: SynthesisResult,
    *,
    seed: int,
    clock_mhz: float,
    out_of_context: bool,
    notify: Callable[[str], None] = lambda text: None,
) -> Placement:
    """Place and route a netlist, or take the result from the store.

    Parameters
    ----------
    design
        The netlist.
    seed
        Of the placer's random choices.
    clock_mhz
        What the placer aims at; to fail it is no error.
    out_of_context
        Leave the ports without pads: paths from and to them are not counted.
    notify
        Called with a line on what begins, where a tool has to run.

    Raises
    ------
    TernError
        If the target has no nextpnr here, it is not installed, or fails (a design too large
        for the part, among others).
    """
    device = design.target.device
    if device is None:
        raise TernError(f"target must be one that nextpnr places, not {design.target.name}")
    mode = device.out_of_context if out_of_context else device.free_pins
    if mode is None:
        raise TernError(f"{design.target.name} must be placed with pins, not out of context")
    options = [*device.options, *mode, "--seed", str(seed), "--freq", f"{clock_mhz:g}"]
    options += ["--timing-allow-fail"]

    def build(folder: Path) -> None:
        notify(f"nextpnr: {design.top} on {device.about}, seed {seed}")
        netlist, absorbed = _netlist(design, device, folder)
        seconds = _run(folder, device, [*options, "--json", netlist])
        facts = {"seconds": seconds, "absorbed": absorbed}
        (folder / "facts.json").write_text(json.dumps(facts))

    # A synthesis' folder is named after all that its netlist follows from.
    parts = [STORE_FORMAT, design.folder.name, device.package, find_nextpnr(device), *options]
    entry = cached("nextpnr", parts, build)
    return _read(entry, design, seed)


def _netlist(design: SynthesisResult, device: Device, folder: Path) -> tuple[str, int]:
    """Return the file that nextpnr reads, by its path from its working folder.

    Also how many registers have gone into hard cells.

    To YoWASP's programs /tmp is a folder of their own: only a relative path leads there.
    """
    if not device.hard_registers:
        return os.path.relpath(design.netlist_json.resolve(), folder.resolve()), 0
    netlist = json.loads(design.netlist_json.read_text())
    absorbed = absorb_registers(netlist)
    (folder / "packed.json").write_text(json.dumps(netlist))
    return "packed.json", absorbed


def _run(folder: Path, device: Device, options: Sequence[str]) -> float:
    """Run nextpnr; return the seconds it took."""
    command = device.package.removeprefix("yowasp_")
    driver = DRIVER.format(package=device.package, command=command)
    words = [sys.executable, "-c", driver, *options]
    words += ["--report", "report.json", "--log", "nextpnr.log", "--quiet"]
    begun = time.monotonic()
    done = run_tool(words, timeout_s=PLACE_LIMIT_S, cwd=folder, check=False)
    if done.returncode or not (folder / "report.json").is_file():
        raise failure(command.replace("_", "-"), done.returncode, done.stdout)
    return round(time.monotonic() - begun, 1)


def _read(folder: Path, design: SynthesisResult, seed: int) -> Placement:
    report = json.loads((folder / "report.json").read_text())
    if not report["fmax"]:
        raise TernError(f"{design.top} must have a path between registers, and has none")
    clock, found = max(report["fmax"].items(), key=lambda item: -item[1]["achieved"])
    edge = f"posedge {clock}"
    paths = report["critical_paths"]
    path = next(each["path"] for each in paths if each["from"] == each["to"] == edge)
    facts = json.loads((folder / "facts.json").read_text())
    return Placement(
        seed=seed,
        fmax_mhz=found["achieved"],
        path=_hops(path, frozenset(design.scopes)),
        start=path[0]["from"]["cell"],
        end=path[-1]["to"]["cell"],
        used={name: each["used"] for name, each in report["utilization"].items() if each["used"]},
        absorbed=facts["absorbed"],
        seconds=facts["seconds"],
        folder=folder,
    )


def _hops(path: Sequence[dict], scopes: Collection[str]) -> list[Hop]:
    """Join the steps of a path that lie in one block."""
    hops: list[Hop] = []
    for step in path:
        on_wire = step["type"] == "routing"
        block = part_of(step["to" if on_wire else "from"]["cell"], scopes)
        delay = step["delay"]
        hop = Hop(block, 0.0, delay, 0) if on_wire else Hop(block, delay, 0.0, 1)
        if hops and hops[-1].block == block:
            last = hops.pop()
            hop = Hop(
                block,
                last.logic_ns + hop.logic_ns,
                last.routing_ns + hop.routing_ns,
                last.cells + hop.cells,
            )
        hops.append(hop)
    return [Hop(h.block, round(h.logic_ns, 3), round(h.routing_ns, 3), h.cells) for h in hops]


def spread(placements: Sequence[Placement]) -> dict[str, float]:
    """Return the median, least and greatest clock (MHz) of several seeds."""
    clocks = [each.fmax_mhz for each in placements]
    return {
        "median_mhz": round(statistics.median(clocks), 1),
        "least_mhz": round(min(clocks), 1),
        "greatest_mhz": round(max(clocks), 1),
    }
