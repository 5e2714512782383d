"""What the kubelet's stand-in has to do with the API: its certificates, its Node, mirror pods."""

import base64
import contextlib
import os
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.lab.control_plane_tls import AnswerNo, ApiClient
from tests.lab.pki import (
    Validity,
    ends_at,
    key_pem,
    load_certificates,
    new_key,
    new_rsa_key,
    self_signed,
    starts_at,
)

FOLDER = Path("/var/lib/kubelet/pki")
CURRENT = FOLDER / "kubelet-client-current.pem"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
ROTATE_BELOW = 0.2  # of its lifetime left; really somewhere between 0.1 and 0.3
REPORT_SECONDS = 1.0
VERSION_FILE = Path("/etc/lab/version")


class Refusal(Exception):
    """The kubelet does not start; carries what it says in the journal."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines


class ClientCertificate:
    """The certificate by which the kubelet speaks to the API, and its rotation.

    Raises:
        Refusal: there is none, or it has expired: the kubelet would need to bootstrap.
    """

    def __init__(self, kubeconfig: str, bootstrap: str, rotates: bool) -> None:  # noqa: FBT001
        self._kubeconfig = kubeconfig
        self._rotates = rotates
        self._pending = ""
        self._key = new_key()
        missing = (
            '"command failed" err="failed to run Kubelet: unable to load bootstrap kubeconfig: '
            f'stat {bootstrap}: no such file or directory"'
        )
        try:
            pem = self._pem()
        except (OSError, KeyError, yaml.YAMLError, StopIteration) as error:
            raise Refusal(f"{error}", missing) from error
        self.certificate = load_certificates(pem)[0]
        if ends_at(self.certificate) < datetime.now(UTC):
            moment = ends_at(self.certificate).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
            raise Refusal(
                "part of the existing bootstrap client certificate in "
                f"{kubeconfig} is expired: {moment}",
                missing,
            )
        self.api = ApiClient.of_kubeconfig(kubeconfig)

    def _pem(self) -> bytes:
        if self._rotates and CURRENT.exists():
            return CURRENT.read_bytes()
        config = yaml.safe_load(Path(self._kubeconfig).read_text())
        user = config["users"][0]["user"]
        if "client-certificate-data" in user:
            return base64.b64decode(user["client-certificate-data"])
        return Path(user["client-certificate"]).read_bytes()

    @property
    def is_due(self) -> bool:
        """Whether it is to be rotated: it nears its end, or is not one that can be rotated."""
        if not self._rotates:
            return False
        begun, ended = starts_at(self.certificate), ends_at(self.certificate)
        left = (ended - datetime.now(UTC)) / (ended - begun)
        return left < ROTATE_BELOW or not CURRENT.exists()

    def rotate(self) -> None:
        """Ask for a new one, or fetch the one that was asked for.

        Raises:
            AnswerNo: the API refused.
            OSError: it was not reached.
        """
        if not self._pending:
            self._key = new_key()
            builder = x509.CertificateSigningRequestBuilder().subject_name(self.certificate.subject)
            request = builder.sign(self._key, hashes.SHA256())
            pem = request.public_bytes(serialization.Encoding.PEM)
            spec = {
                "request": base64.b64encode(pem).decode(),
                "signerName": SIGNER,
                "usages": ["digital signature", "client auth"],
            }
            asked = {"metadata": {"generateName": "csr-"}, "spec": spec}
            self._pending = self.api.ask("POST", REQUESTS, asked)["metadata"]["name"]
        answer = self.api.ask("GET", f"{REQUESTS}/{self._pending}")
        issued = answer.get("status", {}).get("certificate")
        if issued:
            self._pending = ""
            self._take(base64.b64decode(issued))

    def _take(self, certificate_pem: bytes) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S")
        path = FOLDER / f"kubelet-client-{stamp}.pem"
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(certificate_pem + key_pem(self._key))
        partial = CURRENT.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        partial.symlink_to(path)
        partial.replace(CURRENT)
        self.certificate = load_certificates(certificate_pem)[0]
        context = self.api.context
        context.load_cert_chain(path)


def make_serving_pair(host: str) -> tuple[str, str]:
    """Return the files that port 10250 shows, made for a year where one of them is missing."""
    certificate, key = FOLDER / "kubelet.crt", FOLDER / "kubelet.key"
    if not (certificate.exists() and key.exists()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        validity = Validity(now - timedelta(hours=1), now + timedelta(days=365))
        pair, chain = self_signed(host, validity, new_rsa_key())
        key.touch(mode=0o600)
        key.write_bytes(pair.key_pem)
        certificate.write_bytes(chain)
    return str(certificate), str(key)


class HasPods(Protocol):
    """What is asked of the kubelet here."""

    settings: Any
    manifests: list[Any]

    def ask(self, verb: str, **given: object) -> Any:
        """Ask the runtime."""

    def full_name(self, manifest: Any) -> str:
        """The name of a pod."""


class NodeReporter:
    """Tells the API of the node and its static pods, and keeps the certificate young."""

    def __init__(self, kubelet: HasPods, client: ClientCertificate) -> None:
        self._kubelet = kubelet
        self._client = client
        self._name = kubelet.settings.node_name
        self._started_at = now_text()
        self._address = own_address(client.api.server)
        self._is_registered = False

    def run(self) -> None:
        """Report again and again; what the API refuses is said and tried again."""
        while True:
            for report in (self._rotate, self._report_node, self._report_pods):
                with contextlib.suppress(AnswerNo, OSError):
                    report()
            time.sleep(REPORT_SECONDS)

    def _rotate(self) -> None:
        if self._client.is_due:
            self._client.rotate()

    def _report_node(self) -> None:
        version = VERSION_FILE.read_text().strip() if VERSION_FILE.exists() else "1.36.2"
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": now_text(),
            "lastTransitionTime": self._started_at,
        }
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        endpoint = self._kubelet.settings.endpoint
        node = {
            "metadata": {
                "name": self._name,
                "labels": {
                    "kubernetes.io/hostname": self._name,
                    "node-role.kubernetes.io/control-plane": "",
                },
                "annotations": {"kubeadm.alpha.kubernetes.io/cri-socket": endpoint},
            },
            "spec": {},
            "status": {
                "addresses": [{"type": "InternalIP", "address": self._address}],
                "conditions": [ready],
                "nodeInfo": {"bootID": boot_id, "kubeletVersion": f"v{version}"},
            },
        }
        self._register(node)

    def _register(self, node: dict[str, Any]) -> None:
        """Make the Node where it is missing; else tell of itself, and leave what others gave it.

        As the real one, once in its life: a Node that is deleted afterwards stays away.
        """
        path = f"/api/v1/nodes/{self._name}"
        try:
            self._client.api.ask("PATCH", path, {"status": node["status"]})
        except AnswerNo as error:
            if error.code != HTTPStatus.NOT_FOUND or self._is_registered:
                raise
            manifests = self._kubelet.settings.manifests
            if not (manifests / "kube-apiserver.yaml").exists():
                del node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"]
            node["spec"] = {"taints": parse_taints(self._kubelet.settings.taints)}
            self._client.api.ask("POST", "/api/v1/nodes", node)
        self._is_registered = True

    def _report_pods(self) -> None:
        known = self._kubelet.ask("list")
        for manifest in self._kubelet.manifests:
            pods = {p["id"]: p for p in known["pods"] if p["uid"] == manifest.uid}
            containers = [one for one in known["containers"] if one["pod"] in pods]
            if not containers:
                continue
            newest = max(containers, key=lambda one: int(one["created_at"]))
            is_running = newest["state"] == "CONTAINER_RUNNING"
            started = text_of(newest["started_at"])
            state = {"running": {"startedAt": started}} if is_running else {"terminated": {}}
            meta = manifest.pod["metadata"]
            mirror = {
                "metadata": {
                    "name": self._kubelet.full_name(manifest),
                    "namespace": "kube-system",
                    "labels": meta.get("labels") or {},
                    "annotations": {
                        **(meta.get("annotations") or {}),
                        "kubernetes.io/config.mirror": manifest.uid,
                    },
                },
                "spec": {**manifest.pod["spec"], "nodeName": self._name},
                "status": {
                    "phase": "Running",
                    "containerStatuses": [
                        {
                            "name": newest["name"],
                            "containerID": f"containerd://{newest['id']}",
                            "restartCount": newest["attempt"],
                            "ready": is_running,
                            "state": state,
                        }
                    ],
                },
            }
            self._store("/api/v1/namespaces/kube-system/pods", mirror)

    def _store(self, path: str, value: dict[str, Any]) -> None:
        try:
            self._client.api.ask("PUT", f"{path}/{value['metadata']['name']}", value)
        except AnswerNo as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            self._client.api.ask("POST", path, value)


def parse_taints(text: str) -> list[dict[str, str]]:
    """Read `key=value:Effect,…`."""
    found = []
    for one in filter(None, text.split(",")):
        name, _, effect = one.rpartition(":")
        key, _, value = name.partition("=")
        found.append({"key": key, "effect": effect, **({"value": value} if value else {})})
    return found


def own_address(server: str) -> str:
    """Return the address of this node: that of its own API server, or of its first interface."""
    host = server.removeprefix("https://").rpartition(":")[0]
    if host.replace(".", "").isdigit():
        return host
    with os.popen("ip -4 -o addr show scope global") as shown:  # noqa: S605 - a command of our own
        return shown.read().split()[3].partition("/")[0]


def now_text() -> str:
    """Write the present moment as an object holds it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text_of(nanoseconds: int) -> str:
    """Write a moment as an object holds it."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
