"""What quant can say beside `TernError`'s one sentence."""

from tern_hw.errors import TernError

__all__ = ["UnreachableError"]


class UnreachableError(TernError):
    """A model that lies elsewhere could not be fetched; another one may do."""
