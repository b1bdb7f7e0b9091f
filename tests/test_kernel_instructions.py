"""Which instructions run the kernels: chosen, forced, of older processors, and of others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding, ir

from tern_hw import kernels
from tern_hw.errors import TernError
from tern_hw.kernels import instructions
from tern_hw.kernels.emit import _Group
from tern_hw.kernels.vectors import I64, POINTER

ROOT = Path(__file__).parent.parent
#: Multiplies every kind of operand once by what is chosen, and prints its name.
PROGRAM = """
import sys
import numpy as np
from tern_hw import kernels
from tests.kernels import assert_same, trained_layer
from tests.layers import random_activations
rng = np.random.default_rng(1)
n, k = int(sys.argv[1]), int(sys.argv[2])
for group_size in (32, 128, "row"):
    for spread in (2.0, 3000.0):
        matrix = trained_layer(rng, n, k, group_size, spread=spread)
        repacked = kernels.repack(matrix)
        assert (repacked.stream is None) == (kernels.chosen() == "portable")
        for tokens in (1, 2, 4, 9):
            for kind in ("int8", "normal"):
                assert_same(random_activations(rng, (tokens, k), kind), matrix, repacked)
print(kernels.chosen())
"""
#: Processors by LLVM's names, with what they have of what matters here, and what they should use.
OLDER = [
    ("haswell", "+sse2,+ssse3,+sse4.1,+avx,+avx2,+fma,+f16c", "avx2"),
    ("core2", "+sse2,+ssse3", "ssse3"),
    ("x86-64", "+sse2", "portable"),
]


def run(n=70, k=300, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(n), str(k)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.mark.slow  # each compiles all kernels anew
@pytest.mark.parametrize(("processor", "features", "name"), OLDER)
def test_code_for_an_older_processor(processor, features, name, tmp_path):
    if name not in kernels.available():
        pytest.skip(f"this processor lacks {name}")
    # A cache of its own: what is compiled for a weaker processor is no use to the others.
    done = run(NUMBA_CPU_NAME=processor, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name]


def test_the_variable_forces_a_name():
    done = run(TERN_HW_INSTRUCTIONS="portable")
    assert done.stdout.split() == ["portable"], done.stderr
    refused = run(TERN_HW_INSTRUCTIONS="avx9")
    assert "TERN_HW_INSTRUCTIONS must be one of " in refused.stderr
    assert ", not 'avx9'" in refused.stderr


def test_without_the_compiler_the_reference_computes():
    # Plain Python: a few rows, each of more than a group.
    done = run(5, 140, NUMBA_DISABLE_JIT="1")
    assert done.stdout.split() == ["portable"], done.stderr


def test_the_fastest_is_chosen(monkeypatch):
    monkeypatch.delenv(instructions.VARIABLE, raising=False)
    instructions.chosen.cache_clear()
    assert instructions.chosen() == instructions.available()[0]
    monkeypatch.setenv(instructions.VARIABLE, "nothing")
    instructions.chosen.cache_clear()
    with pytest.raises(TernError, match="not 'nothing'"):
        instructions.chosen()
    monkeypatch.undo()
    instructions.chosen.cache_clear()


# ------------------------------------------------------------- code for ARM, which is only read


@pytest.mark.parametrize("columns", [1, 8])
def test_arm_code_uses_the_dot_product(columns):
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = "aarch64-unknown-linux-gnu"
    kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, POINTER, POINTER, POINTER])
    function = ir.Function(module, kind, "group")
    builder = ir.IRBuilder(function.append_basic_block())
    group = _Group(builder, f"neon/2bit/{columns}", *function.args, integer_scales=False)
    for first in range(0, 32, group.lanes * group.vectors):
        group.emit(first)
    builder.ret_void()
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu="neoverse-n1", opt=3
    )
    assembly = machine.emit_assembly(binding.parse_assembly(str(module)))
    assert assembly.count("sdot") >= 4 * columns * 32 // 4
    assert "fcvtl" in assembly
    # Its kernels take scales in binary16: there is no dot product of pairs to take integers.
    assert instructions.INSTRUCTIONS["neon"].dot_pairs is None
