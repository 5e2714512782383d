"""The log of the pod that makes the key: whether it has one, and whether it was seen whole.

Nothing of its text is kept: where the pattern misses the key, nobody could mask it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from blocks.kube.answer import ClusterNotFound, ClusterRejected
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession, LogOrder
from recovery.errors import Refused
from recovery.secrecy.secret import Secret
from tasks.admin_key.order import AdminKeyOrder

KEY_LASTS = timedelta(hours=48)
LOG_BYTES_MAX = 64 << 20
FIRST_LINE_WITHIN = timedelta(minutes=5)  # a log that begins later was turned over by its node


@dataclass(frozen=True)
class KeyLog:
    """What the logs of a pod tell: the key, if any, and why they may not have been seen whole."""

    key: Secret | None
    doubt: str = ""


def refuse_if_the_key_may_be_good(session: KubernetesSession, order: AdminKeyOrder) -> None:
    """Refuse where the log of the first pod has a key that may still be good, or may have one.

    It is good for 48 hours, and until the first restart of the client in that pod: then read it,
    and restart nothing.

    Raises:
        Refused: it may be, or the log could not be seen whole.
    """
    pod = first_pod_of_client(session, order)
    if pod is None:
        return
    made_at = datetime.fromisoformat(str(pod["metadata"]["creationTimestamp"]))
    if has_restarted(order, pod) or datetime.now(UTC) - made_at >= KEY_LASTS:
        return
    seen, name = key_in_log(session, order, pod), pod["metadata"]["name"]
    which = f"{name}, made at {made_at:%Y-%m-%d %H:%M} UTC and never restarted,"
    if seen.key is not None:
        raise Refused(
            order.label,
            f"the log of {which} has a key that may still be good",
            f"Read it with `kubectl logs {name}` and log in with it; restart nothing before",
        )
    if seen.doubt:
        raise Refused(
            order.label,
            f"it is not known whether the log of {which} has a key that may still be good: "
            f"{seen.doubt}",
            "Read the log at its node, with what was turned over; restart nothing before",
        )


def has_restarted(order: AdminKeyOrder, pod: Mapping[str, Any]) -> bool:
    """Whether the client in the pod has; where no container has its name, whether each has."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    named = [one for one in statuses if one["name"] == order.client.name] or statuses
    return min((int(one.get("restartCount") or 0) for one in named), default=0) > 0


def key_in_log(session: KubernetesSession, order: AdminKeyOrder, pod: Mapping[str, Any]) -> KeyLog:
    """The last key in the logs of a pod from their start: the client's, else any container's."""
    found: list[Secret] = []
    doubts: list[str] = []

    def learn(log: str) -> None:
        found.extend(Secret(key) for key in re.findall(order.key.pattern, log) if key)

    names = [one["name"] for one in pod["spec"]["containers"]]
    for name in sorted(names, key=lambda one: one == order.client.name):
        wanted = LogOrder(name, tail_lines=None, bytes_max=LOG_BYTES_MAX, is_kept=False)
        try:
            log = session.logs(order.namespace, pod["metadata"]["name"], wanted, learn)
        except (ClusterRejected, ClusterNotFound):  # it has not started, and so has made no key
            continue
        doubts += [f"{name}: {doubt}" for doubt in _doubts(log, _started_at(pod, name))]
    return KeyLog(found[-1] if found else None, "; ".join(doubts))


def first_pod_of_client(session: KubernetesSession, order: AdminKeyOrder) -> dict[str, Any] | None:
    """The pod that makes the key."""
    return session.find(path_of("v1", "pods", f"{order.client.name}-0", namespace=order.namespace))


def _started_at(pod: Mapping[str, Any], container: str) -> datetime | None:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    states = [one.get("state") or {} for one in statuses if one["name"] == container]
    runs = [state["running"]["startedAt"] for state in states if "running" in state]
    return datetime.fromisoformat(str(runs[0])) if runs else None


def _doubts(log: str, started_at: datetime | None) -> list[str]:
    """Why a log may not have been seen whole; none where it was."""
    if len(log.encode()) >= LOG_BYTES_MAX:
        return [f"it is longer than {LOG_BYTES_MAX >> 20} MiB"]
    stamp = log.partition(" ")[0]
    try:
        first_at = datetime.fromisoformat(stamp)
    except ValueError:  # it is empty
        return []
    if started_at is not None and first_at - started_at > FIRST_LINE_WITHIN:
        return [f"it begins at {first_at:%Y-%m-%d %H:%M} UTC, long after the container started"]
    return []
