"""The Brown corpus as plain text: part-of-speech tags removed, punctuation put back in place."""

import re
from typing import Final

__all__ = ["brown_text"]

#: Marks that stand at the end of the word before them, and at the start of the one after.
CLOSING: Final = frozenset({",", ".", ";", ":", "?", "!", ")", "]", "''"})
OPENING: Final = frozenset({"(", "[", "``"})
#: Marks that the corpus writes twice where the print has one.
DOUBLED: Final = frozenset({"?", "!", ";", ":", ","})
#: How the corpus writes a double quotation mark.
QUOTES: Final = {"``": '"', "''": '"'}


def brown_text(tagged: str) -> str:
    """Return a file's text, one paragraph a line.

    Parameters
    ----------
    tagged : str
        Tokens as ``word/tag``, a sentence a line, a blank line between paragraphs.
    """
    paragraphs = re.split(r"\n\s*\n", tagged.strip())
    lines = (rejoin([token.rpartition("/")[0] for token in p.split()]) for p in paragraphs)
    return "\n".join(line for line in lines if line)


def rejoin(words: list[str]) -> str:
    """Return a paragraph's words as running text.

    A lone ``'`` opens a quotation within a quotation, the next one closes it.
    """
    text, glued, quoted, before = "", True, False, ""
    for word in words:
        if word == before and word in DOUBLED:
            continue
        before = word
        closes = word in CLOSING or (word == "'" and quoted)
        if not (glued or closes):
            text += " "
        text += QUOTES.get(word, word)
        glued = word in OPENING or (word == "'" and not quoted)
        quoted ^= word == "'"
    return text
