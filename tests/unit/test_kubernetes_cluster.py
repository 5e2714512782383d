"""Reading what names a cluster, and what its API says no with."""

import base64
import json

import pytest

from blocks.kube import text
from blocks.kube.access import Access, Source, open_access, place_of_server
from blocks.kube.answer import (
    Answer,
    ClusterConflict,
    ClusterForbidden,
    ClusterLoginRefused,
    ClusterRejected,
    EvictionBlocked,
    Question,
    refuse_bad_answer,
)
from blocks.kube.cluster import KubernetesCluster
from blocks.kube.fence import fence_annotation, refuse_later
from blocks.kube.path import asked_by, path_of, with_query
from blocks.kube.seen import learn_secrets, told
from recovery.errors import AnswerLost, BadInput, Fenced, Unreachable
from recovery.secrecy.redaction import isolated_registry, redact
from recovery.walk import Fence

CONF = """
current-context: prod
clusters:
- {name: one, cluster: {server: "https://10.0.0.1:6443"}}
contexts:
- {name: prod, context: {cluster: one, namespace: divoc}}
- {name: lab, context: {cluster: one}}
"""


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "conf"
    path.write_text(CONF)
    return path


def test_a_url_names_file_context_namespace_and_whom_to_impersonate(conf):
    url = f"kubeconfig://{conf}?context=lab&namespace=ns&as=kim&as_group=a&as_group=b"

    cluster = KubernetesCluster.named(url)

    assert cluster.kubeconfig == conf
    assert (cluster.context, cluster.namespace) == ("lab", "ns")
    assert (cluster.as_user, cluster.as_groups) == ("kim", ["a", "b"])
    assert cluster.label == "kubernetes://10.0.0.1:6443"


def test_two_contexts_of_one_cluster_are_one_target(conf):
    first, second = (
        KubernetesCluster.named(f"kubeconfig://{conf}?context={name}") for name in ("lab", "prod")
    )

    assert first.label == second.label


def test_a_name_of_its_own_is_the_target(conf):
    assert KubernetesCluster.named(f"kubeconfig://{conf}?name=prod").label == "kubernetes://prod"


def test_a_variable_names_the_file(conf, monkeypatch):
    monkeypatch.setenv("LAB_CONF", str(conf))

    assert KubernetesCluster.named("kubeconfig:?env=LAB_CONF").label == "kubernetes://10.0.0.1:6443"


def test_in_the_cluster_the_address_is_that_of_the_service(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    assert KubernetesCluster.named("in-cluster:").label == "kubernetes://10.96.0.1:443"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kubeconfig:", "names no kubeconfig"),
        ("kubeconfig:relative", "absolute path"),
        ("kubeconfig:///a?env=B", "one too many"),
        ("kubeconfig://host/path", "is in it"),
        ("kubeconfig:///a?token=abc", "not known"),
        ("kubeconfig:///a?context=", "or empty"),
        ("kubeconfig:///a?context=b&context=c", "twice"),
        ("kubeconfig:///a?as_group=b", "together with a user"),
        ("in-cluster:?context=a", "there is no context"),
        ("in-cluster:/path", "names no kubeconfig"),
        ("/root/.kube/config", "is a path. Write kubeconfig:///root/.kube/config"),
        ("prod", "neither kubeconfig:///path.*, nor in-cluster: nor,"),
    ],
)
def test_a_url_that_is_malformed_is_refused_by_its_part(url, said):
    with pytest.raises(BadInput, match=said):
        KubernetesCluster.named(url)


def test_a_file_that_is_missing_is_told_by_the_parameter_that_names_it(tmp_path):
    with pytest.raises(BadInput, match=r"cluster \(kubeconfig\): there is no file /.*nowhere"):
        place_of_server(Source(tmp_path / "nowhere"))


def test_a_context_that_is_missing_is_told_with_those_there_are(conf):
    with pytest.raises(BadInput, match="It has lab, prod"):
        place_of_server(Source(conf, "", "other"))


