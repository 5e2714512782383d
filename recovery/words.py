"""What a step returned, in words: one line of bounded length, or a line for each field."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from recovery.left_to_person import LEFT_TO_PERSON
from recovery.secrecy.redaction import contains_secret, redact, redact_value
from recovery.values import canonical, shortly, to_plain

LINE_CHARS_MAX = 240
FIELD_CHARS_MAX = 600
ITEMS_MAX = 20
EACH_CHARS_MIN = 60
INNER_CHARS_MAX = 80
# What must be known comes first: the end of a line may be cut off.
FIRST = (LEFT_TO_PERSON, "host", "finding", "why", "saw", "reason")
EMPTY: tuple[Any, ...] = (None, "", [], {})
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:\+00:00|Z)")


def told(value: object, chars_max: int = LINE_CHARS_MAX) -> str:
    """What a step returned in one line, secrets masked; empty where it returned nothing."""
    if value is None:
        return ""
    try:
        plain = to_plain(value)
    except TypeError:
        return shortly(value, chars_max)
    return redact(in_words(plain, chars_max))


def in_words(plain: object, chars_max: int = LINE_CHARS_MAX) -> str:
    """A plain value in one line: lists with commas, names as `name: value`, what is empty left out.

    Long lists of values with names are counted where they stand within another value. Secrets are
    masked.
    """
    return _in_words(_clean(plain), chars_max)


def _clean(plain: object) -> Any:
    """A plain value without secrets: they are masked before a line is cut, or half of one stays."""
    return redact_value(plain) if contains_secret(canonical(plain)) else plain


def _in_words(plain: object, chars_max: int = LINE_CHARS_MAX) -> str:
    if isinstance(plain, Mapping):
        text = _named(plain)
    elif isinstance(plain, str) or not isinstance(plain, Sequence):
        text = _scalar(plain)
    else:
        text = _listed(plain, chars_max)
    return cut(text, chars_max)


def field_lines(plain: object) -> list[str]:
    """A plain value as a line for each of its fields; the items of a long one are indented."""
    if plain in EMPTY:
        return []
    plain = _clean(plain)
    if not isinstance(plain, Mapping):
        return [_in_words(plain, FIELD_CHARS_MAX)]
    lines = []
    for name in _in_order(plain):
        value = plain[name]
        text = _in_words(value, FIELD_CHARS_MAX)
        if isinstance(value, list) and len(value) > 1 and len(text) > INNER_CHARS_MAX:
            lines.append(f"{name}:")
            lines += [f"  {_in_words(item)}" for item in value[:ITEMS_MAX]]
            lines += [f"  {_more(value)}"] if len(value) > ITEMS_MAX else []
        elif isinstance(value, Mapping) and len(text) > INNER_CHARS_MAX:
            lines.append(f"{name}:")
            lines += [f"  {inner}: {_inner(value[inner])}" for inner in _in_order(value)]
        else:
            lines.append(f"{name}: {text}")
    return lines


def cut(text: str, chars_max: int) -> str:
    """Text in one line, without its end where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= chars_max else f"{text[: chars_max - 1].rstrip(' ,;:(')}…"


def _scalar(plain: object) -> str:
    match plain:
        case None | "":
            return "none"
        case bool():
            return "yes" if plain else "no"
        case float():
            return f"{plain:.10g}"
        case str():
            return _MOMENT.sub(r"\1 \2Z", plain)
        case _:
            return str(plain)


def _listed(items: Sequence[Any], chars_max: int) -> str:
    if not items:
        return "none"
    shown = items[:ITEMS_MAX]
    each = max(EACH_CHARS_MIN, chars_max // len(shown))
    texts = [_item(item, each if isinstance(item, Mapping) else chars_max) for item in shown]
    between = "; " if any(" " in text for text in texts) else ", "
    texts += [_more(items)] if len(items) > ITEMS_MAX else []
    return between.join(texts)


def _item(item: object, chars_max: int) -> str:
    return (
        f"({_in_words(item, chars_max)})" if isinstance(item, list) else _in_words(item, chars_max)
    )


def _more(items: Sequence[Any]) -> str:
    return f"and {len(items) - ITEMS_MAX} more"


def _named(plain: Mapping[str, Any]) -> str:
    names = [name for name in _in_order(plain) if plain[name] not in EMPTY]
    parts = [f"{name}: {_inner(plain[name])}" for name in names]
    return ", ".join(parts) or "none"


def _in_order(plain: Mapping[str, Any]) -> list[str]:
    return [*(name for name in FIRST if name in plain), *(n for n in plain if n not in FIRST)]


def _inner(value: object) -> str:
    """A value within another: what has names of its own in brackets, a list of such counted."""
    if isinstance(value, Mapping):
        text = _named(value)
        return f"({text})" if len(text) <= INNER_CHARS_MAX else f"{len(value)} values"
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        text = _in_words(value)
        if len(text) <= INNER_CHARS_MAX:
            return f"({text})"
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    return _in_words(value)
