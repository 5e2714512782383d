"""`kubeadm init phase certs` and `kubeadm certs generate-csr`."""

import contextlib
from dataclasses import replace
from datetime import timedelta

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.lab.kubeadm_standin_certs import (
    Keeper,
    fault,
    write,
)
from tests.lab.kubeadm_standin_config import KubeadmError, Place
from tests.lab.kubeadm_standin_kubeconfigs import load, look_at_given_kubeconfigs, validity
from tests.lab.pki import (
    SERVER,
    PrivateKey,
    Wanted,
    authority,
    key_pem,
    load_key,
    new_rsa_key,
    public_key_pem,
    wanted_of,
)
from tests.lab.pki_kubeadm import (
    AUTHORITIES,
    KUBELET_CONFIG,
    KUBERNETES,
    LEAVES,
    Cluster,
    Kept,
    configs,
    kubeconfig,
    server_of,
    wanted,
    wanted_client,
)

ORDER = (  # in which `all` makes them
    "ca",
    "apiserver",
    "apiserver-kubelet-client",
    "front-proxy-ca",
    "front-proxy-client",
    "etcd-ca",
    "etcd-server",
    "etcd-peer",
    "etcd-healthcheck-client",
    "apiserver-etcd-client",
)
KEPT = {one.name: one for one in (*AUTHORITIES, *LEAVES)}


def is_begun_with_external(place: Place, cluster: Cluster, folder: str = KUBERNETES) -> bool:
    """Do what every `init phase` begins with; return whether the key of the authority is absent.

    Raises:
        KubeadmError: it is, and something it should have signed is absent or has expired.
    """
    keeper = Keeper(place, cluster)
    found = []
    for authority_name, called in (("ca", "CA"), ("front-proxy-ca", "front-proxy CA")):
        is_external, reason = False, ""
        with contextlib.suppress(KubeadmError):  # that there is none yet is no fault here
            is_external, reason = keeper.external(KEPT[authority_name])
        if is_external and reason:
            raise KubeadmError(f"invalid or incomplete external {called}: {reason}")
        if is_external and authority_name == "ca":
            look_at_given_kubeconfigs(place, cluster, folder)
        found.append(is_external)
    return found[0]


def make_certificates(place: Place, cluster: Cluster, name: str) -> None:
    """Make one certificate, or all, where neither it nor its key is there.

    Raises:
        KubeadmError: what is there is not signed by its authority, or half of a pair is gone.
    """
    is_external = is_begun_with_external(place, cluster)
    if name == "all":
        place.say(f'[certs] Using certificateDir folder "{cluster.certificates_directory}"')
    for one in [*ORDER, "sa"] if name == "all" else [name]:
        try:
            if one == "sa" and is_external:
                place.say("[certs] Using existing sa keys")
            elif one == "sa":
                _make_service_account_key(place, cluster)
            elif KEPT[one].authority:
                _make_leaf(place, cluster, KEPT[one])
            else:
                _make_authority(place, cluster, KEPT[one])
        except KubeadmError as error:
            raise KubeadmError(f"error execution phase certs/{one}: {error.text}") from error


def generate_requests(place: Place, cluster: Cluster, configs_in: str = KUBERNETES) -> None:
    """Write a key and a signing request for every certificate; refuses where a key is there.

    Raises:
        KubeadmError: a key or a request is there already.
    """
    keeper = Keeper(place, cluster)
    leaves = [one for one in keeper.all.values() if isinstance(one, Kept)]
    folder = cluster.certificates_directory
    place.say(f"generating keys and CSRs in {folder}")
    for leaf in leaves:
        base = f"{folder}/{leaf.base_name}"
        if place.exists(f"{base}.key") or place.exists(f"{base}.csr"):
            raise KubeadmError(f"file already exists: key or CSR {base}")
        key = new_rsa_key()
        place.say(f"  {leaf.base_name}")
        write(place.path(f"{base}.key"), key_pem(key), 0o600)
        write(place.path(f"{base}.csr"), _request(wanted(leaf, cluster), key), 0o600)
    place.say(f"generating keys and CSRs in {configs_in}")
    for config in (*configs(cluster), KUBELET_CONFIG):
        path = f"{configs_in}/{config.name}"
        if place.exists(path) or place.exists(f"{path}.csr"):
            raise KubeadmError(f"file already exists: key or CSR {path}")
        key, says = new_rsa_key(), wanted_client(config, cluster)
        place.say(f"  {config.name}")
        text = kubeconfig(
            cluster.name,
            server_of(config, cluster),
            says.common_name,
            authority=b"-",
            certificate=b"-",
            key=key_pem(key),
        )
        partial = yaml.safe_load(text)
        del partial["clusters"][0]["cluster"]["certificate-authority-data"]
        del partial["users"][0]["user"]["client-certificate-data"]
        write(place.path(path), yaml.safe_dump(partial, width=1_000_000).encode(), 0o600)
        write(place.path(f"{path}.csr"), _request(says, key), 0o600)


