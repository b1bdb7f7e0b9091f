"""`python -m tern_hw.generate`: emit the accelerator's Verilog and its side-car."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tern_hw.cli import ArgumentParser, run
from tern_hw.config import NAMED_CONFIGS, TARGETS, ArrayConfig, Dot
from tern_hw.errors import TernError
from tern_hw.files import write_atomic
from tern_hw.shape import SHAPE, add_shape_options, shaped_config

if TYPE_CHECKING:
    import argparse

    from tern_hw.gateware.emit import Emission

__all__ = ["emit", "main"]

#: Where the named configurations' Verilog is kept.
RTL_FOLDER = Path(__file__).resolve().parent.parent / "rtl"
MANIFEST = "MANIFEST.json"

#: Options that choose what to do, never together with those that shape one array.
MODES = ("list", "all", "check")

EPILOG = """examples:
  python -m tern_hw.generate --lanes 64
  python -m tern_hw.generate --lanes 32 --rows 2 --activation fp16 --group-size row -o build/
  python -m tern_hw.generate --activation fp16 --aligned 16
  python -m tern_hw.generate --config base --output - > base.v
  python -m tern_hw.generate --activation fp16 --weights fp16 --result fp16
  python -m tern_hw.generate --config base --target ecp5
  python -m tern_hw.generate --check
