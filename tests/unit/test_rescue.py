"""Whether a self-hosted component needs a pod that stands in, and where it is put."""

import pytest

from recovery.errors import BadInput, Refused
from tasks.certificates.catalogue import Component
from tasks.rescue.order import (
    RescueOrder,
    node_for,
    rescue_order,
    stand_in_spec,
    why_rescued,
)


class NoCluster:
    label = "lab"


def node(name, *, is_ready=True, **labels):
    status = {"conditions": [{"type": "Ready", "status": "True" if is_ready else "Unknown"}]}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def order(name=""):
    return RescueOrder(NoCluster(), "kube-system", Component.SCHEDULER, name, 60)


@pytest.mark.parametrize(
    ("available", "age", "why"),
    [
        (0, None, "renewed never"),
        (0, 90.0, "renewed 90 s ago"),
        (0, 5.0, ""),
        (1, 90.0, ""),
    ],
)
def test_a_pod_stands_in_only_where_nothing_runs_and_nobody_leads(available, age, why):
    found = why_rescued({"status": {"availableReplicas": available}}, age)

    assert (why in found) if why else found == ""


MASTER = {"node-role.kubernetes.io/control-plane": ""}
NODES = [
    node("w1"),
    node("cp1", is_ready=False, **MASTER),
    node("cp2", **MASTER),
]


@pytest.mark.parametrize(
    ("named", "selector", "chosen"),
    [("", {}, "cp2"), ("w1", {}, "w1"), ("", MASTER, "cp2")],
)
def test_it_is_put_on_a_node_that_is_ready_and_meant_for_it(named, selector, chosen):
    assert node_for(order(named), {"nodeSelector": selector}, NODES) == chosen


@pytest.mark.parametrize(
    ("named", "selector", "said"),
    [
        ("cp1", {}, "the node cp1 is not Ready"),
        ("w1", MASTER, "Name one of: cp2"),
        ("", {"disk": "ssd"}, "no node is Ready"),
    ],
)
def test_where_no_node_can_take_it_that_is_said(named, selector, said):
    with pytest.raises(Refused) as refused:
        node_for(order(named), {"nodeSelector": selector}, NODES)

    assert said in str(refused.value)


def test_it_is_the_deployments_own_pod_past_the_scheduler():
    spec = {"schedulerName": "own", "hostNetwork": True, "containers": [{"name": "a"}]}

    assert stand_in_spec(spec, "cp1") == {
        "hostNetwork": True,
        "containers": [{"name": "a"}],
        "nodeName": "cp1",
    }
    assert "nodeName" not in spec


def test_no_time_at_all_is_no_time():
    with pytest.raises(BadInput, match="within_seconds"):
        rescue_order("in-cluster:", Component.SCHEDULER, "", "", 0)
