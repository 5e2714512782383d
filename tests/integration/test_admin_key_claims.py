"""The way back from a claim that is being deleted while a pod of somebody else holds it."""

from dataclasses import replace

import pytest

from blocks.kube.cluster import KubernetesCluster
from recovery.errors import Refused
from recovery.walk import Fence
from tasks.admin_key import changing
from tasks.admin_key.finding import LostKeyFound, OldClaim
from tasks.admin_key.order import sentence_for
from tasks.volumes.volume import read_claim, read_volume
from tasks.workloads.target import Workload, WorkloadKind
from tests.integration.volume_runs import Volumes
from tests.lab.processes import wait_until
from tests.unit.test_admin_key import an_order

CLAIM, NODE = "datadir-mongodb-0", "lab-node"


@pytest.fixture
def volumes(kubernetes):
    return Volumes(kubernetes, kubernetes.namespace("held"))


@pytest.fixture
def order(kubernetes, volumes):
    cluster = KubernetesCluster.named(kubernetes.url)
    sentence = sentence_for(cluster, volumes.namespace)
    given = {"cluster": kubernetes.url, "namespace": volumes.namespace, "confirm": sentence}
    return an_order(**given, within_seconds=1)


def the_claim(volumes, *, policy):
    """A claim on a volume that is kept, as it was found before that."""
    volume = read_volume(volumes.read(volumes.bound("old", CLAIM, policy="Retain")))
    claim = read_claim(volumes.claims(CLAIM)[0])
    names = claim.name, claim.uid, claim.spec, claim.labels
    return OldClaim(*names, volume.name, volume.uid, policy, volume.size)


def hold(volumes):
    """Let a pod of somebody else mount the claim."""
    mount = {"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}
    containers = [{"name": "debug", "image": f"{volumes.namespace}/debug"}]
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "debug"},
        "spec": {"nodeName": NODE, "containers": containers, "volumes": [mount]},
    }
    volumes.api.apply(body, volumes.namespace)
    path = volumes.api.path("v1", "pods", volumes.namespace, "debug")

    def runs():
        return volumes.api.client.get(path)["status"].get("phase") == "Running"

    wait_until(runs, "the pod to run", within_seconds=20)


def remove_held(volumes):
    """Ask for the claim to be deleted: it stays as long as the pod does."""
    volumes.api.client.delete(volumes.claim_path(CLAIM))
    assert volumes.claims(CLAIM)[0]["metadata"]["deletionTimestamp"]


def let_go(volumes):
    volumes.api.client.delete(volumes.api.path("v1", "pods", volumes.namespace, "debug"))


def policy_of(volumes, claim):
    return volumes.read(claim.volume)["spec"]["persistentVolumeReclaimPolicy"]


def test_the_policy_of_a_volume_whose_claim_is_going_stays_retain(volumes, order):
    claim = the_claim(volumes, policy="Delete")
    hold(volumes)
    remove_held(volumes)

    with pytest.raises(Refused, match="would go with claim"):
        changing.policy_put_back.fn(order, claim)

    assert policy_of(volumes, claim) == "Retain"


def test_a_claim_that_is_going_is_made_again_once_it_is_gone(volumes, order):
    claim = the_claim(volumes, policy="Delete")
    hold(volumes)
    remove_held(volumes)
    with pytest.raises(Refused, match="pods that mount it: debug"):
        changing.claim_made_again.fn(order, claim)

    let_go(volumes)
    changing.claim_made_again.fn(replace(order, within_seconds=30), claim)
    changing.policy_put_back.fn(order, claim)

    made = read_claim(volumes.claims(CLAIM)[0])
    assert made.uid != claim.uid
    assert not made.is_terminating
    assert made.volume == claim.volume
    assert policy_of(volumes, claim) == "Delete"


def test_a_claim_that_a_pod_of_somebody_else_mounts_is_not_removed(volumes, order, monkeypatch):
    monkeypatch.setattr(changing, "current_fence", lambda: Fence("r", 1))
    claim = the_claim(volumes, policy="Delete")
    workload = Workload(WorkloadKind.STATEFULSET, volumes.namespace, "vantiq", "u", "app=vantiq")
    found = LostKeyFound(workload, [], [claim], [])
    changing.refuse_while_used(order, found, claim)
    hold(volumes)

    with pytest.raises(Refused, match=f"pods of others mount claim {CLAIM}: debug"):
        changing.refuse_while_used(order, found, claim)
