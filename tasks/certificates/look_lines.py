"""Reading the answers of a look at a control-plane host."""

import base64
import binascii
import re
from datetime import UTC, datetime

from cryptography import x509

from recovery.errors import UnreadableOutput
from tasks.certificates.catalogue import (
    AUTHORITIES,
    KUBELET_CURRENT,
    LEAVES,
    Component,
    EtcdKind,
)
from tasks.certificates.kubeadm import Report, minor_of
from tasks.certificates.look_script import parse_lines
from tasks.certificates.reading import (
    Certificate,
    Kubeconfig,
    Presence,
    UnreadableCertificate,
    is_signed_by,
    key_state,
    parse_certificates,
    parse_kubeconfig,
    told,
)
from tasks.certificates.seen import (
    Account,
    ApiState,
    Clock,
    FileSeen,
    KubeletForm,
    KubeletSeen,
    Runtime,
    RuntimeKind,
    Seen,
    Served,
)

SERVED = ("kube-apiserver", "etcd", "etcd-peer", "kubelet")
DOCKER_UNTIL = (1, 24)  # from this release on the kubelet talks to no docker by itself
NODE = "system:node:"
API_PORT = 6443
UPTIME_WORDS = 3
COMMANDS = {  # what the kernel calls the processes: their names, cut after 15 characters
    "etcd": Component.ETCD,
    "kube-apiserver": Component.APISERVER,
    "kube-controller": Component.CONTROLLER_MANAGER,
    "kube-scheduler": Component.SCHEDULER,
    "kubelet": Component.KUBELET,
}


class Lines:
    """The answers of one look, by what was asked."""

    def __init__(self, printed: str) -> None:
        self._found = parse_lines(printed)

    def one(self, what: str, default: str = "") -> str:
        """The first answer."""
        return self.all(what)[0] if self._found.get(what) else default

    def all(self, what: str) -> list[str]:
        """All answers."""
        return self._found.get(what, [])

    def text(self, what: str) -> str:
        """The first answer, out of base64."""
        return decoded(self.one(what)).decode(errors="replace")

    def under(self, kind: str) -> dict[str, str]:
        """The first answer of each `kind:name`, by name."""
        prefix = f"{kind}:"
        return {
            what.removeprefix(prefix): values[0]
            for what, values in self._found.items()
            if what.startswith(prefix)
        }


def decoded(value: str) -> bytes:
    """Bytes out of base64.

    Raises:
        UnreadableOutput: it is none.
    """
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableOutput("look", value) from error


def seen_in(
    lines: Lines,
    asked_at: float,
    answered_at: float,
    report: Report | None,
    failed: str,
) -> Seen:
    """What a look has seen.

    Args:
        lines: its answers.
        asked_at: when it was sent, in seconds of the worker's clock.
        answered_at: when it was answered.
        report: what kubeadm said.
        failed: why kubeadm said nothing.
    """
    began, ended = (_number(value) for value in lines.all("clock"))
    authorities, trusted = seen_authorities(lines)
    kubelet = kubelet_seen(lines)
    manifests = {
        name: decoded(value).decode(errors="replace")
        for name, value in lines.under("manifest").items()
        if value != "missing"
    }
    admin = _kubeconfig(lines, "admin.conf")
    apiserver = manifests.get(Component.APISERVER, "")
    return Seen(
        seen_at=datetime.fromtimestamp(began, UTC),
        clock=Clock(ended - answered_at, began - asked_at),
        node_name=_node_name(lines, kubelet),
        tools=lines.under("tool"),
        kubeadm_version=lines.one("version"),
        control_plane_version=_image_tag(apiserver),
        pki=lines.one("pki"),
        is_standard_pki=lines.one("same-pki") == "yes",
        etcd=_etcd_kind(lines, manifests),
        manifests=frozenset(Component(name) for name in manifests),
        leaves=tuple(seen_leaf(lines, leaf.name, trusted[leaf.ca]) for leaf in LEAVES),
        authorities=tuple(authorities),
        foreign=file_seen(lines, "pem", "foreign", []),
        service_key=lines.one("same:sa.key"),
        service_public_key=lines.one("same:sa.pub"),
        kubelet=kubelet,
        served=tuple(served_in(lines, name) for name in SERVED),
        started_at=started_in(lines),
        runtime=runtime_in(lines),
        api=api_state(lines.text("ready")),
        server=admin.server if admin else "",
        address=_flag(apiserver, "advertise-address"),
        api_port=int(_flag(apiserver, "secure-port") or API_PORT),
        size_kib=sum(int(_number(word)) for word in lines.one("size").split()),
        free_kib={name: int(_number(value)) for name, value in lines.under("free").items()},
        is_renewing=lines.one("renewing") in {"active", "activating"},
        has_renewal_timer=lines.one("timer") == "active",
        kubeadm_said=report,
        kubeadm_failed=failed,
        accounts=tuple(account_seen(lines, name) for name in lines.under("account")),
    )


