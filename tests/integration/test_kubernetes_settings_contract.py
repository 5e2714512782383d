"""What is relied on of ConfigMaps and Secrets, asked of the real API and of the stand-in."""

import base64

import pytest

from blocks.kube import text
from blocks.kube.answer import ClusterConflict, ClusterRejected
from blocks.kube.cluster import KubernetesCluster
from recovery.secrecy.secret import Secret
from tasks.settings.consumers import key_owner

PLAIN, OTHER = "s3cret-0f-the-lab", "an0ther-0f-the-lab"


def encoded(value):
    return base64.b64encode(value.encode()).decode()


@pytest.fixture
def api(either_kubernetes):
    return either_kubernetes


@pytest.fixture
def namespace(api):
    return api.namespace("settings")


@pytest.fixture
def session(api):
    with KubernetesCluster.named(api.url).session() as session:
        yield session


def test_a_value_with_signs_that_go_escapes_can_be_tested_for(api, session, namespace):
    path = api.path("v1", "configmaps", namespace)
    odd = "http://a/?b=1&c=<2>ü\u2028'\"\\\t"
    api.client.post(path, {"metadata": {"name": "settings"}, "data": {"url": odd}})
    tested = [text.tested("/data/url", Secret(odd)), text.tested("/metadata/name", "settings")]

    change = {"op": "replace", "path": "/data/url", "value": Secret(f"{odd}&")}
    changed = session.patch(f"{path}/settings", [*tested, change])

    assert changed["data"]["url"] == f"{odd}&"


def test_who_wrote_a_key_last_and_when_is_noted_for_each_key(api, session, namespace):
    path = api.path("v1", "configmaps", namespace)
    values = {"limit": "5", "url": "http://a"}
    api.client.post(path, {"metadata": {"name": "settings"}, "data": values})

    change = {"op": "replace", "path": "/data/limit", "value": "7"}
    changed = session.patch(f"{path}/settings", [change])

    manager, written_at = key_owner(changed, "limit")
    assert manager == "recovery-pipelines"
    assert written_at >= changed["metadata"]["creationTimestamp"]
    assert key_owner(changed, "url")[0] not in {"", "recovery-pipelines"}
    assert key_owner(changed, "other") == ("", "")

    again = api.client.patch(f"{path}/settings", {"data": {"limit": "9"}})
    assert key_owner(again, "limit")[0] not in {"", "recovery-pipelines"}


def test_a_typed_secret_is_tested_and_written_by_its_value(api, session, namespace):
    path = api.path("v1", "secrets", namespace)
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}
    session.create(path, {**body, "data": {"key": Secret(encoded(PLAIN))}})
    change = {"op": "replace", "path": "/data/key", "value": Secret(encoded(OTHER))}
    test = text.tested("/data/key", Secret(encoded(PLAIN)))

    session.patch(f"{path}/keys", [test, change])
    with pytest.raises(ClusterConflict) as conflict:
        session.patch(f"{path}/keys", [test, change])

    assert api.client.get(f"{path}/keys")["data"] == {"key": encoded(OTHER)}
    told = str(conflict.value)
    assert "/data/key is another value, and not what it was" in told
    assert not [one for one in (PLAIN, OTHER) if one in told or encoded(one) in told]


def test_an_immutable_object_keeps_its_values(api, session, namespace):
    path = api.path("v1", "secrets", namespace)
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "immutable": True}
    session.create(path, {**body, "data": {"before": Secret(encoded(PLAIN))}})

    with pytest.raises(ClusterRejected, match="field is immutable when `immutable` is set"):
        session.patch(f"{path}/kept", [{"op": "remove", "path": "/data/before"}])

    assert session.get(f"{path}/kept")["data"] == {"before": encoded(PLAIN)}
