"""Who reads a key and how, what a value looks like, and which pods are newer than it."""

import pytest

from recovery.errors import BadInput
from recovery.secrecy.secret import Secret, isolated_registry
from tasks.settings.consumers import is_newer, key_owner
from tasks.settings.contents import as_it_stands, is_same, set_by_name, standing
from tasks.settings.order import ConfigOrder, ObjectKind, ValueSource, Wishes, config_order
from tasks.settings.readers import reading_of
from tasks.settings.value_types import ValueType, fits, type_of

PLACE = ("in-cluster:?namespace=divoc&name=lab", "", "configmap/divoc-config")
KEY = "LIMIT"
OURS = {"configMapRef": {"name": "divoc-config"}}
SECRETS = {"secretRef": {"name": "divoc-secrets"}}


@pytest.fixture(autouse=True)
def _no_secret_is_known():
    with isolated_registry():
        yield


@pytest.fixture(autouse=True)
def _in_a_cluster(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")


def an_order(config=PLACE[2], key=KEY, **source):
    return config_order(
        (*PLACE[:2], config), key, ValueSource(**(source or {"value": "1"})), WISHES
    )


WISHES = Wishes()


def read_by(container, *, volumes=(), has=()):
    pod = {"containers": [{"name": "web", **container}], "volumes": list(volumes)}
    return reading_of(an_order(), pod, lambda kind, name, key: f"{kind}/{name}/{key}" in has)


@pytest.mark.parametrize(
    ("container", "ways"),
    [
        ({"envFrom": [OURS]}, ["env LIMIT of web"]),
        ({"envFrom": [{**OURS, "prefix": "D_"}]}, ["env D_LIMIT of web"]),
        ({"envFrom": [{"configMapRef": {"name": "other"}}]}, []),
        ({"envFrom": [{"secretRef": {"name": "divoc-config"}}]}, []),
        (
            {
                "env": [
                    {
                        "name": "L",
                        "valueFrom": {"configMapKeyRef": {"name": "divoc-config", "key": KEY}},
                    }
                ]
            },
            ["env L of web"],
        ),
        (
            {
                "env": [
                    {
                        "name": "L",
                        "valueFrom": {"configMapKeyRef": {"name": "divoc-config", "key": "X"}},
                    }
                ]
            },
            [],
        ),
        ({"env": [{"name": "LIMIT", "value": "5"}]}, []),
    ],
)
def test_variables_that_are_read_from_the_key(container, ways):
    assert read_by(container).ways == ways


@pytest.mark.parametrize(
    ("volume", "mount", "ways"),
    [
        ({"configMap": {"name": "divoc-config"}}, {}, ["file /etc/d of web"]),
        (
            {"configMap": {"name": "divoc-config"}},
            {"subPath": KEY},
            ["file /etc/d of web, read once (subPath)"],
        ),
        ({"configMap": {"name": "divoc-config", "items": [{"key": "X", "path": "x"}]}}, {}, []),
        (
            {
                "projected": {
                    "sources": [{"secret": {"name": "s"}}, {"configMap": {"name": "divoc-config"}}]
                }
            },
            {},
            ["file /etc/d of web"],
        ),
        ({"secret": {"secretName": "divoc-config"}}, {}, []),
    ],
)
def test_files_that_hold_the_key(volume, mount, ways):
    mounts = [{"name": "v", "mountPath": "/etc/d", **mount}]

    found = read_by({"volumeMounts": mounts}, volumes=[{"name": "v", **volume}])

    assert found.ways == ways


@pytest.mark.parametrize(
    ("container", "has", "shadowed"),
    [
        ({"envFrom": [OURS, SECRETS]}, ["secret/divoc-secrets/LIMIT"], "secret/divoc-secrets"),
        ({"envFrom": [SECRETS, OURS]}, ["secret/divoc-secrets/LIMIT"], ""),
        ({"envFrom": [OURS, SECRETS]}, [], ""),
        ({"envFrom": [OURS], "env": [{"name": "LIMIT", "value": "5"}]}, [], "env of web"),
    ],
)
def test_the_last_source_of_a_variable_wins(container, has, shadowed):
    found = read_by(container, has=has)

    expected = [f"LIMIT of web is that of {shadowed}"] if shadowed else []
    assert found.shadowed == expected
    assert bool(found.ways) is not bool(shadowed)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("100", ValueType.NUMBER),
        ("-1.5", ValueType.NUMBER),
        ("1e3", ValueType.TEXT),
        ("False", ValueType.BOOLEAN),
        ("redis://172.31.27.143:6379", ValueType.URL),
        ("tcp://h:9000?debug=true", ValueType.URL),
        ("a:1,b:2", ValueType.TEXT),
        ("http://h:port", ValueType.TEXT),
        ('{"a": 1}', ValueType.JSON),
        ("[", ValueType.TEXT),
        ("", ValueType.TEXT),
    ],
)
def test_what_a_value_looks_like(value, kind):
    assert type_of(value) is kind
    assert fits(value, kind)
    assert fits(value, ValueType.TEXT)


