"""Tables of coefficients: every number has a source, and a file without one is refused."""

import pytest

from tern_hw.costs.coefficients import COMPONENTS, read_table
from tern_hw.costs.technology import FOLDER, MEMORIES, TECHNOLOGIES, load_inputs, load_technology
from tern_hw.errors import TernError

TABLES = sorted(path for path in FOLDER.glob("*.toml") if path.stem != "models")

GOOD = """[table]
name = "mine"
kind = "technology"
about = "a process of mine"
node = "28 nm"

[energy.int_add_8]
value = 0.02
low = 0.01
high = 0.03
unit = "pJ"
source = "my own measurement, 2026, table 1"
"""


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_coefficient_has_unit_bounds_and_a_source_to_follow(path):
    table = read_table(path)
    assert table.coefficients
    for key, each in table.coefficients.items():
        assert 0 < each.low <= each.value <= each.high, key
        assert each.unit in {unit for kind in COMPONENTS.values() for unit in kind.values()}
        assert each.node, key
        # A year, or a library's file and cell: something that opens a trail.
        trail = any(word in each.source for word in ("20", "liberty", ".lib", "JESD"))
        assert trail or each.source.startswith("derived: "), key
        assert "HARDWARE" not in each.source + each.note


def test_a_user_s_file_is_read(tmp_path):
    table = load_technology(str(written(tmp_path, GOOD)))
    coefficient = table.coefficients["energy.int_add_8"]
    assert (coefficient.value, coefficient.unit, coefficient.node) == (0.02, "pJ", "28 nm")


def test_a_user_s_file_may_stand_on_a_technology(tmp_path):
    text = GOOD.replace('node = "28 nm"', 'node = "28 nm"\nbase = "45nm"')
    inputs = load_inputs(str(written(tmp_path, text)), "ddr4")
    assert inputs.coefficients["energy.int_add_8"].value == 0.02
    assert inputs.coefficients["energy.int_add_32"].value == 0.1
    with pytest.raises(TernError, match=r"table.base must be one of 45nm, 7nm, not '28nm'"):
        load_technology(str(written(tmp_path, text.replace("45nm", "28nm"))))


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        (
            'source = "my own measurement, 2026, table 1"\n',
            "",
            7,
            "source must be given, not missing",
        ),
        ("my own measurement, 2026, table 1", "?", 12, "source must be a text that a reader can"),
        ('unit = "pJ"\n', "", 7, r"energy.int_add_8.unit must be given, not missing"),
        ('unit = "pJ"', 'unit = "fJ"', 11, "unit must be 'pJ', not 'fJ'"),
        ("value = 0.02", "value = 0", 8, "value must be a positive number, not 0"),
        ("value = 0.02", "value = -1.5", 8, "value must be a positive number, not -1.5"),
        ("value = 0.02", "value = nan", 8, "value must be a positive number, not nan"),
        ("value = 0.02", 'value = "2"', 8, "value must be a positive number, not '2'"),
        ("value = 0.02", "value = true", 8, "value must be a positive number, not True"),
        ("low = 0.01", "low = 0.025", 8, r"value must be from low \(0.025\) to high \(0.03\), not"),
        ("high = 0.03", "high = 0.03\nhi = 1", 11, "energy.int_add_8.hi must be one of value, low"),
        ("int_add_8", "int_add_9", 7, "energy.int_add_9 must be one of energy.int_add_8, "),
        ("energy.int", "power.int", 7, "power.int_add_8 must be one of"),
        ('kind = "technology"', 'kind = "chip"', 3, "table.kind must be one of technology, memory"),
        ('name = "mine"\n', "", 1, "table.name must be given, not missing"),
        ('about = "a process of mine"', "about = 7", 4, "table.about must be a text, not 7"),
        ("[table]", "[tables]", 1, "table must be a section with name"),
    ],
)
def test_a_mistake_is_told_by_file_line_key_rule_and_value(tmp_path, old, new, line, sentence):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(TernError, match=sentence) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[table", "a = ", "\x00", "x = 1\nx = 2"])
def test_what_is_no_toml_is_refused(tmp_path, text):
    with pytest.raises(TernError, match=r"mine\.toml must be TOML in UTF-8 \(.+\)$"):
        read_table(written(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TernError, match="must be a readable file"):
        load_technology(str(tmp_path / "none.toml"))


MEMORY = """[table]
name = "board"
kind = "memory"
about = "my board"

[ddr3]
boundary = "device"

[ddr3.energy]
value = 30
low = 20
high = 40
unit = "pJ/bit"
node = "DDR3"
source = "data sheet of my board, 2020"

[ddr3.bandwidth]
value = 1.4
low = 1
high = 2
unit = "GB/s"
node = "DDR3"
source = "data sheet of my board, 2020"
"""


def test_a_user_s_memory_is_taken_by_file_and_name(tmp_path):
    path = written(tmp_path, MEMORY)
    inputs = load_inputs("7nm", f"{path}:ddr3")
    assert inputs.coefficients["memory.energy"].value == 30
    assert inputs.boundary == "device"
    with pytest.raises(TernError, match=r"memory must be one of .*\(ddr3\), not 'ddr4'"):
        load_inputs("7nm", f"{path}:ddr4")
    with pytest.raises(TernError, match=r"table.kind must be 'technology' here, not 'memory'"):
        load_inputs(str(path), "ddr4")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('boundary = "device"\n', "", "ddr3.boundary must be a text that says what the energy is"),
        ("ddr3.bandwidth", "ddr3.bandwith", "ddr3.bandwith must be one of energy, bandwidth, not"),
        (MEMORY[MEMORY.index("[ddr3.band") :], "", "ddr3.bandwidth must be given, not missing"),
    ],
)
def test_a_memory_lacks_nothing(tmp_path, old, new, sentence):
    with pytest.raises(TernError, match=sentence):
        read_table(written(tmp_path, MEMORY.replace(old, new)))


def test_an_unknown_technology_or_memory_is_refused_with_a_hint():
    with pytest.raises(TernError, match=r"technology must be one of 45nm, 7nm or .*there is 45nm"):
        load_inputs("45", "ddr4")
    with pytest.raises(
        TernError, match=r"memory must be one of lpddr5.*not 'hbm3' \(there is hbm2"
    ):
        load_inputs("7nm", "hbm3")


def test_a_component_without_a_number_is_refused_not_defaulted(tmp_path):
    values = load_inputs(str(written(tmp_path, GOOD)), "ddr4").values()
    with pytest.raises(
        TernError, match=r"energy.gate must be in one of the tables, not missing in"
    ):
        values["energy.gate"]
    with pytest.raises(TernError, match=r"energy.sram_1mb must be in the technology"):
        load_inputs(str(tmp_path / "mine.toml"), "sram")


def test_one_coefficient_moves_alone():
    inputs = load_inputs("7nm", "lpddr5")
    middle, moved = inputs.values(), inputs.values("high", only="memory.energy")
    assert {key for key in middle if middle[key] != moved[key]} == {"memory.energy"}
    assert moved["memory.energy"] == 12.5
    everything = inputs.values("low")
    assert all(everything[key] <= middle[key] for key in middle)


@pytest.mark.parametrize("technology", TECHNOLOGIES)
@pytest.mark.parametrize("memory", [*MEMORIES, "sram"])
def test_all_that_comes_with_the_toolkit_can_be_combined(technology, memory):
    inputs = load_inputs(technology, memory)
    assert inputs.boundary
    assert {"memory.energy", "data.zero_fraction", "static.power"} <= set(inputs.coefficients)
