"""`kubeadm join` and `kubeadm reset`, of a stand-in.

A control-plane node joins as with kubeadm 1.36: it is let in by a token, fetches the authorities
and opens them with the certificate key, becomes a learner of the real etcd and is given its vote
once it has caught up; only then the rest of the control plane is started.
"""

import base64
import hashlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization

from tests.lab.control_plane_design import FRESH, Design, Node
from tests.lab.control_plane_files import CURRENT, Authorities, File, node_files
from tests.lab.control_plane_manifests import MANIFESTS
from tests.lab.control_plane_store import Etcd, Unavailable
from tests.lab.control_plane_tls import AnswerNo, ApiClient
from tests.lab.kubeadm_standin_config import KubeadmError
from tests.lab.kubeadm_standin_invite import (
    PKI,
    create_token,
    delete_token,
    document,
    opened,
    upload_certificates,
)
from tests.lab.kubeadm_standin_reset import design_here, etcd_of, own_address, reset
from tests.lab.pki import Authority, load_certificates, load_key, new_key
from tests.lab.pki_kubeadm import KUBERNETES, kubeconfig

GIVEN = Path("/var/lib/lab/joined.json")  # for tests that look for what must show nowhere else
KUBELET = Path("/var/lib/kubelet")
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
LEFT = ("kubelet.conf", "admin.conf", "pki/ca.crt", "manifests/etcd.yaml")
WITHIN_SECONDS = 40


class FreshKeys:
    """Keys that are made when they are asked for."""

    def take(self, count: int) -> list[Any]:
        """Return so many."""
        return [new_key() for _ in range(count)]


class Invited:
    """Who comes with a token."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        invitation = config["discovery"]["bootstrapToken"]
        self.server = f"https://{invitation['apiServerEndpoint']}"
        self.token = invitation["token"]
        self.wanted = invitation["caCertHashes"]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send a request with the token.

        Raises:
            KubeadmError: the API refused, or was not reached.
        """
        parts = urlsplit(self.server)
        context = ssl._create_unverified_context()  # noqa: S323 - held against the hash below
        try:
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=5, context=context
            )
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise KubeadmError(
                f"couldn't validate the identity of the API Server: {error}"
            ) from error
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise KubeadmError(f"{path}: {text}")
        return json.loads(text)

    def authority(self) -> x509.Certificate:
        """The cluster's authority, by what cluster-info says and the hash that was given.

        Raises:
            KubeadmError: they do not fit.
        """
        info = self.ask("GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info")
        config = yaml.safe_load(info["data"]["kubeconfig"])
        pem = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
        found = load_certificates(pem)[0]
        public = found.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if f"sha256:{hashlib.sha256(public).hexdigest()}" not in self.wanted:
            raise KubeadmError("cluster CA found in cluster-info ConfigMap is invalid")
        return found


def join(flags: Mapping[str, str]) -> str:
    """`kubeadm join --config`."""
    config = document(flags["config"], "JoinConfiguration")
    GIVEN.touch(mode=0o600)
    GIVEN.write_text(json.dumps(config))
    left = [name for name in LEFT if (Path(KUBERNETES) / name).exists()]
    left += ["/var/lib/etcd"] if any(Path("/var/lib/etcd").glob("[!.]*")) else []
    if left:
        named = "\n".join(
            f"\t[ERROR FileAvailable--{name}]: {name} already exists" for name in left
        )
        raise KubeadmError(f"error execution phase preflight: preflight checks failed:\n{named}")
    invited = Invited(config)
    authority = invited.authority()
    design = design_here()
    name = config["nodeRegistration"]["name"]
    node = Node(name, Path("/etc/hostname").read_text().strip(), own_address(design))
    if "controlPlane" in config:
        _join_control_plane(invited, design, node, config)
        taints = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    else:
        _join_worker(invited, design, node, authority)
        taints = []
    _start_kubelet(config["nodeRegistration"].get("taints", taints))
    if "controlPlane" in config:
        _start_control_plane(design, node)
    return "This node has joined the cluster"


def _join_control_plane(
    invited: Invited, design: Design, node: Node, config: Mapping[str, Any]
) -> None:
    sealed = invited.ask("GET", "/api/v1/namespaces/kube-system/secrets/kubeadm-certs")["data"]
    try:
        files = opened(sealed, config["controlPlane"]["certificateKey"])
    except InvalidTag as error:
        raise KubeadmError("error decoding certs: cipher: message authentication failed") from error
    pairs = {
        name: Authority(load_certificates(files[f"{file}.crt"])[0], load_key(files[f"{file}.key"]))
        for name, file in (
            ("ca", "ca"),
            ("front-proxy-ca", "front-proxy-ca"),
            ("etcd-ca", "etcd/ca"),
        )
    }
    authorities = Authorities(pairs, load_key(files["sa.key"]))
    shape = replace(design, users=())
    tree = node_files(shape, node, authorities, FRESH, FreshKeys())  # type: ignore[arg-type]
    first = f"{KUBERNETES}/super-admin.conf"
    _write({path: file for path, file in tree.items() if path != first})
    for manifest in Path(MANIFESTS).glob("*.yaml"):  # they are started later, one by one
        manifest.rename(KUBELET / manifest.name)


def _write(tree: Mapping[str, File]) -> None:
    for path, file in tree.items():
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            target.unlink(missing_ok=True)
            target.symlink_to(file.link)
            continue
        target.touch(mode=file.mode)
        target.write_bytes(file.content)


