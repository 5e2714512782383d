"""What is remembered of alerts: questions to the store, none of which changes anything."""

from operate.alerts.kept import COLUMNS, STANDS_SQL, WELL, Database, Kept, State


class AlertLooks:
    """Looks at alerts in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.url = database.url

    def find(self, fingerprint: str, starts_at: str) -> Kept | None:
        """Return one alert, if it is known."""
        found = self._kept(
            "fingerprint = :fingerprint and starts_at = :starts_at",
            fingerprint=fingerprint,
            starts_at=starts_at,
        )
        return found[0] if found else None

    def due(self, now: float, after: int = 0, limit: int = 100) -> list[Kept]:
        """Alerts that wait and need not wait longer, in the order they came."""
        where = "state = :state and not_before <= :now and seq > :after"
        values = {"state": State.WAITING, "now": now, "after": after}
        return self._kept(where, f"seq limit {limit:d}", **values)

    def is_anything_overdue(self, since: float) -> bool:
        """Whether an alert is due since then, and nobody has looked at it."""
        where = "state = :state and received_at < :since and not_before < :since and "
        return bool(self._count(f"{where} released_at < :since", state=State.WAITING, since=since))

    def reserved(self, now: float, after: int = 0, limit: int = 100) -> list[Kept]:
        """Alerts whose run was to be started, that nobody has confirmed, and that are due."""
        where = "state = :state and not_before <= :now and seq > :after"
        values = {"state": State.RESERVED, "now": now, "after": after}
        return self._kept(where, f"seq limit {limit:d}", **values)

    def running(self, limit: int = 200) -> list[Kept]:
        """Alerts whose run has not ended, as far as is known; those looked at last come last."""
        return self._kept("state = :state", f"looked_at, seq limit {limit:d}", state=State.STARTED)

    def ended_unwell(self, since: float, limit: int = 200) -> list[Kept]:
        """Alerts whose run was started since then and came to no good end, latest first.

        Somebody may begin such a run again.
        """
        good = ", ".join(f"'{name}'" for name in WELL)
        return self._kept(
            "flow_run_id <> '' and started_at >= :since and state in (:ended, :cancelled) "
            f"and outcome not in ({good})",
            f"started_at desc limit {limit:d}",
            since=since,
            ended=State.ENDED,
            cancelled=State.CANCELLED,
        )

    def alerts_of(self, flow_run_id: str) -> list[Kept]:
        """Every alert that shares a run."""
        return self._kept("flow_run_id = :id", id=flow_run_id)

    def runs_on(self, work: str, since: float) -> list[Kept]:
        """The runs on one target by one flow, latest first; those they were shared with, not."""
        return self._kept(
            "work = :work and state <> :joined and (started_at >= :since or state = :started)",
            "started_at desc limit 50",
            work=work,
            since=since,
            joined=State.JOINED,
            started=State.STARTED,
        )

    def episodes(self, fingerprint: str, since: float) -> int:
        """How many episodes of an alert were heard of since then."""
        return self._count(
            "fingerprint = :fingerprint and received_at >= :since",
            fingerprint=fingerprint,
            since=since,
        )

    def busy(self) -> int:
        """How many runs are on their way.

        One that waits for a person is not, nor one that the server could not be asked to start.
        """
        return self._count(
            "(state = :started or (state = :reserved and not_before = 0)) "
            "and run_state <> 'PAUSED'",
            reserved=State.RESERVED,
            started=State.STARTED,
        )

    def works_since(self, since: float) -> set[str]:
        """What runs were started on since then."""
        rows = self._database.read(
            "select distinct work from recover_alerts where started_at >= :since", since=since
        )
        return {row["work"] for row in rows}

    def last_beat(self, name: str) -> float:
        """When it was last heard of; 0 where it never was."""
        rows = self._database.read("select at from recover_alert_beats where name = :n", n=name)
        return float(rows[0]["at"]) if rows else 0.0

    def latest(self, limit: int, state: str = "") -> list[Kept]:
        """The alerts heard of last; where it is given, those that stand so, as it is shown."""
        where = f"{STANDS_SQL} = :state" if state else "1 = 1"
        return self._kept(where, f"seq desc limit {limit:d}", **({"state": state} if state else {}))

    def to_release(self, beginning: str) -> list[Kept]:
        """The alerts that wait or are left to a person, by how their fingerprint begins."""
        return self._kept(
            "state in (:waiting, :needs_person) and substr(fingerprint, 1, :n) = :beginning",
            n=len(beginning),
            beginning=beginning,
            waiting=State.WAITING,
            needs_person=State.NEEDS_PERSON,
        )

    def counts(self) -> dict[str, int]:
        """How many alerts stand where, as it is shown."""
        rows = self._database.read(
            f"select {STANDS_SQL} as stands, count(*) as n from recover_alerts group by 1"  # noqa: S608 (ours)
        )
        return {row["stands"]: row["n"] for row in rows}

    def _count(self, where: str, **values: object) -> int:
        rows = self._database.read(
            f"select count(*) as n from recover_alerts where {where}",  # noqa: S608 (ours)
            **values,
        )
        return int(rows[0]["n"])

    def _kept(self, where: str, order: str = "seq", **values: object) -> list[Kept]:
        rows = self._database.read(
            f"select {COLUMNS} from recover_alerts where {where} order by {order}",  # noqa: S608
            **values,
        )
        return [Kept.of(row) for row in rows]
