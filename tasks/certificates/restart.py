"""Restarting static pods, and telling whether a process uses what is on disk."""

import re
import time
from collections.abc import Iterable

from recovery.errors import NotVerified, Refused
from recovery.steps import act, verify
from recovery.verdict import Danger, Verdict
from tasks.certificates.catalogue import Component
from tasks.certificates.files import leaf_requests, leaves_of
from tasks.certificates.in_use import PAUSE_SECONDS, InUse, difference, in_use
from tasks.certificates.kubelet_files import is_client_mended
from tasks.certificates.look import Host
from tasks.certificates.look_lines import Lines, api_state, served_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.quorum import Etcd, Health, parse_health, refuse_to_break_quorum
from tasks.certificates.seen import ApiState, RuntimeKind
from tasks.certificates.work import Job, Work

WITHIN_SECONDS = 180.0
COMES_BACK_SECONDS = 15.0
LOOK_WITHIN_SECONDS = 45.0
RESTART_KUBELET = ("systemctl", "--no-ask-password", "restart", "--", "kubelet.service")
STARTS_AGAIN = '[ -e "$1" ] || { echo "there is no $1"; exit 4; }; exec systemctl is-active kubelet'
RESTART_CRI = (
    'for pod in $("$1" --runtime-endpoint "$2" pods --namespace kube-system --name "$3" -q); do '
    '"$1" --runtime-endpoint "$2" rmp -f "$pod"; done'
)
RESTART_DOCKER = (  # the sandbox alone: the kubelet then makes the pod anew, as kubespray does it
    'for pod in $("$1" ps -q --filter "name=k8s_POD_$2_kube-system_"); do "$1" rm -f "$pod"; done'
)


def uses_new(job: Job, component: Component) -> Verdict:
    """Whether a component uses what is on disk, and that is what was made anew."""
    (found,) = in_use(job.host, [component])
    return judge_restarted(found, job.work)


def judge_restarted(found: InUse, work: Work) -> Verdict:
    """Whether it was restarted since its files were made anew.

    A server that reads its files again by itself (etcd, new API servers) presents the new one
    without; what it holds as a client may still be old, so it has to be younger as well.
    """
    is_renewed = not any(
        file.name in work.names and file.serial == work.serial_before(file.name)
        for file in found.files
    )
    return Verdict.of(is_renewed and not found.why_stale)


def restart_argv(work: Work, component: Component) -> list[str]:
    """What removes the pod of a component; the kubelet makes it anew from its manifest."""
    pod, runtime = f"{component}-{work.node_name}", work.runtime
    if runtime.kind is RuntimeKind.DOCKER:
        return ["sh", "-c", RESTART_DOCKER, "restart-static-pod", runtime.client, pod]
    name = f"^{re.escape(pod)}$"
    return [
        *("sh", "-c", RESTART_CRI, "restart-static-pod"),
        *(runtime.client, runtime.endpoint, name),
    ]


def restart_commands(job: Job, component: Component) -> Iterable[str]:
    """What restarts it."""
    return [job.host.command_line(restart_argv(job.work, component), as_root=True)]


def refuse_unless_kubelet_runs(job: Job, component: Component) -> None:
    """Refuse to remove a pod that nobody would start again.

    A kubelet that an earlier step mends is not asked about before that.

    Raises:
        Refused: the kubelet is not active, or the manifest is not there.
    """
    manifest = f"/etc/kubernetes/manifests/{component}.yaml"
    argv = ["sh", "-c", STARTS_AGAIN, "starts-again", manifest]
    answer = job.host.read(argv, accept=(0, 1, 2, 3, 4), as_root=True)
    if not answer.exit_code or (
        job.mends_kubelet_client and is_client_mended(job) is not Verdict.DONE
    ):
        return
    raise Refused(
        job.label,
        f"nobody would start {component} again: {answer.stdout.strip()}",
        f"Bring back {manifest}, and the kubelet (`systemctl start kubelet`, "
        "`journalctl -u kubelet`), then resume",
    )


def refuse_unless_etcd_can_spare(job: Job, component: Component, etcd: Etcd) -> None:
    """Refuse to restart a member of etcd that the others cannot do without.

    Where there was no quorum before the first restart there is none to keep.

    Raises:
        Refused: they cannot; an unknown member counts as failed.
    """
    if component is Component.ETCD and etcd.had_quorum:
        refuse_to_break_quorum(job, etcd)


