"""What acts send, what their probes make of what is there, and what proves the whole."""

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from blocks.ssh.command import Answer
from recovery.errors import BadInput, CommandFailed, NotVerified, Refused, Unreachable
from recovery.verdict import Verdict
from tasks.certificates import (
    accounts,
    cluster_config,
    files,
    in_use,
    kubelet,
    kubelet_files,
    proof,
    regeneration,
    renewal,
    restart,
    restoring,
)
from tasks.certificates.api import ApiAnswer
from tasks.certificates.catalogue import Component
from tasks.certificates.cluster_config import names_in, parse_config
from tasks.certificates.in_use import InUse
from tasks.certificates.judging import Method
from tasks.certificates.look_lines import Lines
from tasks.certificates.quorum import Etcd
from tasks.certificates.reading import KeyState, Presence
from tasks.certificates.seen import KubeletForm, Runtime, RuntimeKind, Served
from tasks.certificates.work import Before, KubeletWork
from tests.unit.certificates_seen import (
    NOW,
    STARTED_AT,
    WRITTEN_AT,
    account,
    broken_file,
    certificate,
    file_seen,
    job_of,
    kubelet_seen,
    node_of,
    seen_host,
)
from tests.unit.test_certificates_look import (
    CA,
    conf_line,
    encoded,
    issue,
    kubeconfig,
    pair_line,
)

SOON = timedelta(days=3)
NEW = "ABC"


class Told:
    """A host that notes what it is told; `says` answers commands by a word in them."""

    def __init__(self, says=None, exit_codes=None):
        self.label = self.target = "root@cp1"
        self.says, self.exit_codes = says or {}, exit_codes or {}
        self.changed, self.written = [], {}

    def session(self):
        return nullcontext(self)

    def command_line(self, argv, *, as_root=False):
        return " ".join(argv)

    def put_line(self, path, **options):
        return f"put {path}"

    def put(self, content, path, **options):
        self.written[path] = content

    def _answer(self, argv):
        words = " ".join(argv)
        text = next((text for word, text in self.says.items() if word in words), "")
        code = next((code for word, code in self.exit_codes.items() if word in words), 0)
        if isinstance(text, Exception):
            raise text
        if isinstance(text, list):
            text = text.pop(0) if len(text) > 1 else text[0]
        return Answer(words, self.target, code, text, "")

    def read(self, argv, **options):
        return self._answer(argv)

    def change(self, argv, **options):
        self.changed.append(list(argv))
        return self._answer(argv)


# -- judging files -------------------------------------------------------------------------------

OLD = Before("apiserver", "01D", "kube-apiserver", ("DNS:cp1", "IP Address:10.0.0.1"), NOW)


def made(**fields):
    right = {"serial": NEW, "common_name": "kube-apiserver", "names": OLD.names}
    return file_seen("apiserver", timedelta(days=365), **{**right, **fields})


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([made()], Verdict.DONE),
        ([made(serial="01D")], Verdict.NOT_DONE),
        ([made(key=KeyState.DIFFERS)], Verdict.HALF_DONE),
        ([made(is_signed=False)], Verdict.HALF_DONE),
        ([broken_file("apiserver")], Verdict.HALF_DONE),
        ([made(), file_seen("etcd-peer", serial="EE")], Verdict.HALF_DONE),
    ],
)
def test_a_renewal_is_done_half_done_or_not_begun(found, verdict):
    before = [OLD, Before("etcd-peer", "EE")]

    assert files.judge_made_anew(found, before) is verdict


