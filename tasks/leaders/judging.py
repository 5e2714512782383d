"""Whether a restart mends a controller manager or scheduler, and what mends it where none does."""

from collections.abc import Sequence
from datetime import datetime

from tasks.certificates.catalogue import KUBERNETES, Component, held
from tasks.certificates.judging import Reason
from tasks.certificates.reading import KeyState, Presence
from tasks.certificates.seen import ApiState, RuntimeKind, Seen
from tasks.leaders.instance import Instance

MANIFESTS = f"{KUBERNETES}/manifests"
RENEW = "`recover run renew-control-plane-certificates`"
RESCUES = {
    Component.CONTROLLER_MANAGER: "rescue-controller-manager",
    Component.SCHEDULER: "rescue-scheduler",
}


def reasons_against(instance: Instance, seen: Seen, now: datetime) -> list[Reason]:
    """Why a restart of this process would not mend it.

    Args:
        instance: the process.
        seen: its host.
        now: the later of the two clocks, of the worker and of the host.
    """
    return [
        *_against_manifest(instance),
        *_against_host(instance, seen),
        *_against_config(instance, now),
        *_against_api(instance, seen),
    ]


def _against_manifest(instance: Instance) -> list[Reason]:
    path = f"{MANIFESTS}/{instance.component}.yaml"
    if instance.manifest:
        if not instance.manifest_fault:
            return []
        said = f"; the kubelet says: {instance.complaint}" if instance.complaint else ""
        remedy = "Correct it by the one of another control-plane host, then start again"
        return [Reason(f"{path}: {instance.manifest_fault}{said}", remedy)]
    if instance.aside:
        seen = f"{path} is not there, and {', '.join(instance.aside)} is: it was laid aside"
        return [Reason(seen, f"Put it back: `mv {instance.aside[0]} {path}`, then start again")]
    phase = instance.component.removeprefix("kube-")
    return [
        Reason(
            f"{path} is not there",
            f"Make it: `kubeadm init phase control-plane {phase} --config FILE`, with the "
            f"configuration of the cluster. Where no host has one, it runs as a Deployment: "
            f"`recover run {RESCUES[instance.component]}`",
        )
    ]


def _against_host(instance: Instance, seen: Seen) -> list[Reason]:
    if not seen.kubelet.is_active:
        remedy = "See `journalctl -u kubelet`, then `systemctl start kubelet`"
        return [Reason("the kubelet is not active, and nobody starts its pods", remedy)]
    if seen.runtime.kind is RuntimeKind.NONE:
        why = "nothing is found to restart it with: no crictl with a runtime's socket, no docker"
        return [Reason(why, "Install crictl (cri-tools) on the host")]
    if not instance.pods and instance.manifest and not instance.manifest_fault:
        said = instance.complaint or "it says nothing of the manifest"
        remedy = "See `journalctl -u kubelet` there: mostly it does not read this folder"
        return [Reason(f"the kubelet makes no pod of the manifest: {said}", remedy)]
    return []


def _against_config(instance: Instance, now: datetime) -> list[Reason]:
    config = instance.config
    (leaf,) = held(instance.component)
    path = f"{KUBERNETES}/{leaf.file}"
    if config.presence is Presence.MISSING:
        return [Reason(f"{path} is missing", f"Make it: {RENEW} with method=regenerate")]
    if config.certificate is None:
        return [Reason(f"{path} cannot be read: {config.why}", f"Make it anew: {RENEW}")]
    if config.certificate.not_after <= now:
        why = f"the certificate in {path} ended {config.certificate.not_after:%Y-%m-%d %H:%M} UTC"
        return [Reason(why, f"Renew it, which also restarts it: {RENEW}")]
    if config.key is not KeyState.FITS or not config.is_signed:
        why = f"the certificate in {path} is not signed by the authority here, or its key is not"
        return [Reason(why, f"Make it anew: {RENEW} with method=regenerate")]
    return []


def _against_api(instance: Instance, seen: Seen) -> list[Reason]:
    """An API server that does not answer is the cause, unless its process has ended anyway."""
    if seen.api in {ApiState.READY, ApiState.CLOSED}:
        return []
    return [
        Reason(
            f"the API server of this host is {seen.api}, and {instance.component} can do nothing "
            "without it",
            "Bring the API server and etcd back first: /var/log/pods/kube-system_kube-apiserver*, "
            "kube-system_etcd* there",
        )
    ]


def told(reasons: Sequence[Reason]) -> str:
    """Reasons in one line."""
    return "; ".join(reason.why for reason in reasons)
