"""Dates in all the forms that Go and SQLite leave behind, and the form MySQL keeps them in."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

from tasks.grafana.columns import Cell, Misfit

# 2024-03-31 02:30:00.123456789+02:00 · 2024-10-27T01:59:59Z · 2023-06-01 10:00:00 +0000 UTC m=+0.1
MOMENT = re.compile(
    rb"(?P<date>\d{4}-\d\d-\d\d)"
    rb"(?:[ T](?P<time>\d\d:\d\d(?::\d\d)?)(?:[.,](?P<fraction>\d+))?"
    rb"(?:\s*(?P<zone>Z|UTC|[+-]\d\d:?\d\d(?::?\d\d)?))?"
    rb"(?:\s+(?:[A-Z][A-Za-z]{1,5}|[+-]\d\d(?:\d\d)?))?"  # the zone's name as Go prints it
    rb"(?:\s+m=[+-]\d+(?:\.\d+)?)?)?"
)
PLAIN_MOMENT_BYTES = len("2024-03-31 02:30:00")
SECONDS_MAX, MILLISECONDS_MAX = 10**11, 10**14  # of an epoch; until 5138 either way
TIMESTAMP_RANGE = (datetime(1970, 1, 1, 0, 0, 1), datetime(2038, 1, 19, 3, 14, 7))  # noqa: DTZ001
YEAR_SUPPORTED = 1000  # below it works, but no manual promises it


def stored_moment(precision: int, *, is_timestamp: bool) -> Callable[[Cell], bytes | None]:
    """How a DATETIME or TIMESTAMP column with so many digits of a fraction holds a cell."""

    def store(cell: Cell) -> bytes | None:
        if cell is None:
            return None
        if (
            not is_timestamp
            and not precision
            and isinstance(cell, bytes)
            and _is_plain_moment(cell)
        ):
            return cell
        moment, _ = read_moment(cell)
        if is_timestamp and not TIMESTAMP_RANGE[0] <= moment <= TIMESTAMP_RANGE[1]:
            raise Misfit("out-of-range", "a timestamp holds 1970 to January 2038")
        # Cut, not rounded: rounding 23:59:59.9 would move the row into another day or year.
        whole = moment.isoformat(sep=" ", timespec="seconds")
        if not precision:
            return whole.encode()
        return f"{whole}.{f'{moment.microsecond:06d}'[:precision]}".encode()

    return store


def read_moment(cell: Cell) -> tuple[datetime, bytes]:
    """The moment in UTC without a zone, and the digits of its fraction of a second.

    A text without a zone is UTC, as Grafana means it. Whole numbers are seconds or milliseconds.

    Raises:
        Misfit: it is no date, or none that exists.
    """
    try:
        if isinstance(cell, int):
            if abs(cell) >= MILLISECONDS_MAX:
                raise Misfit("invalid-date", "it is no epoch of seconds or milliseconds")
            seconds, rest = divmod(cell, 1000) if abs(cell) >= SECONDS_MAX else (cell, 0)
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
                seconds=seconds, milliseconds=rest
            )
            return moment.replace(tzinfo=None), b"%03d" % rest
        found = MOMENT.fullmatch(cell.strip()) if isinstance(cell, bytes) else None
        if found is None:
            raise Misfit("invalid-date", "it is no date")
        time = (found["time"] or b"00:00:00").decode()
        moment = datetime.fromisoformat(f"{found['date'].decode()} {time}")
        fraction = found["fraction"] or b""
        moment = moment.replace(microsecond=int(fraction[:6].ljust(6, b"0")))
        offset = _offset(found["zone"] or b"Z")
        return moment.replace(tzinfo=offset).astimezone(UTC).replace(tzinfo=None), fraction
    except (ValueError, OverflowError) as error:
        raise Misfit("invalid-date", f"there is no such date ({error})") from None


def _offset(zone: bytes) -> timezone:
    if zone in (b"Z", b"UTC"):
        return UTC
    digits = zone[1:].replace(b":", b"")
    delta = timedelta(
        hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:6] or b"0")
    )
    return timezone(-delta if zone.startswith(b"-") else delta)


def _is_plain_moment(cell: bytes) -> bool:
    if len(cell) != PLAIN_MOMENT_BYTES or cell[4:5] + cell[7:8] + cell[10:11] != b"-- ":
        return False
    try:
        datetime.fromisoformat(cell.decode("ascii"))
    except ValueError:
        return False
    return True


def moment_loss(cell: Cell, precision: int) -> str:
    """What the column keeps less exactly, or worth knowing; empty for nothing."""
    if cell is None or (
        isinstance(cell, bytes) and _is_plain_moment(cell) and not cell.startswith(b"0")
    ):
        return ""
    moment, fraction = read_moment(cell)
    if fraction[precision:].strip(b"0"):
        return "truncated-fraction"
    if isinstance(cell, int):
        return "epoch-date"
    return "early-year" if moment.year < YEAR_SUPPORTED else ""
