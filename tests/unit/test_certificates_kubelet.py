"""The kubelet's own certificates, and the kubeconfigs of people."""

from dataclasses import replace

import pytest

from recovery.errors import BadInput, NotVerified
from recovery.verdict import Verdict
from tasks.certificates import (
    accounts,
    kubelet,
    kubelet_files,
    restart,
)
from tasks.certificates.reading import KeyState
from tasks.certificates.seen import KubeletForm, Served
from tasks.certificates.work import Before, KubeletWork
from tests.unit.certificates_seen import (
    STARTED_AT,
    WRITTEN_AT,
    account,
    file_seen,
    job_of,
    kubelet_seen,
)
from tests.unit.certificates_told import NEW, Told, lines_of, work_with
from tests.unit.test_certificates_look import (
    conf_line,
    encoded,
    issue,
)


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
