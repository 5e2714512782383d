"""Rescuing a self-hosted scheduler or controller manager against a Kubernetes API."""

import pytest

import flows.rescue  # noqa: F401 (declares the recoveries)
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import NotVerified, Refused
from recovery.journal.history import RecoveryState
from recovery.run import Options
from tests.integration.rescue_runs import SelfHosted

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))


def run(api, namespace, name="rescue-scheduler", within_seconds=40, **options):
    parameters = {
        "cluster": api.url_for(name, namespace),
        "namespace": namespace,
        "node": "",
        "within_seconds": within_seconds,
    }
    return run_plainly(RECOVERIES[name], parameters, Options(**options))


@pytest.mark.parametrize("component", ["scheduler", "controller-manager"])
def test_a_pod_stands_in_until_the_deployment_runs_and_is_removed(kubernetes, component):
    """The second run finds it well, and changes nothing."""
    namespace, recovery = kubernetes.namespace("rescue"), f"rescue-{component}"
    with SelfHosted(kubernetes, namespace, f"kube-{component}") as hosted:
        ended = run(kubernetes, namespace, recovery)
        again = run(kubernetes, namespace, recovery)

        assert ended.state is RecoveryState.RECOVERED, ended.error
        assert hosted.rescue is None
        assert hosted.available == 1
        assert ended.result.node == "lab-node"
        assert again.result.why == ""


def test_a_rescue_that_does_not_help_is_told_and_taken_back_by_undo(kubernetes):
    """The pod runs and never leads, as one that may not write its Lease."""
    namespace = kubernetes.namespace("rescue")
    with SelfHosted(kubernetes, namespace, leads=False) as hosted:
        ended = run(kubernetes, namespace, within_seconds=3)
        stood_in = hosted.rescue
        undone = run(
            kubernetes,
            namespace,
            within_seconds=3,
            resume=ended.recovery_id,
            undo_by="test",
            break_glass="test",
        )

        assert isinstance(ended.error, NotVerified), ended.error
        assert stood_in["spec"]["nodeName"] == "lab-node"
        assert undone.state is RecoveryState.UNDONE, undone.error
        assert hosted.rescue is None


def test_what_is_no_deployment_and_what_is_scaled_to_none_are_refused(kubernetes):
    namespace = kubernetes.namespace("rescue")
    missing = run(kubernetes, namespace)
    with SelfHosted(kubernetes, namespace) as hosted:
        path = kubernetes.path("apps/v1", "deployments", namespace, hosted.name)
        kubernetes.client.patch(path, {"spec": {"replicas": 0}})
        stopped = run(kubernetes, namespace)

        kubernetes.client.patch(path, {"spec": {"replicas": 1}})
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{hosted.name}-rescue"},
            "spec": {"containers": [{"name": "other", "image": f"{namespace}/other:1"}]},
        }
        hosted.leads = False
        kubernetes.apply(pod, namespace)
        taken = run(kubernetes, namespace)

    assert isinstance(taken.error, Refused), taken.error
    assert "is not of this recovery" in str(taken.error)
    assert isinstance(missing.error, Refused), missing.error
    assert "recover run recover-scheduler" in str(missing.error)
    assert isinstance(stopped.error, Refused), stopped.error
    assert "scaled to 0" in str(stopped.error)
