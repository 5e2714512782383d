"""Kubeconfigs: `kubeadm init phase kubeconfig`, `kubeadm kubeconfig user`."""

import os
from collections.abc import Sequence
from datetime import timedelta

import yaml
from cryptography import x509

from tests.lab.kubeadm_standin_certs import authority_of, loaded_kubeconfig, reason_of, write
from tests.lab.kubeadm_standin_config import KubeadmError, Place
from tests.lab.pki import (
    CLIENT,
    Authority,
    Validity,
    Wanted,
    load_certificates,
    load_key,
    new_rsa_key,
)
from tests.lab.pki_kubeadm import (
    KUBELET_CONFIG,
    KUBERNETES,
    Cluster,
    KeptConfig,
    configs,
    kubeconfig,
    server_of,
    wanted_client,
)

ROTATED = "/var/lib/kubelet/pki/kubelet-client-current.pem"
FILES = {  # as `init phase kubeconfig` calls them
    "admin": "admin.conf",
    "super-admin": "super-admin.conf",
    "kubelet": "kubelet.conf",
    "controller-manager": "controller-manager.conf",
    "scheduler": "scheduler.conf",
}


def make_kubeconfigs(
    place: Place, cluster: Cluster, name: str, *, is_external: bool, folder: str = KUBERNETES
) -> None:
    """Write one kubeconfig, or all; one that is there is kept, however old its certificate is.

    Raises:
        KubeadmError: the authority is not here, or one that is there trusts another.
    """
    wanted_files = {one.name: one for one in (*configs(cluster), KUBELET_CONFIG)}
    if name == "all":
        place.say(f'[kubeconfig] Using kubeconfig folder "{folder}"')
    for short in FILES if name == "all" else [name]:
        config = wanted_files.get(FILES[short])
        if config is None:
            continue
        if is_external:
            place.say(f"[kubeconfig] External CA mode: Using user provided {config.name}")
            continue
        try:
            _make_kubeconfig(place, cluster, config, folder)
        except KubeadmError as error:
            raise KubeadmError(f"error execution phase kubeconfig/{short}: {error.text}") from error


def user_kubeconfig(
    place: Place, cluster: Cluster, name: str, groups: Sequence[str], seconds: float
) -> str:
    """Return a kubeconfig with a new client certificate of this name; nothing is written."""
    ca = signer(place, cluster)
    starts, life = validity(place, cluster).starts_at, timedelta(seconds=seconds)
    issued = ca.issue(
        Wanted(name, tuple(groups), (CLIENT,)),
        Validity(starts, place.started_at + life),
        new_rsa_key(),
    )
    return kubeconfig(
        cluster.name,
        cluster.url,
        name,
        authority=ca.certificate_pem,
        certificate=issued.certificate_pem,
        key=issued.key_pem,
    ).decode()


def point_kubelet_at_rotated(place: Place) -> None:
    """Make kubelet.conf name the file that the kubelet rotates, once that file is there.

    Raises:
        KubeadmError: there is no kubelet.conf.
    """
    if not os.path.lexists(place.path(ROTATED)):
        return
    name = f"{KUBERNETES}/kubelet.conf"
    place.say(
        f'[kubelet-finalize] Updating "{name}" to point to a rotatable kubelet client '
        "certificate and key"
    )
    if not place.exists(name):
        phase = "kubelet-finalize/enable-client-cert-rotation"
        reason = f'could not load "{name}": open {name}: no such file or directory'
        raise KubeadmError(f"error execution phase {phase}: {reason}")
    config = yaml.safe_load(place.path(name).read_text())
    for one in config["users"]:
        one["user"] = {"client-certificate": ROTATED, "client-key": ROTATED}
    write(place.path(name), yaml.safe_dump(config, width=1_000_000).encode(), 0o600)
    if place.path("/run/systemd/system").is_dir():
        os.system("systemctl restart kubelet")  # noqa: S605 - a command of our own
    else:
        place.say(
            "[kubelet-start] No supported init system detected, won't make sure the kubelet not "
            "running for a short period of time while setting up configuration for it."
        )


