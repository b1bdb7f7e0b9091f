"""Common English words in groups of meaning, and the sentence that they are read in."""

from typing import Final

__all__ = ["TEMPLATE", "WORD_GROUPS"]

#: Neutral, and the same for every word; a causal model sees it before the word.
TEMPLATE: Final = "The next word is"

#: Eight words a group; concrete, frequent, and of one meaning where it can be had.
WORD_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "animals": ("dog", "cat", "horse", "cow", "sheep", "lion", "rabbit", "elephant"),
    "colours": ("red", "blue", "green", "yellow", "purple", "brown", "black", "white"),
    "numbers": ("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "countries": ("France", "Germany", "Spain", "Italy", "China", "Japan", "India", "Brazil"),
    "months": ("January", "February", "April", "June", "July", "August", "October", "December"),
    "tools": ("hammer", "screwdriver", "saw", "drill", "wrench", "chisel", "shovel", "axe"),
    "food": ("bread", "cheese", "rice", "butter", "soup", "meat", "apple", "sugar"),
    "body": ("hand", "foot", "head", "arm", "leg", "knee", "nose", "shoulder"),
}
