"""Matchers as Alertmanager's: `name = "value"`, `!=`, `=~`, `!~`, the patterns anchored.

Patterns are RE2, as there: the time to match is linear in the text, whoever wrote the text.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import re2  # type: ignore[import-untyped]

from recovery.errors import BadInput

QUOTED = r'"(?:[^"\\\n]|\\.)*"'
WRITTEN = re.compile(
    rf"\s*(?P<label>{QUOTED}|[a-zA-Z_:][a-zA-Z0-9_:]*)\s*"
    rf"(?P<operator>=~|!~|!=|=)\s*(?P<value>{QUOTED}|[^\"\s,{{}}][^\",{{}}]*?|)\s*"
)
ESCAPED = re.compile(r"\\(.)")
LITERAL = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
PATTERNS = ("=~", "!~")


@dataclass(frozen=True)
class Matcher:
    """One condition on a label; a label that is not there counts as empty."""

    label: str
    operator: str
    value: str
    _pattern: Any = field(default=None, compare=False, repr=False)

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels are as it says."""
        seen = labels.get(self.label, "")
        if self.operator in PATTERNS:
            is_so = self._pattern.fullmatch(seen) is not None
        else:
            is_so = seen == self.value
        return is_so != self.operator.startswith("!")

    @property
    def named(self) -> tuple[str, ...]:
        """The values it names one by one, as the file spells them; none where it is wider."""
        values = self.value.split("|") if self.operator == "=~" else [self.value]
        is_literal = all(LITERAL.fullmatch(value) for value in values)
        return tuple(values) if is_literal and self.operator in ("=", "=~") else ()

    def __str__(self) -> str:
        """Write it as in the file."""
        return f'{self.label}{self.operator}"{self.value}"'


def read_matcher(text: str, field_name: str) -> Matcher:
    """Read one matcher.

    Raises:
        BadInput: it is not of that form, or its pattern is none of RE2.
    """
    written = WRITTEN.fullmatch(text)
    if written is None:
        raise BadInput(
            field_name,
            f"{text!r} is no matcher",
            'Write name="value" with one of =, !=, =~, !~ (a pattern, anchored)',
        )
    label, value = _unquoted(written["label"]), _unquoted(written["value"])
    if written["operator"] not in PATTERNS:
        return Matcher(label, written["operator"], value)
    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(f"(?s:{value})", options)
    except re2.error as error:
        told = error.args[0] if error.args else "it cannot be read"
        told = told.decode() if isinstance(told, bytes) else told
        raise BadInput(
            field_name, f"{value!r} is no pattern: {told}", "Write it in the syntax of RE2"
        ) from None
    return Matcher(label, written["operator"], value, pattern)


def all_fit(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether each of them fits."""
    return all(matcher.fits(labels) for matcher in matchers)


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text[1:-1])