def test_what_could_not_be_read_before_and_cannot_now_was_not_begun():
    assert files.judge_made_anew([broken_file("x")], [Before("x")]) is Verdict.NOT_DONE
    assert files.broken_names([broken_file("x")], [Before("x")]) == []
    assert files.broken_names([broken_file("apiserver")], [OLD]) == ["apiserver"]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, ""),
        ({"names": ("DNS:cp1",)}, "apiserver lost IP Address:10.0.0.1"),
        ({"names": ("DNS:CP1", "IP Address:10.0.0.1", "DNS:more")}, ""),
        ({"common_name": "other"}, "apiserver is for 'other', was for 'kube-apiserver'"),
        ({"subject": "O=another,CN=kube-apiserver"}, ""),
        ({"key": KeyState.DIFFERS}, "the key of apiserver differs"),
        ({"is_signed": False}, "not signed by its authority"),
        ({"not_after": NOW + timedelta(days=7)}, "lasts 7.0 days only"),
    ],
)
def test_a_new_certificate_must_say_what_the_old_one_said(fields, fault):
    told = files.faults_of([made(**fields)], [OLD], 30, NOW)

    assert bool(told) == bool(fault)
    assert fault in "; ".join(told)


def test_a_certificate_that_cannot_be_read_is_a_fault():
    assert files.faults_of([broken_file("apiserver", "no certificate")], [OLD], 30, NOW) == [
        "apiserver unreadable no certificate"
    ]


def lines_of(*names, ca=CA):
    """What a look answers where these certificates, signed by `ca`, were just made."""
    told = [pair_line(name, ca) for name in ("ca", "etcd-ca", "front-proxy-ca")]
    for name in names:
        pair = issue(name, ca=ca)
        told.append(conf_line(name, pair) if name.endswith(".conf") else pair_line(name, pair))
    return "\n".join(told)


def work_with(job, **fields):
    return replace(job, work=replace(job.work, **fields))


def job_renewing(*names, host):
    before = tuple(Before(name, "01D", name) for name in names)
    return work_with(job_of(host=host), names=names, before=before)


def test_files_are_read_from_the_host_and_judged():
    job = job_renewing(
        "apiserver", "admin.conf", host=Told({"look": lines_of("apiserver", "admin.conf")})
    )

    assert files.made_anew(job) is Verdict.DONE
    assert files.files_are_sound(job, 30) == 2


def test_new_files_that_are_not_sound_are_told_before_anything_uses_them():
    job = job_renewing("apiserver", host=Told({"look": lines_of("apiserver")}))

    with pytest.raises(NotVerified, match=r"lasts .* days only.*No process uses them yet"):
        files.files_are_sound(job, 3650)


# -- renewing ------------------------------------------------------------------------------------


def test_a_renewal_sends_one_command_that_names_no_file():
    host = Told(
        {
            "look": lines_of("apiserver"),
            "renew": "certificate for serving the Kubernetes API renewed",
        }
    )
    job = job_renewing("apiserver", host=host)

    renewal.renew(job)

    assert host.changed == [["/bin/it", "certs", "renew", "all"]]
    assert list(renewal.renew_commands(job))[-1] == "/bin/it certs renew all"


def test_what_kubeadm_leaves_out_silently_is_an_error():
    host = Told(
        {
            "look": lines_of("apiserver"),
            "renew": "MISSING! certificate for serving the Kubernetes API",
        }
    )

    with pytest.raises(CommandFailed, match="left out apiserver"):
        renewal.renew(job_renewing("apiserver", host=host))


def test_a_file_that_was_being_written_when_all_stopped_is_put_back_first():
    broken = lines_of().replace("x", "x") + "\npair:apiserver\t600 0:0 1.5 - " + encoded("-----BEG")
    host = Told({"look": broken, "renew all": "certificate for serving the Kubernetes API renewed"})

    renewal.renew(job_renewing("apiserver", host=host))

    assert host.changed[0][3] == "only-if-a-renewal-was-cut-off"
    assert host.changed[1] == ["/bin/it", "certs", "renew", "all"]


@pytest.mark.parametrize(
    ("version", "serial", "expected"),
    [
        ("v1.36.2", "", [["k", "certs", "renew", "all"]]),
        ("v1.19.1", "01D", [["k", "alpha", "certs", "renew", "all"]]),
        ("v1.19.1", "", [["k", "alpha", "certs", "renew", "apiserver"]]),
    ],
)
def test_old_releases_stop_at_a_missing_file_and_are_told_each_name(version, serial, expected):
    job = job_of()
    work = replace(
        job.work,
        kubeadm=replace(job.work.kubeadm, path="k", version=version),
        names=("apiserver",),
        before=(
            Before("apiserver", "01D"),
            Before("scheduler.conf", serial),
            Before("super-admin.conf", ""),  # which the old one does not know of
        ),
    )

    assert renewal.renew_argvs(work) == expected


