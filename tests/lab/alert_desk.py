"""A receiver of alerts without its HTTP side and without a server, at a time of the test's own."""

import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from operate.alerts.accepting import Acceptance
from operate.alerts.dispatcher import Dispatcher
from operate.alerts.matchers import read_matcher
from operate.alerts.opening import open_alerts
from operate.alerts.payload import fingerprint_of
from operate.alerts.routes import Guard, Limits, Mode, Route, Routes, Target, Watchdog
from recovery.errors import Unreachable
from tests.lab.scripted_runs import ScriptedRuns

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
INSTANCES = "abcdefgh"
WIDE = Guard(cool_down_seconds=0, flap_episodes=0, strikes=0)


def route(name, flow, mode=Mode.RECOVER, guard=WIDE):
    targets = [Target(one, {"instance": [one]}, {"host": f"ssh://{one}"}) for one in INSTANCES]
    return Route(
        name, [read_matcher(f"alertname={name}", "")], flow, targets, "t", mode=mode, guard=guard
    )


def routes(guard=WIDE, limits=None, windows=()):
    return Routes(
        Path("routes.yaml"),
        [
            route("Down", "recover-redis", guard=guard),
            route("Slow", "recover-redis", guard=guard),
            route("Look", "recover-redis", Mode.TRIAGE, guard),
            route("Frozen", "end-frozen-redis", guard=guard),
            route("Lost", "repair-redis-aof", guard=guard),
        ],
        windows=windows,
        limits=limits or Limits(100, 100),
        watchdog=Watchdog([read_matcher("alertname=Watchdog", "")], 600),
    )


@dataclass
class Desk:
    """A receiver without its HTTP side, at a time of the test's own."""

    folder: Path
    routes: Routes = field(default_factory=routes)
    runs: ScriptedRuns = field(default_factory=ScriptedRuns)
    now: float = BEGAN
    told: list = field(default_factory=list)

    def __post_init__(self):
        self.begin()

    def begin(self):
        """Begin anew, as after a kill."""
        self.store = open_alerts(str(self.folder / "alerts.sqlite"))
        clock = lambda: self.now  # noqa: E731
        self.acceptance = Acceptance(self.store, self.routes, self, clock)
        self.dispatcher = Dispatcher(self.store, self.routes, self.runs, self, clock)

    def restart(self):
        self.store.close()
        self.begin()

    def tell(self, notice):
        self.told.append(notice)

    def post(self, name, instance="a", status="firing", episode=0, **labels):
        labels = {"alertname": name, "instance": instance, **labels}
        starts_at = datetime.fromtimestamp(BEGAN + episode, UTC).isoformat()
        body = {"alerts": [{"status": status, "labels": labels, "startsAt": starts_at}]}
        self.acceptance.take(json.dumps(body).encode())
        return fingerprint_of(labels)

    def work(self, after=0.0):
        self.now += after
        with contextlib.suppress(Unreachable):
            self.dispatcher.work()

    def attempt(self, after=0.0):
        """Make one pass as its thread does, which takes note of what is wrong."""
        self.now += after
        self.dispatcher.attempt()

    @property
    def started(self):
        return [
            (one.flow, one.parameters["host"].removeprefix("ssh://"))
            for one in self.runs.started.values()
        ]

    def states(self):
        return [str(one.state) for one in reversed(self.store.latest(100))]

    def reason(self):
        return self.store.latest(1)[0].reason

    def end_all(self, name):
        for run_id in self.runs.ids.values():
            self.runs.ended.setdefault(run_id, None)
            if self.runs.ended[run_id] is None:
                self.runs.end(run_id, name)
