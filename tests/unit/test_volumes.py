"""Judging released volumes, and the nodes that could use them, from what the API says."""

from contextlib import nullcontext

import pytest

from recovery.errors import NotVerified, Refused
from tasks.volumes import binding, placing, preflight, waiting
from tasks.volumes.target import read_volume_order
from tasks.volumes.triage import Due, Found, Pointing
from tasks.volumes.volume import claim_of, read_claim, read_volume
from tasks.workloads.interference import Interference, Interferer
from tasks.workloads.target import Workload, WorkloadKind

WEB = Workload(WorkloadKind.DEPLOYMENT, "shop", "web", "u", "k8s-app=web")
ZONE = "topology.kubernetes.io/zone"


def a_volume(phase="Released", policy="Retain", **meta):
    reference = {"namespace": "shop", "name": "data", "uid": "c"}
    spec = {
        "capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": "fast",
        "claimRef": reference,
    }
    return {
        "metadata": {"name": "pv", "uid": "p", "creationTimestamp": "then", **meta},
        "spec": spec,
        "status": {"phase": phase},
    }


def an_order(confirm="shop/data 5Gi", accept=()):
    return read_volume_order(
        "in-cluster:?namespace=shop&name=lab",
        "pv",
        "web",
        "",
        claim="",
        pod_volume="",
        confirm=confirm,
        accept=accept,
        within_seconds=1,
    )


def found_with(volume=None, *, claim="data", replaced=None, others=(), is_stopped=False):
    return Found(
        due=Due.REUSE,
        workload=WEB,
        volume=read_volume(volume or a_volume()),
        claim=claim,
        labels={},
        pointing=Pointing(0, {"name": "storage", "emptyDir": {}}, {"name": "storage"}),
        replaced=replaced,
        others_of_claim=[],
        others=list(others),
        is_stopped=is_stopped,
    )


class FakeSession:
    """Answers from a table of paths; what is not in it is not there."""

    def __init__(self, table):
        self.table = table

    def find(self, path):
        return self.table.get(path.rpartition("/")[2])

    def get(self, path):
        return self.table[path.rpartition("/")[2]]

    def objects(self, path, **_):
        return self.table.get(path.rpartition("/")[2], [])


def open_on(monkeypatch, order, table):
    session = FakeSession(table)
    monkeypatch.setattr(type(order.cluster), "session", lambda _: nullcontext(session))


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (a_volume("Bound"), "is not Released"),
        (a_volume("Available"), "is not Released"),
        (a_volume("Failed"), "is not Released"),
        (a_volume(policy="Delete"), "reclaim policy Delete"),
        (a_volume(deletionTimestamp="now"), "is being deleted"),
    ],
)
def test_a_volume_that_cannot_be_reused_is_refused(volume, said):
    with pytest.raises(Refused, match=said):
        preflight.refuse_unless_released.fn(an_order(), found_with(volume))


def test_what_an_earlier_reuse_set_aside_is_gone_on_with_only_while_the_workload_is_stopped():
    for phase in ("Available", "Bound"):
        found = found_with(a_volume(phase), is_stopped=True)
        preflight.refuse_unless_released.fn(an_order(), found)

    other = found_with(a_volume("Bound"), claim="another", is_stopped=True)
    with pytest.raises(Refused, match="is not Released"):
        preflight.refuse_unless_released.fn(an_order(), other)


@pytest.mark.parametrize("confirm", ["", "shop/data 1Gi", "shop/other 5Gi"])
def test_a_volume_that_nobody_confirmed_is_refused_with_what_it_was(confirm):
    with pytest.raises(Refused, match="give confirm='shop/data 5Gi'"):
        preflight.refuse_unless_confirmed.fn(an_order(confirm), found_with())


@pytest.mark.parametrize(
    ("who", "name"),
    [
        (Interferer.ARGO_CD, "shop"),
        (Interferer.OPERATOR, "Grafana/g"),
        (Interferer.HELM, "shop"),
        (Interferer.NOT_KNOWN, "autoscalers"),
    ],
)
def test_whoever_would_take_it_back_is_accepted_by_name_alone(who, name):
    found = found_with(others=[Interference(who, name, "it takes changes back")])

    with pytest.raises(Refused, match=f"accept {who}:{name}"):
        preflight.refuse_if_taken_back.fn(an_order(), found)
    preflight.refuse_if_taken_back.fn(an_order(accept=[f"{who}:{name}"]), found)


def test_a_budget_or_an_autoscaler_is_told_and_does_not_stop_it():
    others = [Interference(who, "x", "y") for who in (Interferer.BUDGET, Interferer.HPA)]

    preflight.refuse_if_taken_back.fn(an_order(), found_with(others=others))


def a_claim(name="data", volume="new"):
    metadata = {"name": name, "uid": "c2"}
    return {"metadata": metadata, "spec": {"volumeName": volume}, "status": {"phase": "Bound"}}


@pytest.mark.parametrize("volumes", [{"new": a_volume(policy="Delete")}, {}])
def test_a_claim_does_not_give_way_where_its_volume_might_go(monkeypatch, volumes):
    order, found = an_order(), found_with(replaced=read_claim(a_claim()))
    open_on(monkeypatch, order, volumes)

    with pytest.raises(Refused, match="the reclaim policy of volume new"):
        preflight.refuse_unless_kept(order, found)


