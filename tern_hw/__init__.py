"""Ternary language models in hardware: one computation, described four times, equal bit for bit.

Importing the package loads nothing else: take what you need, as in ``from tern_hw.config import
ArrayConfig``, or run a verb, as in ``python -m tern_hw.generate --help``.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
