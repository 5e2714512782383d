"""Certificates as they stand in files and on the wire, read on the worker."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

NOTHING_SHA256 = hashlib.sha256(b"").hexdigest()  # what `sha256sum` prints of a key it was not told


class Presence(StrEnum):
    """Whether a file is there and can be read."""

    READABLE = "readable"
    MISSING = "missing"
    UNREADABLE = "unreadable"


class KeyState(StrEnum):
    """Whether the private key beside a certificate is its own."""

    FITS = "fits"
    DIFFERS = "differs"
    MISSING = "missing"
    UNREADABLE = "unreadable"


class UnreadableCertificate(ValueError):
    """What should be a certificate is none."""


@dataclass(frozen=True)
class Certificate:
    """What a certificate says. The serial number is hexadecimal, as openssl prints it."""

    serial: str
    subject: str
    common_name: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    sha256: str


@dataclass(frozen=True)
class Kubeconfig:
    """What of a kubeconfig is no secret.

    Attributes:
        certificate_pem: the embedded client certificate; empty where a file is named.
        certificate_file: the file that is named instead.
        server: the address of the API.
        users, clusters, contexts: how many there are.
        user: name of the user entry.
        has_other_credentials: a token, password or program stands there.
    """

    certificate_pem: bytes
    certificate_file: str
    server: str
    users: int
    clusters: int
    contexts: int
    user: str
    has_other_credentials: bool


def parse_certificates(pem: bytes) -> list[x509.Certificate]:
    """Every certificate of a file, which may hold a key or other text as well.

    Raises:
        UnreadableCertificate: it holds none, or one that is damaged.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnreadableCertificate(str(error).partition(",")[0] or "no certificate") from error
    if not found:
        raise UnreadableCertificate("no certificate")
    return found


def told(certificate: x509.Certificate) -> Certificate:
    """What a certificate says.

    Raises:
        UnreadableCertificate: an extension or name of it is malformed.
    """
    try:
        return Certificate(
            serial=f"{certificate.serial_number:X}",
            subject=certificate.subject.rfc4514_string(),
            common_name=_common_name(certificate),
            issuer=certificate.issuer.rfc4514_string(),
            names=_names_of(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            sha256=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        )
    except ValueError as error:
        raise UnreadableCertificate(f"malformed: {error}") from error


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Names and addresses as openssl writes them: `DNS:cp1`, `IP Address:10.96.0.1`, sorted."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    names = [f"DNS:{name}" for name in extension.value.get_values_for_type(x509.DNSName)]
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return tuple(sorted({*names, *(f"IP Address:{address}" for address in addresses)}))


def is_signed_by(certificate: x509.Certificate, authorities: list[x509.Certificate]) -> bool:
    """Whether one of the authorities has signed it; dates are not looked at."""
    return any(_is_signed(certificate, authority) for authority in authorities)


def _is_signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def key_state(certificate: x509.Certificate, key_sha256: str) -> KeyState:
    """Compare a certificate with its key, by the hash of the key's public half.

    Args:
        certificate: the certificate.
        key_sha256: what `openssl pkey -pubout -outform DER | sha256sum` prints of the key, `-`
            where there is no key.
    """
    if key_sha256 == "-":
        return KeyState.MISSING
    if key_sha256 == NOTHING_SHA256:
        return KeyState.UNREADABLE
    own = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return KeyState.FITS if hashlib.sha256(own).hexdigest() == key_sha256 else KeyState.DIFFERS


def parse_kubeconfig(kept: str) -> Kubeconfig:
    """Read what of a kubeconfig leaves its host: the lines that hold no secret.

        apiVersion: v1
        clusters:
        - cluster:
            server: https://10.0.0.10:6443
          name: kubernetes
        users:
        - name: kubernetes-admin
          user:
            client-certificate-data: LS0t…
            client-key-data: hidden

    Raises:
        UnreadableCertificate: it is no kubeconfig, or of a form whose secrets cannot be left out.
    """
    try:
        read = yaml.safe_load(kept)
        users, clusters = read["users"], read["clusters"]
        user, cluster = _of_current_context(read)
        embedded = base64.b64decode(str(user.get("client-certificate-data") or ""), validate=True)
        return Kubeconfig(
            certificate_pem=embedded,
            certificate_file=str(user.get("client-certificate") or ""),
            server=str(cluster["server"]),
            users=len(users),
            clusters=len(clusters),
            contexts=len(read["contexts"]),
            user=str(user["name"]),
            has_other_credentials=bool(
                user.keys() & {"token", "tokenFile", "password", "exec", "auth-provider"}
            ),
        )
    except (yaml.YAMLError, binascii.Error, LookupError, TypeError, AttributeError) as error:
        raise UnreadableCertificate("no kubeconfig of the form that kubeadm writes") from error


def _of_current_context(read: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """The user and the cluster that are used, each with its name."""
    context = _named(read["contexts"], read["current-context"])["context"]
    user = _named(read["users"], context["user"])
    cluster = _named(read["clusters"], context["cluster"])
    return {"name": user["name"], **(user.get("user") or {})}, cluster["cluster"]


def _named(entries: object, name: object) -> dict[str, dict[str, object]]:
    for entry in entries if isinstance(entries, list) else ():
        if entry["name"] == name:
            found: dict[str, dict[str, object]] = entry
            return found
    raise LookupError(name)
