"""The pod that reads Grafana's claim while Grafana itself is stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from blocks.kube import text
from blocks.kube.answer import ClusterRejected
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object, Operation
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified, Refused
from recovery.steps import act, decision, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.grafana.pods import GrafanaPods
from tasks.jobs.template import RECOVERY_LABEL
from tasks.workloads.interference import Interference, Interferer, interference_with
from tasks.workloads.pods import is_history, read_pod
from tasks.workloads.rights import Rule, refuse_missing, rules_to_restart
from tasks.workloads.target import Workload, find_workload

LIVES_SECONDS = 6 * 3600
SCALES_UP = {
    Interferer.KEDA,
    Interferer.ARGO_CD,
    Interferer.FLUX,
    Interferer.OPERATOR,
    Interferer.NOT_KNOWN,
}
COPIED = ("imagePullSecrets", "nodeSelector", "tolerations", "securityContext", "hostNetwork")
COPIED_OF_CONTAINER = ("securityContext", "resources")  # what policies and quotas ask for
ROLE = "recover-grafana"
RULES: tuple[Rule, ...] = (
    ("", "pods", ("get", "list", "watch", "create", "delete")),
    ("", "pods/exec", ("create", "get")),
)
# No proof: the quota may be used up by Grafana's own pod, which goes first, and a webhook of an API
# before 1.22 may know no dry run.
UNPROVEN = ("exceeded quota", "does not support dry run")


@dataclass(frozen=True)
class GrafanaFound:
    """The workload as it was found: its image, and where its database lies."""

    workload: Workload
    pod_spec: dict[str, Any]


@decision
def grafana_found(grafana: GrafanaPods, path: str) -> GrafanaFound:
    """The workload that runs Grafana, and the claim that its database lies on.

    Raises:
        Refused: there is none, the database lies on nothing that outlives a pod, somebody would
            scale Grafana up while rows are moved, or the account may not do what follows.
        ClusterRejected: a policy or quota would not let the pod be created that reads the claim.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, "In Kubernetes".
    """
    with grafana.order.cluster.session() as session:
        workload = find_workload(session, grafana.order)
        read = session.get(workload.path)
        _refuse_interference(grafana, interference_with(session, workload, read))
        refuse_missing(session, grafana.order, ROLE, [*rules_to_restart([workload]), *RULES])
        found = GrafanaFound(workload, _reader_spec(grafana, path, read))
        _try_reader(session, grafana, found)
    return found


def _reader_spec(grafana: GrafanaPods, path: str, read: Object) -> dict[str, Any]:
    """The pod that reads the claim: placed, allowed and limited as Grafana's own."""
    spec = read["spec"]["template"]["spec"]
    container = grafana.container({"spec": spec})
    own = next(one for one in spec["containers"] if one["name"] == container)
    mount = mount_of(own.get("volumeMounts") or [], path)
    volume: dict[str, Any] = next(
        (one for one in spec.get("volumes") or [] if one["name"] == mount.get("name")), {}
    )
    if "persistentVolumeClaim" not in volume:
        kind = next((name for name in volume if name != "name"), "the container itself")
        raise Refused(
            grafana.label,
            f"{path} lies on {kind}, which is no claim and may be gone once Grafana is stopped",
            "Copy grafana.db with its -wal out of the running pod, and give it as a path",
        )
    reader = {
        **{name: own[name] for name in COPIED_OF_CONTAINER if own.get(name)},
        "name": "reader",
        "image": own["image"],
        "command": ["sleep", str(LIVES_SECONDS)],
        "volumeMounts": [{**mount, "readOnly": True}],
    }
    return {
        **{name: spec[name] for name in COPIED if spec.get(name)},
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "activeDeadlineSeconds": LIVES_SECONDS,
        "containers": [reader],
        "volumes": [volume],
    }


def _try_reader(session: KubernetesSession, grafana: GrafanaPods, found: GrafanaFound) -> None:
    """Once Grafana is stopped is too late to learn that the pod cannot be created.

    It is tried under a name of no recovery, since a plan has none yet.
    """
    try:
        session.try_create(grafana.pods_path, _body("recovery-tried", "tried", found))
    except ClusterRejected as refused:
        if not any(one in str(refused) for one in UNPROVEN):
            raise


def _refuse_interference(grafana: GrafanaPods, others: Sequence[Interference]) -> None:
    if told := [str(one) for one in others if one.who in SCALES_UP]:
        raise Refused(
            grafana.label,
            f"somebody may scale it up while rows are moved: {'; '.join(told)}",
            "Suspend that (a sync, a ScaledObject, an operator) until the move has ended",
        )


