"""What stands in the way of a migration, each thing under a stable name that can be accepted."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from recovery.errors import BadInput, Refused
from recovery.secrecy.secret import MASK

SHOWN_MAX = 20
LOSS_KINDS = frozenset(
    {
        "truncated-fraction", "rounded-number", "trailing-blanks", "no-target-column",
        "no-target-table", "other-edition", "newer-source", "newer-target", "replaced-rows",
        "no-users", "left-out",
    }
)  # fmt: skip
SAMPLE_CHARACTERS_MAX = 120
SECRET_COLUMNS = frozenset(
    {
        "password", "salt", "rands", "secure_json_data", "secure_settings", "encrypted_data",
        "encrypted_value", "private_key", "basic_auth_password", "auth_token", "prev_auth_token",
        "o_auth_access_token", "o_auth_refresh_token", "o_auth_id_token", "access_token",
        "dashboard_encrypted", "delete_key", "encryption_key", "code",
    }
)  # fmt: skip
SECRET_CELLS = frozenset(
    {
        "api_key.key",
        "secrets.value",
        "kv_store.value",
        "dashboard_snapshot.key",
        "sso_setting.settings",
    }
)


class Grade(StrEnum):
    """What a hazard means for the migration."""

    NOTICE = "notice"  # nothing is lost; worth knowing
    LOSS = "loss"  # something is lost: refused unless accepted by name
    OBSTACLE = "obstacle"  # the target cannot take it: refused, and no acceptance helps


@dataclass(frozen=True)
class Hazard:
    """One thing that would be lost or go wrong, and the first row that shows it.

    Attributes:
        kind: a stable word, such as `truncated-fraction`.
        place: `table` or `table.column`.
        grade: whether it is worth knowing, a loss, or in the way.
        rows: how many rows show it.
        row: the first of them by its key, such as `id=7`; empty where it is no row.
        sample: the value there, shortened.
        reason: what is wrong.
        remedy: what to do about it.
    """

    kind: str
    place: str
    grade: Grade
    rows: int
    row: str
    sample: str
    reason: str
    remedy: str

    @property
    def name(self) -> str:
        """The name it is accepted by."""
        return f"{self.kind}:{self.place}"

    def __str__(self) -> str:
        """One line for a person."""
        seen = ""
        if self.rows:
            first = f", first {self.row}: {self.sample}" if self.row and self.sample else ""
            seen = f" ({self.rows} {'row' if self.rows == 1 else 'rows'}{first})"
        remedy = f". {self.remedy}" if self.remedy else ""
        return f"{self.grade} {self.name}: {self.reason}{seen}{remedy}"


def shown(value: object) -> str:
    """A value as it is shown to a person: one line, not too long."""
    start: object = value
    if isinstance(value, bytes):
        start = value[: 4 * SAMPLE_CHARACTERS_MAX].decode(errors="backslashreplace")
    whole = repr(start) if isinstance(start, str) else str(start)
    if len(whole) <= SAMPLE_CHARACTERS_MAX:
        return whole
    length = len(value) if isinstance(value, bytes | str) else len(whole)
    return f"{whole[:SAMPLE_CHARACTERS_MAX]}… ({length} long)"


def shown_cell(table: str, column: str, value: object) -> str:
    """A cell as it is shown to a person; of one that can hold a secret, only its length."""
    if column in SECRET_COLUMNS or f"{table}.{column}" in SECRET_CELLS:
        length = len(value) if isinstance(value, bytes | str) else 0
        return "None" if value is None else f"{MASK} ({length} long)"
    return shown(value)


def is_accepted(hazard: Hazard, accepted: Collection[str]) -> bool:
    """Whether it does not stand in the way: a notice, or a loss accepted by name.

    `truncated-fraction:annotation.created` accepts one place, `truncated-fraction:*` all of them.
    An obstacle is never accepted.
    """
    if hazard.grade is Grade.NOTICE:
        return True
    named = hazard.name in accepted or f"{hazard.kind}:*" in accepted
    return hazard.grade is Grade.LOSS and named


def refuse_unknown(accepted: Iterable[str]) -> None:
    """Refuse a name that accepts nothing because it is misspelt.

    Raises:
        BadInput: there is no loss of that kind; names the nearest.
    """
    for name in accepted:
        kind, colon, place = name.partition(":")
        if kind in LOSS_KINDS and colon and place:
            continue
        near = get_close_matches(kind, LOSS_KINDS, n=1)
        meant = f"Did you mean {near[0]}:{place or '*'}? " if near else ""
        raise BadInput(
            "accept",
            f"{name!r} is no name of a loss",
            f"{meant}Losses are named kind:place or kind:*, and the kinds are "
            f"{', '.join(sorted(LOSS_KINDS))}",
        )


def in_the_way(hazards: Iterable[Hazard], accepted: Collection[str]) -> tuple[Hazard, ...]:
    """The hazards that are not accepted."""
    return tuple(hazard for hazard in hazards if not is_accepted(hazard, accepted))


def refuse_unless_accepted(
    target: str, hazards: Iterable[Hazard], accepted: Collection[str] = ()
) -> None:
    """Go on only if nothing would be lost that was not accepted by name.

    Raises:
        Refused: with every hazard in the way, and the names that would accept the losses.
    """
    left = in_the_way(hazards, accepted)
    if not left:
        return
    lines = "; ".join(f"[{number}] {hazard}" for number, hazard in enumerate(left[:SHOWN_MAX], 1))
    more = f"; and {len(left) - SHOWN_MAX} more" if len(left) > SHOWN_MAX else ""
    names = ", ".join(hazard.name for hazard in left if hazard.grade is Grade.LOSS)
    remedy = "Mend what is named"
    if names:
        remedy += f", or accept the losses by name ({names})"
    raise Refused(target, f"{lines}{more}", remedy)
