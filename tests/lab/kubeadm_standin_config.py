"""What kubeadm's stand-in knows of the cluster: from a file, from the cluster, or made up."""

import base64
import binascii
import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.lab.pki import ends_at, load_certificates, starts_at
from tests.lab.pki_kubeadm import KUBERNETES, Cluster, minor_of

DOCUMENT = "ClusterConfiguration"
DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
SECONDS = {"h": 3600, "m": 60, "s": 1}
ANNOTATION = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"


class KubeadmError(Exception):
    """kubeadm says no: its text, and the exit code."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text, exit_code)
        self.text = text
        self.exit_code = exit_code


@dataclass
class Place:
    """Where it runs: the root of the files it sees, and its release."""

    root: Path = Path("/")
    version: str = "1.36.2"
    warned: set[str] = field(default_factory=set)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def path(self, name: str) -> Path:
        """Return where a file of the host lies."""
        return self.root / name.lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether there is such a file, and no folder."""
        return self.path(name).is_file()

    def say(self, *lines: str) -> None:
        """Print lines."""
        sys.stdout.write("".join(f"{line}\n" for line in lines))

    def warn(self, line: str, text: str) -> None:
        """Say something the way klog does."""
        now = datetime.now(UTC).strftime("%m%d %H:%M:%S.%f")
        sys.stdout.flush()
        sys.stderr.write(f"W{now} {os.getpid():7} {line}] {text}\n")

    def look_at_dates(self, called: str, certificate: Any) -> None:
        """Warn, once for a name, of a certificate that is not good now."""
        if called in self.warned:
            return
        self.warned.add(called)
        now, begun, ended = datetime.now(UTC), starts_at(certificate), ends_at(certificate)
        if begun <= now <= ended:
            return
        why = "the certificate has expired" if now > ended else "the certificate is not valid yet"
        dates = f"NotBefore: {_go(begun)}, NotAfter: {_go(ended)}"
        self.warn(
            "certs.go:474",
            f"WARNING: could not validate bounds for certificate {called}: {why}: {dates}",
        )


def configured(place: Place, config: str | None, *, prefix: str) -> Cluster:
    """Return the configuration for `certs …`: of the file, else of the cluster, else defaults.

    Args:
        place: where.
        config: the file given with `--config`.
        prefix: the subcommand, which goes before what is said; empty says nothing.

    Raises:
        KubeadmError: the file given cannot be read, or is for another release.
    """
    if config is not None:
        return from_file(place, config)
    reads_cluster = place.version and minor_of(place.version) >= (1, 17)
    client = _client(place) if reads_cluster else None
    if client is not None:
        source = 'the "kubeadm-config" ConfigMap in namespace "kube-system"...'
        way = "'kubeadm init phase upload-config kubeadm --config your-config-file'"
        begun = (
            f"[{prefix}] Reading configuration from {source}",
            f"[{prefix}] Use {way} to re-upload it.",
        )
        failed = (
            f"[{prefix}] Error reading configuration from the Cluster. "
            "Falling back to default configuration\n"
        )
        place.say(*(begun if prefix else ()))
        try:
            cluster = client.cluster(place)
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            place.say(*([failed] if prefix else ()))
        else:
            place.say(*([""] if prefix else ()))
            return cluster
    return made_up(place)


def made_up(place: Place, *, asks_for_version: bool = False) -> Cluster:
    """Return kubeadm's defaults: this host's name and the address its default route leaves by."""
    if asks_for_version:
        place.warn(
            "version.go:108",
            "could not fetch a Kubernetes version from the internet: unable to get URL",
        )
        place.warn("version.go:109", f"falling back to the local client version: v{place.version}")
    return Cluster(place.version, node_name=socket.gethostname().lower(), address=_own_address())


def from_file(place: Place, config: str) -> Cluster:
    """Read a kubeadm configuration file.

    Raises:
        KubeadmError: there is none, it is no such configuration, or its release is too old.
    """
    try:
        text = place.path(config).read_text()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise KubeadmError(
            f'unable to read config from "{config}" : open {config}: {reason}'
        ) from (error)
    try:
        documents = [part for part in yaml.safe_load_all(text) if part]
    except yaml.YAMLError as error:
        raise KubeadmError(f"error converting YAML to JSON: yaml: {error}") from error
    kinds = {str(part.get("kind")): part for part in documents if isinstance(part, dict)}
    if not kinds.keys() & {DOCUMENT, "InitConfiguration"}:
        raise KubeadmError(
            "no InitConfiguration or ClusterConfiguration kind was found in the YAML file"
        )
    cluster = clustered(kinds.get(DOCUMENT) or {}, made_up(place))
    _refuse_older(place, cluster)
    init = kinds.get("InitConfiguration") or {}
    endpoint = init.get("localAPIEndpoint") or {}
    return replace(
        cluster,
        node_name=(init.get("nodeRegistration") or {}).get("name") or cluster.node_name,
        address=endpoint.get("advertiseAddress") or cluster.address,
        port=int(endpoint.get("bindPort") or 6443),
    )


