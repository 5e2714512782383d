"""Reading the answers of a look at a control-plane host: certificates, kubeconfigs, processes."""

import base64
import hashlib
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blocks.ssh.command import Answer
from recovery.errors import UnreadableOutput
from recovery.values import canonical, from_plain, to_plain
from tasks.certificates.api import ApiAnswer, parse_answer
from tasks.certificates.catalogue import Component, EtcdKind
from tasks.certificates.look import look_at
from tasks.certificates.look_lines import (
    Lines,
    account_seen,
    api_state,
    decoded,
    embedded_seen,
    file_seen,
    seen_in,
    served_in,
    started_in,
)
from tasks.certificates.look_script import look_argv, parse_lines
from tasks.certificates.reading import (
    KeyState,
    Presence,
    UnreadableCertificate,
    parse_certificates,
    parse_kubeconfig,
    told,
)
from tasks.certificates.seen import ApiState, KubeletForm, RuntimeKind, Seen
from tests.lab.pki import SERVER, Validity, Wanted, authority, new_key

VALID = Validity.with_left(timedelta(days=100), timedelta(days=365))
CA = authority(
    "kubernetes", Validity.with_left(timedelta(days=3000), timedelta(days=3650)), new_key()
)
OTHER_CA = authority("kubernetes", VALID, new_key())
NOTHING = hashlib.sha256(b"").hexdigest()
SAMPLE_KEEP = 20_000  # characters of a probe's answer that the journal keeps


