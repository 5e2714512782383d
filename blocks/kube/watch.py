"""Waiting for objects to change without asking again and again: a list, then a watch from there."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from blocks.kube.answer import Answer, ClusterGone, Question, refuse_bad_answer
from blocks.kube.path import asked_by, with_query
from blocks.kube.seen import learn_secrets, told
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object
from blocks.kube.wire import Sent
from recovery.commands import Call, reading
from recovery.errors import Unreachable, UnreadableOutput
from recovery.secrecy.redaction import redacted_tail

WATCH_SECONDS_MAX = 240  # the API ends watches by itself after five minutes or more
PAUSES_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
HTTP_GONE = 410
T = TypeVar("T")


def wait_for(  # noqa: PLR0913 (what is waited for, where, and how long)
    session: KubernetesSession,
    path: str,
    until: Callable[[list[Object]], T | None],
    *,
    labels: str = "",
    fields: str = "",
    within_seconds: float,
) -> T | None:
    """Ask `until` about the objects of a path, now and after each change; return what it returns.

    A watch that breaks is taken up where it was; one that is too old (410) begins with a new list.
    While the API gives no answer it is asked again, with growing pauses, until the deadline.

    Returns:
        What `until` returned that was not `None`; `None` where the deadline came first.

    Raises:
        Unreachable: the API gave no answer up to the deadline.
        ClusterForbidden, ClusterLoginRefused: see there.
    """
    waiting = _Waiting(session, path, labels, fields, time.monotonic() + within_seconds)
    pauses = iter(PAUSES_SECONDS)
    while True:
        try:
            if not waiting.version:
                waiting.begin()
            answer = until(list(waiting.known.values()))
            if answer is None and waiting.left_seconds > 0:
                answer = waiting.changes(until)
            if answer is not None or waiting.left_seconds <= 0:
                return answer
            pauses = iter(PAUSES_SECONDS)
        except ClusterGone:
            waiting.version = ""
        except Unreachable:
            pause = next(pauses, PAUSES_SECONDS[-1])
            if waiting.left_seconds <= pause:
                raise
            time.sleep(pause)


@dataclass
class _Waiting:
    """What is known of the objects of one path, and up to which version."""

    session: KubernetesSession
    path: str
    labels: str
    fields: str
    ends: float
    version: str = ""
    known: dict[str, Object] = field(default_factory=dict)

    @property
    def left_seconds(self) -> float:
        """Time to the deadline."""
        return self.ends - time.monotonic()

    def begin(self) -> None:
        """List them."""
        items, self.version = self.session.objects_and_version(
            self.path, labels=self.labels, fields=self.fields
        )
        self.known = {item["metadata"]["uid"]: item for item in items}

    def changes(self, until: Callable[[list[Object]], T | None]) -> T | None:
        """Watch once, up to the end of the watch or of the time."""
        seconds = max(1, min(WATCH_SECONDS_MAX, int(self.left_seconds) + 1))
        selected = {"labelSelector": self.labels, "fieldSelector": self.fields, "watch": True}
        sent_to = with_query(
            self.path,
            **selected,
            resourceVersion=self.version,
            allowWatchBookmarks=True,
            timeoutSeconds=seconds,
        )
        silent = max(0.1, min(self.left_seconds, seconds))
        with reading(f"GET {with_query(self.path, **selected)}", self.session.label) as call:
            sent = Sent("GET", sent_to, call.command, within_seconds=silent)
            try:
                with self.session.wire.lines(sent, silent) as (status, lines):
                    return self._read(call, status, lines, until)
            except Unreachable:
                if self.left_seconds <= 0:  # it was silent up to the deadline, as a watch may be
                    return None
                raise

    def _read(
        self,
        call: Call,
        status: int,
        lines: Iterator[bytes],
        until: Callable[[list[Object]], T | None],
    ) -> T | None:
        call.exit_code = status
        if status != 200:  # noqa: PLR2004
            _refuse(self.session, call, status, b"".join(lines).decode(errors="replace"))
        for line in lines:
            event = _event_in(call, line)
            found = event.get("object") or {}
            if event.get("type") == "ERROR":
                _refuse(self.session, call, int(found.get("code") or HTTP_GONE), json.dumps(found))
            self.version = str((found.get("metadata") or {}).get("resourceVersion"))
            if event.get("type") == "BOOKMARK":
                continue
            _apply(call, str(event.get("type")), found, self.known)
            if (answer := until(list(self.known.values()))) is not None:
                return answer
            if self.left_seconds <= 0:
                break
        return None


def _apply(call: Call, kind: str, found: Object, known: dict[str, Object]) -> None:
    learn_secrets(found)
    call.answer = redacted_tail(call.answer + f"{kind} {told(found)}\n", 4000)
    call.heard(f"{kind} {told(found)}")
    uid = found["metadata"]["uid"]
    if kind == "DELETED":
        known.pop(uid, None)
    else:
        known[uid] = found


def _refuse(session: KubernetesSession, call: Call, status: int, text: str) -> None:
    asked = asked_by("GET", call.command.partition(" ")[2], is_watch=True)
    away = session.wire.was_away
    question = Question(session.label, call.command, asked, is_change=False, was_away=away)
    refuse_bad_answer(question, Answer(status, text))


def _event_in(call: Call, line: bytes) -> Object:
    try:
        read = json.loads(line)
    except ValueError as error:
        raise UnreadableOutput(call.command, line.decode(errors="replace")) from error
    return read if isinstance(read, dict) else {}
