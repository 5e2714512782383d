"""What is due on a host, and what speaks against doing it: judged from what was seen."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from recovery.errors import BadInput, Refused
from recovery.values import from_plain, to_plain
from tasks.certificates import preflight
from tasks.certificates.catalogue import CONTROL_PLANE, LEAVES, Component, EtcdKind
from tasks.certificates.judging import Method
from tasks.certificates.kubeadm import Known, Report
from tasks.certificates.reading import KeyState, Presence
from tasks.certificates.seen import Clock, FileSeen, KubeletForm, Runtime, RuntimeKind, Served
from tasks.certificates.work import (
    KubeletWork,
    Work,
    changed_paths,
    jobs_of,
    stale_components,
    work_due,
    work_on,
)
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
    work_of,
)

SOON, LATER = timedelta(days=3), timedelta(days=200)
NODE = "system:node:cp1"


def client(left=LATER, **fields):
    return file_seen("kubelet-client", left, **{"common_name": NODE, **fields})


# -- what is due ---------------------------------------------------------------------------------


def test_nothing_due_is_nothing_to_do():
    assert work_of(seen_host()) is None


def test_one_certificate_that_ends_soon_is_work_on_all_of_them_and_on_every_process():
    work = work_of(seen_host(each={"front-proxy-client": SOON}))

    assert set(work.names) == {leaf.name for leaf in LEAVES}
    assert work.restarts == CONTROL_PLANE
    assert work.why == (f"front-proxy-client ends {NOW + SOON:%Y-%m-%d %H:%M} UTC",)
    assert work.serial_before("apiserver") == certificate("apiserver").serial
    assert not work.serial_before("nonesuch")


def test_work_can_be_read_back_from_the_journal():
    work = work_of(seen_host(left=SOON, accounts=(account(),)))

    assert from_plain(Work, to_plain(work)) == work


@pytest.mark.parametrize(("days", "is_due"), [(2, False), (3.001, True), (30, True)])
def test_how_many_days_must_be_left_decides(days, is_due):
    assert (work_of(seen_host(left=SOON), days=days) is not None) is is_due


def test_a_clock_that_is_behind_hides_nothing():
    seen = seen_host(left=SOON, seen_at=NOW + timedelta(days=2))

    assert work_on("h", seen, 2, Method.RENEW, NOW - timedelta(days=2000)) is not None


def test_what_is_external_or_missing_is_not_renewed():
    seen = seen_host(left=SOON, each={"super-admin.conf": None})
    no_key = tuple(
        replace(a, key=KeyState.MISSING) if a.name == "front-proxy-ca" else a
        for a in seen.authorities
    )

    work = work_of(replace(seen, authorities=no_key))

    assert "super-admin.conf" not in work.names
    assert "front-proxy-client" not in work.names
    assert "apiserver" in work.names


@pytest.mark.parametrize("etcd", [EtcdKind.EXTERNAL, EtcdKind.KUBESPRAY])
def test_an_etcd_that_is_not_kubeadms_is_neither_renewed_nor_restarted(etcd):
    each = {leaf.name: None for leaf in LEAVES if leaf.is_etcds}
    pods = frozenset(CONTROL_PLANE) - {Component.ETCD}

    work = work_of(seen_host(left=SOON, each=each, etcd=etcd, manifests=pods))

    assert not set(each) & set(work.names)
    assert Component.ETCD not in work.restarts


def test_a_regeneration_makes_what_is_missing_as_well():
    seen = seen_host(left=SOON, each={"apiserver": None, "super-admin.conf": None})

    work = work_of(seen, method=Method.REGENERATE)

    assert "apiserver" in work.names
    assert "super-admin.conf" not in work.names


# -- stale processes -----------------------------------------------------------------------------


def test_a_process_that_is_older_than_its_file_is_restarted_and_nothing_renewed():
    leaves = tuple(
        replace(leaf, changed_at=STARTED_AT + 60) if leaf.name == "scheduler.conf" else leaf
        for leaf in seen_host().leaves
    )

    work = work_of(seen_host(leaves=leaves))

    assert (work.names, work.restarts) == ((), (Component.SCHEDULER,))
    assert not work.changes_files
    assert work.why == ("kube-scheduler holds what is no longer on disk",)


@pytest.mark.parametrize(
    ("port", "component"),
    [
        ("kube-apiserver", Component.APISERVER),
        ("etcd", Component.ETCD),
        ("etcd-peer", Component.ETCD),
        ("kubelet", Component.KUBELET),
    ],
)
def test_a_port_that_presents_another_certificate_than_the_file_is_stale(port, component):
    host = seen_host()
    served = tuple(
        replace(one, certificate=certificate("an older one")) if one.name == port else one
        for one in host.served
    )

    assert stale_components(replace(host, served=served)) == (component,)


def test_a_process_that_does_not_run_holds_nothing():
    seen = seen_host(started_at={}, served=())

    assert stale_components(seen) == ()


# -- the kubelet ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kubelet", "work"),
    [
        ({}, KubeletWork.NOTHING),
        ({"form": KubeletForm.OTHER}, KubeletWork.NOTHING),
        ({"client": client(timedelta(hours=-1))}, KubeletWork.REISSUE),
        ({"client": client(timedelta(days=10))}, KubeletWork.REISSUE),  # should have rotated
        ({"client": client(timedelta(days=40))}, KubeletWork.NOTHING),
        ({"client": broken_file("kubelet-client")}, KubeletWork.REISSUE),
        ({"client": file_seen("kubelet-client", None)}, KubeletWork.REISSUE),
        ({"client": client(is_signed=False)}, KubeletWork.REISSUE),
        ({"client": client(key=KeyState.DIFFERS)}, KubeletWork.REISSUE),
        ({"client": client(common_name="system:node:other")}, KubeletWork.REISSUE),
        ({"form": KubeletForm.MISSING}, KubeletWork.REBUILD),
        ({"form": KubeletForm.UNREADABLE}, KubeletWork.REBUILD),
        ({"form": KubeletForm.EMBEDDED, "embedded": client(SOON)}, KubeletWork.LINK),
        ({"form": KubeletForm.EMBEDDED, "embedded": client(LATER)}, KubeletWork.NOTHING),
        (
            {
                "form": KubeletForm.EMBEDDED,
                "embedded": client(SOON),
                "client": file_seen("kubelet-client", None),
            },
            KubeletWork.REISSUE_AND_LINK,
        ),
    ],
)
def test_what_is_done_about_the_kubelets_client_certificate(kubelet, work):
    found = work_of(seen_host(kubelet=kubelet_seen(**kubelet)))

    assert (found.kubelet if found else KubeletWork.NOTHING) is work


def test_an_embedded_certificate_is_linked_along_with_other_work():
    kubelet = kubelet_seen(form=KubeletForm.EMBEDDED, embedded=client(LATER))

    assert work_of(seen_host(left=SOON, kubelet=kubelet)).kubelet is KubeletWork.LINK


@pytest.mark.parametrize(
    ("fields", "is_replaced"),
    [
        ({"serving": file_seen("kubelet-serving", SOON, is_signed=False)}, True),
        ({"serving": broken_file("kubelet-serving")}, True),
        (
            {"serving": file_seen("kubelet-serving", is_signed=False, key=KeyState.DIFFERS)},
            True,
        ),
        ({"serving": file_seen("kubelet-serving", SOON)}, False),  # signed by the authority
        (
            {
                "serving": file_seen("kubelet-serving", SOON, is_signed=False),
                "has_server_bootstrap": True,
            },
            False,
        ),
        (
            {
                "serving": file_seen("kubelet-serving", SOON, is_signed=False),
                "has_own_serving_file": True,
            },
            False,
        ),
        ({"serving": file_seen("kubelet-serving", None)}, False),
    ],
)
def test_only_a_serving_certificate_of_the_kubelets_own_making_is_replaced(fields, is_replaced):
    work = work_of(seen_host(kubelet=kubelet_seen(**fields)))

    assert bool(work and work.replaces_serving) is is_replaced


# -- kubeconfigs of people -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "is_replaced"),
    [
        ({}, True),
        ({"serial": certificate("admin.conf").serial}, False),
        ({"presence": Presence.MISSING}, False),
        ({"path": "/etc/kubernetes/admin.conf"}, False),
    ],
)
def test_a_kubeconfig_that_is_another_than_admin_conf_is_work_of_its_own(fields, is_replaced):
    work = work_of(seen_host(accounts=(account(**fields),)))

    assert bool(work) is is_replaced
    if work:
        assert (work.names, work.restarts) == ((), ())
        assert work.changes_files


def test_what_changes_is_listed_by_path():
    kubelet = kubelet_seen(
        form=KubeletForm.EMBEDDED,
        embedded=client(SOON),
        client=file_seen("kubelet-client", None),
        serving=file_seen("kubelet-serving", SOON, is_signed=False),
    )

    paths = changed_paths(work_of(seen_host(left=SOON, kubelet=kubelet)))

    assert "/etc/kubernetes/pki/apiserver.key" in paths
    assert "/etc/kubernetes/admin.conf" in paths
    assert paths[-4:] == (
        "/etc/kubernetes/kubelet.conf",
        "/var/lib/kubelet/pki/kubelet-client-current.pem",
        "/var/lib/kubelet/pki/kubelet.crt",
        "/var/lib/kubelet/pki/kubelet.key",
    )
    assert not [path for path in paths if "/ca." in path or "sa." in path or "-ca." in path]


def test_only_hosts_with_work_get_a_job_and_in_their_order():
    nodes = [
        node_of(seen_host(left=SOON), "root@cp2"),
        node_of(seen_host(), "root@cp1"),
        node_of(seen_host(left=SOON), "root@cp3"),
    ]

    work = [work_of(node.seen, label=node.label) for node in nodes]
    jobs = jobs_of(nodes, [one for one in work if one], "/key")

    assert [job.label for job in jobs] == ["root@cp2", "root@cp3"]
    assert all(job.backup_key_file == "/key" for job in jobs)


def test_the_decision_is_made_by_the_clock_of_now():
    later = seen_host(left=timedelta(days=-10), seen_at=datetime.now(UTC))

    assert [one.host for one in work_due([node_of(later)], 30, Method.RENEW)] == ["root@cp1"]


def test_a_negative_number_of_days_is_refused():
    with pytest.raises(BadInput, match="-1 is negative"):
        work_due([node_of()], -1, Method.RENEW)


# -- reasons to refuse ---------------------------------------------------------------------------


def passes(guard, *arguments):
    guard(*arguments)
    return True


@pytest.mark.parametrize("tool", ["kubeadm", "openssl", "tar", "sha256sum", "systemctl"])
def test_a_missing_tool_is_named(tool):
    seen = seen_host(left=SOON)
    without = replace(seen, tools={**seen.tools, tool: ""})

    with pytest.raises(Refused, match=f"there is no {tool} on the host.*Install {tool}"):
        preflight.refuse_unless_equipped(job_of(without))
    assert passes(preflight.refuse_unless_equipped, job_of(seen))


def test_a_host_without_a_container_runtime_that_is_known_is_refused():
    seen = seen_host(left=SOON, runtime=Runtime(RuntimeKind.NONE))

    with pytest.raises(Refused, match="no crictl"):
        preflight.refuse_unless_equipped(job_of(seen))


@pytest.mark.parametrize(
    ("kubeadm", "control_plane", "why"),
    [
        ("v1.36.2", "v1.36.0", ""),
        ("v1.36.2", "v1.35.9", ""),
        ("v1.36.2", "", ""),
        ("", "v1.36.0", ""),
        ("v1.36.2", "v1.34.1", "kubeadm is v1.36.2, the control plane v1.34.1"),
        ("v1.35.2", "v1.36.1", "kubeadm is v1.35.2, the control plane v1.36.1"),
        ("v1.14.2", "v1.14.2", "older than 1.15"),
    ],
)
def test_kubeadm_must_be_of_the_release_that_runs(kubeadm, control_plane, why):
    seen = seen_host(kubeadm_version=kubeadm, control_plane_version=control_plane)

    reasons = preflight.reasons_of_versions(seen)

    assert bool(reasons) == bool(why)
    assert why in "".join(reason.why for reason in reasons)


def test_where_the_authority_ends_too_soon_nothing_is_begun():
    seen = seen_host(left=SOON)
    ending = tuple(file_seen(a.name, timedelta(days=30)) for a in seen.authorities)

    with pytest.raises(Refused, match=r"authority ca\.crt ends"):
        preflight.refuse_unless_authorities_can_sign(
            job_of(replace(seen, authorities=ending)), Method.RENEW, 30
        )
    assert passes(preflight.refuse_unless_authorities_can_sign, job_of(seen), Method.RENEW, 30)


def test_what_another_authority_has_signed_is_refused():
    seen = seen_host(left=SOON)
    leaves = tuple(
        replace(leaf, is_signed=False) if leaf.name == "apiserver" else leaf for leaf in seen.leaves
    )

    with pytest.raises(Refused, match="apiserver not signed by the authority on this host"):
        preflight.refuse_unless_authorities_can_sign(
            job_of(replace(seen, leaves=leaves)), Method.RENEW, 30
        )


def test_a_kubeadm_that_reads_other_files_is_refused():
    seen = seen_host(left=SOON)
    other = Known("apiserver", Presence.READABLE, NOW + timedelta(days=90))

    with pytest.raises(Refused, match=r"reads other files.*its dates of apiserver differ"):
        preflight.refuse_unless_authorities_can_sign(
            job_of(replace(seen, kubeadm_said=Report((other,), ()))), Method.RENEW, 30
        )
    same = Known("apiserver", Presence.READABLE, NOW + SOON)
    assert not preflight.reasons_of_kubeadm(replace(seen, kubeadm_said=Report((same,), ())))


def test_stale_processes_alone_need_no_authority():
    leaves = tuple(
        replace(leaf, changed_at=STARTED_AT + 60) if leaf.name == "scheduler.conf" else leaf
        for leaf in seen_host().leaves
    )
    without = tuple(FileSeen(a.name, Presence.MISSING) for a in seen_host().authorities)
    seen = seen_host(leaves=leaves, authorities=without)

    assert passes(preflight.refuse_unless_authorities_can_sign, job_of(seen), Method.RENEW, 30)


@pytest.mark.parametrize("lost", CONTROL_PLANE)
def test_a_manifest_that_is_parked_is_found_before_its_pod_is_removed(lost):
    seen = seen_host(left=SOON, manifests=frozenset(CONTROL_PLANE) - {lost})

    with pytest.raises(Refused, match=f"no manifest of {lost}"):
        preflight.refuse_unless_pods_come_back(job_of(seen))


def test_a_kubelet_that_is_down_for_another_reason_is_refused():
    dead = seen_host(left=SOON, kubelet=kubelet_seen(is_active=False))
    mended = seen_host(
        left=SOON, kubelet=kubelet_seen(is_active=False, client=client(timedelta(days=-1)))
    )

    with pytest.raises(Refused, match="its certificate is not the reason"):
        preflight.refuse_unless_pods_come_back(job_of(dead))
    assert passes(preflight.refuse_unless_pods_come_back, job_of(mended))


@pytest.mark.parametrize("folder", ["/var", "/etc/kubernetes", "/var/lib/kubelet"])
def test_a_full_disk_is_named_by_its_folder(folder):
    seen = seen_host(left=SOON)

    with pytest.raises(Refused, match=f"{folder} has 1 MiB free.*Make room under {folder}"):
        preflight.refuse_if_disk_is_full(
            job_of(replace(seen, free_kib={**seen.free_kib, folder: 1024}))
        )
    assert passes(preflight.refuse_if_disk_is_full, job_of(seen))


def test_the_timer_of_kubespray_is_not_raced():
    with pytest.raises(Refused, match="renewing at this moment"):
        preflight.refuse_if_others_are_renewing(job_of(seen_host(left=SOON, is_renewing=True)))
    assert passes(preflight.refuse_if_others_are_renewing, job_of())


@pytest.mark.parametrize(
    ("left", "etcd", "is_refused"),
    [
        (timedelta(days=-1), EtcdKind.KUBESPRAY, True),
        (timedelta(days=-1), EtcdKind.EXTERNAL, True),
        (timedelta(days=9), EtcdKind.KUBESPRAY, False),
        (timedelta(days=-1), EtcdKind.STACKED, False),
    ],
)
def test_a_certificate_for_an_etcd_that_is_not_kubeadms_must_be_good(left, etcd, is_refused):
    now = datetime.now(UTC)
    foreign = replace(file_seen("foreign"), certificate=certificate("f", not_after=now + left))
    job = job_of(seen_host(left=SOON, etcd=etcd, foreign=foreign))

    if is_refused:
        with pytest.raises(Refused, match="kubeadm does not keep it"):
            preflight.refuse_if_foreign_etcd_ended(job)
    else:
        assert passes(preflight.refuse_if_foreign_etcd_ended, job)


def test_hosts_of_two_clusters_are_told_apart_by_their_authorities():
    one, other = node_of(label="a"), node_of(label="b")
    foreign = tuple(file_seen(a.name, sha256="ff" * 32) for a in other.seen.authorities)
    stranger = node_of(replace(other.seen, authorities=foreign), "b")

    with pytest.raises(Refused, match="ca certificate differs between the hosts"):
        preflight.refuse_unless_hosts_agree([one, stranger])
    assert passes(preflight.refuse_unless_hosts_agree, [one, other])


@pytest.mark.parametrize("field", ["service_key", "service_public_key"])
def test_service_account_keys_must_be_the_same_everywhere(field):
    other = node_of(seen_host(**{field: "00" * 32}), "b")

    with pytest.raises(Refused, match="the service account key differs"):
        preflight.refuse_unless_hosts_agree([node_of(label="a"), other])


@pytest.mark.parametrize(
    ("clocks", "why"),
    [
        ([(0.0, 0.1), (-30.0, -29.9)], ""),
        ([(70.0, 70.1), (70.0, 70.1)], r"a by \+70 s, b by \+70 s"),
        ([(-3600.0, -3599.9), (0.0, 0.1)], r"a by -3600 s"),
        ([(-40.0, -39.9), (40.0, 40.1)], "a and b"),
        ([(-100.0, 100.0), (0.0, 0.1)], "answers so slowly"),
    ],
)
def test_clocks_that_differ_are_refused_with_the_direction(clocks, why):
    nodes = [
        node_of(seen_host(clock=Clock(low, high)), label)
        for (low, high), label in zip(clocks, "ab", strict=True)
    ]

    if why:
        with pytest.raises(Refused, match=why):
            preflight.refuse_if_clocks_differ(nodes)
    else:
        assert passes(preflight.refuse_if_clocks_differ, nodes)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, ""),
        ({"presence": Presence.MISSING}, "has no ~/.kube/config on any"),
        ({"presence": Presence.UNREADABLE}, "is no kubeconfig"),
        ({"entries": 3}, "has 3 entries"),
        ({"has_other_credentials": True}, "another kind of credential"),
        ({"server": "https://other:6443"}, "asks https://other:6443, admin.conf https://lb:6443"),
    ],
)
def test_a_kubeconfig_that_is_more_than_a_copy_is_left_alone(fields, why):
    nodes = [node_of(seen_host(accounts=(account(**fields),)))]

    if why:
        with pytest.raises(Refused, match=why):
            preflight.refuse_unless_accounts_fit(nodes)
    else:
        assert passes(preflight.refuse_unless_accounts_fit, nodes)


def test_an_account_may_be_missing_on_some_of_the_hosts():
    nodes = [
        node_of(seen_host(accounts=(account(),)), "a"),
        node_of(seen_host(accounts=(account(presence=Presence.MISSING),)), "b"),
    ]

    assert passes(preflight.refuse_unless_accounts_fit, nodes)


def test_what_is_no_reason_to_refuse_is_told_all_the_same():
    soon = replace(file_seen("foreign"), certificate=certificate("f", SOON))
    kubelet = kubelet_seen(serving=file_seen("s", SOON), has_server_bootstrap=True)
    seen = seen_host(etcd=EtcdKind.KUBESPRAY, foreign=soon, has_renewal_timer=True, kubelet=kubelet)

    notes = " ".join(preflight.notes_of(seen, NOW, 30))

    assert "k8s-certs-renew.timer" in notes
    assert f"not kubeadm's, ends {NOW + SOON:%Y-%m-%d}" in notes
    assert "kubectl get csr" in notes
    assert preflight.notes_of(seen_host(), NOW, 30) == []
    assert preflight.notes_on([node_of(seen_host(has_renewal_timer=True))], 30)[0].startswith(
        "root@cp1: kubespray"
    )


def test_a_served_port_that_was_not_looked_at_presents_nothing():
    assert seen_host().on_port("nonesuch") == Served("nonesuch", "")
    assert WRITTEN_AT < STARTED_AT
