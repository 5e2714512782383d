"""What a triage of certificates concludes from what was seen."""

from dataclasses import replace
from datetime import timedelta

import pytest

from recovery.errors import BadInput
from tasks.certificates.catalogue import CONTROL_PLANE, Component, EtcdKind
from tasks.certificates.judging import Method
from tasks.certificates.seen import ApiState
from tasks.certificates.triage import (
    Hindrance,
    Looked,
    conclusion,
    days_of,
    jobs_in,
    nodes_in,
    what_stands_against,
)
from tests.unit.certificates_seen import NoHost, file_seen, kubelet_seen, seen_host

HOSTS = "ssh://root@cp1"


def concluded(seen, against=None, days=30):
    looked = [Looked(NoHost(), seen, "" if seen else "no answer")]
    jobs = jobs_in(nodes_in(looked), days, Method.RENEW)
    return conclusion(looked, jobs, against or {Method.RENEW: []}, days, HOSTS)


def test_what_ends_soon_is_renewed():
    told = concluded(seen_host(left=timedelta(days=3)))

    assert any("apiserver ends" in one for one in told.found)
    assert told.command == f"recover plan {told.recover} --set 'hosts={HOSTS}'"
    assert told.against == []


def test_another_way_is_taken_where_the_first_is_barred():
    barred = [Hindrance("cp1", "missing", "method=regenerate")]
    against = {Method.RENEW: barred, Method.REGENERATE: []}

    told = concluded(seen_host(left=timedelta(days=30)), against, days=60)

    assert told.command.endswith(" --set method=regenerate --set days_left_min=60")
    assert told.against == []


def test_where_every_way_is_barred_it_says_what_to_mend_first():
    barred = [Hindrance("cp1", "the authority ended", "Rotate it")]

    told = concluded(seen_host(left=timedelta(days=3)), dict.fromkeys(Method, barred))

    assert told.against == ["cp1: the authority ended. Rotate it"]
    assert told.recover


def test_nothing_due_and_all_well_is_nothing_to_run():
    told = concluded(seen_host())

    assert (told.found, told.against, told.recover, told.command) == ([], [], "", "")


def test_a_host_that_cannot_be_read_is_a_finding():
    told = concluded(None)

    assert told.found == ["root@cp1 cannot be read: no answer"]
    assert told.recover == ""


def test_where_no_certificate_is_due_another_cause_is_named():
    started = {one: 1.0e9 for one in CONTROL_PLANE if one is not Component.SCHEDULER}
    fields = {"started_at": started, "api": ApiState.SILENT}
    told = concluded(seen_host(**fields, kubelet=kubelet_seen(is_active=False)))

    assert told.recover == "recover-scheduler"
    for said in ("kube-scheduler does not run", "API server is silent", "kubelet is not active"):
        assert any(said in one for one in told.notes)


def test_every_reason_is_told_and_not_only_the_first():
    odd = {"tools": {}, "free_kib": {"/var": 0}, "is_renewing": True, "etcd": EtcdKind.EXTERNAL}
    nodes = nodes_in([Looked(NoHost(), seen_host(left=timedelta(days=3), **odd))])
    jobs = jobs_in(nodes, 30, Method.RENEW)

    told = what_stands_against.fn(nodes, jobs, 30, Method.RENEW)

    for said in ("there is no kubeadm", "MiB free", "is renewing at this moment"):
        assert any(said in str(one) for one in told), said


def test_no_days_fewer_than_none():
    with pytest.raises(BadInput, match="days_left_min"):
        days_of(-1)


def test_what_is_gone_is_due():
    seen = seen_host()
    gone = file_seen("apiserver", None)
    leaves = tuple(gone if one.name == gone.name else one for one in seen.leaves)

    told = concluded(replace(seen, leaves=leaves))

    assert any("apiserver missing" in one for one in told.found)