def test_a_bound_volume_does_not_get_its_former_reference_back(monkeypatch):
    order, bound = an_order(), a_volume("Bound")
    bound["spec"]["claimRef"] = {**bound["spec"]["claimRef"], "uid": "other"}
    monkeypatch.setattr(binding, "wait_for", never)

    for claims in ({"data": a_claim(volume="pv")}, {}):  # it is there; the volume stays bound
        open_on(monkeypatch, order, {"pv": bound, **claims})
        with pytest.raises(Refused, match="is bound"):
            binding.reference_put_back.fn(order, found_with())


def test_the_way_back_leaves_a_claim_whose_volume_would_go_with_it(monkeypatch):
    order = an_order()
    open_on(monkeypatch, order, {"data": a_claim(volume="pv"), "pv": a_volume(policy="Delete")})

    with pytest.raises(Refused, match="the reclaim policy of pv is Delete"):
        binding.claim_removed.fn(order, found_with())


def never(*_, **__):
    return None


def test_a_claim_that_does_not_bind_is_told_with_its_event(monkeypatch):
    order = an_order()
    event = {"reason": "VolumeMismatch", "message": "storageClassName does not match"}
    open_on(monkeypatch, order, {"pv": a_volume("Available"), "events": [event]})
    monkeypatch.setattr(waiting, "wait_for", never)

    with pytest.raises(NotVerified, match=r"the claim is not there.*VolumeMismatch: storageClass"):
        waiting.is_bound.fn(order, found_with())


def test_a_node_that_does_not_let_go_is_told(monkeypatch):
    order = an_order()
    open_on(monkeypatch, order, {})
    source = {"persistentVolumeName": "pv"}
    attached = [{"spec": {"nodeName": "n1", "source": source}}]
    monkeypatch.setattr(waiting, "wait_for", lambda _, __, until, **___: until(attached))

    with pytest.raises(NotVerified, match=r"last saw n1 \(pv\)"):
        waiting.is_detached.fn(order, found_with())


def test_a_claim_that_a_pod_holds_is_told(monkeypatch):
    order, found = an_order(), found_with(replaced=read_claim(a_claim()))
    session = FakeSession({})
    monkeypatch.setattr(binding, "wait_for", never)

    with pytest.raises(NotVerified, match="a pod still uses it"):
        binding._wait_until_gone(session, order, found.replaced)


def test_a_claim_says_literally_what_its_volume_says():
    read = a_volume()
    del read["spec"]["storageClassName"]

    body = claim_of("shop", "data", read_volume(read), {})

    assert body["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "",
        "volumeMode": "Filesystem",
        "volumeName": "pv",
    }


def a_node(name="n1", ready="True", taints=(), **labels):
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


NO = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("node", "tolerations", "does"),
    [
        (a_node(), [], True),
        (a_node(ready="Unknown"), [], False),
        ({**a_node(), "spec": {"unschedulable": True}}, [], False),
        (a_node(taints=[NO]), [], False),
        (a_node(taints=[{**NO, "effect": "PreferNoSchedule"}]), [], True),
        (a_node(taints=[NO]), [{"key": "dedicated", "value": "db"}], True),
        (a_node(taints=[NO]), [{"key": "dedicated", "value": "web"}], False),
        (a_node(taints=[NO]), [{"operator": "Exists"}], True),
        (a_node(taints=[NO]), [{"key": "dedicated", "operator": "Exists"}], True),
        (a_node(taints=[NO]), [{"operator": "Exists", "effect": "NoExecute"}], False),
    ],
)
def test_which_nodes_take_a_pod(node, tolerations, does):
    assert placing.takes_pods(node, tolerations) is does


@pytest.mark.parametrize(
    ("wanted", "does"),
    [
        ({"operator": "In", "values": ["a", "b"]}, True),
        ({"operator": "In", "values": ["b"]}, False),
        ({"operator": "NotIn", "values": ["b"]}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
        ({"operator": "Gt", "values": ["1"]}, False),
    ],
)
def test_which_nodes_fit_a_term(wanted, does):
    node = a_node(**{ZONE: "a"})

    assert placing.fits(node, [{"matchExpressions": [{"key": ZONE, **wanted}]}]) is does


def test_terms_are_alternatives_and_an_empty_one_fits_nobody():
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}

    assert placing.fits(a_node(), [{}, here])
    assert not placing.fits(a_node(), [{}])
    assert not placing.fits(a_node("n2"), [here])


def test_pods_it_must_be_beside_bind_it_to_their_zone(monkeypatch):
    """Grafana and its database in one zone: a volume in another is of no use."""
    order, found = an_order(), found_with()
    term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "grafanadb"}}}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    spec = {"affinity": {"podAffinity": required}, "volumes": []}
    volume = a_volume()
    zone = {"key": ZONE, "operator": "In", "values": ["a"]}
    volume["spec"]["nodeAffinity"] = {
        "required": {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}
    }
    table = {
        "web": {"spec": {"template": {"spec": spec}}},
        "pv": volume,
        "nodes": [a_node("n1", **{ZONE: "a"}), a_node("n2", **{ZONE: "b"})],
        "pods": [{"spec": {"nodeName": "n2"}}],
    }
    open_on(monkeypatch, order, table)

    with pytest.raises(Refused, match="beside pods app=grafanadb"):
        placing.refuse_unless_a_node_fits.fn(order, found)
    table["pods"] = [{"spec": {"nodeName": "n1"}}]
    placing.refuse_unless_a_node_fits.fn(order, found)
