"""Remedies for names that are nearly right."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Begin a remedy with the nearest names, or with nothing where none is near."""
    near = get_close_matches(wrong, list(known), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
