"""The syntax of a Liberty file: groups, simple and complex attributes; no meaning yet."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tern_hw.errors import TernError

__all__ = ["Group", "read_groups"]

TOKEN: Final = re.compile(
    r"""(?P<skip>\s+|/\*.*?\*/|//[^\n]*|\\\n)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{}():;,])"""
    r"""|(?P<word>[^\s{}():;,"]+)""",
    re.DOTALL,
)


@dataclass
class Group:
    """One group: `kind (arguments) { attributes and groups }`."""

    kind: str
    arguments: list[str]
    #: Simple (`name : value ;`) and complex (`name (values) ;`) attributes, the last of each name.
    attributes: dict[str, list[str]] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute's value, several values as one text."""
        return " ".join(self.attributes.get(name, [default]))

    def number(self, name: str, default: float) -> float:
        """Return an attribute as a number."""
        text = self.text(name)
        try:
            return float(text) if text else default
        except ValueError:
            raise TernError(f"Liberty attribute {name} must be a number, not {text!r}") from None

    def numbers(self, name: str) -> list[float]:
        """Return the numbers of an attribute such as `index_1`."""
        return [float(word) for word in re.split(r"[\s,\\]+", self.text(name)) if word]

    def of(self, kind: str) -> Iterator["Group"]:
        """Yield the groups of one kind."""
        return (group for group in self.groups if group.kind == kind)


def read_groups(path: Path) -> Group:
    """Return the `library` group of a Liberty file.

    Raises
    ------
    TernError
        If the file cannot be read, or is no Liberty.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise TernError(f"liberty must be a readable file, not {path} ({error.strerror})") from None
    tokens = [
        match.group().strip('"') if match.lastgroup == "string" else match.group()
        for match in TOKEN.finditer(text)
        if match.lastgroup != "skip"
    ]
    root = Group("", [])
    try:
        end = _fill(root, tokens, 0)
    except (IndexError, ValueError):
        end = 0
    libraries = list(root.of("library"))
    if end != len(tokens) or len(libraries) != 1:
        raise TernError(f"liberty must be a Liberty file of one library, not {path}")
    return libraries[0]


def _fill(group: Group, tokens: list[str], at: int) -> int:
    """Read statements into a group up to its closing brace; return the place after it."""
    while at < len(tokens) and tokens[at] != "}":
        name = tokens[at]
        if name == ";":
            at += 1
        elif tokens[at + 1] == ":":
            end = tokens.index(";", at)
            group.attributes[name] = tokens[at + 2 : end]
            at = end
        elif tokens[at + 1] == "(":
            close = tokens.index(")", at)
            values = [token for token in tokens[at + 2 : close] if token != ","]
            at = close + 1
            if at < len(tokens) and tokens[at] == "{":
                inner = Group(name, values)
                group.groups.append(inner)
                at = _fill(inner, tokens, at + 1) + 1
            else:
                group.attributes[name] = values
        else:
            raise ValueError(name)
    return at
