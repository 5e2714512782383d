"""Following a recovery by its journal, killing its process in the middle, and resuming it."""

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from recovery.journal.events import Event, Kind
from recovery.journal.history import AttemptRecord, History, read_history
from recovery.journal.store import Journal
from tests.lab.cells import tick
from tests.lab.demo_stack import LEASE_SECONDS, Stack
from tests.lab.demo_wish import DemoFailed, TooQuick, say
from tests.lab.processes import LabError, wait_until

LOAD = "load_table["
SILENT_AT_MOST_SECONDS = 300.0
BEGINS_WITHIN_SECONDS = 120.0
STATE_EVERY_SECONDS = 0.5
FILLS_AT_MOST_SECONDS = 60.0
LOOK_SECONDS = 0.002
GONE_WITHIN_SECONDS = 10.0
LATE_REPORT_SECONDS = 8.0
RETRIES_MAX = 3
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
HOW = {"acted": "done", "already-so": "already so", "reconciled": "found done", "reused": "reused"}
SAID = {
    Kind.PASSED: "passed",
    Kind.REFUSED: "refused",
    Kind.DECIDED: "decided",
    Kind.VERIFIED: "verified",
    Kind.FAILED: "failed",
    Kind.STALE: "no longer so",
    Kind.VERDICT: "looked at",
}


@dataclass
class Watch:
    """What the journal has said so far of one recovery, which is told line by line."""

    stack: Stack
    journal: Journal
    recovery_id: str
    flow_run_id: str
    events: list[Event] = field(default_factory=list)
    began: dict[str, datetime] = field(default_factory=dict)
    open_step: str = ""
    loaded: int = 0

    @property
    def history(self) -> History:
        """What the events amount to."""
        history = read_history(self.events)
        if history is None:
            raise DemoFailed(f"recovery {self.recovery_id} is not in the journal")
        return history

    @property
    def attempts(self) -> list[AttemptRecord]:
        """The attempts so far; none where it has not begun."""
        history = read_history(self.events)
        return history.attempts if history else []

    def look(self) -> bool:
        """Tell what is new; return whether anything was."""
        known = self.events[-1].seq if self.events else 0
        if self.journal.head(self.recovery_id)[0] <= known:
            return False
        for event in self.journal.events(self.recovery_id):
            if event.seq > known:
                self.events.append(event)
                self._take(event)
        return True

    def _take(self, event: Event) -> None:
        if event.kind == Kind.ATTEMPT_STARTED:
            self.open_step = ""
            say(f"  attempt {event.attempt} by process {event.body['worker']}, epoch {event.epoch}")
        elif event.kind == Kind.ATTEMPT_ENDED:
            say(f"  attempt {event.attempt} ended: {event.body.get('as')}")
            if event.body.get("error"):
                say(f"    {event.body['error']}")
        elif event.kind == Kind.INTENDED:
            self.began[event.step], self.open_step = event.moment, event.step
        elif event.kind == Kind.DONE:
            self.open_step = ""
            self.loaded += event.step.startswith(LOAD)
            self._say_step(HOW.get(event.body.get("how", ""), "done"), event)
        elif event.kind in SAID:
            said = SAID[Kind(event.kind)]
            if event.kind == Kind.VERDICT:
                said = f"looked: {event.body.get('verdict')}"
            self._say_step(said, event)

    def _say_step(self, said: str, event: Event) -> None:
        began = self.began.get(event.step) if event.kind == Kind.DONE else None
        if started_at := event.body.get("started_at"):
            began = datetime.fromisoformat(started_at)
        took = f"{(event.moment - began).total_seconds():7.2f} s" if began else " " * 9
        say(f"  {event.moment:%H:%M:%S}  {said:<16} {took}  {event.step}")

    def until(self, is_reached: Callable[[], object], what: str, pause: float = 0.05) -> None:
        """Follow the journal until something is reached.

        Raises:
            DemoFailed: the run or its worker ended before, or nothing was written for minutes.
        """
        news_at = asked_at = time.monotonic()
        while True:
            if self.look():
                news_at = time.monotonic()
            if is_reached():
                return
            if time.monotonic() - asked_at > STATE_EVERY_SECONDS:
                asked_at = time.monotonic()
                self._refuse_if_ended(is_reached, what)
            silent_max = SILENT_AT_MOST_SECONDS if self.events else BEGINS_WITHIN_SECONDS
            if time.monotonic() - news_at > silent_max:
                raise DemoFailed(f"waited for {what}: nothing in the journal for {silent_max:g} s")
            time.sleep(pause)

    def _refuse_if_ended(self, is_reached: Callable[[], object], what: str) -> None:
        if not self.stack.worker.is_running:
            raise DemoFailed(f"waited for {what}, but the worker has ended; see its log")
        state = self.stack.flow_run(self.flow_run_id)["state"]
        if state["type"] not in FINAL:
            return
        self.look()  # what it wrote last may be what is waited for
        if not is_reached():
            if state["type"] == "COMPLETED":
                raise TooQuick(
                    f"it was recovered before it could be killed, so quickly was it moved: "
                    f"{state['message']}. Nothing was killed or resumed; a larger SOURCE shows that"
                )
            raise DemoFailed(
                f"waited for {what}, but the flow run is {state['name']}: {state['message']}"
            )

    def until_recovered(self, attempt: int) -> None:
        """Follow it until this attempt has recovered, and Prefect says so too."""
        self.until(
            lambda: len(self.attempts) >= attempt and self.attempts[-1].ended_as == "recovered",
            f"attempt {attempt} to recover",
        )
        wait_until(
            lambda: self.stack.flow_run(self.flow_run_id)["state"]["type"] == "COMPLETED",
            "Prefect to say that the flow run is completed",
            within_seconds=60,
        )


