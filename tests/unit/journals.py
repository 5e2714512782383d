"""Journals as attempts write them, for the tests of what is told from a journal."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from recovery.journal import sqlite_store
from recovery.journal.events import Kind
from recovery.journal.store import Lease
from recovery.values import fingerprint

TARGET = "grafana@db1"
RECOVERY = "0123456789ab"
BEGAN = datetime(2027, 3, 1, 2, 14, 0, tzinfo=UTC)


class Clock:
    """A clock that moves when it is told to, in place of the store's own."""

    def __init__(self, monkeypatch=None):
        self.moment = BEGAN
        if monkeypatch is not None:
            monkeypatch.setattr(sqlite_store, "datetime", self)

    def now(self, zone=UTC):
        return self.moment

    def pass_seconds(self, seconds):
        self.moment += timedelta(seconds=seconds)

    @property
    def text(self):
        return self.moment.isoformat(timespec="microseconds")


class Writer:
    """Writes the events of one recovery, in the order and with the bodies of the engine."""

    def __init__(self, journal, clock, recovery_id=RECOVERY, target=TARGET):
        self.journal, self.clock, self.id, self.target = journal, clock, recovery_id, target
        self.n, self.lease = 0, None

    def write(self, kind, body, key=""):
        return self.journal.append(self.id, kind, body, step=key, attempt=self.n, lease=self.lease)

    def by_person(self, kind, body, key=""):
        return self.journal.append(self.id, kind, body, step=key)

    def open(self, **more):
        body = {
            "format": 1,
            "flow": "move-grafana-to-mysql",
            "target": self.target,
            "parameters": {"source": "grafana.db", "skip_tables": ["session"]},
            "runbook": "docs/runbooks/grafana-to-mysql.md",
            "danger": "destructive",
            "release": "0.1.0",
            "flow_run_id": "01234567-89ab-4000-8000-000000000000",
            "forked_from": {},
            **more,
        }
        self.by_person(Kind.OPENED, body)
        return self

    def start(self, goes="forward", ordered_by=""):
        taken = self.journal.take_lease(self.target, self.id, "worker-1:411", 15)
        assert isinstance(taken, Lease)
        self.lease, self.n = taken, self.n + 1
        body = {
            "flow_run_id": f"01234567-89ab-4000-8000-00000000000{self.n % 10}",
            "worker": "worker-1:411",
            "release": "0.1.0",
            "goes": goes,
            "ordered_by": ordered_by,
        }
        self.write(Kind.ATTEMPT_STARTED, body)
        return self

    def end(self, ended_as, error="", result=None):
        body = {"as": ended_as, "result": result}
        if error:
            body |= {"error": error, "error_type": "CommandFailed"}
        self.write(Kind.ATTEMPT_ENDED, body)
        self.kill()

    def kill(self):
        """Be gone: nothing more is written, and the lease runs out."""
        self.journal.release_lease(self.lease)
        self.lease = None

    def about(self, kind):
        return {"kind": kind, "target": self.target, "started_at": self.clock.text}

    def send(self, key, command, answer="", *, seconds=0.01, is_change=False, **more):
        self.clock.pass_seconds(seconds)
        body = {
            "target": self.target,
            "command": command,
            "is_change": is_change,
            "answer": answer,
            "seconds": seconds,
            **more,
        }
        self.write(Kind.COMMAND, body, key)

    def intend(self, key, command="true", danger="change", arguments=None):
        about = self.about("act")
        self.send(key, f"is it done: {key}", "no", seconds=0.002)
        arguments = arguments or {}
        about |= {
            "arguments": arguments,
            "arguments_hash": fingerprint(arguments),
            "danger": danger,
            "commands": [command],
        }
        self.write(Kind.INTENDED, about, key)

    def act(self, key, seconds=0.01, command="true", answer="", **more):
        self.intend(key, command, **more)
        self.send(key, command, answer, seconds=seconds, is_change=True, exit_code=0)
        self.write(Kind.DONE, {"how": "acted", "result": None, "seconds": seconds}, key)

    def already_so(self, key):
        body = self.about("act") | {"arguments": {}, "arguments_hash": fingerprint({})}
        self.send(key, f"is it done: {key}", "yes")
        body |= {"how": "already-so", "verdict": "done", "result": None, "danger": "change"}
        self.write(Kind.DONE, body, key)

    def reconcile(self, key):
        self.write(Kind.VERDICT, {"verdict": "done", "was": "in-doubt"}, key)
        self.clock.pass_seconds(0.004)
        self.write(Kind.DONE, {"how": "reconciled", "verdict": "done", "result": None}, key)

    def fail(self, key, error):
        self.write(Kind.FAILED, {"error": error, "error_type": "CommandFailed"}, key)

    def look(self, key, kind=Kind.PASSED, seconds=0.02, step_kind="probe", **more):
        body = self.about(step_kind)
        self.send(key, f"ask {key}", "so it is", seconds=seconds)
        self.write(kind, {**body, **more}, key)

    def verify(self, key, seconds=0.2):
        self.look(key, Kind.VERIFIED, seconds, "verify", saw="4711 cells, 0 differing")

    def decide(self, key, value):
        body = self.about("decision")
        body |= {"value": value, "arguments": {}, "arguments_hash": fingerprint({})}
        self.write(Kind.DECIDED, body, key)

    def undo(self, key, error=""):
        self.write(Kind.UNDO_INTENDED, {"target": self.target, "by": f"undo {key}"}, key)
        self.send(f"undo {key}", f"put back {key}", "put back", seconds=0.3, is_change=True)
        if error:
            self.write(Kind.UNDO_FAILED, {"error": error}, key)
        else:
            self.write(Kind.UNDONE, {"target": self.target, "by": f"undo {key}"}, key)

    def approve(self, by="Ann"):
        plan = {
            "hash": "00ff00ff00ff00ff",
            "flow": "move-grafana-to-mysql",
            "target": self.target,
            "parameters": {},
            "refusals": [],
            "steps": [
                {
                    "key": "load[user]",
                    "kind": "act",
                    "target": self.target,
                    "danger": "destructive",
                    "commands": ["INSERT INTO user ..."],
                    "is_already_so": False,
                }
            ],
        }
        self.write(Kind.PLANNED, plan)
        until = (self.clock.moment + timedelta(hours=24)).isoformat(timespec="seconds")
        body = {"hash": plan["hash"], "by": by, "until": until, "how": "approved", "reason": ""}
        self.write(Kind.APPROVED, body)

    def resolve(self, key, how, by="Ben", reason="looked at the table"):
        self.by_person(Kind.RESOLVED, {"as": how, "by": by, "reason": reason}, key)


