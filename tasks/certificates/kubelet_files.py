"""The kubelet's own certificates: what is there, and whether it is what it should be."""

from recovery.verdict import Verdict
from tasks.certificates.catalogue import AUTHORITIES, Component
from tasks.certificates.look import KUBELET_FILES, Host
from tasks.certificates.look_lines import Lines, kubelet_seen, served_in, started_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.seen import KubeletForm, KubeletSeen, Served
from tasks.certificates.work import REISSUING, Job, KubeletWork, Work

LOOK_WITHIN_SECONDS = 45.0


def look_at_kubelet(host: Host) -> tuple[KubeletSeen, Served, float]:
    """The kubelet's files, what it presents, and when it was started (0 if it was not)."""
    requests = [
        *(word for a in AUTHORITIES for word in ("pair", a.name, a.file)),
        *KUBELET_FILES,
        *("processes", "facts", "served", "kubelet"),
    ]
    answer = host.read(look_argv(*requests), within_seconds=LOOK_WITHIN_SECONDS, as_root=True)
    lines = Lines(answer.whole())
    started_at = started_in(lines).get(Component.KUBELET, 0.0)
    return kubelet_seen(lines), served_in(lines, "kubelet"), started_at


def is_client_mended(job: Job) -> Verdict:
    """Whether the kubelet's client certificate is a good one, in a form that rotates."""
    kubelet, _, _ = look_at_kubelet(job.host)
    return judge_mended(kubelet, job.work)


def judge_mended(kubelet: KubeletSeen, work: Work) -> Verdict:
    """Whether all, some or nothing of what was to be mended is."""
    done = []
    if work.kubelet in REISSUING:
        done.append(kubelet.client.is_whole and kubelet.client.serial != work.kubelet_before)
    if work.kubelet is not KubeletWork.REISSUE:
        done.append(kubelet.form is KubeletForm.LINKED)
    if all(done):
        return Verdict.DONE
    return Verdict.HALF_DONE if any(done) else Verdict.NOT_DONE
