"""Waiting for the end of a Job, with its log read while it runs, since both may be gone after."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from blocks.kube.answer import ClusterForbidden, ClusterNotFound, ClusterRejected
from blocks.kube.path import path_of
from blocks.kube.session import LOG_BYTES_MAX, KubernetesSession, LogOrder
from blocks.kube.text import Object
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified, Unreachable
from tasks.jobs.template import PlannedJob
from tasks.workloads.pods import NEVER_STARTED, containers_of, read_pod, reason_of

SLICE_SECONDS = 30.0  # its log is read this often
SETTLE_SECONDS = 10.0  # from the end of the pod to the end of the Job
TRANSIENT = {"ErrImagePull", "Unschedulable", "SchedulingGated"}  # may pass by themselves
TRANSIENT_SECONDS = 300.0
NO_POD_SECONDS = 120.0
LOG_LINES, LAST_LINES = 2000, 200
KEPT_LINES = 40


class JobEnding(StrEnum):
    """How a Job ended. SuccessCriteriaMet and FailureTarget (1.31 on) are no end yet."""

    COMPLETE = "complete"
    FAILED = "failed"
    GONE = "gone"


@dataclass
class JobWait:
    """A wait for one Job. `logs` holds what its containers wrote, as last read, by `pod/name`."""

    session: KubernetesSession
    label: str
    planned: PlannedJob
    within_seconds: float
    way_on: str
    logs: dict[str, str] = field(default_factory=dict)
    why: str = ""

    @property
    def lines(self) -> list[str]:
        """All lines of all its logs."""
        return [line for text in self.logs.values() for line in text.splitlines()]

    def until_ended(self) -> JobEnding:
        """Wait until it is complete, has failed, or is gone.

        Raises:
            NotVerified: its pod cannot start, there is none, or it still runs at our deadline.
            Unreachable: the API gave no answer up to the deadline.
        """
        began = time.monotonic()
        while True:
            spent = time.monotonic() - began
            left = self.within_seconds - spent
            some = max(0.0, min(SLICE_SECONDS, left))
            pods = self._pods_with_news(some, is_patient=spent < TRANSIENT_SECONDS)
            ended = any(_is_ended(pod) for pod in pods)
            ending = self._ending(min(max(left, 0.0), SETTLE_SECONDS) if ended else 0.0)
            if ending is not None:
                self._read_logs(pods, is_last=True)
                return ending
            self._read_logs(pods, is_last=False)
            spent = time.monotonic() - began
            self._refuse_stuck(pods, spent)
            if spent >= self.within_seconds:
                expected = f"the end of Job {self.planned.job} within {self.within_seconds:.0f} s"
                remedy = "It is left running; resume to wait on"
                raise NotVerified(self.label, expected, self._seen(pods), remedy)

    def _pods_with_news(self, seconds: float, *, is_patient: bool) -> list[Object]:
        seen: list[Object] = []

        def have_news(found: Sequence[Object]) -> bool | None:
            was_there = bool(seen)
            seen[:] = found
            if was_there and not found:  # it was deleted, and its Job perhaps too
                return True
            is_stuck = bool(_stuck(found, is_patient=is_patient))
            return True if is_stuck or any(_is_ended(pod) for pod in found) else None

        path, labels = self.planned.pods_path, self.planned.pods
        wait_for(self.session, path, have_news, labels=labels, within_seconds=seconds)
        return seen

    def _ending(self, seconds: float) -> JobEnding | None:
        def is_over(found: Sequence[Object]) -> JobEnding | None:
            if not found:
                return JobEnding.GONE
            for one in (found[0].get("status") or {}).get("conditions") or []:
                if one.get("status") == "True" and one["type"] in {"Complete", "Failed"}:
                    self.why = f"{one.get('reason', '')}: {one.get('message', '')}".strip(": ")
                    return JobEnding(one["type"].lower())
            return None

        named = f"metadata.name={self.planned.job}"
        path = self.planned.jobs_path
        return wait_for(self.session, path, is_over, fields=named, within_seconds=seconds)

    def _refuse_stuck(self, pods: Sequence[Object], spent: float) -> None:
        expected = f"Job {self.planned.job} to run"
        if stuck := _stuck(pods, is_patient=spent < TRANSIENT_SECONDS):
            remedy = (
                "Mend that (the image, its tag or pull secret; the ConfigMap or Secret that is "
                f"missing; room on the nodes) and resume: it then starts by itself. {self.way_on}"
            )
            raise NotVerified(self.label, expected, f"its pod {'; '.join(stuck)}", remedy)
        if not pods and spent >= min(NO_POD_SECONDS, self.within_seconds):
            path = path_of("v1", "events", namespace=self.planned.namespace)
            named = f"involvedObject.name={self.planned.job}"
            told = [str(one.get("message")) for one in self.session.objects(path, fields=named)]
            seen = f"no pod of it: {'; '.join(told[-3:]) or 'and no event says why'}"
            remedy = f"A quota, a webhook or a service account keeps it away; {self.way_on}"
            raise NotVerified(self.label, expected, seen, remedy)

    def _read_logs(self, pods: Sequence[Object], *, is_last: bool) -> None:
        """What cannot be read any more stays as it was last read."""
        for pod in pods:
            name = pod["metadata"]["name"]
            for one in containers_of(pod):
                if not {"running", "terminated"} & set(one.get("state") or {}):
                    continue
                try:
                    self.logs[f"{name}/{one['name']}"] = self._log(name, one["name"])
                except (ClusterRejected, ClusterNotFound, ClusterForbidden):
                    continue
                except Unreachable:
                    if is_last:
                        raise

    def _log(self, pod: str, container: str) -> str:
        order = LogOrder(container, tail_lines=LOG_LINES)
        text = self.session.logs(self.planned.namespace, pod, order)
        if len(text.encode()) >= LOG_BYTES_MAX:  # cut off at its end, which is what matters
            order = LogOrder(container, tail_lines=LAST_LINES)
            text = self.session.logs(self.planned.namespace, pod, order)
        return text

    def _seen(self, pods: Sequence[Object]) -> str:
        told = [f"{pod['metadata']['name']} {pod['status'].get('phase')}" for pod in pods]
        return f"{', '.join(told) or 'no pod'}; {' | '.join(self.lines[-3:]) or 'no log'}"


def _is_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _stuck(pods: Sequence[Object], *, is_patient: bool) -> list[str]:
    """Why pods cannot start; at first, without what may pass by itself."""
    reasons = NEVER_STARTED - (TRANSIENT if is_patient else set())
    return [
        f"{seen.name} {cause}"
        for seen in map(read_pod, pods)
        for cause in seen.causes
        if reason_of(cause) in reasons
    ]
