"""The one exception that means "the user can mend this": its text is the whole message."""

__all__ = ["TernError"]


class TernError(ValueError):
    """A mistake in what the user gave, told in one sentence: the thing, the rule, the value.

    Command lines print it without a traceback and exit with status 2
    (`tern_hw.cli`). Anything else that escapes is a defect of ours.
    """
