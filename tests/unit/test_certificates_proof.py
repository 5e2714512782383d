"""What proves the whole: leaders that renew, an admin who can read, nothing stale."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from recovery.errors import NotVerified
from tasks.certificates import (
    proof,
)
from tasks.certificates.api import ApiAnswer
from tasks.certificates.look_lines import Lines
from tasks.certificates.reading import Presence
from tests.unit.certificates_seen import (
    NOW,
    job_of,
    node_of,
    seen_host,
)
from tests.unit.certificates_told import Told, lines_of
from tests.unit.test_certificates_look import (
    encoded,
    issue,
    kubeconfig,
)

SOON = timedelta(days=3)


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
