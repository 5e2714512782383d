"""Stand-ins for kube-controller-manager and kube-scheduler.

Each loads its kubeconfig when it starts and holds that certificate until it ends, renews its Lease
while it leads, and serves /healthz with a certificate it makes up. One that loses its lease ends,
and the kubelet starts it again; one that never had it tries for ever. So a process that was started
with an expired certificate runs, looks well, and does nothing, also once there is a new one on
disk: as kube-scheduler 1.36 was seen to do. The controller manager that leads also signs what
kubelets ask for and says which nodes are silent. Times are a third of the real ones.
"""

import base64
import ssl
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.lab.control_plane_apiserver import flags_of, log
from tests.lab.control_plane_tls import (
    AnswerNo,
    ApiClient,
    Handler,
    TlsServer,
    file_of,
    serve,
    server_context,
)
from tests.lab.pki import (
    CLIENT,
    Authority,
    Validity,
    load_certificates,
    load_key,
    new_key,
    self_signed,
    wanted_of,
)

PORTS = {"kube-controller-manager": 10257, "kube-scheduler": 10259}
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SIGNED = {"system:nodes", "system:bootstrappers"}  # by whom it was asked for
KUBELET_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
LEASE_SECONDS = 5
RENEW_DEADLINE_SECONDS = 3.5
RETRY_SECONDS = 0.7
GRACE_SECONDS = 12.0  # of a node that says nothing


class Health(Handler):
    """Answers probes."""

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        is_probe = self.path in {"/healthz", "/livez", "/readyz"}
        self.answer(*((HTTPStatus.OK, "ok") if is_probe else (HTTPStatus.FORBIDDEN, "Forbidden")))


class Leader:
    """One of several that take turns by a Lease."""

    def __init__(self, name: str, flags: dict[str, str]) -> None:
        self.name = name
        self.flags = flags
        self.api = ApiClient.of_kubeconfig(flags["kubeconfig"])
        host = Path("/etc/hostname").read_text().strip()
        self.identity = f"{host}_{uuid.uuid4()}"
        self.renewed_at = 0.0

    def lead(self) -> None:
        """Take the lease where nobody holds it, keep it, and work meanwhile.

        Raises:
            SystemExit: it was lost.
        """
        leads = False
        while True:
            try:
                held = self._hold()
            except (AnswerNo, OSError) as error:
                log(f"error retrieving resource lock: {error}")
                held = False
            now = time.monotonic()
            if held:
                self.renewed_at = now
                leads = True
                self._work_without_fail()
            elif leads and now - self.renewed_at > RENEW_DEADLINE_SECONDS:
                log("leaderelection lost")
                sys.exit(1)
            time.sleep(RETRY_SECONDS)

    def _hold(self) -> bool:
        stamp = micro(datetime.now(UTC))
        try:
            lease = self.api.ask("GET", f"{LEASES}/{self.name}")
        except AnswerNo as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            lease = {"metadata": {"name": self.name, "namespace": "kube-system"}, "spec": {}}
        spec = lease["spec"]
        renewed = spec.get("renewTime")
        holder = spec.get("holderIdentity")
        is_stale = not renewed or age_seconds(renewed) > LEASE_SECONDS
        if holder != self.identity and not is_stale:
            return False
        if holder != self.identity:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(holder)
            spec["acquireTime"] = stamp
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": stamp,
        }
        is_new = "resourceVersion" not in lease["metadata"]
        path = LEASES if is_new else f"{LEASES}/{self.name}"
        try:
            self.api.ask("POST" if is_new else "PUT", path, lease)
        except AnswerNo as error:
            if error.code == HTTPStatus.CONFLICT:
                return False
            raise
        return True

    def _work_without_fail(self) -> None:
        try:
            self.work()
        except (AnswerNo, OSError) as error:
            log(f"{self.name}: {error}")

    def work(self) -> None:
        """Do what is to be done while it leads; a scheduler has nothing to place here."""


class ControllerManager(Leader):
    """Signs the requests of kubelets, and says which nodes are silent."""

    def work(self) -> None:
        """Look at all requests and all nodes once."""
        for request in self.api.ask("GET", REQUESTS)["items"]:
            if not request.get("status", {}).get("certificate"):
                self._sign(request)
        for node in self.api.ask("GET", "/api/v1/nodes")["items"]:
            self._judge(node)

    def _sign(self, request: dict[str, Any]) -> None:
        spec = request["spec"]
        is_node = bool(SIGNED & set(spec["groups"])) and spec["signerName"] == KUBELET_SIGNER
        files = [self.flags.get(f"cluster-signing-{kind}-file", "") for kind in ("cert", "key")]
        if not is_node or not all(file and Path(file).exists() for file in files):
            return
        asked = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        authority = Authority(
            load_certificates(Path(files[0]).read_bytes())[0], load_key(Path(files[1]).read_bytes())
        )
        now = datetime.now(UTC)
        life = timedelta(seconds=spec.get("expirationSeconds") or 365 * 86400)
        signed = authority.sign(
            replace(wanted_of(asked), usages=(CLIENT,)),
            Validity(now - timedelta(minutes=5), now + life),
            asked.public_key(),  # type: ignore[arg-type]
        )
        pem = signed.public_bytes(serialization.Encoding.PEM)
        condition = {"type": "Approved", "status": "True", "reason": "AutoApproved"}
        request["status"] = {
            "conditions": [condition],
            "certificate": base64.b64encode(pem).decode(),
        }
        self.api.ask("PUT", f"{REQUESTS}/{request['metadata']['name']}", request)

    def _judge(self, node: dict[str, Any]) -> None:
        for condition in node.get("status", {}).get("conditions", []):
            is_silent = age_seconds(condition["lastHeartbeatTime"]) > GRACE_SECONDS
            if condition["type"] == "Ready" and condition["status"] != "Unknown" and is_silent:
                condition |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
                self.api.ask("PUT", f"/api/v1/nodes/{node['metadata']['name']}", node)


def micro(moment: datetime) -> str:
    """Write a moment the way a Lease holds it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def age_seconds(stamp: str) -> float:
    """Return how long ago it was."""
    moment = datetime.fromisoformat(stamp)
    return (datetime.now(UTC) - moment).total_seconds()


def made_up_context(host: str) -> ssl.SSLContext:
    """Return what a server shows that was given no certificate."""
    now = datetime.now(UTC)
    validity = Validity(now - timedelta(hours=1), now + timedelta(days=365))
    pair, chain = self_signed(host, validity, new_key())
    with file_of(chain) as certificate, file_of(pair.key_pem) as key:
        return server_context(certificate, key)


def main(name: str, words: Sequence[str]) -> None:
    """Run until it is ended, or loses its lease."""
    flags = flags_of(words)
    context = made_up_context("localhost")
    address = flags.get("bind-address", "127.0.0.1")
    serve(TlsServer((address, PORTS[name]), Health, lambda: context))
    kind = ControllerManager if name == "kube-controller-manager" else Leader
    kind(name, flags).lead()
