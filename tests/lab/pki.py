"""Certificates with any dates a test wants, signed the way kubeadm and the kubelet sign theirs.

Used by the tests and, inside the lab's hosts, by the stand-ins; so it asks for nothing newer than
the cryptography 38 of Debian 12.
"""

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
MARK = b"-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate is good."""

    starts_at: datetime
    ends_at: datetime

    @classmethod
    def with_left(cls, left: timedelta, lifetime: timedelta) -> "Validity":
        """Return the dates of one that was issued for `lifetime` and has `left` to live still."""
        ends_at = (datetime.now(UTC) + left).replace(microsecond=0)
        return cls(min(ends_at - lifetime, datetime.now(UTC)).replace(microsecond=0), ends_at)


@dataclass(frozen=True)
class Wanted:
    """What a certificate is to say of its holder."""

    common_name: str
    organizations: tuple[str, ...] = ()
    usages: tuple[x509.ObjectIdentifier, ...] = (CLIENT,)
    names: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()

    @property
    def subject(self) -> x509.Name:
        """Organizations first, as Go writes it."""
        groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in self.organizations]
        return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)])

    @property
    def alternatives(self) -> list[x509.GeneralName]:
        """Names sorted and addresses as given, none of them twice, as kubeadm does it."""
        names = [x509.DNSName(name) for name in sorted(set(self.names))]
        return [*names, *(x509.IPAddress(address) for address in dict.fromkeys(self.addresses))]


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as a file holds it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as a file holds it."""
        return key_pem(self.key)


@dataclass(frozen=True)
class Authority(Pair):
    """A certificate authority with its key."""

    def issue(self, wanted: Wanted, validity: Validity, key: PrivateKey) -> Pair:
        """Sign a certificate for this key."""
        return Pair(self.sign(wanted, validity, key.public_key()), key)

    def sign(
        self,
        wanted: Wanted,
        validity: Validity,
        public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    ) -> x509.Certificate:
        """Sign a certificate for the key of somebody else."""
        known_by = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        builder = (
            _begun(wanted.subject, self.certificate.subject, validity)
            .public_key(public_key)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(wanted.usages), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known_by.value),
                critical=False,
            )
        )
        if wanted.alternatives:
            alternatives = x509.SubjectAlternativeName(wanted.alternatives)
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def authority(common_name: str, validity: Validity, key: PrivateKey) -> Authority:
    """Make a self-signed certificate authority, with its name among its DNS names, as kubeadm."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(common_name)])
    builder = (
        _begun(name, name, validity)
        .public_key(key.public_key())
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(alternatives, critical=False)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def self_signed(host: str, validity: Validity, key: PrivateKey) -> tuple[Pair, bytes]:
    """Make what client-go makes for a server that was given none: a leaf of a passing authority.

    Returns:
        The leaf and its key, and the file of both certificates.
    """
    made_at = int(validity.starts_at.timestamp())
    root = authority(f"{host}-ca@{made_at}", validity, new_key())
    pair = root.issue(Wanted(f"{host}@{made_at}", (), (SERVER,), (host,)), validity, key)
    return pair, pair.certificate_pem + root.certificate_pem


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key of the kind the kubelet makes; quick."""
    return ec.generate_private_key(ec.SECP256R1())


def new_rsa_key() -> rsa.RSAPrivateKey:
    """Make a key of the kind kubeadm makes; takes a tenth of a second or two."""
    return rsa.generate_private_key(65537, 2048)


def key_pem(key: PrivateKey) -> bytes:
    """Return a key as Go writes it: BEGIN RSA (or EC) PRIVATE KEY."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def public_key_pem(key: PrivateKey) -> bytes:
    """Return the public half of a key, as sa.pub holds it."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_key(pem: bytes) -> PrivateKey:
    """Read a private key.

    Raises:
        ValueError: it holds none, or one of another kind.
    """
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError("the key is neither RSA nor ECDSA")  # noqa: TRY004 - it is the content
    return key


def load_certificates(pem: bytes) -> Sequence[x509.Certificate]:
    """Read every certificate of a file, which may hold a key as well.

    Raises:
        ValueError: it holds none that can be read.
    """
    blocks = [part[part.find(b"-----BEGIN CERT") :] + MARK for part in pem.split(MARK)[:-1]]
    if not blocks:
        raise ValueError("no certificate")
    return [x509.load_pem_x509_certificate(block) for block in blocks]


def ends_at(certificate: x509.Certificate) -> datetime:
    """Return when a certificate expires."""
    return _moment(certificate, "not_valid_after")


def starts_at(certificate: x509.Certificate) -> datetime:
    """Return from when a certificate is good."""
    return _moment(certificate, "not_valid_before")


def wanted_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> Wanted:
    """Return what a certificate, or a request, says of its holder, so that another can as well."""
    extensions = certificate.extensions
    names: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    usages: tuple[x509.ObjectIdentifier, ...] = ()
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names = tuple(value.get_values_for_type(x509.DNSName))
            found = value.get_values_for_type(x509.IPAddress)
            addresses = tuple(
                a for a in found if isinstance(a, ipaddress.IPv4Address | ipaddress.IPv6Address)
            )
        if isinstance(value, x509.ExtendedKeyUsage):
            usages = tuple(value)
    subject = certificate.subject
    groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    called = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Wanted(
        str(called[0].value) if called else "",
        tuple(str(group.value) for group in groups),
        usages,
        names,
        addresses,
    )


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the signature is that of this authority; dates are not looked at."""
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    algorithm = certificate.signature_hash_algorithm or hashes.SHA256()
    key = issuer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(algorithm))
        else:
            return False
    except InvalidSignature:
        return False
    return certificate.issuer == issuer.subject


def _moment(certificate: x509.Certificate, name: str) -> datetime:
    aware = getattr(certificate, f"{name}_utc", None)  # there since cryptography 42
    return aware or getattr(certificate, name).replace(tzinfo=UTC)


def _begun(subject: x509.Name, issuer: x509.Name, validity: Validity) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(secrets.randbelow(2**63 - 2) + 1)
        .not_valid_before(validity.starts_at)
        .not_valid_after(validity.ends_at)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