"""


def emit(config: ArrayConfig) -> "Emission":
    """Emit the Verilog and side-car of an array; see `tern_hw.gateware.emit`."""
    # Here and not above: --help and a refusal need no Amaranth.
    from tern_hw.gateware.emit import emit

    return emit(config)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = _parser().parse_args(argv)
    _check_combination(args)
    if args.list:
        return _list(args.json)
    if args.check:
        return _check(_rtl_folder(args.output))
    if args.all:
        return _write_all(_rtl_folder(args.output))
    if args.target is not None:
        args.dot = Dot.for_target(args.target)
    config = shaped_config(args)
    if args.output == "-":
        sys.stdout.write(emit(config).verilog)
        return 0
    paths = _target(args.output, config.name)
    emission = emit(config)
    _write(emission, *paths)
    _report(emission, paths, as_json=args.json)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m tern_hw.generate",
        description="Emit the ternary accelerator as Verilog, with a JSON side-car that holds "
        "its configuration, ports, registers, latency, versions and sha256.",
        epilog=EPILOG,
        formatter_class=_formatter(),
    )
    add_shape_options(parser)
    what = parser.add_argument_group("what to do")
    what.add_argument(
        "--target",
        metavar="FAMILY",
        help=f"take the dot product that is smallest on {', '.join(TARGETS)}; not beside --dot",
    )
    what.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="a .v file, a folder, or - for stdout (the module's name in this folder)",
    )
    what.add_argument("--json", action="store_true", help="report as JSON")
    modes = what.add_mutually_exclusive_group()
    modes.add_argument("--list", action="store_true", help="list the named configurations")
    modes.add_argument("--all", action="store_true", help="write all named ones to rtl/")
    modes.add_argument(
        "--check", action="store_true", help="exit 1 if rtl/ is not what would be emitted now"
    )
    return parser


def _check_combination(args: "argparse.Namespace") -> None:
    """Refuse options that would be ignored."""
    mode = next((name for name in MODES if getattr(args, name)), None)
    if mode is not None:
        for name in (*SHAPE, "target"):
            if getattr(args, name) is not None:
                option = name.replace("_", "-")
                raise TernError(f"--{mode} must stand without --{option}, not beside it")
    _check_target(args)
    if mode == "list" and args.output is not None:
        raise TernError("--list must stand without --output, not beside it")
    if args.output == "":
        raise TernError("--output must be a .v file, a folder or -, not ''")
    if args.output == "-" and (mode or args.json):
        other = mode or "json"
        raise TernError(f"--{other} must stand without --output -, not beside it")


def _check_target(args: "argparse.Namespace") -> None:
    if args.target is None:
        return
    if args.target not in TARGETS:
        raise TernError(f"--target must be one of {', '.join(TARGETS)}, not {args.target!r}")
    if args.dot is not None:
        raise TernError("--target must stand without --dot, not beside it")


def _rtl_folder(output: str | None) -> Path:
    folder = Path(output) if output else RTL_FOLDER
    if not folder.is_dir():
        raise TernError(f"--output must be an existing folder here, not {str(folder)!r}")
    return folder


def _formatter() -> Any:
    import argparse

    return argparse.RawDescriptionHelpFormatter


def _target(output: str | None, name: str) -> tuple[Path, Path]:
    """Return the paths of the Verilog and of its side-car; their folder is made."""
    path = Path(output or ".")
    if path.is_dir() or (output or "").endswith("/"):
        path = path / f"{name}.v"
    if path.suffix != ".v":
        raise TernError(f"--output must be a .v file, a folder or -, not {output!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TernError(f"--output must be writable, not {output!r} ({error.strerror})") from None
    return path, path.with_suffix(".json")


def _write(emission: "Emission", verilog: Path, sidecar: Path) -> None:
    """Write the pair; a side-car that cannot be written leaves the Verilog as it was."""
    for path in (verilog, sidecar):
        if path.is_dir():
            raise TernError(f"output must be a file, not the folder {str(path)!r}")
    write_atomic(sidecar, _json(emission.sidecar))
    write_atomic(verilog, emission.verilog)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _report(emission: "Emission", paths: tuple[Path, Path], *, as_json: bool) -> None:
    config, sidecar = emission.config, emission.sidecar
    if as_json:
        print(_json({"verilog": str(paths[0]), "sidecar": str(paths[1]), **sidecar}), end="")
        return
    print(f"{paths[0]}  ({len(emission.verilog) / 1000:.0f} kB, sha256 {sidecar['sha256'][:12]})")
    print(f"{paths[1]}")
    print(
        f"{config.lanes} lanes x {config.rows} rows: {config.lanes * config.rows} weights a cycle, "
        f"latency {sidecar['latency']['cycles']} cycles"
    )


def _list(as_json: bool) -> int:
    if as_json:
        print(_json({name: config.as_dict() for name, config in NAMED_CONFIGS.items()}), end="")
        return 0
    for name, config in NAMED_CONFIGS.items():
        print(f"{name:8} {config.name}")
    return 0


def _write_all(folder: Path) -> int:
    # All are emitted before the first is written: an error leaves the folder as it was.
    for name, text in _named_files().items():
        write_atomic(folder / name, text)
        print(folder / name)
    return 0


def _named_files() -> dict[str, str]:
    """Return the text of every file that belongs into rtl/, by name."""
    files = {}
    manifest = {}
    for name, config in NAMED_CONFIGS.items():
        emission = emit(config)
        files[f"{name}.v"] = emission.verilog
        files[f"{name}.json"] = _json(emission.sidecar)
        manifest[name] = {"module": config.name, "sha256": emission.sidecar["sha256"]}
    return files | {MANIFEST: _json(manifest)}


def _check(folder: Path) -> int:
    """Compare a folder with what would be emitted now; 1 and a line for each difference."""
    expected = _named_files()
    stale = []
    for name, text in expected.items():
        path = folder / name
        if not path.is_file():
            stale.append(f"{path} is missing")
        elif path.read_bytes() != text.encode():
            stale.append(f"{path} is stale")
    present = {path.name for path in folder.glob("*") if path.suffix in (".v", ".json")}
    stale += [f"{folder / name} belongs to no configuration" for name in present - set(expected)]
    target = "" if folder == RTL_FOLDER else f" --output {folder}"
    for line in sorted(stale):
        print(f"{line}: run python -m tern_hw.generate --all{target}")
    if not stale:
        print(f"{folder}: {len(NAMED_CONFIGS)} configurations are up to date")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(run(main))
