"""The life of a stack: everything is started in order, kept running, and stopped in reverse."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import httpx
import yaml

from operate.alerts.routes_file import default_file
from operate.stack.child import Child, Health
from operate.stack.claim import claimed, is_claimed, tell, up_already
from operate.stack.descendants import end_descendants, outliving, reap, take_over_orphans
from operate.stack.place import ALERTS_PORT, LOOPBACK, PORT, Place
from operate.stack.processes import Process, ours, processes
from recovery.errors import BadInput, NotVerified

UP_WITHIN_SECONDS = 300.0  # what ends meanwhile is told at once
REGISTERED_WITHIN_SECONDS = 300.0
TELLS_OF_WAITING_EVERY_SECONDS = 20.0
LISTENER_ANSWERS_WITHIN_SECONDS = 10.0  # a Prefect server may be busy
STOPS_WITHIN_SECONDS = 15.0
LOOKS_EVERY_SECONDS, ASKS_EVERY_SECONDS = 0.25, 5.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Note = Callable[[str, str], None]


class Stopped(Exception):
    """Somebody asked for an end while things were still being started."""


class Stack:
    """Everything that runs on this machine. `note` tells of what happens, in a line and a style."""

    def __init__(self, place: Place, note: Note) -> None:
        self.place = place
        self.note = note
        self.children = [Child(one, place.environment(), place.logs) for one in processes(place)]
        self.began_at = datetime.now(UTC)
        self.is_up = False
        self._stop = threading.Event()
        self._shown: dict[str, Health] = {}
        self._alarms: dict[str, Child] = {}

    def run(self, when_up: Callable[[dict[str, Any]], None]) -> bool:
        """Start everything, keep it running until a signal, stop it; return whether all held.

        Raises:
            BadInput: the port is taken, or a file is missing.
            UpAlready: it runs already.
            NotVerified: a part did not start; what was started is stopped.
        """
        self.place.prepare()
        with ExitStack() as ends:
            ends.enter_context(claimed(self.place.home))
            refuse_if_any_taken(self.place)
            take_over_orphans()
            ends.enter_context(self._signals())
            ends.callback(self._end)
            try:
                self._start()
                when_up(self.as_plain())
                self._follow()
            except Stopped:
                self.note("stopped before everything was up", "yellow")
            return all(child.health is not Health.GIVEN_UP for child in self.children)

    def as_plain(self) -> dict[str, Any]:
        """Say what runs where, as `--json` prints it."""
        deployments = yaml.safe_load(self.place.deployments.read_text(encoding="utf-8"))
        return {
            "up": self.is_up,
            "pid": os.getpid(),
            "since": self.began_at.isoformat(timespec="seconds"),
            "home": str(self.place.home),
            "ui": self.place.ui_url,
            "api": self.place.api_url,
            "journal": _without_password(self.place.journal),
            "alert_routes": str(default_file().absolute()),
            "deployments": len(deployments["deployments"]),
            "processes": [
                {
                    "name": child.process.name,
                    "what": child.process.what,
                    "where": child.process.where,
                    "health": str(child.health),
                    "pid": child.pid,
                    "restarts": child.restarts,
                    "log": str(child.log),
                }
                for child in self.children
            ],
        }

    def _start(self) -> None:
        server, *others = self.children
        self._begin(server)
        self._wait_until_up([server])
        self.note("registering block types, work pools and deployments", "dim")
        self._register()
        for child in others:
            self._begin(child)
        self._wait_until_up(others)
        self.is_up = True
        tell(self.place.home, self.as_plain())

    def _begin(self, child: Child) -> None:
        self.note(f"starting {child.process.name}: {child.process.what}", "dim")
        child.start()
        self._tell()

    def _register(self) -> None:
        """Run the registration to its end: a process as any other, but for that it ends."""
        command = ours("operate.stack.registration", str(self.place.deployments))
        once = Process("registration", "tells the server what it offers", command)
        child = Child(once, self.place.environment(), self.place.logs)
        child.log.unlink(missing_ok=True)
        child.start()
        self._wait(child.has_ended, child, REGISTERED_WITHIN_SECONDS)
        if child.exit_code != 0:
            raise _not_up(child, f"it ended with {child.exit_code}")

    def _wait_until_up(self, awaited: list[Child]) -> None:
        def are_up() -> bool:
            for child in awaited:
                if child.health is not Health.UP:
                    child.ask()
            return all(child.health is Health.UP for child in awaited)

        self._wait(are_up, awaited[-1], UP_WITHIN_SECONDS)
        self._tell()

    def _wait(self, look: Callable[[], bool], awaited: Child, within_seconds: float) -> None:
        began = told_at = time.monotonic()
        while not look():
            for child in self.children:
                child.look()
                if child.health in {Health.WAITS, Health.GIVEN_UP}:
                    raise _not_up(child, child.said.partition(";")[0])
            now = time.monotonic()
            if now > began + within_seconds:
                raise _not_up(awaited, f"not within {within_seconds:g} s")
            if now > told_at + TELLS_OF_WAITING_EVERY_SECONDS:
                told_at = now
                self.note(f"still waiting for {awaited.process.name}: {now - began:.0f} s", "dim")
            self._tell()
            if self._stop.wait(LOOKS_EVERY_SECONDS):
                raise Stopped

    def _follow(self) -> None:
        """Keep everything running until a signal comes, or the server is given up."""
        asked_at = time.monotonic()
        while not self._stop.wait(LOOKS_EVERY_SECONDS):
            for child in self.children:
                child.look()
                self._tell_people(child)
            if time.monotonic() >= asked_at + ASKS_EVERY_SECONDS:
                asked_at = time.monotonic()
                for child in self.children:
                    child.ask()
            reap(but=[child.pid for child in self.children if child.pid])
            self._tell()
            if self.children[0].health is Health.GIVEN_UP:
                self.note("without the server nothing can go on: stopping", "bold red")
                return

    def _tell(self) -> None:
        """Say what has changed, to people and in the file that others read."""
        now = {child.process.name: child.health for child in self.children}
        if now == self._shown:
            return
        for child in self.children:
            name = child.process.name
            if name not in self._shown or self._shown[name] is child.health:
                continue
            if self.is_up:
                _tell_of(child, self.note)
            elif child.health is Health.UP:
                self.note(f"{name} is up", "green")
        self._shown = now
        tell(self.place.home, self.as_plain())

    def _tell_people(self, child: Child) -> None:
        """Tell whoever is not at this terminal of a part that dies again and again, once."""
        name = child.process.name
        if not child.dies_often:
            self._alarms.pop(name, None)
        elif name not in self._alarms and not child.process.is_vital:  # the channels lean on it
            text = f"{name} of the stack in {self.place.home} {child.said}; its log: {child.log}"
            once = Process("alarm", "tells people", ours("operate.stack.alarm", text))
            self._alarms[name] = Child(once, self.place.environment(), self.place.logs)
            self._alarms[name].start()

    def _end(self) -> None:
        self._tell_of_runs()
        for child in reversed(self.children):
            if child.has_ended():
                continue
            child.terminate()
            deadline = time.monotonic() + STOPS_WITHIN_SECONDS
            while not child.has_ended() and time.monotonic() < deadline:
                time.sleep(LOOKS_EVERY_SECONDS / 5)
            if not child.has_ended():
                self.note(f"{child.process.name} does not stop: killed", "yellow")
                child.kill()
        if left := end_descendants(STOPS_WITHIN_SECONDS):
            self.note(f"ended {left} processes that were left behind", "yellow")
        for name in outliving():
            self.note(f"left running: {name} outlives its worker; a resume adopts it", "yellow")
        self.note("stopped: nothing else of it runs any more", "")

    def _tell_of_runs(self) -> None:
        """Say which runs are cut off: they go on when they are resumed."""
        running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        try:
            answer = httpx.post(f"{self.place.api_url}/flow_runs/filter", json=running, timeout=3)
            found = answer.json() if answer.is_success else []
        except (httpx.HTTPError, ValueError):
            return
        for run in found:
            self.note(
                f"cut off: {run['name']}; resume it once its lease has run out (`recover status`)",
                "yellow",
            )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the signals that stop a program stop this one in order."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop.set()

        before = {number: signal.signal(number, stop) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def refuse_if_running(place: Place) -> None:
    """Refuse a folder in which a stack runs already.

    Raises:
        UpAlready: it does; says where.
    """
    if is_claimed(place.home):
        raise up_already(place.home)


def refuse_if_any_taken(place: Place) -> None:
    """Refuse ports on which somebody listens.

    Raises:
        BadInput: one is taken; says by a Prefect server, where it is one.
    """
    _refuse_if_taken("--port", place.port, PORT)
    _refuse_if_taken("--alerts-port", place.alerts_port, ALERTS_PORT)


def _refuse_if_taken(option: str, port: int, usual: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise BadInput(
                option,
                f"{LOOPBACK}:{port} cannot be used: {_who_listens(port) or error.strerror}",
                f"Give another, as {option} {usual + 1}, or {option} 0 for any that is free",
            ) from error


def free_port() -> int:
    """Return a port of the loopback address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _who_listens(port: int) -> str:
    try:
        url = f"http://{LOOPBACK}:{port}/api/admin/version"
        answer = httpx.get(url, timeout=LISTENER_ANSWERS_WITHIN_SECONDS)
        return f"a Prefect server {answer.json()} listens there" if answer.is_success else ""
    except (httpx.HTTPError, ValueError):
        return ""


def _tell_of(child: Child, note: Note) -> None:
    name = child.process.name
    match child.health:
        case Health.UP:
            note(f"{name} is up again", "green")
        case Health.STARTING:
            note(f"{name} is started again", "yellow")
        case Health.SILENT:
            note(f"{name} runs, but does not answer; its log: {child.log}", "yellow")
        case Health.WAITS | Health.GIVEN_UP:
            style = "yellow" if child.health is Health.WAITS else "bold red"
            note(f"{name} {child.said}; its log: {child.log}", style)
        case Health.ENDED:
            pass


def _not_up(child: Child, seen: str) -> NotVerified:
    last = child.last_words()[:300] or "nothing"
    return NotVerified(
        child.process.name, "it to be up", f"{seen}; it said last: {last}", f"See {child.log}"
    )


def _without_password(url: str) -> str:
    url = re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", url)
    scheme, mark, rest = url.partition("://")
    if not mark or "@" not in rest:
        return url
    who, _, where = rest.rpartition("@")
    return f"{scheme}://{who.partition(':')[0]}@{where}"
