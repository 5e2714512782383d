"""Why a container was restarted: from how it ended last, and from what the kubelet told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from recovery.secrecy.redaction import redacted_head
from tasks.workloads.pods import NEVER_STARTED

NEVER_RAN = {"StartError", "ContainerCannotRun"}
KILLING, UNHEALTHY = "Killing", "Unhealthy"
SLOW_WORDS = ("timed out", "timeout", "deadline exceeded")
TOLD_CHARS_MAX = 200


class Cause(StrEnum):
    """Why a container ended."""

    NONE = "no-restart"
    OUT_OF_MEMORY = "out-of-memory"
    LIVENESS = "liveness-probe"
    STARTUP = "startup-probe"
    READINESS = "readiness-probe"
    APPLICATION = "application"
    CRASH = "crash"
    COMMAND = "command"
    TERMINATED = "terminated"
    KILLED = "killed"
    NODE = "node"
    NOT_STARTED = "not-started"

    @property
    def is_proven(self) -> bool:
        """Whether the API says who ended it; events are kept for an hour by default."""
        return self not in {Cause.KILLED, Cause.TERMINATED}


BY_EXIT_CODE = {
    126: Cause.COMMAND,
    127: Cause.COMMAND,
    134: Cause.CRASH,
    137: Cause.KILLED,
    139: Cause.CRASH,
    143: Cause.TERMINATED,
}


@dataclass(frozen=True)
class Ending:
    """How a container of one pod ended last.

    Attributes:
        pod: its name.
        cause: why.
        told: the evidence, in a line.
        lived_seconds: how long that run of it lasted.
        is_slow: the probe that failed got no answer in time, rather than a bad one.
        restarts: how often it was restarted.
    """

    pod: str
    cause: Cause
    told: str
    lived_seconds: int
    is_slow: bool
    restarts: int

    def __str__(self) -> str:
        """As an operator would say it."""
        return f"{self.pod}: {self.cause} ({self.told})"


def ending_of(
    pod: Mapping[str, Any], container: str, events: Sequence[Mapping[str, Any]]
) -> Ending:
    """How a container of a pod ended last.

    The waiting state is no cause: CrashLoopBackOff is the pause before the next start. The exit
    code of a container that a probe has ended is whatever the process makes of SIGTERM, and of
    SIGKILL where it makes nothing of it, so that the kubelet's own event decides.

    Args:
        pod: the pod.
        container: its container's name.
        events: those of this pod.
    """
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    seen = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    one: Mapping[str, Any] = next((it for it in seen if it["name"] == container), {})
    restarts = int(one.get("restartCount") or 0)
    if status.get("reason") == "Evicted":
        told = redacted_head(str(status.get("message") or "evicted"), TOLD_CHARS_MAX)
        return Ending(name, Cause.NODE, told, 0, is_slow=False, restarts=restarts)
    waiting = ((one.get("state") or {}).get("waiting") or {}).get("reason", "")
    if waiting in NEVER_STARTED or not one:
        told = waiting or "no container was made"
        return Ending(name, Cause.NOT_STARTED, told, 0, is_slow=False, restarts=restarts)
    ended = (one.get("lastState") or {}).get("terminated") or {}
    ended = ended or (one.get("state") or {}).get("terminated") or {}
    mine = [event for event in events if _is_about(event, container)]
    probe_told, is_slow = _probe_told(mine)
    if not ended:
        failed = one.get("ready") is False and probe_told.startswith("Readiness")
        cause = Cause.READINESS if failed else Cause.NONE
        return Ending(name, cause, probe_told or "it runs", 0, is_slow=is_slow, restarts=restarts)
    cause, told = _why(ended, mine)
    if cause in {Cause.LIVENESS, Cause.STARTUP}:
        told = probe_told or told
    lived = _seconds_between(ended.get("startedAt"), ended.get("finishedAt"))
    told = redacted_head(told, TOLD_CHARS_MAX)
    return Ending(name, cause, told, lived, is_slow=is_slow, restarts=restarts)


def _why(ended: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> tuple[Cause, str]:
    code = int(ended.get("exitCode") or 0)
    told = f"{ended.get('reason') or 'ended'}, exit code {code}"
    if ended.get("reason") == "OOMKilled":
        return Cause.OUT_OF_MEMORY, told
    for event in events:
        is_later = _at(event) >= str(ended.get("startedAt") or "")
        message = str(event.get("message") or "")
        if event.get("reason") == KILLING and is_later and "failed" in message:
            if "startup probe" in message:
                return Cause.STARTUP, f"{told}: {message}"
            if "liveness probe" in message:
                return Cause.LIVENESS, f"{told}: {message}"
    if ended.get("reason") in NEVER_RAN:
        return Cause.COMMAND, told
    cause = BY_EXIT_CODE.get(code, Cause.APPLICATION)
    return cause, told if cause.is_proven else f"{told}, and nothing tells who ended it"


def _probe_told(events: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """What the newest failure of a probe says; those that restart before those that do not."""
    failed = [event for event in events if event.get("reason") == UNHEALTHY]
    failed.sort(key=_at, reverse=True)
    failed.sort(key=lambda event: str(event.get("message") or "").startswith("Readiness"))
    told = str(failed[0].get("message") or "") if failed else ""
    is_slow = any(word in told.lower() for word in SLOW_WORDS)
    return redacted_head(told, TOLD_CHARS_MAX), is_slow


def _is_about(event: Mapping[str, Any], container: str) -> bool:
    where = str((event.get("involvedObject") or {}).get("fieldPath") or "")
    return not where or f"{{{container}}}" in where


def _at(event: Mapping[str, Any]) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(event.get("lastTimestamp") or series or event.get("eventTime") or "")


def _seconds_between(began: object, ended: object) -> int:
    try:
        return round(
            (
                datetime.fromisoformat(str(ended)) - datetime.fromisoformat(str(began))
            ).total_seconds()
        )
    except ValueError:
        return 0
