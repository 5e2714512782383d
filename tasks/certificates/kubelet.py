"""The kubelet's own certificates: what mends them, and when the kubelet uses them.

A certificate that is issued anew goes into the form in which the kubelet keeps those it rotates:
one file with certificate and key, and a link to it. So it rotates again, and needs no API to begin.
"""

import re
import time
from collections.abc import Iterable

import yaml

from recovery.errors import NotVerified
from recovery.steps import act
from recovery.verdict import Verdict
from tasks.certificates.catalogue import KUBELET_CONF, KUBELET_CURRENT, KUBELET_PKI, Component
from tasks.certificates.in_use import PAUSE_SECONDS, difference
from tasks.certificates.kubelet_files import is_client_mended, judge_mended, look_at_kubelet
from tasks.certificates.restart import RESTART_KUBELET
from tasks.certificates.restoring import reissued_path, restore_backup
from tasks.certificates.seen import KubeletSeen, Served
from tasks.certificates.work import REISSUING, Job, KubeletWork, Work

WITHIN_SECONDS = 120.0
CONFIG_SINCE = (1, 19)  # before, `kubeconfig user` takes no --config
REISSUE = r"""
set -eu; umask 077; pem=$1; current=$2; conf=$3; config=$4; shift 4
new=$(mktemp -d "${pem%/*}/.recover.XXXXXX"); trap 'rm -rf "$new"' EXIT
printf '%s' "$config" | "$@" >"$new/conf"
for part in certificate key; do
  sed -n "s/^ *client-$part-data: *//p" "$new/conf" | base64 -d
done >"$new/pem"
openssl x509 -noout -in "$new/pem"; openssl pkey -noout -in "$new/pem"
if [ -n "$conf" ]; then
  sed "s#^\( *client-\)\([a-z]*\)-data:.*#\1\2: $current#" "$new/conf" >"$conf.recover"
  mv -f "$conf.recover" "$conf"
fi
mv -f "$new/pem" "$pem"; ln -s "$pem" "$new/link"; mv -fT "$new/link" "$current"; sync
""".strip()
LINK = r"""
set -eu; umask 077; conf=$1; current=$2
sed "s#^\( *client-\)\([a-z]*\)-data:.*#\1\2: $current#" "$conf" >"$conf.recover"
mv -f "$conf.recover" "$conf"; sync
""".strip()


def _config(work: Work) -> str:
    """The configuration for `kubeadm kubeconfig user`: of what it writes, only the pair is used."""
    endpoint = re.sub(r"^https://", "", work.server)
    return yaml.safe_dump(
        {
            "apiVersion": work.kubeadm.config_version,
            "kind": "ClusterConfiguration",
            "kubernetesVersion": work.kubeadm.version,  # or it asks the internet for one
            "certificatesDir": work.pki,
            **({"controlPlaneEndpoint": endpoint} if endpoint else {}),
        },
        sort_keys=False,
    )


def mend_argvs(work: Work) -> list[list[str]]:
    """The commands that mend the kubelet's client certificate."""
    argvs = []
    if work.kubelet in REISSUING:
        conf = KUBELET_CONF if work.kubelet is KubeletWork.REBUILD else ""
        user = ["--org", "system:nodes", "--client-name", f"system:node:{work.node_name}"]
        if work.kubeadm.minor >= CONFIG_SINCE:
            where = ["--config", "/dev/stdin"]
        else:
            where = ["--cert-dir", work.pki, "--apiserver-advertise-address", "127.0.0.1"]
        argvs.append(
            [
                *("sh", "-c", REISSUE, "reissue-kubelet-client"),
                *(reissued_path(), KUBELET_CURRENT, conf, _config(work)),
                *work.kubeadm.kubeconfig("user", *user, *where),
            ]
        )
    if work.kubelet in {KubeletWork.LINK, KubeletWork.REISSUE_AND_LINK}:
        argvs.append(["sh", "-c", LINK, "link-kubelet-client", KUBELET_CONF, KUBELET_CURRENT])
    return argvs


