"""Processes that are to use new files: which are restarted, how, and what they serve then."""

from dataclasses import replace

import pytest

from recovery.errors import NotVerified, Refused, Unreachable
from recovery.verdict import Verdict
from tasks.certificates import (
    in_use,
    kubelet,
    restart,
)
from tasks.certificates.catalogue import Component
from tasks.certificates.in_use import InUse
from tasks.certificates.quorum import Etcd
from tasks.certificates.seen import Runtime, RuntimeKind, Served
from tasks.certificates.work import Before, KubeletWork
from tests.unit.certificates_seen import (
    STARTED_AT,
    WRITTEN_AT,
    broken_file,
    certificate,
    file_seen,
    job_of,
)
from tests.unit.certificates_told import NEW, Told, lines_of, work_with
from tests.unit.test_certificates_look import (
    conf_line,
    encoded,
    issue,
    pair_line,
)


def used(component=Component.SCHEDULER, *, started_at=STARTED_AT, served=(), serial=NEW):
    name = "etcd-peer" if component is Component.ETCD else "scheduler.conf"
    found = file_seen(name, serial=serial)
    return InUse(component, (found,), tuple(served), started_at)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (used(), ""),
        (used(started_at=0.0), "kube-scheduler does not run"),
        (used(started_at=WRITTEN_AT - 1), "was started before its files were written"),
        (used(started_at=WRITTEN_AT), "was started before its files were written"),
        (
            used(Component.ETCD, served=[Served("etcd-peer", "a:1", certificate("x", serial=NEW))]),
            "",
        ),
        (
            used(Component.ETCD, served=[Served("etcd-peer", "a:1", certificate("x", serial="1"))]),
            "etcd-peer (a:1) presents 1, which ends",
        ),
        (used(Component.ETCD, served=[Served("etcd-peer", "a:1")]), "(a:1) presents nothing"),
    ],
)
def test_a_process_that_does_not_use_its_files_is_named_with_the_reason(found, why):
    assert bool(found.why_stale) == bool(why)
    assert why in found.why_stale


def test_a_file_that_cannot_be_read_is_what_is_wrong():
    served = Served("etcd-peer", "a:1", certificate("x"))

    assert in_use.difference(served, broken_file("etcd-peer")) == "etcd-peer is unreadable"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (used(), Verdict.DONE),
        (used(serial="01D"), Verdict.NOT_DONE),  # not renewed yet: as when a plan is made
        (used(started_at=WRITTEN_AT - 1), Verdict.NOT_DONE),
    ],
)
def test_a_restart_counts_only_for_files_that_were_made_anew(found, verdict):
    work = replace(
        job_of().work, names=("scheduler.conf",), before=(Before("scheduler.conf", "01D"),)
    )

    assert restart.judge_restarted(found, work) is verdict


def test_pods_are_removed_by_their_exact_name():
    work = job_of().work
    docker = replace(work, runtime=Runtime(RuntimeKind.DOCKER, "/usr/bin/docker"))

    assert restart.restart_argv(work, Component.ETCD)[-3:] == [
        "/usr/bin/crictl",
        "unix:///run/containerd/containerd.sock",
        r"^etcd\-cp1$",
    ]
    assert restart.restart_argv(docker, Component.ETCD)[-2:] == ["/usr/bin/docker", "etcd-cp1"]


def look_of(component="kube-scheduler", *, started=9000, name="scheduler.conf"):
    pair = issue("system:kube-scheduler")
    return (
        f"{lines_of()}\n{conf_line(name, pair)}\nuptime\t1795241000 10000 100\n"
        f"process:{component}\t7 {started}"
    )


ETCD = Etcd((), had_quorum=False, members=0)


def test_a_pod_is_removed_and_waited_for():
    before, after = look_of(started=1), look_of(started=999_999)
    host = Told({"look": [before, before, after]})

    restart.restart(job_of(host=host), Component.SCHEDULER, ETCD)

    assert [argv[3] for argv in host.changed] == ["restart-static-pod"]


def test_a_pod_that_was_restarted_already_is_not_restarted_again():
    host = Told({"look": look_of(started=999_999)})

    restart.restart(job_of(host=host), Component.SCHEDULER, ETCD)

    assert not host.changed


def test_a_pod_that_is_coming_back_by_itself_is_only_waited_for():
    gone = look_of(started=1).rpartition("\nprocess:")[0]
    host = Told({"look": [gone, gone, look_of(started=999_999)]})

    restart.restart(job_of(host=host), Component.SCHEDULER, ETCD)

    assert not host.changed