def test_certificates_in_another_folder_are_named_to_kubeadm():
    work = replace(job_of().work, is_standard_pki=False, pki="/srv/pki")

    assert renewal.renew_argvs(work)[0][-2:] == ["--cert-dir", "/srv/pki"]


# -- restarting ----------------------------------------------------------------------------------


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


# -- the kubelet ---------------------------------------------------------------------------------


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


def test_a_client_certificate_is_issued_for_the_name_the_node_is_registered_under():
    (argv,) = kubelet.mend_argvs(replace(job_of().work, kubelet=KubeletWork.REISSUE))

    assert "system:node:cp1" in argv
    assert argv[argv.index("--org") + 1] == "system:nodes"
    assert argv[-2:] == ["--config", "/dev/stdin"]
    config = argv[7]
    assert "kubernetesVersion: v1.36.2" in config  # or kubeadm asks the internet for one
    assert "controlPlaneEndpoint: lb:6443" in config


def test_releases_without_a_config_are_told_the_folder():
    job = job_of()
    old = replace(job.work.kubeadm, version="v1.18.3")

    (argv,) = kubelet.mend_argvs(replace(job.work, kubelet=KubeletWork.REISSUE, kubeadm=old))

    assert argv[8:11] == ["/bin/it", "alpha", "kubeconfig"]
    assert "--cert-dir" in argv
    assert "--config" not in argv


GOOD = file_seen("kubelet-client", serial=NEW)


@pytest.mark.parametrize(
    ("work", "fields", "verdict"),
    [
        (KubeletWork.REISSUE, {"client": GOOD}, Verdict.DONE),
        (
            KubeletWork.REISSUE,
            {"client": file_seen("kubelet-client", serial="01D")},
            Verdict.NOT_DONE,
        ),
        (KubeletWork.REISSUE, {"client": replace(GOOD, key=KeyState.DIFFERS)}, Verdict.NOT_DONE),
        (KubeletWork.LINK, {}, Verdict.DONE),
        (KubeletWork.LINK, {"form": KubeletForm.EMBEDDED}, Verdict.NOT_DONE),
        (
            KubeletWork.REISSUE_AND_LINK,
            {"client": GOOD, "form": KubeletForm.EMBEDDED},
            Verdict.HALF_DONE,
        ),
        (KubeletWork.REBUILD, {"client": GOOD}, Verdict.DONE),
    ],
)
def test_mending_is_done_half_done_or_not_begun(work, fields, verdict):
    wanted = replace(job_of().work, kubelet=work, kubelet_before="01D")

    assert kubelet_files.judge_mended(kubelet_seen(**fields), wanted) is verdict


NOTHING_SERVED = Served("kubelet", "127.0.0.1:10250")


@pytest.mark.parametrize(
    ("work", "fields", "started_at", "why"),
    [
        ({"kubelet": KubeletWork.LINK}, {}, STARTED_AT, ""),
        ({"kubelet": KubeletWork.LINK}, {}, WRITTEN_AT - 1, "was not started since"),
        ({"kubelet": KubeletWork.LINK}, {"form": KubeletForm.EMBEDDED}, STARTED_AT, "not mended"),
        (
            {"replaces_serving": True, "serving_before": "01D"},
            {"serving": file_seen("s", serial="01D")},
            STARTED_AT,
            "still the old one",
        ),
        ({"replaces_serving": True, "serving_before": "01D"}, {}, STARTED_AT, "presents nothing"),
        ({}, {"is_active": False}, STARTED_AT, "does not run"),
        ({}, {}, 0.0, "does not run"),
    ],
)
def test_the_kubelet_is_restarted_until_it_uses_its_files(work, fields, started_at, why):
    wanted = replace(job_of().work, **work)

    told = kubelet.why_unused(wanted, kubelet_seen(**fields), NOTHING_SERVED, started_at)

    assert bool(told) == bool(why)
    assert why in told