def mend_commands(job: Job) -> Iterable[str]:
    """What mends it."""
    return [job.host.command_line(argv, as_root=True) for argv in mend_argvs(job.work)]


@act(
    commands=mend_commands,
    done_when=is_client_mended,
    each=("job",),
    undo=restore_backup,
    redo_half_done=True,
)
def mend_kubelet_client(job: Job) -> None:
    """Give the kubelet a client certificate that rotates, for the name its node is registered by.

    The key is made on the host and stays there. The running kubelet does not know of it yet. Done
    twice, another one is issued.

    Raises:
        CommandFailed: kubeadm would not.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 7.
    """
    for argv in mend_argvs(job.work):
        job.host.change(argv, within_seconds=WITHIN_SECONDS, as_root=True)


def _drop_argv() -> list[str]:
    return ["rm", "-f", "--", f"{KUBELET_PKI}/kubelet.crt", f"{KUBELET_PKI}/kubelet.key"]


def drop_commands(job: Job) -> Iterable[str]:
    """What removes it; the backup has it."""
    return [job.host.command_line(_drop_argv(), as_root=True)]


def is_dropped(job: Job) -> Verdict:
    """Whether the old serving certificate is gone; the kubelet may have made another meanwhile."""
    kubelet, _, _ = look_at_kubelet(job.host)
    return Verdict.of(kubelet.serving.serial != job.work.serving_before)


@act(commands=drop_commands, done_when=is_dropped, each=("job",), undo=restore_backup)
def drop_kubelet_serving(job: Job) -> None:
    """Remove the serving certificate that the kubelet made itself, so that it makes another.

    It does when it starts; until then it presents the old one. Done twice, the second does nothing
    but remove a newer one, which is made again.

    Raises:
        CommandFailed: the host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 8.
    """
    job.host.change(_drop_argv(), as_root=True)


def restart_commands(job: Job) -> Iterable[str]:
    """What restarts the kubelet."""
    return [job.host.command_line(RESTART_KUBELET, as_root=True)]


def is_used(job: Job) -> Verdict:
    """Whether the kubelet runs with what is on disk, and that is what was made."""
    return Verdict.of(not why_unused(job.work, *look_at_kubelet(job.host)))


def why_unused(work: Work, kubelet: KubeletSeen, served: Served, started_at: float) -> str:
    """Why the kubelet does not use its new files; empty where it does."""
    if work.kubelet is not KubeletWork.NOTHING:
        if judge_mended(kubelet, work) is not Verdict.DONE:
            return "its client certificate is not mended"
        if started_at <= max(kubelet.client.changed_at, kubelet.embedded.changed_at):
            return "it was not started since its client certificate was mended"
    if work.replaces_serving and kubelet.serving.serial == work.serving_before:
        return "its serving certificate is still the old one"
    if work.replaces_serving or Component.KUBELET in work.restarts:
        return difference(served, kubelet.serving)
    return "" if kubelet.is_active and started_at else "it does not run"


@act(commands=restart_commands, done_when=is_used, each=("job",))
def restart_kubelet(job: Job) -> None:
    """Restart the kubelet and wait until it uses its new certificates; no pod stops by it.

    Done twice, it is restarted twice.

    Raises:
        CommandFailed: systemd said no.
        NotVerified: it does not use them in time; says what it does instead.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 9.
    """
    job.host.change(RESTART_KUBELET, within_seconds=WITHIN_SECONDS, as_root=True)
    ends = time.monotonic() + WITHIN_SECONDS
    while why := why_unused(job.work, *look_at_kubelet(job.host)):
        if time.monotonic() >= ends:
            raise NotVerified(
                job.label,
                f"the kubelet to use its new certificates within {WITHIN_SECONDS:g} s",
                why,
                "See `journalctl -u kubelet` there, then resume",
            )
        time.sleep(PAUSE_SECONDS)
