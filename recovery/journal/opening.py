"""Which journal it is: a path of a SQLite file, or the URL of a Postgres database."""

import os
from pathlib import Path

from recovery.errors import BadInput
from recovery.journal.sqlite_store import SqliteJournal
from recovery.journal.store import Journal


def default_journal_path() -> Path:
    """Where the embedded journal lies: in `$XDG_STATE_HOME`, else in `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "recover" / "journal.sqlite"


def journal_folder() -> Path:
    """Where files of recoveries are kept on this machine: beside a journal that is a file."""
    where = os.environ.get("RECOVER_JOURNAL", "")
    if not where or ("://" in where and not where.startswith("sqlite://")):
        return default_journal_path().parent
    return Path(where.removeprefix("sqlite://")).expanduser().absolute().parent


def open_journal(url: str | None = None) -> Journal:
    """Open a journal: a path of a SQLite file, or a `postgresql://` URL.

    Args:
        url: where; `None` means RECOVER_JOURNAL, else the default path.

    Raises:
        BadInput: the journal was written by a newer release, or the URL is of no known kind.
        JournalUnavailable: it cannot be opened.
    """
    where = url or os.environ.get("RECOVER_JOURNAL") or str(default_journal_path())
    if where.startswith(("postgresql://", "postgres://")):
        from recovery.journal.postgres_store import PostgresJournal  # noqa: PLC0415 (slow, seldom)

        return PostgresJournal(where)
    if "://" in where and not where.startswith("sqlite://"):
        raise BadInput(
            "RECOVER_JOURNAL",
            f"{where.split('://', 1)[0]}:// is no kind of journal",
            "Give the path of a SQLite file or a postgresql:// URL",
        )
    return SqliteJournal(Path(where.removeprefix("sqlite://")).expanduser())


def find_recovery(journal: Journal, wanted: str, field_name: str = "resume") -> str:
    """The one recovery whose id begins like this.

    Raises:
        BadInput: there is none, or several.
    """
    found = journal.recovery_ids(starting_with=wanted, limit=5) if wanted else []
    if wanted in found:
        return wanted
    if len(found) != 1:
        seen = f"several recoveries begin with {wanted!r}" if found else f"no recovery {wanted!r}"
        raise BadInput(field_name, f"{seen} in {journal.url}", "See `recover status` for the ids")
    return found[0]