def test_a_kubelet_that_does_not_come_back_is_told(monkeypatch):
    monkeypatch.setattr(kubelet, "WITHIN_SECONDS", 0)
    host = Told({"look": f"{lines_of()}\nuptime\t1 1 100"})

    with pytest.raises(NotVerified, match=r"does not run.*journalctl -u kubelet"):
        kubelet.restart_kubelet(job_of(host=host))
    assert host.changed == [
        ["systemctl", "--no-ask-password", "restart", "--", "kubelet.service"]
    ] or (host.changed[0] == restart.RESTART_KUBELET)


def test_a_serving_certificate_that_is_gone_is_dropped():
    host = Told({"look": f"{lines_of()}\nuptime\t1 1 100"})
    job = job_of(host=host)

    kubelet.drop_kubelet_serving(job)

    assert host.changed == [
        ["rm", "-f", "--", "/var/lib/kubelet/pki/kubelet.crt", "/var/lib/kubelet/pki/kubelet.key"]
    ]
    assert kubelet.is_dropped(job) is Verdict.DONE


# -- kubeconfigs of people -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "names"), [("", ()), ("root, ops", ("root", "ops")), ("a a", ("a",))]
)
def test_users_are_named_with_blanks_or_commas(users, names):
    assert accounts.names_in(users) == names


def test_the_kubeconfigs_of_people_are_left_to_a_person_where_nobody_was_named():
    (left,) = accounts.left_to_person(accounts.names_in(""))

    assert "~/.kube/config" in left
    assert accounts.left_to_person(accounts.names_in("root ops")) == []


@pytest.mark.parametrize("users", ["../etc", "a;b", "$(x)"])
def test_what_is_no_name_of_an_account_is_refused(users):
    with pytest.raises(BadInput, match="no name of an account"):
        accounts.names_in(users)


def test_a_kubeconfig_is_written_by_its_owner():
    host, job = Told(), job_of()
    job = replace(job, host=host)

    accounts.replace_kubeconfig(job, account(ids="1000:27", mode="640"))

    (argv,) = host.changed
    assert argv[4:8] == ["/home/ops/.kube/config", "640", "1000", "27"]
    assert "setpriv --reuid" in argv[2]


@pytest.mark.parametrize(
    ("renewed", "changes", "verdict"),
    [
        (True, {}, Verdict.DONE),
        (False, {}, Verdict.NOT_DONE),  # admin.conf itself is still the old one
        (True, {"mode": "600"}, Verdict.NOT_DONE),
        (True, {"ids": "0:0"}, Verdict.NOT_DONE),
    ],
)
def test_a_kubeconfig_counts_as_replaced_with_owner_and_mode_kept(renewed, changes, verdict):
    pair = issue("kubernetes-admin")
    serial = f"{pair.certificate.serial_number:X}"
    text = "\n".join(
        [
            conf_line("admin.conf", pair),
            f"account:ops\t1000:1000 {encoded('/home/ops/.kube/config')}",
            conf_line("account:ops", pair).replace("600 0:0", "640 1000:1000"),
        ]
    )
    before = (Before("admin.conf", "01D" if renewed else serial),)
    job = work_with(job_of(host=Told({"look": text})), names=("admin.conf",), before=before)

    found = accounts.is_replaced(job, account(**{"mode": "640", "ids": "1000:1000", **changes}))

    assert found is verdict


def test_the_way_back_of_a_kubeconfig_takes_it_from_the_archive():
    host = Told()

    accounts.put_back_kubeconfig(replace(job_of(), host=host), account())

    (argv,) = host.changed
    assert argv[3] == "put-back-kubeconfig"
    assert argv[-1].startswith("/var/backups/kubernetes-certificates/")


# -- making from the configuration ---------------------------------------------------------------