def killed_and_resumed(writer):
    """Killed in the middle of an act; a person settles a doubt; a stale step is done again."""
    clock = writer.clock
    writer.open().start()
    writer.look("refuse_if_target_is_foreign")
    writer.approve()
    writer.decide("tables_due", ["dashboard", "org", "user"])
    writer.already_so("make_database")
    writer.act("back_up_target", 1.4, "mariadb-dump grafana > backup.sql", "48 tables")
    writer.act("load[org]", 0.08, "INSERT INTO org SELECT ...", "3 rows")
    writer.intend("load[dashboard]", "INSERT INTO dashboard SELECT ...")
    writer.send("load[dashboard]", "INSERT INTO dashboard SELECT ...", "", seconds=3.2)
    writer.kill()

    clock.pass_seconds(252)
    writer.start()
    writer.send("back_up_target", "is it done: back_up_target", "yes")
    writer.write(Kind.STALE, {"verdict": "not-done"}, "load[org]")
    writer.act("load[org]", 0.09, "INSERT INTO org SELECT ...", "3 rows")
    writer.write(Kind.VERDICT, {"verdict": "unknown", "was": "in-doubt"}, "load[dashboard]")
    error = f"{TARGET}: load[dashboard] is in doubt: its probe cannot tell. Look at the target."
    writer.end("needs-person", error)

    clock.pass_seconds(3600 * 5)
    writer.resolve("load[dashboard]", "redo")
    clock.pass_seconds(60)
    writer.start()
    writer.act("load[dashboard]", 96, "INSERT INTO dashboard SELECT ...", "412 rows")
    writer.act("load[user]", 0.4, "INSERT INTO user SELECT ...", "57 rows", danger="destructive")
    writer.verify("wait_until_every_cell_is_equal", 12.5)
    writer.end("recovered")


def killed_in_doubt(writer):
    """Killed while an act was under way, and nobody has come back yet."""
    writer.open().start()
    writer.act("back_up_target", 1.4)
    writer.intend("load[user]")
    writer.kill()


@contextmanager
def changed(journal):
    """The store's own connection, for writing what the engine never would."""
    yield journal._connection
