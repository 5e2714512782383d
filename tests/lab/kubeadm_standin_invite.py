"""`kubeadm token` and `kubeadm init phase upload-certs`, of a stand-in: how others may join.

As the real ones do it: a token is a Secret that ends by itself, and what is uploaded is encrypted
file by file with AES-GCM under the certificate key.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.lab.control_plane_tls import AnswerNo, ApiClient
from tests.lab.kubeadm_standin_config import KubeadmError

ADMIN = "/etc/kubernetes/admin.conf"
PKI = Path("/etc/kubernetes/pki")
SECRETS = "/api/v1/namespaces/kube-system/secrets"
UPLOADED = (
    *("ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"),
    *("etcd/ca.crt", "etcd/ca.key"),
)
NONCE_BYTES = 12


def document(path: str, kind: str) -> dict[str, Any]:
    """Read the document of a kind out of a configuration.

    Raises:
        KubeadmError: there is none.
    """
    for read in yaml.safe_load_all(Path(path).read_text()):
        if isinstance(read, dict) and read.get("kind") == kind:
            return read
    raise KubeadmError(f"no kind {kind!r} found in the supplied config")


def create_token(flags: Mapping[str, str]) -> str:
    """`kubeadm token create --config`; returns what is printed."""
    (asked,) = document(flags["config"], "InitConfiguration")["bootstrapTokens"]
    public, _, secret = asked["token"].partition(".")
    said = {
        "token-id": public,
        "token-secret": secret,
        "auth-extra-groups": ",".join(asked["groups"]),
        "description": asked.get("description", ""),
        **{f"usage-bootstrap-{usage}": "true" for usage in asked["usages"]},
    }
    _put(f"bootstrap-token-{public}", said, "bootstrap.kubernetes.io/token")
    return str(asked["token"])


def delete_token(public: str) -> str:
    """`kubeadm token delete`."""
    try:
        _admin().ask("DELETE", f"{SECRETS}/bootstrap-token-{public}")
    except AnswerNo as error:
        raise KubeadmError(f"failed to delete bootstrap token {public!r}") from error
    return f'bootstrap token "{public}" deleted'


def upload_certificates(flags: Mapping[str, str]) -> str:
    """`kubeadm init phase upload-certs --upload-certs --config`."""
    config = document(flags["config"], "InitConfiguration")
    document(
        flags["config"], "ClusterConfiguration"
    )  # else it would ask the internet for a release
    cipher = AESGCM(bytes.fromhex(config["certificateKey"]))
    sealed = {}
    for name in UPLOADED:
        nonce = os.urandom(NONCE_BYTES)
        content = nonce + cipher.encrypt(nonce, (PKI / name).read_bytes(), None)
        sealed[name.replace("/", "-")] = base64.b64encode(content).decode()
    _put("kubeadm-certs", sealed, "Opaque", is_coded=True)
    return '[upload-certs] Storing the certificates in Secret "kubeadm-certs"'


def opened(sealed: Mapping[str, str], key: str) -> dict[str, bytes]:
    """The files in the Secret kubeadm-certs.

    Raises:
        cryptography.exceptions.InvalidTag: it is not the key they were encrypted with.
    """
    cipher = AESGCM(bytes.fromhex(key))
    found = {}
    for name in UPLOADED:
        content = base64.b64decode(base64.b64decode(sealed[name.replace("/", "-")]))
        nonce, rest = content[:NONCE_BYTES], content[NONCE_BYTES:]
        found[name] = cipher.decrypt(nonce, rest, None)
    return found


def _admin() -> ApiClient:
    return ApiClient.of_kubeconfig(ADMIN)


def _put(name: str, said: Mapping[str, str], kind: str, *, is_coded: bool = False) -> None:
    secret = {
        "metadata": {"name": name, "namespace": "kube-system"},
        "type": kind,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in said.items()},
    }
    try:
        _admin().ask("POST", SECRETS, secret)
    except AnswerNo as error:
        if error.code != 409 or not is_coded:
            raise KubeadmError(f"{error}") from error
        _admin().ask("PUT", f"{SECRETS}/{name}", secret)