CONFIG = """
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
clusterName: prod
controlPlaneEndpoint: "[fd00::9]:6443"
networking: {serviceSubnet: "fd00:1::/112,10.0.0.0/12", dnsDomain: example.net}
apiServer: {certSANs: [a.example.net, 192.0.2.1]}
etcd: {local: {serverCertSANs: [e.example.net], peerCertSANs: [p.example.net]}}
---
kind: Other
"""
CLUSTER = "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\n"


def test_names_come_from_the_whole_configuration():
    config = parse_config(CONFIG, "sample")

    assert names_in(config, "apiserver", "cp1", "192.0.2.7") == [
        "DNS:a.example.net",
        "DNS:cp1",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.example.net",
        "IP Address:192.0.2.1",
        "IP Address:192.0.2.7",
        "IP Address:fd00:1::1",
        "IP Address:fd00::9",
    ]
    assert "DNS:e.example.net" in names_in(config, "etcd-server", "cp1", "192.0.2.7")
    assert "DNS:p.example.net" in names_in(config, "etcd-peer", "cp1", "192.0.2.7")
    assert names_in(config, "front-proxy-client", "cp1", "192.0.2.7") == []
    assert config.cluster_name == "prod"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "a: [",
        "kind: ClusterConfiguration\napiVersion: other/v1",
        "kind: InitConfiguration\napiVersion: kubeadm.k8s.io/v1beta4",
        f"{CLUSTER}networking: 5",
        f"{CLUSTER}networking: {{serviceSubnet: none}}",
    ],
)
def test_what_is_no_configuration_of_kubeadms_is_refused_with_where_to_find_one(text):
    with pytest.raises(BadInput, match="get cm kubeadm-config"):
        parse_config(text, "sample")


def test_real_configurations_of_every_release_are_read(recover_test_data):
    folder = recover_test_data / "kubeadm" / "config"
    known = [
        f for f in sorted(folder.glob("*.yaml")) if "kind: ClusterConfiguration" in f.read_text()
    ]
    assert known

    for file in known:
        text = file.read_text()
        if "invalid" in file.name or "v1alpha" in text or "kubeadm.k8s.io/" not in text:
            continue
        assert parse_config(text, file.name).source == file.name


def test_the_configuration_for_a_host_names_its_own_version_node_and_address():
    config = replace(parse_config(CONFIG, "sample"), validity="2160h0m0s", algorithm="ECDSA-P256")
    work = job_of().work

    text = cluster_config.render(config, work, "/new/pki")
    old = cluster_config.render(
        config, replace(work, kubeadm=replace(work.kubeadm, version="v1.30.1")), "/new/pki"
    )

    assert "certificatesDir: /new/pki" in text
    assert "kubernetesVersion: v1.36.2" in text
    assert "advertiseAddress: 10.0.0.10" in text
    assert "name: cp1" in text
    assert "certificateValidityPeriod: 2160h0m0s" in text
    assert "encryptionAlgorithm: ECDSA-P256" in text
    assert "v1beta3" in old
    assert "certificateValidityPeriod" not in old