KUBEADM = """
{current}
contexts:
- name: kubernetes-admin@kubernetes
  context: {{cluster: kubernetes, user: kubernetes-admin, namespace: {name}-apps}}
clusters:
- name: kubernetes
  cluster: {{server: "https://{name}.example:6443"}}
users:
- name: kubernetes-admin
  user: {{token: not-the-token-of-{name}}}
"""
CURRENT = "current-context: kubernetes-admin@kubernetes"


@pytest.mark.parametrize("first", ["prod", "staging"])
@pytest.mark.parametrize("is_current_in_second", [False, True])
def test_of_equal_names_in_two_files_the_first_is_named_and_asked(
    tmp_path, monkeypatch, first, is_current_in_second
):
    for name in ("prod", "staging"):
        is_current = (name == first) is not is_current_in_second
        conf = KUBEADM.format(name=name, current=CURRENT if is_current else "")
        (tmp_path / name).write_text(conf)
    names = [first, *({"prod", "staging"} - {first})]
    monkeypatch.setenv("KUBECONFIG", ":".join(str(tmp_path / name) for name in names))
    cluster = KubernetesCluster.named("kubeconfig:?env=KUBECONFIG")

    access = open_access(cluster.source)

    assert access.place == f"{first}.example:6443"
    assert cluster.label == f"kubernetes://{access.place}"
    assert access.namespace == f"{first}-apps"


@pytest.mark.parametrize("content", ["", "- a", "a: [", "current-context: x"])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path, content):
    path = tmp_path / "conf"
    path.write_text(content)

    with pytest.raises(BadInput, match=r"conf"):
        place_of_server(Source(path))


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/api/v1/namespaces/a/pods", "list pods in namespace a"),
        ("GET", "/api/v1/namespaces/a/pods/b/log?x=1", "get pods/log in namespace a"),
        ("GET", "/api/v1/namespaces/a", "get namespaces"),
        ("POST", "/apis/batch/v1/namespaces/a/jobs", "create jobs.batch in namespace a"),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale",
         "patch deployments/scale.apps in namespace a"),
        ("GET", "/api/v1/namespaces/a/pods/b/exec", "create pods/exec in namespace a"),
        ("DELETE", "/api/v1/persistentvolumes/b", "delete persistentvolumes"),
        ("GET", "/version", "None"),
        ("GET", "/apis/apps", "None"),
    ],
)  # fmt: skip
def test_a_request_needs_this_right(method, path, right):
    assert str(asked_by(method, path)) == right


def test_a_path_is_made_of_quoted_parts():
    assert path_of("v1", "pods", "a/b", namespace="n") == "/api/v1/namespaces/n/pods/a%2Fb"
    assert with_query("/x", labelSelector="a=b", limit=5, fieldSelector="", watch=True) == (
        "/x?labelSelector=a=b&limit=5&watch=true"
    )


def status(code, reason, message, **details):
    body = {"kind": "Status", "message": message, "reason": reason, "code": code}
    return Answer(code, json.dumps({**body, "details": details}), "7" if code == 429 else "")


QUESTION = Question(
    "k", "PATCH /x", asked_by("PATCH", "/apis/apps/v1/namespaces/a/deployments/b"), is_change=True
)
EVICTION = Question(
    "k", "POST /x", asked_by("POST", "/api/v1/namespaces/a/pods/b/eviction"), is_change=True
)
LOOK = Question("k", "GET /x", asked_by("GET", "/api/v1/pods"), is_change=False)
BUDGET = [{"reason": "DisruptionBudget", "message": "needs 2 healthy pods and has 2"}]