def clustered(said: dict[str, Any], known: Cluster) -> Cluster:
    """Return what a ClusterConfiguration says on top of what is known already."""
    networking, etcd = said.get("networking") or {}, said.get("etcd") or {}
    local = etcd.get("local") or {}
    return replace(
        known,
        version=str(said.get("kubernetesVersion") or known.version).removeprefix("v"),
        name=said.get("clusterName") or known.name,
        endpoint=said.get("controlPlaneEndpoint") or "",
        service_subnet=networking.get("serviceSubnet") or known.service_subnet,
        dns_domain=networking.get("dnsDomain") or known.dns_domain,
        extra_names=tuple((said.get("apiServer") or {}).get("certSANs") or ()),
        etcd_server_names=tuple(local.get("serverCertSANs") or ()),
        etcd_peer_names=tuple(local.get("peerCertSANs") or ()),
        has_external_etcd="external" in etcd,
        certificates_directory=said.get("certificatesDir") or known.certificates_directory,
        certificate_seconds=seconds_of(
            said.get("certificateValidityPeriod"), known.certificate_seconds
        ),
        authority_seconds=seconds_of(
            said.get("caCertificateValidityPeriod"), known.authority_seconds
        ),
    )


def seconds_of(duration: str | None, default: float) -> float:
    """Read a duration as Go writes it: `8760h0m0s`."""
    if not duration:
        return default
    parts = DURATION.findall(duration)
    if not parts:
        raise KubeadmError(f'time: invalid duration "{duration}"')
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


@dataclass(frozen=True)
class Client:
    """A client of the API as admin.conf describes it."""

    server: str
    authority: bytes
    certificate: bytes
    key: bytes

    def get(self, path: str) -> dict[str, Any]:
        """Read one object, quickly or not at all.

        Raises:
            OSError: it was not reached.
            ValueError: it said no.
        """
        with self._context() as context:
            parts = urlsplit(self.server)
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=3, context=context
            )
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
            finally:
                connection.close()
        if response.status != http.HTTPStatus.OK:
            raise ValueError(f"{path}: {response.status}")
        answer: dict[str, Any] = json.loads(body)
        return answer

    def cluster(self, place: Place) -> Cluster:
        """Read what kubeadm reads: its ConfigMap, this node, and its API server's address."""
        config = self.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")
        known = clustered(yaml.safe_load(config["data"][DOCUMENT]), made_up(place))
        node = _node_name(place)
        self.get(f"/api/v1/nodes/{node}")
        pods = self.get(
            "/api/v1/namespaces/kube-system/pods"
            f"?fieldSelector=spec.nodeName%3D{node}"
            "&labelSelector=component%3Dkube-apiserver%2Ctier%3Dcontrol-plane"
        )
        (pod,) = pods["items"]
        address, _, port = pod["metadata"]["annotations"][ANNOTATION].rpartition(":")
        return replace(known, node_name=node, address=address, port=int(port))

    @contextlib.contextmanager
    def _context(self) -> Iterator[ssl.SSLContext]:
        context = ssl.create_default_context(cadata=self.authority.decode())
        with tempfile.NamedTemporaryFile("wb") as file:  # OpenSSL takes them from files alone
            file.write(self.certificate + self.key)
            file.flush()
            context.load_cert_chain(file.name)
        yield context


def _client(place: Place) -> Client | None:
    """The client of admin.conf; none where that cannot be read, of which nothing is said."""
    with contextlib.suppress(
        OSError, ValueError, KeyError, TypeError, yaml.YAMLError, StopIteration
    ):
        said = yaml.safe_load(place.path(f"{KUBERNETES}/admin.conf").read_text())
        cluster, user = said["clusters"][0]["cluster"], said["users"][0]["user"]
        return Client(
            cluster["server"],
            *(
                base64.b64decode(value, validate=True)
                for value in (
                    cluster["certificate-authority-data"],
                    user["client-certificate-data"],
                    user["client-key-data"],
                )
            ),
        )
    return None


def _node_name(place: Place) -> str:
    """The name in the kubelet's client certificate, which is that of the node."""
    said = yaml.safe_load(place.path(f"{KUBERNETES}/kubelet.conf").read_text())
    user = said["users"][0]["user"]
    if "client-certificate-data" in user:
        try:
            pem = base64.b64decode(user["client-certificate-data"])
        except binascii.Error as error:
            raise ValueError(str(error)) from error
    else:
        pem = place.path(user["client-certificate"]).read_bytes()
    subject = load_certificates(pem)[0].subject.rfc4514_string()
    return subject.partition("system:node:")[2].partition(",")[0]


def _refuse_older(place: Place, cluster: Cluster) -> None:
    major, minor = minor_of(place.version)
    if cluster.minor < (major, minor - 1):
        raise KubeadmError(
            "this version of kubeadm only supports deploying clusters with the control plane "
            f"version >= {major}.{minor - 1}.0. Current version: v{cluster.version}"
        )


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: the kernel picks the way out
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _go(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