def test_a_configuration_is_read_from_the_file_that_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)

    assert cluster_config.cluster_names([node_of()], str(path)).source == str(path)
    with pytest.raises(BadInput, match="relative path"):
        cluster_config.cluster_names([node_of()], "c.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        cluster_config.cluster_names([node_of()], str(tmp_path / "none"))


def test_a_configuration_is_read_from_the_first_api_that_answers():
    answer = json.dumps({"data": {"ClusterConfiguration": CONFIG}})
    off = Told({"look": Unreachable("h", "read", "off")})
    up = Told({"look": f"api:config\t0 {encoded(answer)}"})
    nodes = [replace(node_of(), host=off), replace(node_of(), host=up)]

    assert cluster_config.cluster_names(nodes, "").cluster_name == "prod"
    with pytest.raises(Refused, match="no configuration is named"):
        cluster_config.cluster_names([replace(node_of(), host=off)], "")


def regenerating(**changes):
    names = names_in(parse_config(CONFIG, "s"), "apiserver", "cp1", "10.0.0.10")
    before = (Before("apiserver", "01D", "kube-apiserver", tuple(names)),)
    fields = {"names": ("apiserver",), "before": before, **changes}
    job = job_of(method=Method.REGENERATE)
    return replace(job, work=replace(job.work, **fields))


def test_names_that_would_be_lost_are_found_before_anything_is_made():
    config = parse_config(CONFIG, "the file")
    cluster_config.refuse_if_names_would_be_lost(regenerating(), config)
    more = Before("apiserver", "01D", "kube-apiserver", ("DNS:lb.example.net",))

    with pytest.raises(
        Refused, match=r"apiserver would lose DNS:lb\.example\.net.*\(by the file\)"
    ):
        cluster_config.refuse_if_names_would_be_lost(regenerating(before=(more,)), config)


def test_what_is_served_stands_for_a_certificate_that_cannot_be_read():
    served = Served("kube-apiserver", "a:1", certificate("x", names=("DNS:lb.example.net",)))
    job = regenerating(before=(Before("apiserver"),))
    job = replace(job, seen=replace(job.seen, served=(served,)))

    with pytest.raises(Refused, match="would lose DNS:lb"):
        cluster_config.refuse_if_names_would_be_lost(job, parse_config(CONFIG, "s"))


def test_certificates_are_made_beside_the_old_ones_with_copies_of_the_authorities():
    host = Told()
    job = replace(regenerating(names=("apiserver", "admin.conf")), host=host)

    regeneration.make_beside(job, parse_config(CONFIG, "s"))

    beside = restoring.beside_path()
    room, *phases = host.changed
    assert room[3] == "make-room"
    assert "ca.key" in room
    assert not [word for word in room if word.startswith("sa.")]
    assert phases == [
        ["/bin/it", "init", "phase", "certs", "apiserver", "--config", f"{beside}/kubeadm.yaml"],
        ["/bin/it", "init", "phase", "kubeconfig", "admin", "--config", f"{beside}/kubeadm.yaml",
         "--kubeconfig-dir", beside],
    ]  # fmt: skip
    assert b"certificatesDir" in host.written[f"{beside}/kubeadm.yaml"]
    assert len(list(regeneration.make_commands(job))) == 4


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (lines_of("apiserver", "admin.conf"), Verdict.DONE),
        (lines_of("apiserver"), Verdict.HALF_DONE),
        (lines_of(), Verdict.NOT_DONE),
    ],
)
def test_what_was_made_beside_is_looked_at_there(text, verdict):
    job = replace(regenerating(names=("apiserver", "admin.conf")), host=Told({"look": text}))

    assert regeneration.are_made(job) is verdict


def test_a_certificate_that_lost_a_name_is_not_put_in_place():
    job = replace(regenerating(), host=Told({"look": lines_of("apiserver")}))

    with pytest.raises(Refused, match=r"apiserver lost DNS:a\.example\.net.*Nothing was replaced"):
        regeneration.refuse_if_names_were_lost(job, 30)
    fine = replace(regenerating(before=(Before("apiserver", "01D", "apiserver"),)), host=job.host)
    regeneration.refuse_if_names_were_lost(fine, 30)
    gone = replace(regenerating(), host=Told({"look": lines_of()}))
    regeneration.refuse_if_names_were_lost(gone, 30)


def test_keys_are_put_in_place_before_their_certificates():
    host = Told()

    regeneration.put_in_place(
        replace(regenerating(names=("apiserver", "admin.conf")), host=host), 30
    )

    (argv,) = host.changed
    assert argv[-3:] == ["apiserver.key", "apiserver.crt", "admin.conf"]


# -- the proof -----------------------------------------------------------------------------------


def lease(age, holder="cp1_abc"):
    renewed = (NOW - timedelta(seconds=age)).isoformat().replace("+00:00", "Z")
    return ApiAnswer(200, f'{{"spec": {{"renewTime": "{renewed}", "holderIdentity": "{holder}"}}}}')


NONE = ApiAnswer(404, "not found")


