"""Boolean expressions of a Liberty's `function` attribute, as nested tuples."""

import re
from collections.abc import Iterator
from typing import Any, Final

from tern_hw.errors import TernError

__all__ = ["Expression", "names_of", "parse_expression"]

#: A pin's name, True, False, ("not", x), or ("and" | "or" | "xor", x, y).
Expression = str | bool | tuple[Any, ...]

TOKEN: Final = re.compile(r"\s*([A-Za-z_][\w\[\].]*|[01()!'^&*|+])")
#: Binary operators from the one that binds least; what stands beside each other is an "and".
LEVELS: Final = (("or", "|+"), ("and", "&*"), ("xor", "^"))


def parse_expression(text: str) -> Expression:
    """Parse a Boolean expression (Liberty User Guide, "function" attribute).

    Raises
    ------
    TernError
        If it is none.
    """
    tokens = _tokens(text)
    parser = _Parser(text, tokens)
    result = parser.binary(0)
    if parser.rest:
        raise parser.wrong()
    return result


def names_of(expression: Expression) -> Iterator[str]:
    """Yield the pins that an expression names, as often as it does."""
    if isinstance(expression, str):
        yield expression
    elif isinstance(expression, tuple):
        for part in expression[1:]:
            yield from names_of(part)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise TernError(f"function must be a Boolean expression, not {text!r}")
        tokens.append(match.group(1))
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str, tokens: list[str]) -> None:
        self.text, self.rest = text, tokens[::-1]

    def wrong(self) -> TernError:
        return TernError(f"function must be a Boolean expression, not {self.text!r}")

    def next_is(self, tokens: str) -> bool:
        return bool(self.rest) and self.rest[-1] in tokens

    def binary(self, level: int) -> Expression:
        if level == len(LEVELS):
            return self.unary()
        name, symbols = LEVELS[level]
        left = self.binary(level + 1)
        while self.next_is(symbols) or (name == "and" and self._juxtaposed()):
            if self.next_is(symbols):
                self.rest.pop()
            left = (name, left, self.binary(level + 1))
        return left

    def _juxtaposed(self) -> bool:
        return bool(self.rest) and (self.rest[-1] in "(!01" or self.rest[-1][0] not in "()!'^&*|+")

    def unary(self) -> Expression:
        if not self.rest:
            raise self.wrong()
        token = self.rest.pop()
        if token == "!":
            return ("not", self.unary())
        if token == "(":
            inner = self.binary(0)
            if not self.next_is(")"):
                raise self.wrong()
            self.rest.pop()
        elif token in "01":
            inner = token == "1"
        elif token in "!'^&*|+)":
            raise self.wrong()
        else:
            inner = token
        while self.next_is("'"):
            self.rest.pop()
            inner = ("not", inner)
        return inner