def test_a_pod_that_the_kubelet_holds_back_is_removed(monkeypatch):
    monkeypatch.setattr(restart, "COMES_BACK_SECONDS", 0)
    gone = look_of(started=1).rpartition("\nprocess:")[0]
    host = Told({"look": [gone, gone, look_of(started=999_999)]})

    restart.restart(job_of(host=host), Component.SCHEDULER, ETCD)

    assert [argv[3] for argv in host.changed] == ["restart-static-pod"]


def test_a_pod_that_does_not_come_back_is_told_with_what_it_does():
    with pytest.raises(NotVerified, match="kube-scheduler was started before its files"):
        restart.wait_until_used(Told({"look": look_of(started=1)}), Component.SCHEDULER, 0)


@pytest.mark.parametrize(
    ("exit_code", "kubelet_work", "is_refused"),
    [
        (0, KubeletWork.NOTHING, False),
        (3, KubeletWork.NOTHING, True),
        (4, KubeletWork.NOTHING, True),
        (3, KubeletWork.REISSUE, False),  # it is mended before the pod is removed
    ],
)
def test_no_pod_is_removed_that_nobody_starts_again(exit_code, kubelet_work, is_refused):
    says = {"starts-again": "activating", "look": f"{lines_of()}\nuptime\t1 1 100"}
    host = Told(says, {"starts-again": exit_code})
    job = work_with(job_of(host=host), kubelet=kubelet_work)

    if is_refused:
        with pytest.raises(Refused, match="nobody would start etcd again: activating"):
            restart.refuse_unless_kubelet_runs(job, Component.ETCD)
    else:
        restart.refuse_unless_kubelet_runs(job, Component.ETCD)


def test_only_etcd_with_quorum_is_asked_whether_it_can_spare_a_member():
    broken = Etcd((Told({"look": Unreachable("h", "read", "off")}),), had_quorum=True, members=3)

    restart.refuse_unless_etcd_can_spare(job_of(), Component.SCHEDULER, broken)
    restart.refuse_unless_etcd_can_spare(
        job_of(), Component.ETCD, replace(broken, had_quorum=False)
    )
    with pytest.raises(Refused, match="cannot do without its member"):
        restart.refuse_unless_etcd_can_spare(
            job_of(), Component.ETCD, replace(broken, hosts=(*broken.hosts, *broken.hosts))
        )


@pytest.mark.parametrize(
    ("answer", "is_ready"),
    [("HTTP/1.0 200 OK", True), ("HTTP/1.0 401 Unauthorized", True), ("HTTP/1.0 500 No", False)],
)
def test_an_api_server_is_ready_by_its_own_word(answer, is_ready):
    host = Told({"ready": f"ready\t{encoded(answer)}"})

    if is_ready:
        assert restart.apiserver_is_ready(job_of(host=host), 0)
    else:
        with pytest.raises(NotVerified, match="not-ready"):
            restart.apiserver_is_ready(job_of(host=host), 0)


@pytest.mark.parametrize(
    ("health", "presented", "why"),
    [
        ("true", True, ""),
        ("false", True, "unhealthy"),
        ("", True, "unknown"),
        ("true", False, "presents nothing"),
    ],
)
def test_a_member_is_healthy_once_it_presents_its_new_certificate(health, presented, why):
    pair = issue("cp1")
    said = encoded(f'{{"health":"{health}"}}')
    served = encoded(pair.certificate_pem) if presented else ""
    told = [lines_of(), pair_line("etcd-server", pair), f"served:etcd\ta:1 {served}"]
    text = "\n".join([*told, f"health:\t{said}"])
    job = job_of(host=Told({"look": text}))

    if why:
        with pytest.raises(NotVerified, match=why):
            restart.etcd_is_healthy(job, 0)
    else:
        assert restart.etcd_is_healthy(job, 0) == "healthy"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (KubeletWork.LINK, ["link-kubelet-client"]),
        (KubeletWork.REISSUE, ["reissue-kubelet-client"]),
        (KubeletWork.REISSUE_AND_LINK, ["reissue-kubelet-client", "link-kubelet-client"]),
        (KubeletWork.REBUILD, ["reissue-kubelet-client"]),
    ],
)
def test_the_kubelets_client_certificate_is_mended_as_it_needs(work, words):
    host = Told()
    job = work_with(job_of(host=host), kubelet=work)

    kubelet.mend_kubelet_client(job)

    assert [argv[3] for argv in host.changed] == words
    assert [" ".join(argv) for argv in host.changed] == list(kubelet.mend_commands(job))