def file_seen(lines: Lines, kind: str, name: str, authorities: list[x509.Certificate]) -> FileSeen:
    """What the look saw of a certificate in a file of its own.

        pair:apiserver<TAB>644 0:0 1795240535.859556975 77db20f9… LS0tLS1CRUdJTi…

    That is mode, owner, time, hash of the key's public half, certificate.
    """
    value = lines.one(f"{kind}:{name}", "missing")
    if value == "missing":
        return FileSeen(name, Presence.MISSING)
    _, _, changed_at, key_sha256, *content = value.split(" ")
    return _judged(name, decoded("".join(content)), changed_at, key_sha256, authorities)


def _judged(
    name: str, pem: bytes, changed_at: str, key_sha256: str, authorities: list[x509.Certificate]
) -> FileSeen:
    try:
        first = parse_certificates(pem)[0]
        return FileSeen(
            name,
            Presence.READABLE,
            told(first),
            key_state(first, key_sha256),
            is_signed_by(first, authorities),
            _number(changed_at),
        )
    except UnreadableCertificate as error:
        return FileSeen(name, Presence.UNREADABLE, changed_at=_number(changed_at), why=str(error))


def embedded_seen(lines: Lines, name: str, authorities: list[x509.Certificate]) -> FileSeen:
    """What the look saw of a certificate embedded in a kubeconfig."""
    value = lines.one(f"conf:{name}", "missing")
    if value == "missing":
        return FileSeen(name, Presence.MISSING)
    _, _, changed_at, key_sha256, *content = value.split(" ")
    try:
        config = parse_kubeconfig(decoded("".join(content)).decode(errors="replace"))
    except UnreadableCertificate as error:
        return FileSeen(name, Presence.UNREADABLE, changed_at=_number(changed_at), why=str(error))
    return _judged(name, config.certificate_pem, changed_at, key_sha256, authorities)


def served_in(lines: Lines, name: str) -> Served:
    """What the look saw presented on a port."""
    address, _, content = lines.one(f"served:{name}", "none").partition(" ")
    pem = decoded(content.strip())
    return Served(name, "" if address == "none" else address, _first_told(pem))


def _first_told(pem: bytes) -> Certificate | None:
    try:
        return told(parse_certificates(pem)[0])
    except UnreadableCertificate:
        return None


def started_in(lines: Lines) -> dict[str, float]:
    """When each process of the control plane was started, in seconds of the host's clock.

        uptime<TAB>1795241243.843419772 13527.27 100
        process:etcd<TAB>11527 1352034

    The ticks count from when the host was started. A process that ended while it was looked at has
    none, and does not count.
    """
    words = lines.one("uptime").split()
    if len(words) != UPTIME_WORDS:
        raise UnreadableOutput("look", " ".join(words))
    now, uptime, ticks = map(_number, words)
    found: dict[str, float] = {}
    for name in lines.under("process"):
        for value in lines.all(f"process:{name}"):
            _, _, started = value.strip().partition(" ")
            if started:
                at = now - uptime + _number(started) / ticks
                found[COMMANDS[name]] = min(at, found.get(COMMANDS[name], at))
    return found


def seen_authorities(lines: Lines) -> tuple[list[FileSeen], dict[str, list[x509.Certificate]]]:
    """Each authority as it was seen, and all certificates in its file, to hold leaves against."""
    found, trusted = [], {}
    for authority in AUTHORITIES:
        value = lines.one(f"pair:{authority.name}", "missing")
        try:
            trusted[authority.name] = parse_certificates(decoded(value.rpartition(" ")[2]))
        except (UnreadableCertificate, UnreadableOutput):
            trusted[authority.name] = []
        found.append(file_seen(lines, "pair", authority.name, trusted[authority.name]))
    return found, trusted


def seen_leaf(lines: Lines, name: str, authorities: list[x509.Certificate]) -> FileSeen:
    """What the look saw of a certificate, by kubeadm's name."""
    if name.endswith(".conf"):
        return embedded_seen(lines, name, authorities)
    return file_seen(lines, "pair", name, authorities)


def _kubeconfig(lines: Lines, name: str) -> Kubeconfig | None:
    value = lines.one(f"conf:{name}", "missing")
    try:
        return parse_kubeconfig(decoded(value.rpartition(" ")[2]).decode(errors="replace"))
    except (UnreadableCertificate, UnreadableOutput):
        return None


def kubelet_seen(lines: Lines) -> KubeletSeen:
    """What the look saw of the kubelet: its files, how it is configured, whether it runs."""
    authorities = seen_authorities(lines)[1]["ca"]
    config = lines.text("kubelet-config")
    own = file_seen(lines, "pair", "kubelet-serving", authorities)
    has_bootstrap = bool(re.search(r"(?m)^serverTLSBootstrap: *true", config))
    rotated = file_seen(lines, "pem", "kubelet-server", authorities)
    return KubeletSeen(
        form=_kubelet_form(lines),
        client=file_seen(lines, "pem", "kubelet-client", authorities),
        embedded=embedded_seen(lines, "kubelet.conf", authorities),
        serving=rotated if has_bootstrap and rotated.presence is not Presence.MISSING else own,
        is_active=lines.one("kubelet-active") == "active",
        has_server_bootstrap=has_bootstrap,
        has_own_serving_file=bool(re.search(r"(?m)^tlsCertFile: *\S", config))
        or "--tls-cert-file=" in lines.text("kubelet-flags"),
    )


