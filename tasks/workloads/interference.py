"""Who else changes a workload, and would take back or stand in the way of what a recovery does.

Findings only: a flow says which of them it refuses, holds or merely tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blocks.kube.answer import ClusterForbidden
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from tasks.workloads.target import Workload

ARGO = "argocd.argoproj.io/"
FLUX = ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name")
HELM = "meta.helm.sh/release-name"
REPLICAS_FIELD = "f:replicas"


class Interferer(StrEnum):
    """Who it is."""

    HPA = "horizontal-pod-autoscaler"
    KEDA = "keda"
    BUDGET = "pod-disruption-budget"
    ARGO_CD = "argo-cd"
    FLUX = "flux"
    HELM = "helm"
    OPERATOR = "operator"
    REPLICAS_OWNER = "owner-of-replicas"
    NOT_KNOWN = "not-known"


@dataclass(frozen=True)
class Interference:
    """One finding: who, by which name, and what it does or would do."""

    who: Interferer
    name: str
    seen: str

    def __str__(self) -> str:
        """As an operator would say it."""
        return f"{self.who} {self.name}: {self.seen}"


def interference_with(
    session: KubernetesSession, workload: Workload, read: Mapping[str, Any]
) -> list[Interference]:
    """Everybody who changes this workload, or limits what may be done to its pods.

    What the account may not read is a finding as well: it could be there.
    """
    found = [*owners_in(read)]
    for look in (_autoscalers, _scaled_objects, _budgets):
        try:
            found += look(session, workload, read)
        except ClusterForbidden as error:
            seen = f"the account may not look ({error.command})"
            found.append(Interference(Interferer.NOT_KNOWN, look.__name__.strip("_"), seen))
    return found


def owners_in(read: Mapping[str, Any]) -> list[Interference]:
    """Who an object's metadata says it belongs to, and who would take changes to it back."""
    meta = read["metadata"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    both = {**labels, **annotations}
    found = []
    argo = next((name for name in both if name.startswith(ARGO)), "")
    if argo:
        seen = "it may take changes back (self-heal)"
        found.append(Interference(Interferer.ARGO_CD, str(both[argo]), seen))
    for name in FLUX:
        if name in labels:
            seen = "it takes changes back at its next reconciliation"
            found.append(Interference(Interferer.FLUX, labels[name], seen))
    if HELM in annotations or labels.get("app.kubernetes.io/managed-by") == "Helm":
        release = annotations.get(HELM, "a release")
        found.append(Interference(Interferer.HELM, release, "its next upgrade takes changes back"))
    for owner in meta.get("ownerReferences") or []:
        if owner.get("controller"):
            name = f"{owner['kind']}/{owner['name']}"
            found.append(Interference(Interferer.OPERATOR, name, "it owns it"))
    for entry in meta.get("managedFields") or []:
        fields = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        if REPLICAS_FIELD in fields and entry.get("subresource") == "scale":
            manager = str(entry.get("manager"))
            found.append(Interference(Interferer.REPLICAS_OWNER, manager, "it sets the replicas"))
    return found


def _autoscalers(
    session: KubernetesSession, workload: Workload, read: Mapping[str, Any]
) -> list[Interference]:
    version = session.served_version("autoscaling", "v2", "v2beta2", "v1")
    path = path_of(version, "horizontalpodautoscalers", namespace=workload.namespace)
    return [
        Interference(
            Interferer.HPA,
            one["metadata"]["name"],
            f"{one['spec'].get('minReplicas', 1)} to {one['spec'].get('maxReplicas')} replicas",
        )
        for one in (session.objects(path) if version else [])
        if _is_about(one["spec"].get("scaleTargetRef") or {}, read)
    ]


def _scaled_objects(
    session: KubernetesSession, workload: Workload, read: Mapping[str, Any]
) -> list[Interference]:
    version = session.served_version("keda.sh")
    path = path_of(version, "scaledobjects", namespace=workload.namespace)
    return [
        Interference(Interferer.KEDA, one["metadata"]["name"], "it sets the replicas")
        for one in (session.objects(path) if version else [])
        if _is_about({"kind": "Deployment", **(one["spec"].get("scaleTargetRef") or {})}, read)
    ]


def _budgets(
    session: KubernetesSession, workload: Workload, read: Mapping[str, Any]
) -> list[Interference]:
    version = session.served_version("policy", "v1", "v1beta1")
    path = path_of(version, "poddisruptionbudgets", namespace=workload.namespace)
    labels = (read["spec"]["template"].get("metadata") or {}).get("labels") or {}
    found = []
    for one in session.objects(path) if version else []:
        wanted = (one["spec"].get("selector") or {}).get("matchLabels") or {}
        if wanted and wanted.items() <= labels.items():
            allowed = (one.get("status") or {}).get("disruptionsAllowed", "not known how many")
            seen = f"{allowed} of its pods may be evicted now"
            found.append(Interference(Interferer.BUDGET, one["metadata"]["name"], seen))
    return found


def _is_about(reference: Mapping[str, Any], read: Mapping[str, Any]) -> bool:
    mine = (read["kind"], read["metadata"]["name"])
    return (reference.get("kind"), reference.get("name")) == mine
