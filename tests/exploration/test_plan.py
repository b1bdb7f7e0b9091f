"""The points of a sweep: every combination once, skipped ones counted, each with its command."""

import dataclasses
import itertools
import shlex

import pytest

from tern_hw.config import ArrayConfig
from tern_hw.errors import TernError
from tern_hw.estimate import estimate_parser
from tern_hw.estimation.request import make_request
from tern_hw.exploration.axes import FIXED, axis_actions
from tern_hw.exploration.plan import MAX_COMBINATIONS
from tests.costs.test_estimate import saved_artifact
from tests.exploration.sweeps import SMALL, planned


def test_every_option_of_a_design_can_be_swept():
    """A field that an option of estimate sets is an axis, or fixed on purpose."""
    names = {each.dest for each in axis_actions(estimate_parser())}
    fields = {field.name for field in dataclasses.fields(ArrayConfig)}
    offered = {each.dest for each in estimate_parser()._actions} & fields
    assert offered - set(FIXED) <= names
    assert {"lanes", "rows", "activation", "packing", "group_size", "memory", "clock"} <= names
    assert not names & {"help", "json", "list", "sources", "plot", "model"}


def test_an_option_that_is_added_becomes_an_axis():
    parser = estimate_parser()
    parser.add_argument("--voltage", type=float)
    assert "voltage" in {each.dest for each in axis_actions(parser)}


def test_the_dot_product_is_an_axis(small):
    points = planned(small, lanes="16", rows="2", group_size="64", packing="2bit", dot="tree,carry")
    assert [str(each.system.array.dot) for each in points.points] == ["tree", "carry"]


def test_points_are_all_combinations_that_go_together(small):
    plan = planned(small, packing="2bit,base3", **SMALL)
    fitting = [
        (lanes, rows, packing, group)
        for lanes, rows, packing, group in itertools.product(
            (16, 32, 64), (2, 4), ("2bit", "base3"), ("48", "64")
        )
        if int(group) % lanes == 0 or lanes % int(group) == 0
    ]
    assert [tuple(each.values.values()) for each in plan.points] == fitting
    assert plan.combinations == 24
    rule = 'group_size must be "row", a multiple of lanes or a divisor of lanes'
    assert plan.skips.counts == {rule: 24 - len(fitting)}
    sentence, command = plan.skips.examples[rule]
    assert sentence.endswith("(lanes = 32), not 48")
    assert command.endswith("--lanes 32 --rows 2 --packing 2bit --group-size 48")


def test_a_command_line_is_its_point(small):
    lists = {"memory": "hbm2,sram", "clock": "250,500.5", "activation": "int8,fp16"}
    plan = planned(small, zeros=0.25, packing="base3", **lists, **SMALL)
    assert len(plan.points) == 8 * 8
    for point in plan.points:
        words = shlex.split(point.command)
        assert words[:3] == ["python", "-m", "tern_hw.estimate"]
        request = make_request(estimate_parser().parse_args(words[3:]))
        assert request.system == point.system
        assert request.inputs.values() == point.numbers
        assert request.inputs.values()["data.zero_fraction"] == 0.25


def test_a_path_with_a_space_is_quoted(tmp_path):
    folder = tmp_path / "my model's"
    saved_artifact(folder, packing="base3", group_size=64)
    plan = planned(str(folder), lanes="16,32", packing="base3")
    words = shlex.split(plan.points[0].command)
    assert words[4] == str(folder)


def test_an_artifact_decides_the_group_size(tmp_path):
    saved_artifact(tmp_path / "model", packing="base3", group_size=64)
    path = str(tmp_path / "model")
    plan = planned(path, lanes="16,32", packing="base3")
    assert {each.system.array.group_size for each in plan.points} == {64}
    with pytest.raises(TernError, match=r"^group_size must be the artifact's, 64, not 128$"):
        planned(path, lanes="16", group_size="128,64")


def test_a_named_configuration_is_swept_only_where_asked(small):
    plan = planned(small, config="fine", rows="1,2")
    assert [each.system.array.rows for each in plan.points] == [1, 2]
    assert {(each.system.array.lanes, each.system.array.group_size) for each in plan.points} == {
        (32, 16)
    }
    assert "--config fine" in plan.points[0].command


def test_a_limit_draws_the_same_points_again(small):
    whole = [each.command for each in planned(small, **SMALL).points]
    some = planned(small, limit=5, **SMALL)
    commands = [each.command for each in some.points]
    assert len(commands) == 5
    assert commands == [each for each in whole if each in commands]
    assert commands != whole[:5]
    assert some.left_out == len(whole) - 5
    assert commands == [each.command for each in planned(small, limit=5, **SMALL).points]
    assert planned(small, limit=99, **SMALL).left_out == 0


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"lanes": "16,1000000000"}, "lanes must be an integer from 8 to 1024, not 1000000000"),
        ({"lanes": "16,x"}, "--lanes must be integers with commas between them, not '16,x'"),
        ({"clock": "1,,2"}, "--clock must be numbers with commas between them, not '1,,2'"),
        ({"memory": "hbm2,"}, "--memory must be names with commas between them, not 'hbm2,'"),
        ({"rows": "2,4,2"}, "--rows must have each value once, not 2 again"),
        ({"clock": "500,0"}, "clock must be from 0.001 to 10000 MHz, not 0.0"),
        ({"clock": "500,nan"}, "clock must be from 0.001 to 10000 MHz, not nan"),
        ({"packing": "base3,3bit"}, "packing must be one of 2bit, base3, not '3bit'"),
        ({"memory": "hbm2,hbm9"}, "memory must be one of lpddr5, ddr4, gddr6, hbm2, sram or a"),
        (
            {"lanes": "64", "group_size": "128,48"},
            'group_size must be "row", a multiple of lanes or a divisor of lanes (lanes = 64), not',
        ),
        (
            {"weights": "ternary,fp16", "activation": "fp16"},
            "weights must be ternary where actions are counted, not fp16",
        ),
        ({"context": 0}, "context must be an integer from 1 to 16777216, not 0"),
        ({"zeros": 1.0}, "--zeros must be from 0 to below 1, not 1.0"),
    ],
)
def test_a_value_that_makes_no_point_is_refused(small, lists, sentence):
    with pytest.raises(TernError) as caught:
        planned(small, **lists)
    assert str(caught.value).startswith(sentence)


def test_too_many_combinations_are_refused_at_once(small):
    many = ",".join(str(each) for each in range(1, 1002))
    sentence = f"at most {MAX_COMBINATIONS:,} combinations, not 1,002,001"
    with pytest.raises(TernError, match=sentence):
        planned(small, config="base", clock=many, bandwidth=many)
