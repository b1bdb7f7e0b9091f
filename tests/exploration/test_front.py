"""The Pareto front is what no other point beats, whatever the order and the ties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tern_hw.errors import TernError
from tern_hw.exploration.figures import FIGURES
from tern_hw.exploration.objectives import OBJECTIVES, pareto_front, read_objectives


def beaten(one, others):
    """Tell by the definition whether another point is as good in all and better in one."""
    return any(
        all(a <= b for a, b in zip(other, one, strict=True)) and other != one for other in others
    )


@settings(max_examples=60)
@given(
    st.integers(2, 4).flatmap(
        lambda width: st.lists(st.tuples(*[st.integers(0, 4)] * width), max_size=40)
    )
)
def test_front_is_what_no_point_beats(costs):
    assert pareto_front(costs) == [not beaten(each, costs) for each in costs]


def test_equal_points_stand_together():
    costs = [(1.0, 2.0), (2.0, 1.0), (1.0, 2.0), (2.0, 2.0)]
    assert pareto_front(costs) == [True, True, True, False]


def test_objectives_show_figures_that_there_are():
    assert {each.figure for each in OBJECTIVES.values()} == set(FIGURES)
    assert [each.name for each in read_objectives("area,first-token")] == ["area", "first-token"]
    units = {each.name: FIGURES[each.figure] for each in OBJECTIVES.values()}
    for each in OBJECTIVES.values():
        prefix = {1e3: "m", 1e-6: "M", 1.0: ""}[each.scale]
        assert each.unit == prefix + units[each.name]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("energy", "--minimise must be two names or more, not 'energy' alone"),
        ("energy,energy", "--minimise must have each name once, not 'energy' again"),
        ("energy,speed", "--minimise must be names from energy, time, area, "),
        ("", "--minimise must be names from energy, "),
    ],
)
def test_unknown_objectives_are_refused(text, sentence):
    with pytest.raises(TernError) as caught:
        read_objectives(text)
    assert str(caught.value).startswith(sentence)