def annotated(**leader):
    annotations = {"control-plane.alpha.kubernetes.io/leader": json.dumps(leader)}
    return ApiAnswer(200, json.dumps({"metadata": {"annotations": annotations}}))


@pytest.mark.parametrize(
    ("held", "endpoints", "seen", "is_fresh"),
    [
        (lease(2), NONE, "cp1 (2 s ago)", True),
        (lease(31), NONE, "cp1 (31 s ago)", False),
        (ApiAnswer(200, "{}"), NONE, "held by nobody, never renewed", False),
        (ApiAnswer(0, "refused"), NONE, "no answer refused", False),
        (NONE, NONE, "404 not found", False),
        (
            NONE,
            annotated(
                holderIdentity="cp2_x",
                renewTime=f"{NOW - timedelta(seconds=10):%Y-%m-%dT%H:%M:%SZ}",
            ),
            "cp2 (10 s ago)",
            True,
        ),
    ],
)
def test_who_leads_is_read_from_the_lease_or_what_was_before_there_were_leases(
    held, endpoints, seen, is_fresh
):
    assert proof.leader_of(held, endpoints, NOW) == (seen, is_fresh)


def test_a_lease_that_nobody_renews_is_told():
    now = datetime.now(UTC)
    text = f"clock\t{now.timestamp()}\nclock\t{now.timestamp()}"

    with pytest.raises(NotVerified, match="kube-controller-manager: no answer"):
        proof.leaders_are_at_work(job_of(host=Told({"look": text})), 0)


def test_leaders_that_renew_are_told_by_name():
    now = datetime.now(UTC)
    body = encoded(f'{{"spec": {{"renewTime": "{now.isoformat()}", "holderIdentity": "cp1_a"}}}}')
    text = (
        f"api:kube-controller-manager\t0 {body}\napi:kube-scheduler\t0 {body}\n"
        f"clock\t{now.timestamp()}"
    )

    assert proof.leaders_are_at_work(job_of(host=Told({"look": text})), 0) == ["cp1 (0 s ago)"] * 2


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (
            f"api:nodes\t1 {encoded('Error from server (Forbidden): nodes')}",
            "create clusterrolebinding",
        ),
        (f"api:nodes\t1 {encoded('Unable to connect')}", "the load balancer"),
    ],
)
def test_an_admin_who_cannot_read_is_told_what_helps(line, remedy):
    with pytest.raises(NotVerified, match=remedy):
        proof.admin_can_read(job_of(host=Told({"look": line})), 0)


def test_an_admin_who_can_read_sees_the_nodes():
    line = f"api:nodes\t0 {encoded('{' + chr(34) + 'items' + chr(34) + ': [1, 2, 3]}')}"

    assert proof.admin_can_read(job_of(host=Told({"look": line})), 0) == 3


def test_of_many_nodes_one_is_read_and_the_rest_counted():
    """A list of a hundred is more than one command may print, and the proof would never end."""
    page = {"metadata": {"continue": "x", "remainingItemCount": 4999}, "items": [{}]}
    host = Told({"/api/v1/nodes?limit=1": f"api:nodes\t0 {encoded(json.dumps(page))}"})

    assert proof.admin_can_read(job_of(host=host), 0) == 5000


def test_every_stale_process_is_named():
    text = f"{lines_of()}\nuptime\t1 1 100\nserved:etcd\ta:1 \nserved:etcd-peer\tb:2 "

    with pytest.raises(NotVerified) as error:
        proof.everything_uses_its_files(replace(node_of(), host=Told({"look": text})), 0)

    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert f"{name} does not run" in str(error.value)
    assert "etcd (a:1) presents nothing" in str(error.value)


def test_lines_of_a_look_are_what_the_script_would_say():
    assert Lines(lines_of("apiserver")).one("pair:apiserver").count(" ") == 4
    assert kubeconfig(issue("x")).startswith("apiVersion")
    assert Presence.MISSING != Presence.UNREADABLE
    assert seen_host(left=SOON).leaf("apiserver").certificate is not None
