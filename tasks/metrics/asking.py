"""What Grafana can ask once its variables are put in: to see whether a query returns rows."""

import re
from typing import Any

from tasks.metrics.influxql import WordKind, words_of

HOURS = "1h"
INTERVAL = "1m"
TIME = {"timeFilter": f"time > now() - {HOURS}", "__interval": INTERVAL, "interval": INTERVAL,
        "__interval_ms": "60000", "__range": HOURS}  # fmt: skip
VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\[\[(\w+)(?::\w+)?\]\]|\$(\w+)")
ALL = {"$__all", "All"}


def askable(query: str, values: dict[str, str]) -> str:
    """A query with every variable replaced: in patterns by anything, elsewhere by its value."""

    def value(variable: re.Match[str]) -> str:
        name = next(group for group in variable.groups() if group)
        return TIME.get(name) or values.get(name, variable.group())

    opened = [
        VARIABLE.sub(".*", word.text) if word.kind is WordKind.PATTERN else word.text
        for word in words_of(query)
    ]
    return VARIABLE.sub(value, "".join(opened))


def values_of(dashboard: dict[str, Any]) -> dict[str, str]:
    """The value that each variable of a dashboard has; none for one that means all."""
    listed = (dashboard.get("templating") or {}).get("list") or []
    values = {}
    for one in listed:
        current = (one.get("current") or {}).get("value") if isinstance(one, dict) else None
        first = current[0] if isinstance(current, list) and current else current
        if isinstance(first, str) and first not in ALL:
            values[str(one.get("name"))] = first
    return values


def is_askable(query: str) -> bool:
    """Whether no variable is left in it."""
    return VARIABLE.search(query) is None