def _join_worker(invited: Invited, design: Design, node: Node, authority: x509.Certificate) -> None:
    """Ask for a client certificate with the token, as the kubelet does."""
    key = new_key()
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, f"system:node:{node.name}"),
        ]
    )
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": SIGNER,
        "usages": ["digital signature", "client auth"],
    }
    asked = invited.ask("POST", REQUESTS, {"metadata": {"generateName": "csr-"}, "spec": spec})
    issued = _until(
        lambda: (
            invited.ask("GET", f"{REQUESTS}/{asked['metadata']['name']}")
            .get("status", {})
            .get("certificate")
        ),
        "the certificate of the kubelet",
    )
    from tests.lab.control_plane_files import _kubelet_settings  # noqa: PLC0415
    from tests.lab.pki import key_pem  # noqa: PLC0415

    config = kubeconfig(
        "default-cluster",
        invited.server,
        "default-auth",
        authority=authority.public_bytes(serialization.Encoding.PEM),
        context="default-context",
        certificate=CURRENT,
        key=CURRENT,
    )
    tree = _kubelet_settings(design, node)
    tree[CURRENT] = File(base64.b64decode(issued) + key_pem(key))
    tree[f"{PKI}/ca.crt"] = File(authority.public_bytes(serialization.Encoding.PEM), 0o644)
    tree[f"{KUBERNETES}/kubelet.conf"] = File(config)
    _write(tree)
    Path(MANIFESTS).mkdir(parents=True, exist_ok=True)


def _start_kubelet(taints: Sequence[Mapping[str, str]]) -> None:
    named = ",".join(f"{one['key']}={one.get('value', '')}:{one['effect']}" for one in taints)
    flags = KUBELET / "kubeadm-flags.env"
    text = flags.read_text().replace('ARGS="', f'ARGS="--register-with-taints={named} ', 1)
    flags.write_text(text)
    subprocess.run(["systemctl", "restart", "kubelet"], check=True)


def _start_control_plane(design: Design, node: Node) -> None:
    etcd = etcd_of([one for one in design.nodes if one.address != node.address])
    members = etcd.ask("/v3/cluster/member/list", {})["members"]
    peer = f"https://{node.address}:2380"
    added = next((one for one in members if peer in one["peerURLs"]), None)
    if added is None:
        asked = {"peerURLs": [peer], "isLearner": True}
        added = etcd.ask("/v3/cluster/member/add", asked)["member"]
    manifest = yaml.safe_load((KUBELET / "etcd.yaml").read_text())
    known = [(one["name"], one["peerURLs"][0]) for one in members if one.get("name")]
    joined = ",".join(f"{name}={url}" for name, url in [*known, (node.name, peer)])
    container = manifest["spec"]["containers"][0]
    container["command"] = [
        word for word in container["command"] if not word.startswith("--initial-cluster=")
    ] + [f"--initial-cluster={joined}", "--initial-cluster-state=existing"]
    (KUBELET / "etcd.yaml").unlink()
    _put_manifest("etcd", yaml.safe_dump(manifest))
    _until(lambda: _promoted(etcd, added["ID"]), "etcd to be given its vote")
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        _put_manifest(name, (KUBELET / f"{name}.yaml").read_text())
        (KUBELET / f"{name}.yaml").unlink()
    role = {"node-role.kubernetes.io/control-plane": ""}
    patch = {"metadata": {"labels": role}}
    _until(lambda: _patched(node.name, patch), "the node to be marked")


def _put_manifest(name: str, text: str) -> None:
    Path(MANIFESTS).mkdir(parents=True, exist_ok=True)
    partial = Path(MANIFESTS) / f".{name}.partial"
    partial.write_text(text)
    partial.rename(Path(MANIFESTS) / f"{name}.yaml")


def _promoted(etcd: Etcd, member: str) -> bool:
    try:
        etcd.ask("/v3/cluster/member/promote", {"ID": member})
    except Unavailable as error:
        # What has its vote already is told by nearly the same words as what lags behind still.
        return "can only promote a learner" in str(error) and "in sync" not in str(error)
    return True


def _patched(name: str, patch: object) -> bool:
    try:
        ApiClient.of_kubeconfig(f"{KUBERNETES}/admin.conf").ask(
            "PATCH", f"/api/v1/nodes/{name}", patch
        )
    except (AnswerNo, OSError):
        return False
    return True


def _until(look: Any, what: str) -> Any:
    ends = time.monotonic() + WITHIN_SECONDS
    while not (seen := look()):
        if time.monotonic() > ends:
            raise KubeadmError(f"timed out waiting for {what}")
        time.sleep(0.3)
    return seen


COMMANDS = {
    ("join",): join,
    ("reset",): reset,
    ("token", "create"): create_token,
    ("init", "phase", "upload-certs"): upload_certificates,
}
SWITCHES = frozenset({"force", "upload-certs", "skip-certificate-key-print"})
VALUES = frozenset({"config", "cri-socket", "v"})


def knows(words: Sequence[str]) -> bool:
    """Whether these words are a command of this module."""
    return any(tuple(words[: len(known)]) == known for known in [*COMMANDS, ("token", "delete")])


def main(words: Sequence[str]) -> int:
    """Do what the words say and return the exit code."""
    os.umask(0o022)
    try:
        if tuple(words[:2]) == ("token", "delete"):
            said = delete_token(words[2])
        else:
            known = next(one for one in COMMANDS if tuple(words[: len(one)]) == one)
            said = COMMANDS[known](_flags(list(words[len(known) :])))
    except KubeadmError as error:
        sys.stderr.write(f"error: {error.text}\n")
        return error.exit_code
    sys.stdout.write(f"{said}\n")
    return 0


def _flags(rest: list[str]) -> dict[str, str]:
    found = {}
    while rest:
        name, equals, value = rest.pop(0).removeprefix("--").partition("=")
        if name not in SWITCHES | VALUES:
            raise KubeadmError(f"unknown flag: --{name}")
        found[name] = value if equals or name in SWITCHES else rest.pop(0)
    return found
