"""Remedies where no recovery has begun, as in a plan: nothing can be resumed there."""

import re

_RESUMING = re.compile(r"\b(then|before) (resume|resuming)\b")
_TRYING = {"resume": "try again", "resuming": "trying again"}


def without_resume(text: str) -> str:
    """The text of an error, with trying again in place of resuming."""
    return _RESUMING.sub(lambda found: f"{found[1]} {_TRYING[found[2]]}", text)
