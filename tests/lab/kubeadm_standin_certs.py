"""`kubeadm certs`: what expires when, and a new certificate signed by the authority on the host."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from tests.lab.kubeadm_standin_config import KubeadmError, Place
from tests.lab.kubeadm_standin_output import Line
from tests.lab.pki import (
    Authority,
    Validity,
    ends_at,
    is_signed_by,
    load_certificates,
    load_key,
    new_rsa_key,
    starts_at,
    wanted_of,
)
from tests.lab.pki_kubeadm import (
    AUTHORITIES,
    KUBERNETES,
    Cluster,
    Kept,
    KeptConfig,
    authorities,
    configs,
    leaves,
    minor_of,
)

BACKDATED = timedelta(minutes=5)
DONE = (
    "\nDone renewing certificates. You must restart the kube-apiserver, kube-controller-manager, "
    "kube-scheduler and etcd, so that they can use the new certificates."
)
NO_CERTIFICATE = "data does not contain any valid RSA or ECDSA certificates"
CALLED = {"ca": "CA", "front-proxy-ca": "front-proxy CA", "etcd-ca": "etcd CA"}
PROOFS = {  # what must be signed by an authority whose key is not here, as kubeadm calls it
    "ca": {"apiserver": "API server", "apiserver-kubelet-client": "API server kubelet client"},
    "front-proxy-ca": {"front-proxy-client": "front-proxy client"},
    "etcd-ca": {
        "apiserver-etcd-client": "apiserver etcd client",
        "etcd/server": "etcd server",
        "etcd/peer": "etcd peer",
        "etcd/healthcheck-client": "etcd health-check client",
    },
}


class Keeper:
    """The certificates of one host, as kubeadm finds them."""

    def __init__(self, place: Place, cluster: Cluster) -> None:
        self.place = place
        self.cluster = cluster
        self.pki = cluster.certificates_directory
        kept: list[Kept | KeptConfig] = [*leaves(cluster), *configs(cluster)]
        self.all = {one.name: one for one in sorted(kept, key=lambda one: one.name)}
        self.authorities = sorted(authorities(cluster), key=lambda one: one.name)

    def lines(self) -> tuple[list[Line], list[Line]]:
        """What is known of every certificate, and of every authority.

        Raises:
            KubeadmError: one of them cannot be read, or its authority is not to be understood.
        """
        own = [self._line(one) for one in self.all.values()]
        return own, [self._authority_line(one) for one in self.authorities]

    def renew(self, name: str) -> str:
        """Issue one certificate anew, with the same subject and names; return what is said of it.

        The key is written first, then the certificate; the authority is never touched.

        Raises:
            KubeadmError: it or its authority cannot be read.
        """
        kept = self.all[name]
        if not self.place.exists(self._file(kept)):
            return f"MISSING! {kept.long_name}"
        issuer = _authority_of(kept)
        if self.is_external(issuer):
            return f"Detected external {issuer.base_name}, {kept.long_name} can't be renewed"
        old = self.read(kept)
        signer = self.signer(issuer)
        pair = signer.issue(wanted_of(old), self.validity(signer.certificate), new_rsa_key())
        path = self.place.path(self._file(kept))
        if isinstance(kept, Kept):
            write(path.with_suffix(".key"), pair.key_pem, 0o600)
            write(path, pair.certificate_pem, 0o644)
        else:
            config = yaml.safe_load(path.read_text())
            user, cluster = _current(config)
            authority_pem = self.place.path(f"{self.pki}/ca.crt").read_bytes()
            cluster["certificate-authority-data"] = base64.b64encode(authority_pem).decode()
            user["client-certificate-data"] = base64.b64encode(pair.certificate_pem).decode()
            user["client-key-data"] = base64.b64encode(pair.key_pem).decode()
            write(path, yaml.safe_dump(config, width=1_000_000).encode(), 0o600)
        return f"{kept.long_name} renewed"

    def validity(self, authority: x509.Certificate) -> Validity:
        """From when to when a new certificate is good; old releases began with the authority's."""
        begun = self.place.started_at - BACKDATED
        if minor_of(self.place.version) < (1, 31):
            begun = starts_at(authority)
        life = timedelta(seconds=self.cluster.certificate_seconds)
        return Validity(begun, self.place.started_at + life)

    def is_external(self, authority: Kept) -> bool:
        """Whether the key of this authority is not on the host.

        Raises:
            KubeadmError: the authority cannot be read; or its key is absent, and what should be
                signed by it is not, or has expired.
        """
        try:
            is_external, reason = self.external(authority)
        except KubeadmError as error:
            is_external, reason = False, error.text
        if reason:
            base = authority.base_name
            text = f"Error checking external CA condition for {base} certificate authority"
            raise KubeadmError(f"{text}: {reason}")
        return is_external

    def external(self, authority: Kept) -> tuple[bool, str]:
        """Whether the key is not on the host, and what speaks against that being meant.

        Raises:
            KubeadmError: the authority cannot be read.
        """
        path = f"{self.pki}/{authority.base_name}.crt"
        called = CALLED[authority.name]
        try:
            certificate = load_certificates(self.place.path(path).read_bytes())[0]
        except (OSError, ValueError) as error:
            reason = reason_of(path, error)
            raise KubeadmError(
                f"failure loading certificate for {called}: "
                f"couldn't load the certificate file {path}: {reason}"
            ) from error
        self.place.look_at_dates(called, certificate)
        if self.place.path(path).with_suffix(".key").exists():
            return False, ""
        for base, what in PROOFS[authority.name].items():
            reason = self._unlike(certificate, f"{self.pki}/{base}.crt", what)
            if reason:
                return True, reason
        return True, ""

    def signer(self, authority: Kept) -> Authority:
        """The authority with its key.

        Raises:
            KubeadmError: it is not here, or cannot be read.
        """
        base = authority.base_name
        path = f"{self.pki}/{base}.crt"
        crt, key = self.place.path(path), self.place.path(path).with_suffix(".key")
        if not crt.exists() and not key.exists():
            raise KubeadmError(f"couldn't load {base} certificate authority from {self.pki}")
        try:
            pair = Authority(load_certificates(crt.read_bytes())[0], load_key(key.read_bytes()))
        except (OSError, ValueError) as error:
            raise KubeadmError(f"failure loading {base} certificate authority: {error}") from error
        self.place.look_at_dates(base, pair.certificate)
        return pair

    def read(self, kept: Kept | KeptConfig) -> x509.Certificate:
        """Read the certificate that is there now.

        Raises:
            KubeadmError: it cannot be read.
        """
        path = self._file(kept)
        try:
            content = self.place.path(path).read_bytes()
        except OSError as error:
            raise KubeadmError(
                f"failed to load existing certificate {kept.name}: {reason_of(path, error)}"
            ) from error
        if isinstance(kept, KeptConfig):
            return embedded_certificate(path, loaded_kubeconfig(path, content))
        try:
            return load_certificates(content)[0]
        except ValueError as error:
            raise KubeadmError(
                f"failed to load existing certificate {kept.base_name}: "
                f"error reading {path}: {NO_CERTIFICATE}"
            ) from error

    def _line(self, kept: Kept | KeptConfig) -> Line:
        is_old = minor_of(self.place.version) < (1, 17)  # did not know of missing ones
        if not is_old and not self.place.exists(self._file(kept)):
            return Line(kept.name)
        issuer = _authority_of(kept)
        is_external = self.is_external(issuer)
        return Line(kept.name, ends_at(self.read(kept)), issuer.name, is_external)

    def _authority_line(self, authority: Kept) -> Line:
        if not self.place.exists(self._file(authority)):
            return Line(authority.name)
        is_external = self.is_external(authority)
        return Line(authority.name, ends_at(self.read(authority)), is_external=is_external)

    def _file(self, kept: Kept | KeptConfig) -> str:
        if isinstance(kept, KeptConfig):
            return f"{KUBERNETES}/{kept.name}"
        return f"{self.pki}/{kept.base_name}.crt"

    def _unlike(self, authority: x509.Certificate, path: str, what: str) -> str:
        """Why a certificate is no proof of an external authority; empty when it is one."""
        self.place.look_at_dates(what, authority)  # kubeadm means the leaf, and looks at this
        base = path.removeprefix(f"{self.pki}/").removesuffix(".crt")
        key = f"{self.pki}/{base}.key"
        try:
            load_key(self.place.path(key).read_bytes())
        except (OSError, ValueError) as error:
            reason = reason_of(key, error)
            tried = f"couldn't load the private key file {key}"
            return f"failure loading key for {base}: {tried}: {reason}"
        try:
            certificate = load_certificates(self.place.path(path).read_bytes())[0]
        except (OSError, ValueError) as error:
            reason = reason_of(path, error)
            return (
                f"failure loading certificate for {what}: "
                f"couldn't load the certificate file {path}: {reason}"
            )
        reason = fault(certificate, authority)
        return f"certificate {what} is not signed by corresponding CA: {reason}" if reason else ""


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file in place, as kubeadm does: a kill in between leaves it short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_bytes(content)


