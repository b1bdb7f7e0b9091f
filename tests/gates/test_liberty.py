"""A Liberty's numbers in our units; what we do not use is left out; nonsense is refused."""

import pytest

from tern_hw.errors import TernError
from tern_hw.gates.liberty import liberty_path, read_liberty
from tests.gates.netlists import LIBERTY


@pytest.fixture
def library(tmp_path):
    return read_liberty(written(tmp_path, LIBERTY))


def written(folder, text):
    path = folder / "tiny.lib"
    path.write_text(text)
    return path


def test_numbers_are_in_our_units(library):
    inverter, flop = library.cells["INV"], library.cells["DFF"]
    assert library.name == "tiny"
    assert library.voltage_v == 2.0
    assert inverter.inputs == {"A": 10.0}  # fF
    assert inverter.area == 10
    assert flop.leakage_nw == 2.0
    assert flop.flop.clock == "CK"
    # pF V^2 = 1000 fJ: rise and fall 0.001 and 0.003 at the tables' first point.
    assert inverter.outputs["Y"].internal_fj.at(10, 0.1).value == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("load_ff", "slew_ns", "rise_fj"),
    [
        (10, 0.3, 3.0),
        (30, 0.1, 2.0),
        (20, 0.1, 1.5),
        (20, 0.2, 2.5),
        # Beyond the points as between the outermost two.
        (40, 0.1, 2.5),
        (10, 0.5, 5.0),
        (0, 0.1, 0.5),
    ],
)
def test_tables_are_linear_between_points_and_beyond(library, load_ff, slew_ns, rise_fj):
    # A fall takes 2 fJ more than a rise in this library.
    energy = library.cells["INV"].outputs["Y"].internal_fj.at(load_ff, slew_ns)
    assert energy.value == pytest.approx(rise_fj + 1)


def test_axes_may_stand_in_either_order(library):
    slew = library.cells["INV"].outputs["Y"].slew_ns
    assert slew.at(30, 0.1).value == pytest.approx(0.3)
    assert slew.at(10, 0.3).value == pytest.approx(0.2)


def test_bounds_are_the_spread_over_related_pins(library):
    assert library.cells["NAND2"].outputs["Y"].internal_fj.at(20, 0.2) == pytest.approx((1, 2, 3))
    assert library.cells["INV"].outputs["Y"].internal_fj.at(10, 0.1) == pytest.approx((2, 2, 2))


def test_clock_pin_takes_energy_on_both_edges(library):
    assert library.cells["DFF"].input_fj["CK"].at(0, 0.1).value == pytest.approx(30)


def test_cells_that_synthesis_must_not_use_are_named(library):
    assert set(library.cells) == {"INV", "BUF", "NAND2", "NOR2", "XOR2", "DFF"}
    assert library.unused == ("AND2", "DFFN", "DFFR", "LATCH")


def test_constraint_drives_with_an_inverter_and_loads_with_four(library):
    assert library.constraint == "set_driving_cell INV\nset_load 40.0000 [all_outputs]\n"
    # Transition of the driver at that load and an input without one: 0.1 + 0.3 - 0.05.
    assert library.input_slew_ns == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("library (tiny) {", "library (tiny) {{"), "must be a Liberty file of one library"),
        (("library (tiny)", "liberty (tiny)"), "must be a Liberty file of one library"),
        (("nom_voltage : 2.0;", ""), "nom_voltage of .* must be a positive number"),
        (("nom_voltage : 2.0;", "nom_voltage : high;"), "nom_voltage must be a number, not 'high'"),
        (('"1ns"', '"1 parsec"'), "time_unit must be a number and a unit like 1s"),
        (("(1, pf)", "(1, pints)"), r"capacitive_load_unit must be like \(1,pf\)"),
        (('clocked_on : "CK"; }', 'clocked_on : "!CK"; }'), "plain flip-flop at the rising edge"),
        (('function : "!A"', 'function : "A"'), "must have an inverter"),
        (('function : "A";', 'function : "A A\'";'), "must have an inverter, a buffer"),
        (('"0.001, 0.003"', '"0.001"'), "table must have 4 values, not 3"),
        (("variable_1 : input_transition_time", "variable_1 : moon"), "table axis must be one of"),
    ],
)
def test_nonsense_is_refused(tmp_path, change, sentence):
    assert change[0] in LIBERTY
    with pytest.raises(TernError, match=sentence):
        read_liberty(written(tmp_path, LIBERTY.replace(*change)))


@pytest.mark.parametrize("end", [1000, 2500, len(LIBERTY) - 3])
def test_truncated_file_is_refused(tmp_path, end):
    with pytest.raises(TernError, match="must be a Liberty file of one library"):
        read_liberty(written(tmp_path, LIBERTY[:end]))


def test_missing_file_is_named_and_a_package_with_its_remedy(monkeypatch, tmp_path):
    with pytest.raises(TernError, match=r"liberty must be an existing file or osu018, not no\.lib"):
        liberty_path("no.lib")
    monkeypatch.setattr("tern_hw.gates.liberty.OSU018_PATH", tmp_path / "osu.lib")
    with pytest.raises(TernError, match="apt install qflow-tech-osu018"):
        liberty_path("osu018")
    (tmp_path / "osu.lib").touch()
    assert liberty_path("osu018") == tmp_path / "osu.lib"