@pytest.mark.parametrize(
    ("question", "answer", "error", "said"),
    [
        (LOOK, status(401, "Unauthorized", "Unauthorized"), ClusterLoginRefused, "exec plugin"),
        (QUESTION, status(403, "Forbidden", 'User "a" cannot patch'), ClusterForbidden,
         'resources: ["deployments"], verbs: ["patch"]'),
        (QUESTION, status(403, "Forbidden", "exceeded quota: compute"), ClusterRejected, "quota"),
        (QUESTION, status(400, "BadRequest", 'admission webhook "a.b" denied the request: no'),
         ClusterRejected, "denied the request"),
        (QUESTION, status(500, "InternalError", 'failed calling webhook "a.b": no endpoints'),
         ClusterRejected, "failurePolicy"),
        (QUESTION, status(409, "Conflict", "the object has been modified"),
         ClusterConflict, "new plan"),
        (QUESTION, status(422, "Invalid", "spec.replicas: Invalid value"),
         ClusterRejected, "Invalid"),
        (QUESTION, status(504, "Timeout", "request did not complete"), AnswerLost, "may have run"),
        (LOOK, status(503, "ServiceUnavailable", "apiserver is shutting down"), Unreachable, "503"),
        (LOOK, status(429, "TooManyRequests", "too many"), Unreachable, "asks to wait 7 s"),
        (EVICTION, status(429, "TooManyRequests", "Cannot evict", causes=BUDGET), EvictionBlocked,
         "needs 2 healthy pods"),
    ],
)  # fmt: skip
def test_an_answer_that_is_a_no_is_told_by_name(question, answer, error, said):
    with pytest.raises(error) as refused:
        refuse_bad_answer(question, answer)

    assert type(refused.value) is error
    assert said in str(refused.value)


def test_what_is_filled_into_a_patch_is_the_version_and_the_fence_alone():
    read = {"metadata": {"resourceVersion": "7", "uid": "u"}, "spec": {"replicas": 3}}
    change = [*text.tests(uid="u"), {"op": "replace", "path": "/spec/replicas", "value": 0}]

    sent = text.filled_patch(change, read, ("fence.x/y", "id:1:j"))

    assert sent == [
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        *change,
        text.tested("/metadata/resourceVersion", "7"),
        {"op": "add", "path": "/metadata/annotations/fence.x~1y", "value": "id:1:j"},
    ]
    assert text.patch_text("/p", change) == text.patch_text("/p", list(change))


def test_a_test_that_does_not_hold_is_told_with_what_is_there():
    read = {"spec": {"replicas": 3}}

    assert text.changed_since(read, text.tests(replicas=3)) == ""
    assert text.changed_since(read, text.tests(replicas=0)) == "/spec/replicas is 3, and was 0"
    assert text.changed_since(read, text.tests(uid="a")).startswith("/metadata/uid is not there")


def test_an_older_attempt_refuses_to_change_what_a_later_one_has_changed():
    old, new = (Fence("r", epoch, "target", journal="j") for epoch in (1, 2))
    name, value = fence_annotation(new)
    read = {"metadata": {"annotations": {name: value}}}

    refuse_later(read, new, "p")
    refuse_later(read, Fence("r", 1, "other target", journal="j"), "p")
    refuse_later(read, Fence("r", 1, "target", journal="another"), "p")
    with pytest.raises(Fenced, match="epoch 2 of recovery r"):
        refuse_later(read, old, "p")


def test_the_values_of_a_secret_are_told_nowhere():
    value = "s3cret-of-the-lab"
    encoded = base64.b64encode(value.encode()).decode()
    read = {
        "kind": "Secret",
        "metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"},
        "data": {"password": encoded},
    }

    with isolated_registry():
        learn_secrets(read)

        assert told(read) == "Secret b/a (resourceVersion 1): keys password"
        assert value not in redact(f"x {value} {encoded}")
        assert encoded not in redact(f"x {value} {encoded}")


def test_the_address_of_an_api_is_its_host_port_and_path():
    assert Access("https://rancher.lab/k8s/c-1/", "", "", None).place == "rancher.lab:443/k8s/c-1"
    assert Access("https://[::1]:6443", "", "", None).place == "[::1]:6443"
