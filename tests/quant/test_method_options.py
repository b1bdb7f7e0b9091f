"""quant.methods.options: text becomes a method's options, or one sentence says why not."""

from dataclasses import dataclass

import pytest

from quant.methods import METHODS
from quant.methods.config import MethodConfig
from quant.methods.dlt import Codes, DltConfig, Initialisation
from quant.methods.options import parse_options
from quant.methods.straight_through import StraightThrough
from tern_hw.errors import TernError


@dataclass(frozen=True, kw_only=True)
class _Config(MethodConfig):
    rounds: int = 4
    limit: float | None = None
    note: str = ""


class _Method:
    name = "made-up"
    config_type = _Config


@pytest.fixture
def made_up(monkeypatch):
    """A method with the kinds of options that no real one needs to have."""
    monkeypatch.setitem(METHODS, "made-up", _Method())


@pytest.mark.parametrize("method", list(METHODS))
def test_no_text_is_the_methods_defaults(method):
    assert parse_options(method, []) == METHODS[method].config_type()


def test_each_text_takes_its_fields_type():
    texts = ["ste=identity", "factor=0.75", "shift=off", "group_size=row", "codes=nearest"]
    options = parse_options("dlt", [*texts, "init = twn", "layers=*.mlp.*, *.q_proj"])
    assert options == DltConfig(
        ste=StraightThrough.IDENTITY,
        factor=0.75,
        shift=False,
        group_size="row",
        codes=Codes.NEAREST,
        init=Initialisation.TWN,
        layers=("*.mlp.*", "*.q_proj"),
    )
    assert isinstance(options.ste, StraightThrough)


def test_group_size_may_be_a_number_and_have_a_hyphen():
    assert parse_options("twn", ["group-size=64"]).group_size == 64


def test_integer_text_is_a_number_for_a_float():
    factor = parse_options("dlt", ["factor=0"]).factor
    assert factor == 0
    assert isinstance(factor, float)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("yes", True), ("on", True), ("false", False), ("no", False), ("off", False)],
)
def test_every_spelling_of_a_switch(text, value):
    assert parse_options("dlt", [f"center={text}"]).center is value


def test_other_types(made_up):
    options = parse_options("made-up", ["rounds=-3", "limit=1e-2", "note=a=b"])
    assert options == _Config(rounds=-3, limit=0.01, note="a=b")
    assert parse_options("made-up", ["limit=none"], {"limit": 2.0}).limit is None


def test_text_wins_over_the_base_and_the_base_over_the_default():
    options = parse_options("dlt", ["ste=ttq"], {"ste": "clipped", "group_size": 32})
    assert (options.ste, options.group_size, options.shift) == (StraightThrough.TTQ, 32, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ste", "option must be written name=value, not 'ste'"),
        ("=1", "option of method dlt must be one of group_size, layers, factor, .*, not ''"),
        ("step=1", "option of method dlt must be one of group_size, .*ste, shift.*, not 'step'"),
        ("ste=straight", "ste must be one of ttq, identity, clipped, not 'straight'"),
        ("factor=", "factor must be a number, not ''"),
        ("factor=much", "factor must be a number, not 'much'"),
        ("factor=nan", "factor must be a finite number, not nan"),
        ("factor=-inf", "factor must be a finite number, not -inf"),
        ("shift=1", "shift must be one of true, yes, on, false, no, off, not '1'"),
        ("group_size=0", 'group_size must be "row" or a positive integer, not 0'),
        ("group_size=6_4", "group_size must be either \"row\" or an integer, not '6_4'"),
        ("group_size=1.5", "group_size must be either \"row\" or an integer, not '1.5'"),
    ],
)
def test_bad_text_is_refused_by_name(text, message):
    with pytest.raises(TernError, match=message):
        parse_options("dlt", [text])


def test_integer_options_take_integers_only(made_up):
    with pytest.raises(TernError, match=r"rounds must be an integer, not '4\.0'"):
        parse_options("made-up", ["rounds=4.0"])


def test_option_given_twice_is_refused():
    with pytest.raises(TernError, match=r"option factor must be given once, not again as 'factor="):
        parse_options("dlt", ["factor=0.7", "factor=0.75"])


def test_unknown_method_and_unknown_base_are_refused():
    with pytest.raises(TernError, match=r"method must be one of dlt, .*, not 'ternary'"):
        parse_options("ternary", [])
    with pytest.raises(TernError, match=r"option must be one of .*, not 'colour'"):
        parse_options("dlt", [], {"colour": "red"})
