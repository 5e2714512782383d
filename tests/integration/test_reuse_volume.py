"""reuse-released-volume against a Kubernetes API: what holds afterwards is asked of the API."""

import json
import stat

import pytest

import flows.volumes  # noqa: F401 (declares the recovery)
from recovery.errors import BadInput, NotVerified, Refused
from recovery.stage import PlainStage
from tests.integration.volume_runs import Volumes
from tests.lab.kubernetes_node import FAILS, Image
from tests.lab.processes import wait_until

NOTE = "recovery-pipelines.io/replicas"


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture
def volumes(kubernetes):
    return Volumes(kubernetes, kubernetes.namespace("volume"))


@pytest.fixture
def deployed_again(volumes):
    """A Deployment on a new volume, and the old one that was of a claim of the same name."""
    old = volumes.released("old", "data")
    volumes.bound("new", "data")
    volumes.deployment()
    return old


def undo_of(ended):
    return {"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"}


def test_a_deployment_gets_its_old_volume_under_a_claim_of_another_name(
    volumes, deployed_again, tmp_path
):
    ended = volumes.run(deployed_again)

    assert ended.error is None, ended.error
    claim = ended.result.claim
    assert claim.startswith("data-")
    assert volumes.is_bound_to(deployed_again, claim)
    assert volumes.pod_volume()["persistentVolumeClaim"]["claimName"] == claim
    out = volumes.api.wait_until_out(volumes.namespace, "web")
    assert out["spec"]["replicas"] == 2
    assert NOTE not in out["metadata"]["annotations"]
    saved = tmp_path / "work" / ended.recovery_id / "before.json"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert volumes.volume_path(deployed_again) in json.loads(saved.read_text())


def test_a_second_run_changes_nothing(volumes, deployed_again):
    first = volumes.run(deployed_again)
    before = volumes.read(deployed_again), volumes.api.deployment(volumes.namespace, "web")

    again = volumes.run(deployed_again)

    assert first.error is None, first.error
    assert again.error is None, again.error
    assert again.result.done == "nothing"
    assert (volumes.read(deployed_again), volumes.api.deployment(volumes.namespace, "web")) == (
        before
    )


def test_the_way_back_gives_everybody_what_they_had(volumes, deployed_again):
    before = volumes.reference(deployed_again)
    ended = volumes.run(deployed_again)
    assert ended.error is None, ended.error

    undone = volumes.run(deployed_again, options=undo_of(ended))

    assert undone.error is None, undone.error
    assert volumes.reference(deployed_again) == before
    volumes.wait_for_phase(deployed_again, "Released")
    assert not volumes.claims(ended.result.claim)
    assert volumes.pod_volume()["persistentVolumeClaim"]["claimName"] == "data"
    out = volumes.api.wait_until_out(volumes.namespace, "web")
    assert out["spec"]["replicas"] == 2
    assert NOTE not in out["metadata"]["annotations"]


def test_a_claim_name_that_is_free_is_taken_again_and_the_deployment_stays_as_it_is(volumes):
    old = volumes.released("old", "data")
    volumes.deployment(replicas=1)
    before = volumes.api.deployment(volumes.namespace, "web")["spec"]

    ended = volumes.run(old)

    assert ended.error is None, ended.error
    assert volumes.is_bound_to(old, "data")
    assert volumes.api.deployment(volumes.namespace, "web")["spec"] == before


def test_a_volume_that_was_an_empty_directory_is_replaced_whole(volumes):
    old = volumes.released("old", "data")
    volumes.deployment(replicas=1, emptyDir={})

    ended = volumes.run(old, pod_volume="storage")

    assert ended.error is None, ended.error
    assert volumes.pod_volume() == {
        "name": "storage",
        "persistentVolumeClaim": {"claimName": "data"},
    }


def test_a_claim_that_waits_for_any_volume_cannot_take_it(volumes):
    old = volumes.released("old", "data")
    volumes.claim("greedy")
    volumes.deployment(replicas=1)

    ended = volumes.run(old)

    assert ended.error is None, ended.error
    assert volumes.is_bound_to(old, "data")
    assert volumes.claims("greedy")[0]["status"]["phase"] == "Pending"