def mount_of(mounts: Sequence[Mapping[str, Any]], path: str) -> dict[str, Any]:
    """The mount that a path lies on: the deepest; empty where it lies on none."""
    parents = [str(one) for one in PurePosixPath(path).parents]
    fitting = [one for one in mounts if one["mountPath"].rstrip("/") in parents]
    return dict(max(fitting, key=lambda one: len(one["mountPath"]), default={}))


def reader_body(grafana: GrafanaPods, found: GrafanaFound) -> dict[str, Any]:
    """The pod as it is created."""
    return _body(grafana.reader_name, current_fence().recovery_id, found)


def _body(name: str, of: str, found: GrafanaFound) -> dict[str, Any]:
    metadata = {"name": name, "labels": {RECOVERY_LABEL: of}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": found.pod_spec}


def of_this_recovery() -> list[Operation]:
    """What holds for the pod of this recovery alone."""
    where = text.pointer_to("metadata", "labels", RECOVERY_LABEL)
    return [text.tested(where, current_fence().recovery_id)]


def is_reading(grafana: GrafanaPods) -> Verdict:
    """Whether the pod runs; half done where it is there and does not."""
    with grafana.order.cluster.session() as session:
        read = session.find(f"{grafana.pods_path}/{grafana.reader_name}")
    if read is None:
        return Verdict.NOT_DONE
    return Verdict.DONE if read_pod(read).is_ready else Verdict.HALF_DONE


def is_gone(grafana: GrafanaPods) -> Verdict:
    """Whether the pod is gone."""
    with grafana.order.cluster.session() as session:
        return Verdict.of(session.find(f"{grafana.pods_path}/{grafana.reader_name}") is None)


@undo
def reader_removed(grafana: GrafanaPods) -> None:
    """Delete the pod, where it is there."""
    with grafana.order.cluster.session() as session:
        _remove(session, grafana)


def removal_text(grafana: GrafanaPods) -> str:
    """What deletes the pod."""
    return text.delete_where_text(f"{grafana.pods_path}/{grafana.reader_name}", of_this_recovery())


@act(
    commands=lambda grafana, found: [
        removal_text(grafana),  # of one that has ended before the claim was read
        text.create_text(grafana.pods_path, reader_body(grafana, found)),
    ],
    done_when=is_reading,
    undo=reader_removed,
    lasts_until="stop_reader",
    redo_half_done=True,
)
def start_reader(grafana: GrafanaPods, found: GrafanaFound) -> None:
    """Start a pod that mounts the claim for reading, of Grafana's own image, and wait for it.

    Nothing is written on the claim. One that has ended, by its deadline or an eviction, is removed
    first. Done twice, the second does nothing.

    Raises:
        NotVerified: it does not run in time, as where the volume cannot be attached.
        ClusterRejected, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, "In Kubernetes".
    """
    path = f"{grafana.pods_path}/{grafana.reader_name}"
    with grafana.order.cluster.session() as session:
        there = session.find(path)
        if there is not None and is_history(there):
            _remove(session, grafana)
            there = None
        if there is None:
            session.create(grafana.pods_path, reader_body(grafana, found))
        seen = ["nothing yet"]

        def is_ready(pods: Sequence[Object]) -> bool | None:
            for pod in pods:
                about = read_pod(pod)
                seen[:] = about.causes
                if about.is_ready:
                    return True
            return None

        fields = f"metadata.name={grafana.reader_name}"
        within = grafana.order.within_seconds
        if not wait_for(session, grafana.pods_path, is_ready, fields=fields, within_seconds=within):
            raise NotVerified(
                grafana.label,
                f"pod {grafana.reader_name} to run",
                "; ".join(seen),
                f"See `kubectl describe pod {grafana.reader_name}`, then resume or undo",
            )


@act(commands=lambda grafana: [removal_text(grafana)], done_when=is_gone)
def stop_reader(grafana: GrafanaPods) -> None:
    """Delete the pod that read the claim, so that Grafana can have it again.

    Done twice, the second does nothing.

    Raises:
        NotVerified: it is still there.
        ClusterConflict, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, "In Kubernetes".
    """
    with grafana.order.cluster.session() as session:
        _remove(session, grafana)


def _remove(session: KubernetesSession, grafana: GrafanaPods) -> None:
    path = f"{grafana.pods_path}/{grafana.reader_name}"
    if session.find(path) is None:
        return
    session.delete_where(path, of_this_recovery())
    fields = f"metadata.name={grafana.reader_name}"

    def are_gone(pods: Sequence[Object]) -> bool | None:
        return None if pods else True

    within = grafana.order.within_seconds
    if not wait_for(session, grafana.pods_path, are_gone, fields=fields, within_seconds=within):
        raise NotVerified(grafana.label, f"pod {grafana.reader_name} to be gone", "it is there")
