"""Which claim a released volume binds to, asked of the real Kubernetes API and of the stand-in."""

import pytest

from blocks.kube import text
from blocks.kube.cluster import KubernetesCluster
from tests.integration.volume_runs import Volumes
from tests.lab.processes import wait_until


@pytest.fixture
def api(either_kubernetes):
    return either_kubernetes


@pytest.fixture
def namespace(api):
    return api.namespace("binds")


@pytest.fixture
def session(api):
    with KubernetesCluster.named(api.url).session() as session:
        yield session


def a_volume(volumes):
    return volumes.released("old", "data")


def kept_for(volumes, volume, claim):
    """Turn the reference of a volume to a claim by name, as a reuse does."""
    ref = volumes.reference(volume)
    kind = "PersistentVolumeClaim"
    where = {"namespace": volumes.namespace, "name": claim}
    return [
        text.tested("/status/phase", "Released"),
        text.tested("/spec/claimRef/uid", ref["uid"]),
        {
            "op": "replace",
            "path": "/spec/claimRef",
            "value": {"apiVersion": "v1", "kind": kind, **where},
        },
    ]


def phase_of(volumes, claim):
    return volumes.claims(claim)[0]["status"]["phase"]


def test_a_released_volume_binds_to_no_claim_not_even_of_the_same_name(api, namespace):
    volumes = Volumes(api, namespace)
    old, other = a_volume(volumes), volumes.volume("other")
    volumes.claim("data", old)
    volumes.claim("witness")

    wait_until(lambda: phase_of(volumes, "witness") == "Bound", "the witness", within_seconds=30)

    assert volumes.is_bound_to(other, "witness")
    assert phase_of(volumes, "data") == "Pending"
    assert volumes.read(old)["status"]["phase"] == "Released"


def test_a_volume_kept_for_a_claim_binds_to_that_and_to_no_other(api, session, namespace):
    volumes = Volumes(api, namespace)
    old = a_volume(volumes)
    volumes.claim("greedy")
    volumes.claim("named", old)

    session.patch(volumes.volume_path(old), kept_for(volumes, old, "mine"))
    volumes.wait_for_phase(old, "Available")
    volumes.claim("mine", old)
    volumes.wait_for_phase(old, "Bound")

    wait_until(lambda: volumes.is_bound_to(old, "mine"), "both bound", within_seconds=30)
    assert {phase_of(volumes, claim) for claim in ("greedy", "named")} == {"Pending"}


def test_a_volume_whose_reference_is_cleared_is_anybodys(api, namespace):
    volumes = Volumes(api, namespace)
    old = a_volume(volumes)
    volumes.claim("greedy")

    api.client.patch(volumes.volume_path(old), {"spec": {"claimRef": None}})

    wait_until(lambda: volumes.is_bound_to(old, "greedy"), "the greedy one", within_seconds=30)


def test_a_claim_and_a_volume_that_name_each_other_bind_without_another_question(
    api, session, namespace
):
    volumes = Volumes(api, namespace)
    old = a_volume(volumes)
    session.patch(volumes.volume_path(old), kept_for(volumes, old, "mine"))
    volumes.claim("mine", old, storageClassName="")

    wait_until(lambda: volumes.is_bound_to(old, "mine"), "both bound", within_seconds=30)


def test_a_claim_of_another_storage_class_gets_no_free_volume(api, namespace):
    volumes = Volumes(api, namespace)
    free, other = volumes.volume("free"), volumes.volume("other")
    volumes.claim("mine", free, storageClassName="")
    volumes.claim("witness", other)

    wait_until(lambda: volumes.is_bound_to(other, "witness"), "the witness", within_seconds=30)

    assert phase_of(volumes, "mine") == "Pending"


def test_a_claim_that_a_pod_uses_goes_only_with_the_pod(api, namespace):
    volumes = Volumes(api, namespace)
    volumes.bound("new", "data")
    volumes.deployment(replicas=1)
    path = api.path("apps/v1", "deployments", namespace, "web")

    api.client.delete(volumes.claim_path("data"))
    going = volumes.claims("data")[0]["metadata"]
    api.client.patch(path, {"spec": {"replicas": 0}})

    assert "deletionTimestamp" in going
    wait_until(lambda: not volumes.claims("data"), "the claim to go", within_seconds=30)