def test_a_stateful_set_gets_the_volume_in_the_place_of_one_pod(volumes):
    old = volumes.released("old", "data-db-1")
    for n in range(2):
        volumes.volume(f"new{n}")
    volumes.stateful_set()
    replaced = volumes.claims("data-db-1")[0]["spec"]["volumeName"]
    given = {"workload": "statefulset/db", "was": "data-db-1"}
    refused = volumes.run(old, **given)
    given["accept"] = ["replaced-claim:data-db-1"]

    ended = volumes.run(old, **given)

    assert "accept replaced-claim:data-db-1" in str(refused.error)
    assert ended.error is None, ended.error
    assert volumes.is_bound_to(old, "data-db-1")
    volumes.wait_for_phase(replaced, "Released")
    volumes.wait_until_ready("db", 2)

    undone = volumes.run(old, **given, options=undo_of(ended))

    assert undone.error is None, undone.error
    volumes.wait_for_phase(replaced, "Bound")
    assert volumes.is_bound_to(replaced, "data-db-1")
    volumes.wait_for_phase(old, "Released")
    volumes.wait_until_ready("db", 2)


def test_a_plan_shows_every_change_and_makes_none(volumes, deployed_again):
    before = volumes.read(deployed_again), volumes.api.deployment(volumes.namespace, "web")

    planned = volumes.run(deployed_again, options={"plan_only": True})

    steps = [step.key for step in planned.plan.steps if step.commands]
    assert steps == [
        "save_objects",
        "scale_down[web]",
        "set_volume_aside",
        "create_claim",
        "point_at_claim",
        "scale_back[web]",
    ]
    assert (volumes.read(deployed_again), volumes.api.deployment(volumes.namespace, "web")) == (
        before
    )
    given = {"approve": planned.plan.hash, "approved_by": "kim"}
    assert volumes.run(deployed_again, options=given).error is None


def refusal(ended):
    assert isinstance(ended.error, Refused), ended.error
    return str(ended.error)


def test_what_is_refused_by_name_changes_nothing(volumes, deployed_again):
    other = volumes.bound("bound", "elsewhere")
    volumes.released("third", "data2")

    unconfirmed = refusal(volumes.run(deployed_again, confirm=""))
    bound = refusal(volumes.run(other))
    missing = refusal(volumes.run("nothing"))
    taken = refusal(volumes.run(deployed_again, claim="elsewhere"))
    nowhere = refusal(volumes.run(deployed_again, pod_volume="disk"))

    assert f"give confirm='{volumes.namespace}/data 1Gi'" in unconfirmed
    assert f"Others were of the same claim: {volumes.namespace}-new" in unconfirmed
    assert "is not Released" in bound
    assert "Released are " in missing
    assert f"{volumes.namespace}-third" in missing
    assert "there is a claim elsewhere already" in taken
    assert "no volume disk" in nowhere
    assert "its volumes are config, storage" in nowhere
    assert volumes.api.deployment(volumes.namespace, "web")["spec"]["replicas"] == 2


def test_a_volume_that_would_be_deleted_with_its_claim_is_refused(volumes, deployed_again):
    path = volumes.volume_path(deployed_again)
    held = {"metadata": {"finalizers": ["example.net/hold", "kubernetes.io/pv-protection"]}}
    volumes.api.client.patch(path, held)
    change = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    volumes.api.client.patch(path, change)
    volumes.wait_for_phase(deployed_again, "Failed")  # hostPath outside of its place is kept

    assert "is not Released" in refusal(volumes.run(deployed_again))


def test_a_chart_or_a_reconciler_that_would_take_it_back_is_told_by_name(volumes, deployed_again):
    path = volumes.api.path("apps/v1", "deployments", volumes.namespace, "web")
    owned = {"annotations": {"meta.helm.sh/release-name": "shop"}}
    volumes.api.client.patch(path, {"metadata": owned})

    refused = refusal(volumes.run(deployed_again))
    accepted = volumes.run(deployed_again, accept=["helm:shop"])

    assert "accept helm:shop" in refused
    assert "persistence.existingClaim: data-" in refused
    assert accepted.error is None, accepted.error


