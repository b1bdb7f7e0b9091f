"""Boolean expressions of a Liberty: what binds first, and what is refused."""

import itertools

import pytest

from tern_hw.errors import TernError
from tern_hw.gates.expression import names_of, parse_expression
from tests.gates.netlists import evaluate

#: The same in Python's operators, whose precedence is ~ & ^ |: parentheses make up for it.
EXPRESSIONS = {
    "A": "a",
    "!A": "not a",
    "A'": "not a",
    "(A B)": "a and b",
    "A*B+C": "(a and b) or c",
    "A + B & C": "a or (b and c)",
    "A ^ B & C": "(a != b) and c",
    "A & B ^ C": "a and (b != c)",
    "!A ^ B": "(not a) != b",
    "!(A|B)C": "(not (a or b)) and c",
    "(A B)' + C'": "(not (a and b)) or (not c)",
    "A''": "a",
    "(A 1) | (B 0)": "a",
}


@pytest.mark.parametrize(("text", "python"), EXPRESSIONS.items())
def test_expression_has_libertys_precedence(text, python):
    expression = parse_expression(text)
    for a, b, c in itertools.product((False, True), repeat=3):
        assert evaluate(expression, {"A": a, "B": b, "C": c}) == eval(python)


def test_names_are_found():
    assert sorted(names_of(parse_expression("!(A1 & B[0]) ^ A1"))) == ["A1", "A1", "B[0]"]


@pytest.mark.parametrize("text", ["", "A +", "(A", "A)", "A - B", "()", "& A", "'A"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(TernError, match="function must be a Boolean expression, not"):
        parse_expression(text)
