"""Plain values: what the journal keeps of arguments, decisions and results, and their fingerprint.

Plain means JSON and nothing else. Typed values (dataclasses, enums, paths, moments) become plain on
the way in and are made again from the annotation of the step that returned them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from recovery.secrecy.redaction import redact
from recovery.secrecy.secret import Secret

type_adapter = lru_cache(maxsize=512)(TypeAdapter)


def to_plain(value: object) -> Any:  # noqa: C901, PLR0912 (a table of types)
    """Turn a value into JSON types.

    An object with a `label` (a block, a target) stands for itself by that label: what opens a
    connection is a reference and is never stored. A secret becomes its mask.

    Raises:
        TypeError: the value has no plain form. Pass names and numbers to steps, not clients.
    """
    plain: Any
    if isinstance(value, Enum):
        plain = to_plain(value.value)
    elif value is None or isinstance(value, bool | int | float | str):
        plain = value
    elif isinstance(value, Secret):
        plain = str(value)
    elif isinstance(getattr(value, "label", None), str):
        plain = getattr(value, "label")  # noqa: B009 (the attribute is not declared on object)
    elif isinstance(value, Mapping):
        plain = {str(to_plain(key)): to_plain(item) for key, item in value.items()}
    elif isinstance(value, set | frozenset):
        plain = sorted((to_plain(item) for item in value), key=canonical)
    elif isinstance(value, list | tuple):
        plain = [to_plain(item) for item in value]
    elif isinstance(value, timedelta):
        plain = value.total_seconds()
    elif isinstance(value, datetime | date):
        plain = value.isoformat()
    elif isinstance(value, Path | UUID | Decimal):
        plain = str(value)
    elif isinstance(value, BaseModel):
        plain = value.model_dump(mode="json")
    elif is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    else:
        raise TypeError(
            f"{type(value).__name__} has no plain form for the journal: pass steps names, numbers, "
            "dataclasses, or objects with a `label`"
        )
    return plain


def from_plain(annotation: Any, plain: Any) -> Any:
    """Make the typed value again that `to_plain` took apart; `annotation` is its declared type."""
    return type_adapter(annotation).validate_python(plain)


def canonical(plain: object) -> str:
    """Write a plain value as JSON in the one way that is hashed: sorted, compact, UTF-8.

    Text that is no UTF-8 (half a surrogate pair, as in the name of a file) is written in ASCII.
    """
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return text


def shortly(value: object, limit: int = 300) -> str:
    """Write a value in one short line, secrets masked."""
    text = redact(repr(value)).replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def fingerprint(plain: object) -> str:
    """Hash a plain value: 64 hexadecimal digits of SHA-256 over its canonical form."""
    return hashlib.sha256(canonical(plain).encode()).hexdigest()
