"""What a person can decide about a step in doubt."""

from enum import StrEnum


class Settlement(StrEnum):
    """Its effect is there; it is to be done again; the recovery ends here."""

    DONE = "done"
    REDO = "redo"
    ABANDON = "abandon"
