"""What a renewal sends, and what its probe makes of what is there."""

from dataclasses import replace
from datetime import timedelta

import pytest

from recovery.errors import CommandFailed, NotVerified
from recovery.verdict import Verdict
from tasks.certificates import (
    files,
    renewal,
)
from tasks.certificates.reading import KeyState
from tasks.certificates.work import Before
from tests.unit.certificates_seen import (
    NOW,
    broken_file,
    file_seen,
    job_of,
)
from tests.unit.certificates_told import NEW, Told, lines_of, work_with
from tests.unit.test_certificates_look import (
    encoded,
)

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
