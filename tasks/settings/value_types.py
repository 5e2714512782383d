"""What a value is by its looks: to Kubernetes all are texts, to who reads them they are not."""

import json
import re
from enum import StrEnum
from urllib.parse import urlsplit

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class ValueType(StrEnum):
    """How a program reads a value."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    URL = "url"
    JSON = "json"


def type_of(value: str) -> ValueType:
    """The narrowest type that a value fits."""
    for kind in (ValueType.NUMBER, ValueType.BOOLEAN, ValueType.URL, ValueType.JSON):
        if fits(value, kind):
            return kind
    return ValueType.TEXT


def fits(value: str, kind: ValueType) -> bool:
    """Whether a value can be read as this type."""
    match kind:
        case ValueType.NUMBER:
            return bool(NUMBER.fullmatch(value))
        case ValueType.BOOLEAN:
            return value.lower() in {"true", "false"}
        case ValueType.URL:
            return _is_url(value)
        case ValueType.JSON:
            return _is_json(value)
        case ValueType.TEXT:
            return True


def _is_url(value: str) -> bool:
    if value != value.strip() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_json(value: str) -> bool:
    """Objects and lists; what else is JSON is a number, a boolean or a text here."""
    try:
        return isinstance(json.loads(value), dict | list)
    except ValueError:
        return False
