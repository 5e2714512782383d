"""What telegraf's own log says is wrong: its lines with `E!`, and what they mean."""

import re
from collections.abc import Mapping
from typing import Any

from blocks.kube.answer import ClusterForbidden, ClusterNotFound, ClusterRejected
from blocks.kube.session import KubernetesSession, LogOrder
from recovery.errors import Refused
from tasks.metrics.order import RightsOrder
from tasks.workloads.target import find_workload

LINES = 200
SHOWN_MAX = 3
PODS_MAX = 3
# 2021-08-25T23:33:35Z E! [inputs.prometheus] Unable to watch resources: kubernetes api: Failure 403
ERROR_LINE = re.compile(r"E! (?P<told>\[(?P<plugin>[\w.]+)\].*|.*)")
MEANINGS = (
    (re.compile(r"\b403\b|forbidden", re.IGNORECASE), "a right is missing"),
    (re.compile(r"no space left on device", re.IGNORECASE), "the volume of InfluxDB is full"),
    (re.compile(r"\b401\b|unauthorized|authorization failed", re.IGNORECASE), "its log-in fails"),
    (re.compile(r"max-values-per-tag|max-series", re.IGNORECASE), "too many series"),
    (re.compile(r"timeout|refused|no such host|deadline", re.IGNORECASE), "it does not get there"),
)


def errors_in(log: str) -> list[str]:
    """The errors of a log, each once, the newest first, with what they mean where that is known."""
    told: dict[str, None] = {}
    for line in reversed(log.splitlines()):
        if (found := ERROR_LINE.search(line)) is None:
            continue
        said = found["told"].strip()
        meaning = next((word for form, word in MEANINGS if form.search(said)), "")
        told.setdefault(f"{meaning}: {said}" if meaning else said)
    return list(told)


def telegraf_errors(session: KubernetesSession, order: RightsOrder) -> list[str]:
    """The newest errors in the logs of telegraf's pods; what cannot be read is said."""
    told: list[str] = []
    for name in order.workloads:
        try:
            workload = find_workload(session, order.workload_order(name))
            pods = session.objects(workload.pods_path, labels=workload.selector)
            for pod in pods[:PODS_MAX]:
                log = _log_of(session, order, pod["metadata"]["name"], pod)
                told += [f"{workload}: {one}" for one in errors_in(log)[:SHOWN_MAX]]
        except Refused as refused:
            told.append(f"{name}: {refused.reason}")
        except (ClusterForbidden, ClusterNotFound, ClusterRejected) as error:
            told.append(f"{name}: its log cannot be read: {error.tail}")
    return list(dict.fromkeys(told))


def _log_of(
    session: KubernetesSession, order: RightsOrder, pod: str, read: Mapping[str, Any]
) -> str:
    container = str(read["spec"]["containers"][0]["name"])
    return session.logs(order.namespace, pod, LogOrder(container, tail_lines=LINES))