@act(
    commands=restart_commands,
    done_when=uses_new,
    each=("job", "component"),
    refuse_if=(refuse_unless_kubelet_runs, refuse_unless_etcd_can_spare),
    danger=Danger.DESTRUCTIVE,
)
def restart(job: Job, component: Component, etcd: Etcd) -> None:  # noqa: ARG001 (its guard asks)
    """Have the kubelet start one static pod anew, and wait until it uses what is on disk.

    The other components and the workloads go on running. Done twice, it is restarted twice; one
    that was restarted already is only waited for.

    Args:
        job: the host.
        component: which one.
        etcd: how etcd stood before the first restart.

    Raises:
        CommandFailed: the container runtime said no.
        NotVerified: it did not come back with the new certificates; says what it does instead.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, steps 10 to 12.
    """
    with job.host.session():
        (found,) = in_use(job.host, [component])
        if not found.started_at and comes_back(job.host, component):
            return
        if not found.is_younger:
            restart_pod(job, component)
        wait_until_used(job.host, component)


def comes_back(host: Host, component: Component) -> bool:
    """Whether a component that does not run is started with its new files without our doing.

    Its pod may have been removed before a worker was killed. One that does not come by itself the
    kubelet holds back because it has failed too often; removing its pod ends that.
    """
    try:
        wait_until_used(host, component, COMES_BACK_SECONDS)
    except NotVerified:
        return False
    return True


def restart_pod(job: Job, component: Component) -> None:
    """Remove the pod of a component."""
    argv = restart_argv(job.work, component)
    job.host.change(argv, within_seconds=WITHIN_SECONDS, as_root=True)


def wait_until_used(
    host: Host, component: Component, within_seconds: float = WITHIN_SECONDS
) -> None:
    """Wait until a component runs, is younger than its files and presents them.

    Raises:
        NotVerified: not in time.
    """
    ends = time.monotonic() + within_seconds
    while True:
        (found,) = in_use(host, [component])
        if not found.why_stale:
            return
        if time.monotonic() >= ends:
            raise NotVerified(
                host.label,
                f"{component} to use the files on disk within {within_seconds:g} s",
                found.why_stale,
                f"See its log (`crictl logs`, /var/log/pods/kube-system_{component}*) and "
                "`journalctl -u kubelet` there, then resume",
            )
        time.sleep(PAUSE_SECONDS)


@verify(each=("job",))
def apiserver_is_ready(job: Job, within_seconds: float = WITHIN_SECONDS) -> str:
    """What the API server of this host itself answers to `/readyz`.

    Raises:
        NotVerified: it is not ready in time.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 11.
    """
    ends = time.monotonic() + within_seconds
    while True:
        answer = job.host.read(look_argv("ready"), within_seconds=LOOK_WITHIN_SECONDS, as_root=True)
        state = api_state(Lines(answer.whole()).text("ready"))
        if state in {ApiState.READY, ApiState.CLOSED}:
            return str(state)
        if time.monotonic() >= ends:
            raise NotVerified(
                job.label,
                f"its API server to be ready within {within_seconds:g} s",
                str(state),
                "See /var/log/pods/kube-system_kube-apiserver* there: mostly etcd does not answer "
                "it. Mend that, then resume",
            )
        time.sleep(PAUSE_SECONDS)


@verify(each=("job",))
def etcd_is_healthy(job: Job, within_seconds: float = WITHIN_SECONDS) -> str:
    """What the member of etcd on this host says of itself, once it presents the new certificate.

    Raises:
        NotVerified: it is not healthy in time, or presents another one on its client port.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 10.
    """
    ends = time.monotonic() + within_seconds
    requests = [*leaf_requests(["etcd-server"]), "served", "etcd", "health", ""]
    while True:
        answer = job.host.read(
            look_argv(*requests), within_seconds=LOOK_WITHIN_SECONDS, as_root=True
        )
        lines = Lines(answer.whole())
        health = parse_health(lines.text("health:"))
        (file,) = leaves_of(lines, ["etcd-server"])
        why = difference(served_in(lines, "etcd"), file)
        if health is Health.HEALTHY and not why:
            return str(health)
        if time.monotonic() >= ends:
            raise NotVerified(
                job.label,
                f"its etcd to be healthy within {within_seconds:g} s",
                why or str(health),
                "See /var/log/pods/kube-system_etcd* on every control-plane host: a majority has "
                "to run and reach each other. Mend that, then resume",
            )
        time.sleep(PAUSE_SECONDS)
