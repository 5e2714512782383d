"""What kubeadm's stand-in prints of certificates: the table, JSON and YAML."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from tests.lab.pki_kubeadm import minor_of

API_VERSION = "output.kubeadm.k8s.io/v1alpha3"


@dataclass
class Line:
    """What is known of one certificate; nothing but the name where it is missing."""

    name: str
    ends_at: datetime | None = None
    authority: str | None = None
    is_external: bool = False

    @property
    def left_seconds(self) -> float:
        """How long it is good still; negative once it has expired."""
        return (self.ends_at - datetime.now(UTC)).total_seconds() if self.ends_at else 0


def text_table(rows: list[tuple[str, ...]]) -> str:
    """Lay out rows the way Go's tabwriter does with (10, 4, 3); the last cell is not padded."""
    widths = [max(10, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]) - 1)]
    lines = []
    for *cells, last in rows:
        padded = "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(padded + last)
    return "\n".join(lines) + "\n"


def as_text(own: list[Line], above: list[Line], version: str) -> str:
    """What `check-expiration` prints."""
    head = (
        "CERTIFICATE",
        "EXPIRES",
        "RESIDUAL TIME",
        "CERTIFICATE AUTHORITY",
        "EXTERNALLY MANAGED",
    )
    if minor_of(version) < (1, 17):  # no column and no table of authorities
        return text_table([_without(3, head), *(_without(3, _row(one)) for one in own)])
    table = text_table([head, *map(_row, own)])
    upper = [_without(3, _row(one)) for one in above]
    return f"{table}\n{text_table([('CERTIFICATE AUTHORITY', *_without(3, head)[1:]), *upper])}"


def as_object(own: list[Line], above: list[Line]) -> dict[str, Any]:
    """What `check-expiration -o json` prints, before it is written down."""
    return {
        "kind": "CertificateExpirationInfo",
        "apiVersion": API_VERSION,
        "certificates": [_entry(one) for one in own],
        "certificateAuthorities": [_entry(one) for one in above],
    }


PRINTERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "json": lambda known: json.dumps(known, indent=4) + "\n",
    "yaml": lambda known: yaml.safe_dump(known).replace("'", '"'),  # as Go quotes a date
}


def _entry(line: Line) -> dict[str, Any]:
    stamp = line.ends_at.strftime("%Y-%m-%dT%H:%M:%SZ") if line.ends_at else None
    entry: dict[str, Any] = {
        "name": line.name,
        "expirationDate": stamp,
        "residualTime": int(line.left_seconds),
        "externallyManaged": line.is_external,
    }
    if line.authority:
        entry["caName"] = line.authority
    entry["missing"] = line.ends_at is None
    return entry


def _row(line: Line) -> tuple[str, ...]:
    if line.ends_at is None:
        return (f"!MISSING! {line.name}", "", "", "", "")
    return (
        line.name,
        line.ends_at.strftime("%b %d, %Y %H:%M UTC"),
        short_duration(line.left_seconds),
        line.authority or "",
        f"{'yes' if line.is_external else 'no':<8}",
    )


def short_duration(seconds: float) -> str:
    """Say a duration as apimachinery's ShortHumanDuration does."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    for unit, size, limit in (("s", 1, 60), ("m", 60, 3600), ("h", 3600, 86400)):
        if whole < limit:
            return f"{max(whole, 0) // size}{unit}"
    days = whole // 86400
    return f"{days}d" if days < 365 else f"{days // 365}y"


def _without(position: int, cells: tuple[str, ...]) -> tuple[str, ...]:
    return (*cells[:position], *cells[position + 1 :])
