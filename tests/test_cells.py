"""Models of vendor cells: Yosys' own, in a form that every simulator reads."""

import re

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.flows import verilator
from tern_hw.flows.cells import FAMILIES, cell_models, models_of
from tern_hw.flows.icarus import BUILD_ARGUMENTS, icarus_installed
from tern_hw.flows.process import run_tool

#: A cell of each family's netlists for each of logic, carry and register.
CELLS = {
    "ecp5": ("LUT4", "CCU2C", "TRELLIS_FF"),
    "xc7": ("LUT6", "CARRY4", "FDRE"),
}


def text_of(family):
    return "".join(path.read_text() for path in cell_models(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_is_defined_once_and_without_delays(family):
    names = re.findall(r"^module (\w+)", text_of(family), re.MULTILINE)
    assert sorted(names) == sorted(FAMILIES[family].cells)
    assert set(CELLS[family]) < set(names)
    assert "specify" not in text_of(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_icarus_reads_the_whole_file(family):
    if not icarus_installed():
        pytest.skip("Icarus Verilog is not installed (Debian: apt install iverilog)")
    done = run_tool(
        ["iverilog", *BUILD_ARGUMENTS, "-t", "null", *cell_models(family)], timeout_s=60
    )
    assert "error" not in done.stdout


@pytest.mark.parametrize(("family", "cell"), [(f, cell) for f in CELLS for cell in CELLS[f]])
def test_verilator_reads_the_file_for_each_cell(family, cell):
    options = ["--lint-only", "--no-timing", "-Wno-fatal", "--top-module", cell]
    status, text = verilator.find_verilator().run([*options, *cell_models(family)], check=False)
    assert status == 0, text


def test_a_family_without_models_is_refused():
    with pytest.raises(TernError, match=r"family must be one of ecp5, xc7, not 'ecp4'"):
        cell_models("ecp4")


def test_a_configuration_names_the_models_that_it_needs():
    assert models_of(ArrayConfig()) == []
    assert models_of(ArrayConfig(dot="carry")) == cell_models("ecp5")
