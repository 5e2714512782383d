"""One event of a journal, ready to be told."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recovery.journal.prefect_worker import worker_told


@dataclass(frozen=True, slots=True)
class Line:
    """One event, ready to be told."""

    kind: str
    key: str
    n: int
    seq: int
    epoch: int
    at: datetime
    body: dict[str, Any]

    @property
    def began(self) -> datetime:
        """When what it tells of began."""
        try:
            began = datetime.fromisoformat(self.body["started_at"])
        except (KeyError, TypeError, ValueError):
            return self.at
        return began if began.tzinfo else began.replace(tzinfo=UTC)

    def text(self, name: str) -> str:
        """A field of the body as text."""
        value = self.body.get(name)
        return "" if value is None else str(value)

    @property
    def worker(self) -> str:
        """Who began an attempt: the process, and the worker of Prefect that took the run."""
        return worker_told(self.text("worker"), self.text("prefect_worker"))