def _authority_of(kept: Kept | KeptConfig) -> Kept:
    name = kept.authority if isinstance(kept, Kept) else "ca"
    return next(one for one in AUTHORITIES if one.name == name)


def _current(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The user and the cluster that the current context names."""
    named = {one["name"]: one["context"] for one in config["contexts"]}
    context = named[config["current-context"]]
    users = {one["name"]: one["user"] for one in config["users"]}
    clusters = {one["name"]: one["cluster"] for one in config["clusters"]}
    return users[context["user"]], clusters[context["cluster"]]


def loaded_kubeconfig(path: str, content: bytes) -> dict[str, Any]:
    """Read a kubeconfig; an empty file is an empty one.

    Raises:
        KubeadmError: it is not YAML.
    """
    try:
        return yaml.safe_load(content) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = "yaml: line 1: did not find expected node content"
        raise KubeadmError(f"failed to load kubeConfig file {path}: {reason}") from error


def embedded_certificate(path: str, config: dict[str, Any]) -> x509.Certificate:
    """Return the client certificate of the current context.

    Raises:
        KubeadmError: there is none in it.
    """
    authority_of(path, config)
    user, _ = _current(config)
    if not user.get("client-certificate-data"):
        raise KubeadmError(f"kubeConfig file {path} does not have an embedded client certificate")
    try:
        return load_certificates(base64.b64decode(user["client-certificate-data"]))[0]
    except ValueError as error:
        raise KubeadmError(
            f"kubeConfig file {path} does not contain a valid client certificate: {NO_CERTIFICATE}"
        ) from error


def authority_of(path: str, config: dict[str, Any]) -> x509.Certificate:
    """Return the authority that the current context trusts.

    Raises:
        KubeadmError: there is none in it.
    """
    try:
        _, cluster = _current(config)
    except (KeyError, TypeError) as error:
        raise KubeadmError(f"invalid kubeConfig file {path}: missing context ") from error
    if not cluster.get("certificate-authority-data"):
        raise KubeadmError(f"kubeConfig file {path} does not have an embedded server certificate")
    return load_certificates(base64.b64decode(cluster["certificate-authority-data"]))[0]


def fault(certificate: x509.Certificate, authority: x509.Certificate) -> str:
    now = datetime.now(UTC)
    for one in (certificate, authority):
        if now > ends_at(one):
            stamp = "%Y-%m-%dT%H:%M:%SZ"
            return (
                "x509: certificate has expired or is not yet valid: current time "
                f"{now.strftime(stamp)} is after {ends_at(one).strftime(stamp)}"
            )
    if not is_signed_by(certificate, authority):
        return "x509: certificate signed by unknown authority"
    return ""


def reason_of(path: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"open {path}: {(error.strerror or '').lower()}"
    return f"error reading {path}: {NO_CERTIFICATE}"
