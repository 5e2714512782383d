"""The Job that a CronJob stands for, as a recovery runs it: once, on order, kept for a day.

`kubectl create job --from` makes the CronJob its controller, which then deletes it by its history
limits: with failedJobsHistoryLimit 0, a restore that failed is gone with its log within seconds. So
the Job here has no owner, runs once without a second try, and outlives its end by a day at least.
"""

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object
from recovery.errors import Refused
from recovery.secrecy.secret import Secret
from recovery.values import canonical

JOBS = "batch/v1"
CRONJOB_VERSIONS = ("batch/v1", "batch/v1beta1")  # the second up to Kubernetes 1.24
RECOVERY_LABEL = "recovery-pipelines.io/recovery"
FROM = "recovery-pipelines.io/from-cronjob"
KEPT_SECONDS = 24 * 3600
NAME_CHARS_MAX = 63
NAMES_OF_SECRETS = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)
LEFT_OUT = ("suspend", "selector", "manualSelector", "podFailurePolicy")
DIGEST_CHARS = 16


@dataclass(frozen=True)
class JobSource:
    """A CronJob whose template is run. The digest is that of the template as it was looked at.

    `told` is what an operator should know of it.
    """

    name: str
    namespace: str
    digest: str
    told: list[str]


@dataclass(frozen=True)
class PlannedJob:
    """A Job of its own name, to be made from a CronJob; `name` is that of the CronJob."""

    name: str
    namespace: str
    digest: str
    job: str
    recovery: str

    @property
    def jobs_path(self) -> str:
        """Where it is created."""
        return path_of(JOBS, "jobs", namespace=self.namespace)

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"{self.jobs_path}/{self.job}"

    @property
    def pods_path(self) -> str:
        """Where the API has its pods, and others of the namespace."""
        return path_of("v1", "pods", namespace=self.namespace)

    @property
    def pods(self) -> str:
        """The label selector of its pods; this label is set in every version."""
        return f"job-name={self.job}"


def planned_job(source: JobSource, recovery_id: str) -> PlannedJob:
    """Name the Job of a recovery, the same each time, so that a resume finds its own."""
    room = NAME_CHARS_MAX - len(recovery_id) - 1
    name = f"{source.name[:room].rstrip('-.')}-{recovery_id}"
    return PlannedJob(source.name, source.namespace, source.digest, name, recovery_id)


def find_cronjob(session: KubernetesSession, label: str, namespace: str, name: str) -> Object:
    """Read a CronJob, and learn what in its template is secret.

    Raises:
        Refused: there is none of that name; says what there is.
        ClusterForbidden, Unreachable: as of `KubernetesSession.get`.
    """
    path = cronjobs_path(session, namespace)
    read = session.find(f"{path}/{name}")
    if read is None:
        known = sorted(one["metadata"]["name"] for one in session.objects(path))
        near = get_close_matches(name, known, 3, 0.5) or known
        there = f"There is {', '.join(near)}" if near else "There is no CronJob at all"
        reason = f"namespace {namespace} has no CronJob {name}"
        raise Refused(label, reason, f"{there}; correct the name, or deploy it")
    for container in containers_of_template(read):
        for one in container.get("env") or []:
            if one.get("value") and NAMES_OF_SECRETS.search(one["name"]):
                Secret(str(one["value"]))
    return read


def cronjobs_path(session: KubernetesSession, namespace: str) -> str:
    """Where the API has CronJobs, in whichever version it serves.

    Raises:
        Refused: in none.
    """
    for version in CRONJOB_VERSIONS:
        if resource := session.resource_of(version, "CronJob"):
            return path_of(version, resource, namespace=namespace)
    remedy = "See whether this is the API of Kubernetes, 1.8 or newer"
    raise Refused(session.label, "it serves no CronJobs", remedy)


def pod_spec_of(cronjob: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec of the pods that a CronJob makes."""
    spec: Mapping[str, Any] = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def containers_of_template(cronjob: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Its containers, those that run first included."""
    spec = pod_spec_of(cronjob)
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def digest_of(cronjob: Mapping[str, Any]) -> str:
    """What tells one template from another."""
    text = canonical(cronjob["spec"]["jobTemplate"])
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def job_body(cronjob: Mapping[str, Any], planned: PlannedJob) -> Object:
    """The Job as it is created."""
    template = copy.deepcopy(cronjob["spec"]["jobTemplate"])
    metadata, spec = template.get("metadata") or {}, template["spec"]
    for name in LEFT_OUT:
        spec.pop(name, None)
    spec["backoffLimit"] = 0  # a second try over a half restore is a decision
    spec["template"]["spec"]["restartPolicy"] = "Never"  # OnFailure tries again in the same pod
    kept = int(spec.get("ttlSecondsAfterFinished") or 0)
    spec["ttlSecondsAfterFinished"] = max(kept, KEPT_SECONDS)
    return {
        "apiVersion": JOBS,
        "kind": "Job",
        "metadata": {
            "name": planned.job,
            "namespace": planned.namespace,
            "labels": {**(metadata.get("labels") or {}), RECOVERY_LABEL: planned.recovery},
            "annotations": {**(metadata.get("annotations") or {}), FROM: planned.name},
        },
        "spec": spec,
    }


def body_of(session: KubernetesSession, label: str, planned: PlannedJob) -> Object:
    """The Job from the CronJob as it is now, if its template is still the one that was looked at.

    Raises:
        Refused: it is another by now, or gone.
    """
    cronjob = find_cronjob(session, label, planned.namespace, planned.name)
    if digest_of(cronjob) != planned.digest:
        reason = f"the template of CronJob {planned.name} was changed since it was looked at"
        raise Refused(label, reason, "See who changed it; a new run looks at it as it is now")
    return job_body(cronjob, planned)