def encoded(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def key_hash(pair):
    der = pair.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def issue(name, *, ca=CA, **wanted):
    return ca.issue(Wanted(name, **wanted), VALID, new_key())


def pair_line(name, pair, *, kind="pair", key=None):
    hashed = key if key is not None else key_hash(pair)
    return f"{kind}:{name}\t644 0:0 1795240535.859556975 {hashed} {encoded(pair.certificate_pem)}"


def kubeconfig(pair, user="kubernetes-admin", server="https://lb:6443", more=""):
    return (
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: AAAA\n"
        f"    server: {server}\n  name: kubernetes\n"
        f"contexts:\n- context:\n    cluster: kubernetes\n    user: {user}\n"
        f"  name: {user}@kubernetes\n{more}current-context: {user}@kubernetes\n"
        f"kind: Config\nusers:\n- name: {user}\n  user:\n"
        f"    client-certificate-data: {encoded(pair.certificate_pem)}\n"
        "    client-key-data: hidden\n"
    )


def conf_line(name, pair, **fields):
    text = encoded(kubeconfig(pair, **fields))
    return f"conf:{name}\t600 0:0 1795240535.85 {key_hash(pair)} {text}"


def test_a_certificate_says_who_it_is_for_and_how_long():
    pair = issue("kube-apiserver", names=("cp1", "kubernetes"), usages=(SERVER,))

    seen = told(pair.certificate)

    assert seen.common_name == "kube-apiserver"
    assert seen.serial == f"{pair.certificate.serial_number:X}"
    assert seen.names == ("DNS:cp1", "DNS:kubernetes")
    assert seen.not_after == VALID.ends_at
    assert seen.issuer == "CN=kubernetes"


@pytest.mark.parametrize(
    ("key", "state"),
    [
        (None, KeyState.FITS),
        ("-", KeyState.MISSING),
        (NOTHING, KeyState.UNREADABLE),
        ("ab" * 32, KeyState.DIFFERS),
    ],
)
def test_a_key_is_held_against_its_certificate_by_its_hash(key, state):
    pair = issue("kube-apiserver")

    seen = file_seen(Lines(pair_line("apiserver", pair, key=key)), "pair", "apiserver", [])

    assert seen.key is state
    assert seen.changed_at == pytest.approx(1795240535.859557)


@pytest.mark.parametrize(("ca", "is_signed"), [(CA, True), (OTHER_CA, False)])
def test_who_has_signed_is_told_by_the_signature_not_by_the_name(ca, is_signed):
    lines = Lines(pair_line("apiserver", issue("kube-apiserver", ca=ca)))

    seen = file_seen(lines, "pair", "apiserver", [CA.certificate])

    assert seen.is_signed is is_signed
    assert seen.is_whole is is_signed


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERT", b"\xff\xfe", b"hello"])
def test_what_is_no_certificate_is_unreadable_and_not_missing(content):
    lines = Lines(f"pair:apiserver\t644 0:0 1795240535.85 {NOTHING} {encoded(content)}")

    seen = file_seen(lines, "pair", "apiserver", [])

    assert seen.presence is Presence.UNREADABLE
    assert seen.why
    with pytest.raises(UnreadableCertificate):
        parse_certificates(content)


def test_a_file_that_is_not_there_is_missing():
    assert file_seen(Lines("pair:x\tmissing"), "pair", "x", []).presence is Presence.MISSING
    assert embedded_seen(Lines("conf:x\tmissing"), "x", []).presence is Presence.MISSING


def test_a_truncated_certificate_is_unreadable():
    pem = issue("kube-apiserver").certificate_pem
    lines = Lines(f"pair:apiserver\t644 0:0 1.5 {NOTHING} {encoded(pem[: len(pem) // 2])}")

    assert file_seen(lines, "pair", "apiserver", []).presence is Presence.UNREADABLE


def test_the_certificate_in_a_kubeconfig_is_read_with_its_server():
    pair = issue("kubernetes-admin")

    config = parse_kubeconfig(kubeconfig(pair))

    assert (config.server, config.user) == ("https://lb:6443", "kubernetes-admin")
    assert (config.users, config.clusters, config.contexts) == (1, 1, 1)
    assert told(parse_certificates(config.certificate_pem)[0]).common_name == "kubernetes-admin"
    assert not config.has_other_credentials


NO_BASE64 = """
users: [{name: a, user: {client-certificate-data: "%%"}}]
clusters: [{name: c, cluster: {server: s}}]
contexts: [{name: x, context: {user: a, cluster: c}}]
current-context: x
"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "just: this",
        "users: []\nclusters: []\ncontexts: []\ncurrent-context: a",
        "users: 5\nclusters: 5\ncontexts: 5\ncurrent-context: a",
        NO_BASE64,
    ],
)
def test_what_is_no_kubeconfig_of_kubeadms_is_unreadable(text):
    with pytest.raises(UnreadableCertificate):
        parse_kubeconfig(text)

    line = f"conf:admin.conf\t600 0:0 1.5 {NOTHING} {encoded(text)}"
    assert embedded_seen(Lines(line), "admin.conf", []).presence is Presence.UNREADABLE


def test_another_kind_of_credential_is_noticed():
    text = kubeconfig(issue("a")).replace("client-key-data: hidden", "token: hidden")

    assert parse_kubeconfig(text).has_other_credentials


def test_what_is_presented_is_read_and_what_is_not_is_nothing():
    pair = issue("kube-apiserver")
    lines = Lines(
        f"served:kube-apiserver\t127.0.0.1:6443 {encoded(pair.certificate_pem)}\n"
        "served:etcd\t127.0.0.1:2379 Cg==\nserved:etcd-peer\tnone"
    )

    assert served_in(lines, "kube-apiserver").certificate == told(pair.certificate)
    silent, nowhere = served_in(lines, "etcd"), served_in(lines, "etcd-peer")
    assert (silent.address, silent.certificate) == ("127.0.0.1:2379", None)
    assert (nowhere.address, nowhere.certificate) == ("", None)


def test_of_several_processes_of_one_name_the_oldest_counts():
    lines = Lines(
        "uptime\t1000.5 100.25 100\nprocess:etcd\t812 2000\nprocess:etcd\t9 1000\n"
        "process:kube-controller\t5 9000"
    )

    assert started_in(lines) == {
        Component.ETCD: pytest.approx(910.25),
        Component.CONTROLLER_MANAGER: pytest.approx(990.25),
    }


def test_a_process_that_ended_while_it_was_looked_at_does_not_count():
    lines = Lines("uptime\t1000.5 100.25 100\nprocess:etcd\t812 \nprocess:kube-scheduler\t5 9000")

    assert started_in(lines) == {Component.SCHEDULER: pytest.approx(990.25)}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("HTTP/1.0 200 OK\r\n\r\nok", ApiState.READY),
        ("HTTP/1.0 500 Internal Server Error\r\n\r\nno", ApiState.NOT_READY),
        ("HTTP/1.0 401 Unauthorized\r\n\r\n", ApiState.CLOSED),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", ApiState.CLOSED),
        ("", ApiState.SILENT),
    ],
)
def test_an_api_server_that_says_no_is_told_from_one_that_says_nothing(answer, state):
    assert api_state(answer) is state


GONE = "HTTP/1.0 404 Not Found\r\nDate: x\r\n\r\ngone"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"api:x\t0 {encoded('{}')}", ApiAnswer(200, "{}")),
        (
            f"api:x\t1 {encoded('Error from server (Forbidden): no')}",
            ApiAnswer(403, "Error from server (Forbidden): no"),
        ),
        (f"api:x\t1 {encoded('Unable to connect')}", ApiAnswer(0, "Unable to connect")),
        (
            f"api:x\t1 {encoded('error: You must be logged in')}",
            ApiAnswer(401, "error: You must be logged in"),
        ),
        (
            f"api:x\thttp {encoded(GONE)}",
            ApiAnswer(404, "gone"),
        ),
        ("api:x\thttp ", ApiAnswer(0, "")),
        ("", ApiAnswer(0, "")),
    ],
)
def test_what_the_api_answered_is_read_from_kubectl_and_from_the_wire(line, expected):
    assert parse_answer(Lines(line), "x") == expected


@pytest.mark.parametrize("text", ["no json", "[]"])
def test_what_the_api_answered_must_be_an_object(text):
    with pytest.raises(UnreadableOutput):
        ApiAnswer(200, text).parsed()


@pytest.mark.parametrize("value", ["%%%", "a"])
def test_what_is_no_base64_is_not_understood(value):
    with pytest.raises(UnreadableOutput):
        decoded(value)


APISERVER = (
    "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt\n--advertise-address=10.0.0.10\n"
    "--secure-port=6443\nimage: registry.k8s.io/kube-apiserver:v1.36.1\n"
)


def answers(**changes):
    """A look at a host of kubeadm, as the script answers; `changes` replace lines by their name."""
    admin, apiserver = issue("kubernetes-admin"), issue("kube-apiserver")
    kubelet = issue("system:node:cp1")
    node = kubeconfig(kubelet, user="system:node:cp1").replace(
        f"client-certificate-data: {encoded(kubelet.certificate_pem)}",
        "client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem",
    )
    lines = {
        "clock": "1795240600.5",
        "hostname": "OS-Name",
        "tool:kubeadm": "/usr/bin/kubeadm",
        "tool:crictl": "/usr/bin/crictl",
        "tool:docker": "",
        "version": "v1.36.2",
        "pki": "/etc/kubernetes/pki",
        "same-pki": "yes",
        "kubespray-etcd": "no",
        "manifest:kube-apiserver": encoded(APISERVER),
        "manifest:etcd": encoded("image: etcd:3.6.0\n"),
        "manifest:kube-scheduler": "missing",
        "kubelet-config": encoded("rotateCertificates: true\n"),
        "kubelet-flags": encoded("--container-runtime-endpoint=unix:///run/c.sock\n"),
        "kubelet-active": "active",
        "renewing": "inactive",
        "timer": "active",
        "size": "400 24 ",
        "free:/var": "5000",
        "same:sa.key": "aa",
        "same:sa.pub": "aa",
        "uptime": "1000 100 100",
        "ready": encoded("HTTP/1.0 200 OK\r\n\r\nok"),
        "served:kubelet": "none",
        "ca": pair_line("ca", CA),
        "apiserver": pair_line("apiserver", apiserver),
        "admin": conf_line("admin.conf", admin),
        "kubelet.conf": f"conf:kubelet.conf\t600 0:0 1.5 {NOTHING} {encoded(node)}",
        "kubelet-client": pair_line("kubelet-client", kubelet, kind="pem"),
    }
    for name, value in changes.items():
        lines[name.replace("__", ":").replace("_", "-")] = value
    told = [line if "\t" in line else f"{what}\t{line}" for what, line in lines.items()]
    return "\n".join([*told, "clock\t1795240601.5"])


def seen(**changes):
    return seen_in(Lines(answers(**changes)), 1795240500.0, 1795240502.0, None, "")


def test_a_host_is_seen_whole_and_small_enough_for_the_journal_to_keep():
    host = seen()

    assert host.node_name == "cp1"
    assert host.etcd is EtcdKind.STACKED
    assert host.manifests == {Component.APISERVER, Component.ETCD}
    assert (host.control_plane_version, host.kubeadm_version) == ("v1.36.1", "v1.36.2")
    assert (host.address, host.api_port, host.server) == ("10.0.0.10", 6443, "https://lb:6443")
    assert host.kubelet.form is KubeletForm.LINKED
    assert host.kubelet.is_active
    assert host.kubelet.client.is_whole
    assert host.leaf("apiserver").is_whole
    assert host.runtime.kind is RuntimeKind.CRI
    assert host.api is ApiState.READY
    assert (host.size_kib, host.free_kib) == (424, {"/var": 5000})
    assert host.has_renewal_timer
    assert not host.is_renewing
    assert from_plain(Seen, to_plain(host)) == host
    assert len(canonical(to_plain(host))) < SAMPLE_KEEP


def test_the_clock_of_the_host_is_known_within_the_time_the_look_took():
    clock = seen().clock

    assert (clock.low_seconds, clock.high_seconds) == (pytest.approx(99.5), pytest.approx(100.5))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"kubelet_client": "pem:kubelet-client\tmissing"}, "cp1"),  # the user of kubelet.conf
        (
            {
                "kubelet_client": "pem:kubelet-client\tmissing",
                "kubelet.conf": "conf:kubelet.conf\tmissing",
                "kubelet_flags": encoded("--hostname-override=node-7\n"),
            },
            "node-7",
        ),
        (
            {
                "kubelet_client": "pem:kubelet-client\tmissing",
                "kubelet.conf": "conf:kubelet.conf\tmissing",
            },
            "os-name",
        ),
    ],
)
def test_the_name_of_the_node_is_what_it_is_registered_under(changes, name):
    assert seen(**changes).node_name == name


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"manifest__etcd": "missing"}, EtcdKind.EXTERNAL),
        ({"manifest__etcd": "missing", "kubespray_etcd": "yes"}, EtcdKind.KUBESPRAY),
        ({"kubespray_etcd": "yes"}, EtcdKind.STACKED),
    ],
)
def test_whose_etcd_it_is_is_told_by_its_manifest_and_its_folder(changes, kind):
    assert seen(**changes).etcd is kind


@pytest.mark.parametrize(
    ("changes", "kind", "endpoint"),
    [
        ({}, RuntimeKind.CRI, "unix:///run/c.sock"),
        (
            {"kubelet_flags": "", "socket": "/run/crio/crio.sock"},
            RuntimeKind.CRI,
            "unix:///run/crio/crio.sock",
        ),
        ({"kubelet_flags": ""}, RuntimeKind.NONE, ""),
        (
            {"kubelet_flags": "", "tool__docker": "/bin/docker", "version": "v1.23.1"},
            RuntimeKind.DOCKER,
            "",
        ),
        (
            {
                "kubelet_flags": "",
                "tool__docker": "/bin/docker",
                "socket": "/run/containerd/containerd.sock",
            },
            RuntimeKind.CRI,
            "unix:///run/containerd/containerd.sock",
        ),
        (
            {
                "kubelet_flags": encoded(
                    "--container-runtime-endpoint=unix:///var/run/dockershim.sock\n"
                ),
                "tool__docker": "/bin/docker",
            },
            RuntimeKind.DOCKER,
            "",
        ),
        (
            {
                "kubelet_flags": encoded(
                    "--container-runtime-endpoint=unix:///run/cri-dockerd.sock\n"
                ),
                "tool__docker": "/bin/docker",
                "tool__crictl": "",
            },
            RuntimeKind.DOCKER,
            "",
        ),
        (
            {"kubelet_flags": encoded('containerRuntimeEndpoint: "unix:///run/i.sock"\n')},
            RuntimeKind.CRI,
            "unix:///run/i.sock",
        ),
    ],
)
def test_what_restarts_static_pods_is_what_the_kubelet_talks_to(changes, kind, endpoint):
    runtime = seen(**changes).runtime

    assert (runtime.kind, runtime.endpoint) == (kind, endpoint)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (None, KubeletForm.MISSING),
        ("", KubeletForm.UNREADABLE),
        (kubeconfig(issue("system:node:cp1"), user="system:node:cp1"), KubeletForm.EMBEDDED),
        (
            kubeconfig(issue("a")).replace("client-certificate-data: ", "client-certificate: /x #"),
            KubeletForm.OTHER,
        ),
    ],
)
def test_the_form_of_kubelet_conf_is_told(text, form):
    value = "missing" if text is None else f"600 0:0 1.5 {NOTHING} {encoded(text)}"

    assert seen(**{"kubelet.conf": f"conf:kubelet.conf\t{value}"}).kubelet.form is form


def test_an_image_pinned_by_its_digest_has_no_version():
    manifest = encoded("image: registry/kube-apiserver@sha256:abcd\n")

    assert not seen(manifest__kube_apiserver=manifest).control_plane_version


def test_an_account_is_seen_with_the_file_its_kubeconfig_really_is():
    pair = issue("kubernetes-admin")
    lines = Lines(
        f"account:ops\t1000:1000 {encoded('/srv/ops/config')}\n"
        + conf_line("account:ops", pair).replace("600 0:0", "640 1000:27")
    )

    found = account_seen(lines, "ops")

    assert (found.path, found.mode, found.ids) == ("/srv/ops/config", "640", "1000:27")
    assert (found.entries, found.server) == (1, "https://lb:6443")
    assert found.serial == f"{pair.certificate.serial_number:X}"


@pytest.mark.parametrize(
    ("text", "presence"),
    [
        ("account:ops\tmissing", Presence.MISSING),
        (f"account:ops\t1:1 {encoded('/a')}\nconf:account:ops\tmissing", Presence.MISSING),
        (f"account:ops\t1:1 {encoded('/a')}\nconf:account:ops\t600 1:1 1 - ", Presence.UNREADABLE),
    ],
)
def test_an_account_without_a_kubeconfig_is_told_from_one_that_cannot_be_read(text, presence):
    assert account_seen(Lines(text), "ops").presence is presence


class Answering:
    """A host that answers a look, and kubeadm's command as it is told to."""

    label = target = "root@cp1"

    def __init__(self, printed, exit_code=0, stdout="", stderr=""):
        self.printed = printed
        self.kubeadm = (exit_code, stdout, stderr)
        self.asked = []

    def session(self):
        return nullcontext(self)

    def read(self, argv, **options):
        self.asked.append(list(argv))
        if argv[0] == "/usr/bin/kubeadm":
            code, out, err = self.kubeadm
            assert code in options["accept"]
            return Answer("kubeadm", self.target, code, out, err)
        return Answer("look", self.target, 0, self.printed if argv[0] == "sh" else "", "")


def test_a_look_asks_kubeadm_in_the_way_of_its_release():
    host = Answering(answers(version="v1.29.3"), 1, "", "error: it would not\n")

    found = look_at(host)

    assert host.asked[-1] == ["/usr/bin/kubeadm", "certs", "check-expiration"]
    assert found.kubeadm_failed == "error: it would not"
    assert found.kubeadm_said is None


def test_a_look_tells_kubeadm_of_another_folder():
    host = Answering(
        answers(same_pki="no", pki="/srv/pki"), 0, '{"certificates":[],"certificateAuthorities":[]}'
    )

    found = look_at(host)

    assert host.asked[-1][-2:] == ["--cert-dir", "/srv/pki"]
    assert found.kubeadm_said is not None


def test_a_look_without_kubeadm_is_a_look_all_the_same():
    host = Answering(answers(tool__kubeadm=""))

    assert look_at(host).kubeadm_said is None
    assert len(host.asked) == 2


def test_numbers_that_are_none_are_not_understood():
    with pytest.raises(UnreadableOutput):
        seen_in(Lines(answers(clock="soon")), 1.0, 2.0, None, "")


def test_what_is_asked_stands_in_the_arguments():
    argv = look_argv("pair", "apiserver", "apiserver")

    assert argv[:2] == ["sh", "-c"]
    assert argv[3:] == ["look", "pair", "apiserver", "apiserver"]
    assert parse_lines("a\t1\na\t2\nb\t") == {"a": ["1", "2"], "b": [""]}


def test_moments_are_in_utc():
    assert seen().seen_at == datetime.fromtimestamp(1795240600.5, UTC)
