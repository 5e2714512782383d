"""What the real kubeadm makes of the configurations that a replacement sends it on standard input.

It is skipped where kubeadm or a real Kubernetes API is absent.
"""

import base64
import subprocess

import pytest
import yaml

from recovery.secrecy.redaction import isolated_registry
from recovery.secrecy.secret import Secret
from tasks.kubeadm_nodes.joining import invitation_of, joining_of
from tests.lab.control_plane_host import binary
from tests.lab.kubernetes_api import REAL
from tests.unit.test_kubeadm_nodes import LOST, READY, WANTED

TOKEN, KEY = "abc123.0123456789abcdef", "12" * 32
SECRETS = "/api/v1/namespaces/kube-system/secrets"


@pytest.fixture
def kubeadm(kubernetes, tmp_path):
    """Runs kubeadm against the API; returns its exit code and what it printed."""
    program = binary("kubeadm")
    if program is None or kubernetes.kind != REAL:
        pytest.skip("there is no kubeadm beside a real Kubernetes API")
    kubeconfig = kubernetes.url.removeprefix("kubeconfig://").partition("?")[0]

    def run(*words, text=""):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        given = [str(file) if word == "FILE" else word for word in words]
        if words[0] != "config":
            given += ["--kubeconfig", kubeconfig]
        done = subprocess.run([program, *given], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def sent(tmp_path):
    """The two configurations: what invites, and what joins."""
    cluster = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": "v1.36.2",
        "certificatesDir": str(tmp_path / "pki"),
    }
    with isolated_registry():
        token, key = Secret(TOKEN), Secret(KEY)
        invites = invitation_of(READY.kubeadm, token, key, yaml.safe_dump(cluster)).reveal()
        joins = joining_of(WANTED, LOST, READY, token, key).reveal()
    return invites, joins


def test_both_configurations_are_valid(kubeadm, sent):
    for text in sent:
        assert kubeadm("config", "validate", "--config", "FILE", text=text)[0] == 0


def test_token_and_key_are_taken_from_the_configuration_and_no_key_is_printed(
    kubeadm, sent, kubernetes
):
    invites, _ = sent
    upload = ("init", "phase", "upload-certs", "--upload-certs", "--skip-certificate-key-print")

    created = kubeadm("token", "create", "--config", "FILE", text=invites)
    secret = kubernetes.client.get(f"{SECRETS}/bootstrap-token-abc123")
    again = kubeadm("token", "create", "--config", "FILE", text=invites)
    uploaded = kubeadm(*upload, "--config", "FILE", text=invites)
    deleted = kubeadm("token", "delete", "abc123")

    assert created[0] == 0, created
    assert base64.b64decode(secret["data"]["token-secret"]).decode() == TOKEN.partition(".")[2]
    assert again[0] == 1
    assert uploaded[0] == 0, uploaded
    assert KEY not in uploaded[1]
    assert TOKEN.partition(".")[2] not in again[1]
    assert kubernetes.client.get(f"{SECRETS}/kubeadm-certs")["data"]
    assert deleted[0] == 0, deleted