def written(manager="recovery-pipelines", set_by="r1"):
    field = {"manager": manager, "time": "2026-11-29T10:00:00Z"}
    entry = {**field, "fieldsV1": {"f:data": {f"f:{KEY}": {}}}}
    annotations = {set_by_name(an_order()): set_by} if set_by else {}
    return {"metadata": {"annotations": annotations, "managedFields": [entry]}}


def a_pod(created="2026-11-29T10:00:00Z", mark=""):
    annotations = {"recovery-pipelines.io/restarted-by": mark}
    return {"metadata": {"creationTimestamp": created, "annotations": annotations}}


@pytest.mark.parametrize(
    ("pod", "read", "is_so"),
    [
        (a_pod("2026-11-29T10:00:01Z"), written(), True),
        (a_pod(), written(), False),
        (a_pod(mark="r1"), written(), True),
        (a_pod(mark="r1"), written("kubectl"), False),
        (a_pod(mark="r0"), written(), False),
        (a_pod("2026-11-29T10:00:01Z"), {"metadata": {}}, False),
    ],
)
def test_a_pod_is_newer_than_a_value_by_its_time_or_its_mark(pod, read, is_so):
    assert is_newer(pod, an_order(), read) is is_so


def test_who_wrote_a_key_last_is_read_from_its_managed_fields():
    assert key_owner(written("kubectl"), KEY) == ("kubectl", "2026-11-29T10:00:00Z")
    assert key_owner(written("kubectl"), "OTHER") == ("", "")


def test_a_secret_stands_in_base64_and_shows_as_its_mask(tmp_path):
    path = tmp_path / "new"
    path.write_text("s3cret-0f-the-lab\n")
    path.chmod(0o600)
    order = an_order("secret/divoc-secrets", value="", file=str(path))
    read = {"kind": "Secret", "data": {KEY: "czNjcmV0LTBmLXRoZS1sYWI="}}

    now = standing(order, read)

    assert order.kind is ObjectKind.SECRET
    assert str(now) == "***"
    assert is_same(now, as_it_stands(order, order.source.read()))
    assert not is_same(now, as_it_stands(order, Secret("an0ther-0f-the-lab")))
    assert standing(order, {"data": {}}) is None


@pytest.mark.parametrize("key", ["SMS_AUTH_KEY", "ADMIN_API_CLIENT_SECRET", "db.password"])
def test_a_key_that_looks_like_a_secret_is_not_given_in_the_open(key):
    with pytest.raises(BadInput, match="looks like a secret"):
        an_order(key=key)


@pytest.mark.parametrize("key", ["PUBLIC_KEY", "CERTIFICATE_PUBKEY_ID", "SECRETARY"])
def test_a_key_that_only_sounds_like_one_is(key):
    assert isinstance(an_order(key=key), ConfigOrder)