def look_at_given_kubeconfigs(place: Place, cluster: Cluster, folder: str = KUBERNETES) -> None:
    """Refuse where one that cannot be made is not there, or trusts another authority."""
    ca = load(place, f"{cluster.certificates_directory}/ca.crt")
    here = ("controller-manager.conf", "scheduler.conf")
    for name in (*here, "admin.conf", "super-admin.conf", "kubelet.conf"):
        path = f"{folder}/{name}"
        expected = cluster.local_url if name in here else cluster.url
        if not place.exists(path):
            reason = f"stat {path}: no such file or directory"
            text = f"the {name} file does not exists or it is not valid"
            raise KubeadmError(f"{text}: {reason}")
        try:
            _compare_kubeconfig(place, path, ca, expected)
        except KubeadmError as error:
            text = f"the {name} file does not exists or it is not valid"
            raise KubeadmError(f"{text}: {error.text}") from error


def signer(place: Place, cluster: Cluster) -> Authority:
    """Return the authority of the cluster, which signs client certificates.

    Raises:
        KubeadmError: its certificate or its key is not there.
    """
    folder = cluster.certificates_directory
    crt, key = f"{folder}/ca.crt", f"{folder}/ca.key"
    for path, what, kind in ((crt, "certificate", "certificate"), (key, "key", "private key")):
        if not place.exists(path):
            raise KubeadmError(
                "couldn't create a kubeconfig; the CA files couldn't be loaded: "
                f"failed to load {what}: couldn't load the {kind} file {path}: "
                f"open {path}: no such file or directory"
            )
    loaded = load_key(place.path(key).read_bytes())
    signer = Authority(load(place, crt), loaded)
    place.look_at_dates("ca", signer.certificate)
    return signer


def load(place: Place, path: str) -> x509.Certificate:
    """Read one certificate.

    Raises:
        KubeadmError: it is not there, or cannot be read.
    """
    try:
        return load_certificates(place.path(path).read_bytes())[0]
    except (OSError, ValueError) as error:
        reason = reason_of(path, error)
        raise KubeadmError(f"couldn't load the certificate file {path}: {reason}") from error


def validity(place: Place, cluster: Cluster) -> Validity:
    """From when to when what is made now is good."""
    life = timedelta(seconds=cluster.certificate_seconds)
    return Validity(place.started_at - timedelta(minutes=5), place.started_at + life)


def _make_kubeconfig(place: Place, cluster: Cluster, config: KeptConfig, folder: str) -> None:
    ca = signer(place, cluster)
    path = f"{folder}/{config.name}"
    if place.exists(path):
        _compare_kubeconfig(place, path, ca.certificate, server_of(config, cluster))
        place.say(f'[kubeconfig] Using existing kubeconfig file: "{path}"')
        return
    says = wanted_client(config, cluster)
    issued = ca.issue(says, validity(place, cluster), new_rsa_key())
    place.say(f'[kubeconfig] Writing "{config.name}" kubeconfig file')
    text = kubeconfig(
        cluster.name,
        server_of(config, cluster),
        says.common_name,
        authority=ca.certificate_pem,
        certificate=issued.certificate_pem,
        key=issued.key_pem,
    )
    write(place.path(path), text, 0o600)


def _compare_kubeconfig(place: Place, path: str, ca: x509.Certificate, expected: str) -> None:
    """Refuse one that trusts another authority; warn of one that names another server."""
    try:
        config = loaded_kubeconfig(path, place.path(path).read_bytes())
    except KubeadmError as error:
        reason = error.text.partition(": ")[2]
        raise KubeadmError(
            f"failed to load kubeconfig file {path} that already exists on disk: {reason}"
        ) from error
    if not config:
        raise KubeadmError(
            f"failed to find CurrentContext in Contexts of the kubeconfig file {path}"
        )
    if authority_of(path, config) != ca:
        raise KubeadmError(
            f'a kubeconfig file "{path}" exists but does not contain a trusted CA in its current '
            "context's cluster. Total CA certificates found: 1"
        )
    server = config["clusters"][0]["cluster"]["server"]
    if server != expected:
        place.warn(
            "kubeconfig.go:291",
            f'a kubeconfig file "{path}" exists already but has an unexpected API Server URL: '
            f"expected: {expected}, got: {server}",
        )