def test_a_zone_without_a_node_is_refused(volumes):
    key = "topology.kubernetes.io/zone"
    zone = {"key": key, "operator": "In", "values": ["nowhere-1a"]}
    terms = {"required": {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}}
    old = volumes.released("old", "data", nodeAffinity=terms)
    volumes.deployment(replicas=1)

    told = refusal(volumes.run(old))

    assert f"where volume {old} lies: 0 of 1 nodes" in told


def test_a_driver_that_runs_nowhere_is_refused(volumes):
    csi = {"driver": "disk.example.net", "volumeHandle": "h"}
    old = volumes.released("old", "data", csi=csi)
    volumes.deployment(replicas=1)

    assert "the CSI driver disk.example.net" in refusal(volumes.run(old))


def test_a_volume_that_is_attached_is_refused(volumes):
    old = volumes.released("old", "data")
    volumes.deployment(replicas=1)
    source = {"persistentVolumeName": old}
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": f"{old}-attached"},
        "spec": {"attacher": "disk.example.net", "nodeName": "lab-node", "source": source},
    }
    volumes.api.apply(body)

    assert "still attached to lab-node" in refusal(volumes.run(old))


def test_a_stateful_set_that_deletes_claims_is_not_scaled_down(volumes):
    old = volumes.released("old", "data-db-0")
    volumes.volume("new")
    policy = {"whenScaled": "Delete", "whenDeleted": "Retain"}
    volumes.stateful_set(replicas=1, persistentVolumeClaimRetentionPolicy=policy)

    ended = volumes.run(
        old,
        "statefulset/db",
        was="data-db-0",
        accept=["replaced-claim:data-db-0"],
    )

    assert "deletes its claims (whenScaled is Delete)" in refusal(ended)


def test_a_claim_whose_volume_would_go_with_it_does_not_give_way(volumes):
    old = volumes.released("old", "data-db-0")
    volumes.volume("new", policy="Delete")
    volumes.stateful_set(replicas=1)

    ended = volumes.run(
        old,
        "statefulset/db",
        was="data-db-0",
        accept=["replaced-claim:data-db-0"],
    )

    assert "its claims are data-db-NUMBER" in refusal(volumes.run(old, "db", claim="data-web-0"))
    assert f"of volume {volumes.namespace}-new, of claim data-db-0, is Delete" in refusal(ended)


def test_a_pod_that_does_not_go_stops_it_before_the_volume_is_touched(volumes, deployed_again):
    before = volumes.reference(deployed_again)
    volumes.api.node.holds_deletions = True
    try:
        ended = volumes.run(deployed_again, within_seconds=3)
    finally:
        volumes.api.node.holds_deletions = False

    assert isinstance(ended.error, NotVerified)
    assert volumes.reference(deployed_again) == before
    options = {"resume": ended.recovery_id}
    resumed = volumes.run(deployed_again, within_seconds=3, options=options)
    assert resumed.error is None, resumed.error


def test_a_pod_that_was_evicted_and_is_still_listed_holds_nothing_up(volumes, deployed_again):
    api, image = volumes.api, f"{volumes.namespace}/evicted"
    api.node.images[image] = Image(state=FAILS)
    web = api.deployment(volumes.namespace, "web")
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": True}
    metadata = {
        "name": "evicted",
        "labels": web["spec"]["template"]["metadata"]["labels"],
        "ownerReferences": [{**owner, "uid": web["metadata"]["uid"]}],
    }
    spec = {"containers": [{"name": "web", "image": image}], "restartPolicy": "Never"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    api.apply(body, volumes.namespace)
    path = api.path("v1", "pods", volumes.namespace, "evicted")

    def has_ended():
        return api.client.get(path)["status"].get("phase") == "Failed"

    wait_until(has_ended, "the pod to have ended", within_seconds=20)

    ended = volumes.run(deployed_again, within_seconds=5)

    assert ended.error is None, ended.error
    assert has_ended()


def test_a_daemon_set_or_no_volume_is_no_input(volumes):
    assert isinstance(volumes.run("").error, BadInput)
    assert isinstance(volumes.run("v", "daemonset/web").error, BadInput)