def _make_authority(place: Place, cluster: Cluster, kept: Kept) -> None:
    base = f"{cluster.certificates_directory}/{kept.base_name}"
    if cluster.has_external_etcd and kept.name == "etcd-ca":
        skipped = f"Skipping {kept.base_name} certificate authority generation"
        place.say(f"[certs] External etcd mode: {skipped}")
        return
    if place.exists(f"{base}.crt"):
        place.look_at_dates(kept.base_name, load(place, f"{base}.crt"))
        keyless = "" if place.exists(f"{base}.key") else "keyless "
        place.say(f"[certs] Using existing {kept.base_name} {keyless}certificate authority")
        return
    _refuse_half(place, kept, cluster)
    life = timedelta(seconds=cluster.authority_seconds)
    dates = replace(validity(place, cluster), ends_at=place.started_at + life)
    made = authority(kept.common_name, dates, new_rsa_key())
    place.say(f'[certs] Generating "{kept.base_name}" certificate and key')
    write(place.path(f"{base}.key"), made.key_pem, 0o600)
    write(place.path(f"{base}.crt"), made.certificate_pem, 0o644)


def _make_leaf(place: Place, cluster: Cluster, kept: Kept) -> None:
    folder, base = cluster.certificates_directory, kept.base_name
    if cluster.has_external_etcd and kept.authority == "etcd-ca":
        place.say(f"[certs] External etcd mode: Skipping {base} certificate generation")
        return
    issuer = KEPT[kept.authority]
    if place.exists(f"{folder}/{base}.crt"):
        try:
            there = load(place, f"{folder}/{base}.crt")
        except KubeadmError as error:
            raise _unwritable(kept, error.text) from error
        place.look_at_dates(base, there)
        try:
            above = load(place, f"{folder}/{issuer.base_name}.crt")
        except KubeadmError as error:
            text = f"couldn't load CA certificate {issuer.name}: {error.text}"
            raise KubeadmError(text) from error
        place.look_at_dates(issuer.base_name, above)
        reason = fault(there, above)
        if reason:
            raise KubeadmError(
                f"[certs] certificate {base} not signed by CA certificate {issuer.base_name}: "
                f"{reason}"
            )
        place.say(f"[certs] Using existing {base} certificate and key on disk")
        return
    try:
        signer = Keeper(place, cluster).signer(issuer)
    except KubeadmError as error:
        text = f"couldn't load CA certificate {issuer.name}: {error.text}"
        raise KubeadmError(text) from error
    _refuse_half(place, kept, cluster)
    says = wanted(kept, cluster)
    made = signer.issue(says, validity(place, cluster), new_rsa_key())
    place.say(f'[certs] Generating "{base}" certificate and key')
    write(place.path(f"{folder}/{base}.key"), made.key_pem, 0o600)
    write(place.path(f"{folder}/{base}.crt"), made.certificate_pem, 0o644)
    if SERVER in says.usages:
        signed = wanted_of(made.certificate)
        addresses = " ".join(map(str, signed.addresses))
        place.say(
            f"[certs] {base} serving cert is signed for DNS names [{' '.join(signed.names)}] "
            f"and IPs [{addresses}]"
        )


def _make_service_account_key(place: Place, cluster: Cluster) -> None:
    base = f"{cluster.certificates_directory}/sa"
    if place.exists(f"{base}.key"):
        try:
            load_key(place.path(f"{base}.key").read_bytes())
        except ValueError as error:
            text = "file sa.key existed but it could not be loaded properly"
            raise KubeadmError(f"{text}: {error}") from error
        place.say('[certs] Using the existing "sa" key')
        return
    place.say('[certs] Generating "sa" key and public key')
    key = new_rsa_key()
    write(place.path(f"{base}.key"), key_pem(key), 0o600)
    write(place.path(f"{base}.pub"), public_key_pem(key), 0o600)


def _refuse_half(place: Place, kept: Kept, cluster: Cluster) -> None:
    """A key without its certificate is not made whole: kubeadm wants both or none."""
    base = f"{cluster.certificates_directory}/{kept.base_name}"
    if not place.exists(f"{base}.key"):
        return
    reason = f"open {base}.crt: no such file or directory"
    tried = f"couldn't load the certificate file {base}.crt: {reason}"
    if kept.authority:
        raise _unwritable(kept, tried)
    loading = "failed to load certificate"
    raise KubeadmError(f"failure loading {kept.base_name} certificate: {loading}: {tried}")


def _unwritable(kept: Kept, reason: str) -> KubeadmError:
    return KubeadmError(
        f'failed to write or validate certificate "{kept.name}": '
        f"failure loading {kept.base_name} certificate: {reason}"
    )


def _request(says: Wanted, key: PrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(says.subject)
    if says.alternatives:
        alternatives = x509.SubjectAlternativeName(says.alternatives)
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