def _kubelet_form(lines: Lines) -> KubeletForm:
    if lines.one("conf:kubelet.conf", "missing") == "missing":
        return KubeletForm.MISSING
    config = _kubeconfig(lines, "kubelet.conf")
    if config is None:
        return KubeletForm.UNREADABLE
    if config.certificate_file == KUBELET_CURRENT:
        return KubeletForm.LINKED
    return KubeletForm.EMBEDDED if config.certificate_pem else KubeletForm.OTHER


def _node_name(lines: Lines, kubelet: KubeletSeen) -> str:
    """The name the node is registered under: that of its own certificate, where it has one."""
    for seen in (kubelet.client, kubelet.embedded):
        if seen.certificate and seen.certificate.common_name.startswith(NODE):
            return seen.certificate.common_name.removeprefix(NODE)
    config = _kubeconfig(lines, "kubelet.conf")
    if config and config.user.startswith(NODE):
        return config.user.removeprefix(NODE)
    flags = lines.text("kubelet-flags")
    found = re.search(r"--hostname-override=(\S+)", flags)
    return found[1] if found else lines.one("hostname").lower()


def _image_tag(manifest: str) -> str:
    """The version in `image: registry/kube-apiserver:v1.36.2`; empty where it is none."""
    found = re.search(r"(?m)^image: \S+:(v\d+\.\d+\.\d+[^\s@]*)", manifest)
    return found[1] if found else ""


def _flag(manifest: str, name: str) -> str:
    """What a flag is set to in a manifest."""
    found = re.search(rf"(?m)^--{name}=(\S*)", manifest)
    return found[1] if found else ""


def _etcd_kind(lines: Lines, manifests: dict[str, str]) -> EtcdKind:
    if Component.ETCD in manifests or lines.one("pair:etcd-server", "missing") != "missing":
        return EtcdKind.STACKED
    is_kubespray = lines.one("kubespray-etcd") == "yes"
    return EtcdKind.KUBESPRAY if is_kubespray else EtcdKind.EXTERNAL


def runtime_in(lines: Lines) -> Runtime:
    """What containers are restarted with: by what the kubelet is told, and what is there."""
    tools = lines.under("tool")
    told_of = lines.text("kubelet-flags") + lines.text("kubelet-config")
    found = re.search(r"(?:endpoint=|Endpoint: *)[\"']?([^\s\"']+)", told_of)
    endpoint = found[1] if found else ""
    docker, crictl = tools.get("docker", ""), tools.get("crictl", "")
    version = lines.one("version")
    is_old = not endpoint and bool(version) and minor_of(version) < DOCKER_UNTIL
    if docker and (is_old or "dockershim" in endpoint):
        return Runtime(RuntimeKind.DOCKER, docker)
    if crictl and (endpoint or lines.all("socket")):
        return Runtime(RuntimeKind.CRI, crictl, endpoint or f"unix://{lines.one('socket')}")
    if docker and "cri-dockerd" in endpoint:
        return Runtime(RuntimeKind.DOCKER, docker)
    return Runtime(RuntimeKind.NONE)


def api_state(answer: str) -> ApiState:
    """Read what `GET /readyz` answers over a bare connection: `HTTP/1.0 200 OK` and more."""
    found = re.match(r"HTTP/1\.[01] (\d{3})", answer)
    if not found:
        return ApiState.SILENT
    states = {"200": ApiState.READY, "401": ApiState.CLOSED, "403": ApiState.CLOSED}
    return states.get(found[1], ApiState.NOT_READY)


def account_seen(lines: Lines, name: str) -> Account:
    """What the look saw of the kubeconfig of an account."""
    value = lines.one(f"account:{name}", "missing")
    if value == "missing":
        return Account(name)
    ids, _, path = value.partition(" ")
    real = decoded(path).decode(errors="replace").strip()
    file = lines.one(f"conf:account:{name}", "missing")
    if file == "missing":
        return Account(name, ids, real)
    mode, owner, *_ = file.split(" ")
    config = _kubeconfig(lines, f"account:{name}")
    if config is None:
        return Account(name, owner, real, Presence.UNREADABLE, mode)
    embedded = embedded_seen(lines, f"account:{name}", [])
    return Account(
        name,
        owner,
        real,
        Presence.READABLE,
        mode,
        config.server,
        max(config.users, config.clusters, config.contexts),
        embedded.certificate.serial if embedded.certificate else "",
        config.has_other_credentials,
    )


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise UnreadableOutput("look", word) from error
