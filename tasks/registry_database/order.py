"""What a recovery of the registry's database was asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from blocks.health_url import HealthUrl
from blocks.inventory import host_named
from blocks.postgres.server import PostgresServer
from blocks.ssh.host import SshHost
from recovery.errors import BadInput
from tasks.services import checked_name

MINUTES_MAX = 24 * 60


class Acceptable(StrEnum):
    """What a person may accept by name."""

    OPEN_TRANSACTIONS = "open-transactions"


@dataclass(frozen=True)
class DatabaseOrder:
    """The database, the host of its server, and the terms.

    Attributes:
        host: where the server runs; `None`: it can be looked at from outside only.
        unit: the unit that is meant; empty: it is found.
        health: what the registry says of itself; `None`: it is not asked.
        is_standby: the server is meant to be a standby.
        within_minutes: how long a crash recovery is waited for.
    """

    database: PostgresServer
    host: SshHost | None
    unit: str
    health: HealthUrl | None
    is_standby: bool
    accept: tuple[str, ...]
    within_minutes: int

    @property
    def label(self) -> str:
        """The database."""
        return self.database.label


def database_order(  # noqa: PLR0913, PLR0917 (the fields of the form)
    database: str,
    host: str,
    unit: str = "",
    registry_url: str = "",
    is_standby: bool = False,  # noqa: FBT001, FBT002 (as above)
    accept: Sequence[str] = (),
    within_minutes: int = 120,
) -> DatabaseOrder:
    """Read the parameters of a recovery.

    Raises:
        BadInput: one is malformed, unknown or out of range.
    """
    if unknown := [name for name in accept if name not in list(Acceptable)]:
        known = ", ".join(Acceptable)
        raise BadInput("accept", f"{unknown[0]!r} is nothing to accept", f"Known are {known}")
    if not 1 <= within_minutes <= MINUTES_MAX:
        seen = f"{within_minutes} minutes"
        raise BadInput("crash_recovery_within_minutes", seen, f"Give 1 to {MINUTES_MAX}")
    return DatabaseOrder(
        PostgresServer.named(database),
        host_named(host) if host else None,
        checked_name(unit) if unit else "",
        HealthUrl.from_url(registry_url) if registry_url else None,
        is_standby,
        tuple(accept),
        within_minutes,
    )
