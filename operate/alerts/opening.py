"""Where alerts are kept: beside the journal, or in its Postgres database."""

import os
from pathlib import Path

from operate.alerts.sqlite_alerts import SqliteAlerts
from operate.alerts.store import AlertStore
from recovery.journal.opening import journal_folder

POSTGRES = ("postgresql://", "postgres://")


def open_alerts(url: str = "") -> AlertStore:
    """Open the store that the environment names: RECOVER_ALERTS, else where the journal is.

    Args:
        url: where instead; a path or a `postgresql://` URL.

    Raises:
        BadInput: it is no such thing.
        JournalUnavailable: it cannot be opened.
    """
    journal = os.environ.get("RECOVER_JOURNAL", "")
    where = url or os.environ.get("RECOVER_ALERTS", "")
    if not where and journal.startswith(POSTGRES):
        where = journal
    if where.startswith(POSTGRES):
        from operate.alerts.postgres_alerts import PostgresAlerts  # noqa: PLC0415 (slow, seldom)

        return AlertStore(PostgresAlerts(where))
    path = Path(where.removeprefix("sqlite://")) if where else journal_folder() / "alerts.sqlite"
    return AlertStore(SqliteAlerts(path.expanduser()))