@dataclass(frozen=True)
class Killed:
    """What was killed, and in the middle of what."""

    pid: int
    step: str
    loaded: int
    at: float


def wait_for_the_middle(watch: Watch, largest: str, rows: int) -> None:
    """Wait until some tables are loaded and another, best the largest, is half filled.

    Raises:
        DemoFailed: the recovery ended before.
    """
    planned = sum(step["key"].startswith(LOAD) for step in watch.stack.plan["steps"])
    in_largest = f"{LOAD}{largest}]"

    def is_in_the_middle() -> bool:
        if not watch.open_step.startswith(LOAD) or not watch.loaded:
            return False
        return watch.open_step == in_largest or watch.loaded * 2 >= planned

    with contextlib.closing(watch.stack.connect()) as target, target.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
        watch.until(is_in_the_middle, "the middle of the load", pause=LOOK_SECONDS)
        deadline = time.monotonic() + FILLS_AT_MOST_SECONDS
        while watch.open_step == in_largest and time.monotonic() < deadline:
            cursor.execute(f"SELECT COUNT(*) FROM {tick(largest)}")  # noqa: S608
            sent = cursor.fetchone()[0]
            if sent * 3 >= rows:
                say(f"  {sent} of {rows} rows of {largest} are sent, and not committed")
                break
            time.sleep(LOOK_SECONDS)
            watch.look()
    # Where it was quicker than we are, the next table will do as well.
    watch.until(lambda: watch.open_step.startswith(LOAD), "a load", pause=LOOK_SECONDS)


def kill_flow(watch: Watch) -> Killed:
    """Kill -9 the process that runs the flow, and no other; return when it is gone.

    Raises:
        DemoFailed: the journal names a process that is not that of this flow run.
    """
    host, _, number = watch.attempts[-1].worker.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        raise DemoFailed(f"the journal names {host}:{number}, which is no process of this machine")
    pid = int(number)
    try:
        handle = os.pidfd_open(pid)  # whatever is checked below is what will be killed
    except OSError as error:
        raise DemoFailed(f"process {pid} is gone already") from error
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        is_flow = f"PREFECT__FLOW_RUN_ID={watch.flow_run_id}".encode() in variables
        if pid in {os.getpid(), watch.stack.worker.pid} or not is_flow:
            shown = b" ".join(command).decode(errors="replace")
            raise DemoFailed(f"process {pid} is not that of the flow run: {shown}")
        watch.look()
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], GONE_WITHIN_SECONDS)[0]:
            raise DemoFailed(f"process {pid} outlived SIGKILL")
    except FileNotFoundError as error:
        raise DemoFailed(f"process {pid} ended before it could be killed") from error
    finally:
        os.close(handle)
    at = time.monotonic()
    watch.look()
    if watch.attempts[-1].ended_as:
        raise DemoFailed("the attempt had ended before it was killed: it was too quick")
    return Killed(pid, watch.open_step, watch.loaded, at)


def wait_for_crash_report(watch: Watch) -> str:
    """Wait until Prefect says that the flow run crashed; return what it says."""
    wait_until(
        lambda: "CRASHED" in state_types(watch),
        "Prefect to say that the flow run crashed",
        within_seconds=60,
    )
    state = watch.stack.flow_run(watch.flow_run_id)["state"]
    return f"{state['name']}: {state['message']}"


def wait_for_late_report(watch: Watch, killed: Killed) -> None:
    """Wait for as long as Prefect may tell of the crash a second time.

    A worker reports a crash when the process ends and may do so once more when it has tidied up,
    seconds later. That report would undo a retry in between.
    """
    left = LATE_REPORT_SECONDS - (time.monotonic() - killed.at)
    with contextlib.suppress(LabError):
        wait_until(
            lambda: state_types(watch).count("CRASHED") > 1,
            "it to say so again",
            within_seconds=max(left, 0),
        )


def state_types(watch: Watch) -> list[str]:
    """Return the types of all states the flow run has had."""
    states = watch.stack.server.request("GET", f"/flow_run_states/?flow_run_id={watch.flow_run_id}")
    return [state["type"] for state in states]


def wait_for_the_lease(watch: Watch) -> float:
    """Wait until the dead attempt's lease has run out; return for how many seconds."""
    began = time.monotonic()
    target = watch.history.target
    wait_until(
        lambda: watch.journal.holder(target) is None,
        f"the lease of {target} to run out",
        within_seconds=LEASE_SECONDS + 10,
    )
    return time.monotonic() - began


def retry_as_the_ui_does(watch: Watch) -> None:
    """Retry the flow run with the request that *Retry* in the UI sends; wait until it has begun.

    Raises:
        DemoFailed: Prefect refused, or no attempt began.
    """
    before = len(watch.attempts)
    retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    for _ in range(RETRIES_MAX):
        answer = watch.stack.server.request(
            "POST", f"/flow_runs/{watch.flow_run_id}/set_state", {"state": retry, "force": True}
        )
        if answer["status"] != "ACCEPT":
            raise DemoFailed(f"Prefect did not accept the retry: {answer}")
        try:
            watch.until(lambda: len(watch.attempts) > before, "the next attempt")
        except DemoFailed:
            state = watch.stack.flow_run(watch.flow_run_id)["state"]
            if state["type"] != "CRASHED" or not watch.stack.worker.is_running:
                raise
        else:
            return
    raise DemoFailed("the retried flow run crashed before it began, again and again")
