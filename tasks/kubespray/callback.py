"""The plugin by which ansible-playbook tells what it does, and the reading of what it told.

The plugin is a file that is put beside the run: it needs nothing but ansible-core, writes one line
of JSON for each event to the file that RECOVER_EVENTS names, and leaves the usual output alone.
What a task printed is not told but where it failed, and never where the task asked for no log.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from recovery.errors import UnreadableOutput

PLUGIN = "recover_events"
SOURCE = '''# Written by a recovery, to be told how far a playbook is. Safe to remove after it.
import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recover_events
type: aggregate
short_description: one line of JSON for each event
description: Writes events to the file that RECOVER_EVENTS names.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recover_events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        path = os.environ.get("RECOVER_EVENTS")
        self.disabled = not path
        self.file = open(path, "a", buffering=1) if path else None

    def tell(self, event, **more):
        text = {key: value for key, value in more.items() if value not in ("", None)}
        self.file.write(json.dumps({"event": event, **text}) + "\\n")

    def v2_playbook_on_play_start(self, play):
        self.tell("play", name=play.get_name())

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.tell("task", name=task.get_name())

    def v2_playbook_on_handler_task_start(self, task):
        self.tell("task", name=task.get_name())

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.ended("failed", result, ignored=ignore_errors or None)

    def v2_runner_on_unreachable(self, result):
        ignored = getattr(result, "_task_fields", {}).get("ignore_unreachable")
        self.ended("unreachable", result, ignored=bool(ignored) or None)

    def v2_playbook_on_no_hosts_matched(self):
        self.tell("no-hosts")

    def v2_playbook_on_stats(self, stats):
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        self.tell("stats", hosts=hosts)

    def ended(self, event, result, ignored):
        task, host = result._task, result._host
        said = result._result
        if getattr(task, "no_log", False) or said.get("_ansible_no_log"):
            text = "(the task asks for no log)"
        else:
            parts = [said.get("msg"), said.get("stderr"), said.get("module_stderr")]
            text = " ".join(str(part).strip() for part in parts if part)
        names = {"host": host.get_name(), "task": task.get_name()}
        self.tell(event, **names, text=text[-1500:], ignored=ignored)
'''


class Happened(StrEnum):
    """What an event is of."""

    PLAY = "play"
    TASK = "task"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    NO_HOSTS = "no-hosts"
    STATS = "stats"


@dataclass(frozen=True)
class Failure:
    """A task that failed on a host, with the end of what it said."""

    host: str
    task: str
    text: str
    is_unreachable: bool = False

    def __str__(self) -> str:
        """Task, host and message."""
        how = "could not be reached" if self.is_unreachable else "failed"
        return f"task {self.task!r} {how} on {self.host}: {self.text or 'it said nothing'}"


@dataclass
class Progress:
    """How far a run is, by the events told so far."""

    play: str = ""
    task: str = ""
    plays: int = 0
    tasks: int = 0
    failures: list[Failure] = field(default_factory=list)
    hosts: tuple[str, ...] = ()
    had_no_hosts: bool = False

    def take(self, lines: Iterable[str]) -> None:
        """Take in what came next, whole lines of JSON.

            {"event": "failed", "host": "node2", "task": "Start etcd", "text": "timed out"}

        Raises:
            UnreadableOutput: a line is something else.
        """
        for line in filter(str.strip, lines):
            try:
                said = json.loads(line)
                self._take(Happened(said["event"]), said)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise UnreadableOutput(f"{PLUGIN}, an event", line) from error

    def _take(self, event: Happened, said: dict[str, object]) -> None:
        match event:
            case Happened.PLAY:
                self.play, self.plays = str(said["name"]), self.plays + 1
            case Happened.TASK:
                self.task, self.tasks = str(said["name"]), self.tasks + 1
            case Happened.FAILED | Happened.UNREACHABLE:
                if not said.get("ignored"):
                    self.failures.append(
                        Failure(
                            str(said["host"]),
                            str(said["task"]),
                            str(said.get("text", "")),
                            event is Happened.UNREACHABLE,
                        )
                    )
            case Happened.NO_HOSTS:
                self.had_no_hosts = True
            case Happened.STATS:
                hosts = said["hosts"]
                self.hosts = tuple(hosts) if isinstance(hosts, dict) else ()

    def __str__(self) -> str:
        """Where it is, in one line."""
        if not self.tasks:
            return "it has not come to a task yet"
        return f"play {self.plays} {self.play!r}, task {self.tasks} {self.task!r}"
