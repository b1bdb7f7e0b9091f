"""Who may import whom: the arrows of the packages, read from the source of every module.

The rule keeps the four descriptions of one computation apart: the gateware and the reference share
no code but the configuration, so one mistake cannot hide in both.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: The packages whose imports are ruled; tests and the demo stand above all of them.
PACKAGES = ("tern_hw", "quant", "sim")

#: What a module may import of ours, beside its own package, `tern_hw` and `tern_hw.errors`.
#: A name stands for the module and everything below it; the longest name that fits decides.
ARROWS = {
    "tern_hw": "",
    "tern_hw.errors": "",
    "tern_hw.config": "",
    "tern_hw.packing": "",
    "tern_hw.files": "",
    "tern_hw.cache": "",
    "tern_hw.cli": "",
    "tern_hw.shape": "cli config",
    "tern_hw.matrix": "packing",
    "tern_hw.artifact": "packing matrix files",
    "tern_hw.beats": "config packing matrix",
    "tern_hw.reference": "config packing matrix",
    "tern_hw.kernels": "config packing matrix reference",
    "tern_hw.benchmark": "config packing matrix reference kernels",
    "tern_hw.gateware": "config",
    "tern_hw.flows": "config files cache",
    "tern_hw.gates": "config packing matrix reference flows",
    "tern_hw.gates.__main__": "config packing matrix artifact activations reference gateware cli",
    "tern_hw.gates.real": "config packing matrix artifact activations reference",
    "tern_hw.formal": "config flows gateware",
    "tern_hw.simulation": "config packing matrix beats reference flows gateware",
    "tern_hw.simulation_report": "matrix simulation",
    "tern_hw.synthesis": "config flows gateware",
    "tern_hw.synthesis_report": "config flows synthesis",
    "tern_hw.activations": "config artifact reference",
    "tern_hw.costs": "config",
    "tern_hw.estimation": "config packing matrix artifact files shape costs",
    "tern_hw.exploration": "config files cache cli costs estimation flows synthesis",
    "tern_hw.validation": "config packing matrix beats files flows gateware gates costs simulation "
    "synthesis",
    "sim": "config packing matrix beats reference flows cli files",
    "quant": "packing matrix artifact files cache cli",
    "quant.runtime": "packing matrix artifact files cache cli reference kernels",
}

#: The verbs may import anything of ours inside a function, and these at the top.
VERBS = (
    "tern_hw.generate",
    "tern_hw.simulate",
    "tern_hw.bench",
    "tern_hw.synth",
    "tern_hw.prove",
    "tern_hw.estimate",
    "tern_hw.explore",
    "tern_hw.validate",
)
VERBS_AT_THE_TOP = "config files cli shape simulation"

#: Packages of others that decide where a thing belongs, and the modules that may import them.
OWNERS = {
    "torch": ("quant", "tern_hw.benchmark"),
    "transformers": ("quant",),
    "gguf": ("quant",),
    "amaranth": ("tern_hw.gateware", "tern_hw.generate", "tern_hw.formal"),
    "numba": ("tern_hw.reference", "tern_hw.kernels", "tern_hw.benchmark"),
    "llvmlite": ("tern_hw.reference", "tern_hw.kernels"),
    "cocotb": ("sim",),
    "cocotbext": ("sim",),
}


def module_name(path: Path) -> str:
    """Return the dotted name of a source file, as in `tern_hw.gateware.tree`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imported(module: str, source: str, *, top_level: bool = False) -> Iterator[str]:
    """Yield the dotted name of every module that a source imports, relative names resolved."""
    tree = ast.parse(source)
    for node in _outside_functions(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                # `from tern_hw import config` names a module; `from tern_hw.config import X` not.
                name = f"{base}.{alias.name}"
                yield name if name in SOURCES or base in PACKAGES else base


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported: not a function's body, not TYPE_CHECKING's."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _outside_functions(child)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    path = SOURCES.get(module)
    depth = node.level - (path is not None and path.name == "__init__.py")
    parents = module.split(".")[: len(module.split(".")) - depth]
    return ".".join([*parents, node.module] if node.module else parents)


def rule_of(module: str) -> list[str] | None:
    """List the modules that a module may import of ours; None where no rule names it."""
    if module in VERBS:
        names = VERBS_AT_THE_TOP
    elif module.startswith("tern_hw.") and ".".join(module.split(".")[:2]) not in ARROWS:
        return None
    else:
        names = ARROWS[max((name for name in ARROWS if within(module, name)), key=len)]
    # A package is free inside itself; `tern_hw` is none in this sense, its modules are ruled.
    own = ".".join(module.split(".")[: 2 if module.startswith("tern_hw.") else 1])
    return [own, "tern_hw.errors", *(f"tern_hw.{name}" for name in names.split())]


def forbidden(module: str, source: str) -> list[str]:
    """List the imports of a module that the rules do not allow."""
    rule = rule_of(module) or []
    ours = set(imported(module, source, top_level=module in VERBS))
    ours = {name for name in ours if name.split(".")[0] in PACKAGES}
    wrong = {name for name in ours if not any(within(name, each) for each in rule)}
    for name in imported(module, source):
        owners = OWNERS.get(name.split(".")[0])
        if owners and not any(within(module, owner) for owner in owners):
            wrong.add(name)
    return sorted(wrong - {"tern_hw", "tern_hw.__version__"})


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_follow_the_arrows(module):
    assert forbidden(module, SOURCES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_every_module_has_a_rule(module):
    assert rule_of(module) is not None


def test_naive_oracle_imports_nothing_of_ours():
    source = (ROOT / "tests" / "naive.py").read_text(encoding="utf-8")
    ours = [name for name in imported("tests.naive", source) if name.split(".")[0] in PACKAGES]
    assert ours == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("tern_hw.packing", "from tern_hw.config import Packing", ["tern_hw.config"]),
        ("tern_hw.packing", "from tern_hw import config", ["tern_hw.config"]),
        ("tern_hw.packing", "from .config import Packing", ["tern_hw.config"]),
        ("tern_hw.packing", "from tern_hw.errors import TernError", []),
        ("tern_hw.gateware.tree", "import tern_hw.reference", ["tern_hw.reference"]),
        ("tern_hw.gateware.tree", "from ..packing import pack_2bit_u8", ["tern_hw.packing"]),
        ("tern_hw.gateware.tree", "from .dot import Dot, tree", []),
        ("tern_hw.reference", "def f():\n import tern_hw.gateware", ["tern_hw.gateware"]),
        ("tern_hw.reference.kernels", "from tern_hw.reference.numbers import x", []),
        ("tern_hw.matrix", "import torch", ["torch"]),
        ("tern_hw.simulate", "def main():\n import tern_hw.reference", []),
        ("tern_hw.simulate", "import tern_hw.reference", ["tern_hw.reference"]),
        ("tern_hw.simulate", "if 1:\n import tern_hw.reference", ["tern_hw.reference"]),
        ("tern_hw.simulate", "if TYPE_CHECKING:\n import tern_hw.reference", []),
        ("tern_hw.simulate", "def main():\n import cocotb.clock", ["cocotb.clock"]),
        ("sim.bench", "from tern_hw.gateware.top import Top", ["tern_hw.gateware.top"]),
        ("sim.bench", "import quant", ["quant"]),
        ("quant.export", "from tern_hw.reference import matmul", ["tern_hw.reference"]),
        ("quant.runtime", "from tern_hw.reference import matmul", []),
        ("quant.export", "import torch.nn as nn", []),
    ],
)
def test_a_wrong_import_is_seen(module, source, wrong):
    assert forbidden(module, source) == wrong


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys\nbefore = set(sys.modules)\n{statement}\n"
    code += "print(*sorted(set(sys.modules) - before))"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stderr
    return set(child.stdout.split())


def test_importing_tern_hw_loads_nothing_else():
    assert modules_loaded_by("import tern_hw") == {"tern_hw"}


@pytest.mark.parametrize("verb", VERBS)
def test_importing_a_verb_loads_nothing_heavy(verb):
    loaded = modules_loaded_by(f"import {verb}")
    assert verb in loaded
    heavy = {"amaranth", "cocotb", "numba", "numpy", "pyosys", "rich", "torch", "transformers"}
    assert loaded & heavy == set()


def test_generate_works_without_torch():
    """Verilog is emitted where neither torch nor transformers, numba or cocotb is installed."""
    code = """
import sys
for name in ("torch", "transformers", "numba", "cocotb"):
    sys.modules[name] = None  # importing it raises ImportError
from tern_hw.generate import main
raise SystemExit(main(["--lanes", "8", "--rows", "1", "--output", "-"]))
"""
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr
    assert "module tern_8x1_int8_g128_2bit" in child.stdout
