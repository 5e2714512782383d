"""What kubeadm does to certificates, asked of the real one and of the lab's stand-in alike.

Each runs in a folder that is its root. Expected texts are those that kubeadm 1.36.2 printed when
the data in `kubeadm/generated` was made.
"""

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.lab.control_plane_design import Age, Design, Node
from tests.lab.control_plane_files import (
    Authorities,
    archive,
    cluster_configuration,
    node_files,
)
from tests.lab.control_plane_host import real_kubeadm
from tests.lab.control_plane_situations import (
    ALL_EXPIRED,
    LEAVES_EXPIRED,
    NO_CA_KEYS,
    SITUATIONS,
    VALID,
    removed,
)
from tests.lab.kubeadm_standin_config import seconds_of
from tests.lab.pki import ends_at, is_signed_by, load_certificates, load_key, wanted_of
from tests.lab.pki_keys import Keys
from tests.lab.pki_kubeadm import CERTIFICATES, KUBERNETES, LEAVES

PROJECT = Path(__file__).parents[2]
VERSION = "1.36.2"
NODE = Node("cp1", "cp1", "10.0.0.10")
SHAPE = Design(
    (NODE,),
    service_subnet="10.96.0.0/12",
    dns_domain="cluster.local",
    extra_names=("lb-apiserver.kubernetes.local", "10.0.0.10"),
)
PERIODS = {"certificateValidityPeriod": "1h0m0s", "caCertificateValidityPeriod": "87600h0m0s"}
INIT = {
    "apiVersion": "kubeadm.k8s.io/v1beta4",
    "kind": "InitConfiguration",
    "localAPIEndpoint": {"advertiseAddress": NODE.address},
    "nodeRegistration": {"name": NODE.name, "criSocket": "unix:///run/containerd/containerd.sock"},
}
CONFIGS = ("admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf")
SAME_IN_BOTH = (
    "certs check-expiration --config /c.yaml",
    "certs check-expiration",
    "certs renew all --config /c.yaml",
    "init phase certs all --config /c.yaml",
    "init phase certs apiserver --config /c.yaml",
    "init phase kubeconfig all --config /c.yaml",
    "init phase kubelet-finalize enable-client-cert-rotation --config /c.yaml",
)
STATES = {
    "valid": (VALID, ()),
    "expired": (LEAVES_EXPIRED, ()),
    "nothing there": (VALID, (f"{KUBERNETES}/.*",)),
    "no ca.key": (VALID, (f"{CERTIFICATES}/ca.key",)),
    "no ca.key and expired": (LEAVES_EXPIRED, (f"{CERTIFICATES}/ca.key",)),
    "no ca.crt": (VALID, (f"{CERTIFICATES}/ca.crt",)),
    "key without certificate": (VALID, (f"{CERTIFICATES}/apiserver.crt",)),
    "no leaves": (VALID, tuple(f"{CERTIFICATES}/{leaf.base_name}.*" for leaf in LEAVES)),
}


class Kubeadm:
    """A kubeadm whose root is a folder."""

    def __init__(self, root: Path, command: list[str], version: str = VERSION):
        self.root = root
        self.command = command
        self.version = version

    def lay(self, age: Age, *changes, design: Design = SHAPE) -> None:
        """Lay down the files of a host."""
        keys = Keys()
        tree = node_files(design, NODE, Authorities.made(age, keys), age, keys)
        for change in changes:
            change(tree)
        self.lay_tree(tree, design)

    def lay_tree(self, tree, design: Design = SHAPE) -> None:
        (self.root / "tmp").mkdir(parents=True)
        subprocess.run(["tar", "-C", self.root, "-xpf", "-"], input=archive(tree), check=True)
        cluster = yaml.safe_load(cluster_configuration(design)) | PERIODS
        (self.root / "c.yaml").write_text(yaml.safe_dump_all([cluster, INIT]))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, "--rootfs", self.root, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "HOME": "/"},
        )

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def certificate(self, base: str):
        return load_certificates(self.path(f"{CERTIFICATES}/{base}.crt").read_bytes())[0]

    def client_of(self, name: str):
        """The certificate in a kubeconfig, and the URL it names."""
        said = yaml.safe_load(self.path(f"{KUBERNETES}/{name}").read_text())
        pem = base64.b64decode(said["users"][0]["user"]["client-certificate-data"])
        return load_certificates(pem)[0], said["clusters"][0]["cluster"]["server"]

    def files(self) -> dict[str, bytes]:
        found = [path for path in sorted(self.root.rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


def standin(root: Path, version: str = VERSION) -> Kubeadm:
    code = (
        "import sys; from tests.lab.kubeadm_standin import main; "
        f"sys.exit(main(sys.argv[1:], version={version!r}))"
    )
    return Kubeadm(root, [sys.executable, "-c", code], version)


def real(root: Path) -> Kubeadm:
    program = real_kubeadm(VERSION)
    if program is None:
        pytest.skip(f"there is no kubeadm {VERSION} in KUBEBUILDER_ASSETS")
    if os.geteuid() != 0:
        pytest.skip("kubeadm --rootfs needs root")
    return Kubeadm(root, [str(program)])


@pytest.fixture(params=["real", "standin"])
def kubeadm(request, tmp_path):
    return real(tmp_path / "root") if request.param == "real" else standin(tmp_path / "root")


def normal(text: str) -> str:
    """What is printed, without what differs from run to run."""
    text = re.sub(r"^([WIE])\d{4} \S+ +\d+ ", r"\1 ", text, flags=re.MULTILINE)
    text = re.sub(r"[A-Z][a-z]{2} \d\d, \d{4} \d\d:\d\d UTC", "<the date>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d( \+0000 UTC|Z)", "<moment>", text)
    text = re.sub(r"(residualTime\"?: )(-?)\d+", r"\1\2<seconds>", text)
    text = re.sub(r"(unable to get URL).*", r"\1", text)
    text = re.sub(r"(-data: )\S+", r"\1<data>", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def kept_output(folder: Path, name: str) -> tuple[str, int]:
    """What the real one printed, and its exit code, without the line that says what was run."""
    lines = (folder / "kubeadm" / "generated" / name).read_text().splitlines()
    code = next(int(line.removeprefix("rc=")) for line in lines if line.startswith("rc="))
    return "\n".join(x for x in lines if not x.startswith(("$ ", "rc="))), code


@pytest.mark.parametrize("name", [n for n in SITUATIONS if not n.startswith("14")])
def test_it_says_in_each_situation_what_the_real_one_said(kubeadm, name, recover_test_data):
    situation = SITUATIONS[name]
    expected, code = kept_output(recover_test_data, f"{name}.txt")
    kubeadm.lay(situation.age, situation.change)

    done = kubeadm.run(*situation.command)

    assert done.returncode == code == situation.exit_code
    assert sorted(normal(done.stdout + done.stderr).splitlines()) == sorted(
        normal(expected).splitlines()
    )


@pytest.mark.parametrize("name", [n for n, one in SITUATIONS.items() if one.has_json])
def test_its_json_is_in_each_situation_that_of_the_real_one(kubeadm, name, recover_test_data):
    situation = SITUATIONS[name]
    expected = (recover_test_data / "kubeadm" / "generated" / f"{name}.json").read_text()
    kubeadm.lay(situation.age, situation.change)

    done = kubeadm.run(*situation.command, "-o", "json")

    assert done.returncode == 0
    assert normal(done.stdout) == normal(expected)
    for mine, theirs in zip(*map(lines_of, (done.stdout, expected)), strict=True):
        assert mine["residualTime"] == pytest.approx(theirs["residualTime"], abs=15)


def lines_of(printed: str) -> list[dict]:
    known = json.loads(printed)
    return known["certificates"] + known["certificateAuthorities"]


def test_names_are_kept_by_a_renewal_that_knows_of_no_configuration(kubeadm, recover_test_data):
    text = (recover_test_data / "kubeadm/generated/14_san_after_renew_noconfig.txt").read_text()
    kubeadm.lay(LEAVES_EXPIRED)

    kubeadm.run("certs", "renew", "all")

    names = wanted_of(kubeadm.certificate("apiserver"))
    said = [f"DNS:{n}" for n in names.names] + [f"IP Address:{a}" for a in names.addresses]
    assert text.splitlines()[1].strip() == ", ".join(said)


def test_a_renewal_makes_new_keys_for_the_same_holders_and_leaves_the_authorities(kubeadm):
    kubeadm.lay(LEAVES_EXPIRED)
    before = kubeadm.files()
    old = {leaf.base_name: kubeadm.certificate(leaf.base_name) for leaf in LEAVES}

    done = kubeadm.run("certs", "renew", "all", "--config", "/c.yaml")

    assert done.returncode == 0, done.stderr
    after = kubeadm.files()
    changed = {path for path in after if after[path] != before.get(path)}
    leaves = {f"{CERTIFICATES[1:]}/{leaf.base_name}" for leaf in LEAVES}
    files = {f"{base}.{kind}" for base in leaves for kind in ("crt", "key")}
    assert changed == files | {f"{KUBERNETES[1:]}/{name}" for name in CONFIGS}
    for leaf in LEAVES:
        new = kubeadm.certificate(leaf.base_name)
        issuer = {"ca": "ca", "etcd-ca": "etcd/ca"}.get(leaf.authority, leaf.authority)
        key = load_key(kubeadm.path(f"{CERTIFICATES}/{leaf.base_name}.key").read_bytes())
        assert wanted_of(new) == wanted_of(old[leaf.base_name])
        assert new.serial_number != old[leaf.base_name].serial_number
        assert new.public_key() == key.public_key() != old[leaf.base_name].public_key()
        assert is_signed_by(new, kubeadm.certificate(issuer))
        assert ends_at(new) > ends_at(old[leaf.base_name])
        assert (new.extensions[0].critical, new.extensions[0].value.key_encipherment) == (
            True,
            True,
        )
        assert kubeadm.path(f"{CERTIFICATES}/{leaf.base_name}.key").stat().st_mode & 0o777 == 0o600


def test_a_renewed_kubeconfig_keeps_its_server(kubeadm):
    kubeadm.lay(LEAVES_EXPIRED)
    path = kubeadm.path(f"{KUBERNETES}/scheduler.conf")
    path.write_text(path.read_text().replace("10.0.0.10", "api.elsewhere"))

    kubeadm.run("certs", "renew", "scheduler.conf", "--config", "/c.yaml")

    certificate, server = kubeadm.client_of("scheduler.conf")
    assert server == "https://api.elsewhere:6443"
    assert wanted_of(certificate).common_name == "system:kube-scheduler"
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_renewed_that_an_absent_authority_signed_and_it_exits_0(kubeadm):
    kubeadm.lay(VALID, NO_CA_KEYS)
    before = kubeadm.files()

    done = kubeadm.run("certs", "renew", "all", "--config", "/c.yaml")

    after = kubeadm.files()
    changed = {path for path in after if after[path] != before.get(path)}
    assert done.returncode == 0
    assert changed == {f"{CERTIFICATES[1:]}/front-proxy-client.{kind}" for kind in ("crt", "key")}


def test_certificates_of_an_expired_authority_are_renewed_and_it_exits_0(kubeadm):
    kubeadm.lay(ALL_EXPIRED)
    authority = kubeadm.certificate("ca")

    done = kubeadm.run("certs", "renew", "all", "--config", "/c.yaml")

    assert done.returncode == 0
    assert kubeadm.certificate("ca") == authority
    assert ends_at(kubeadm.certificate("apiserver")) > ends_at(authority)


def test_making_a_lost_certificate_without_the_configuration_loses_its_names(kubeadm):
    kubeadm.lay(VALID)
    for kind in ("crt", "key"):
        kubeadm.path(f"{CERTIFICATES}/apiserver.{kind}").unlink()

    done = kubeadm.run("init", "phase", "certs", "apiserver")

    assert done.returncode == 0, done.stderr
    assert "could not fetch a Kubernetes version from the internet" in done.stderr
    assert "lb-apiserver.kubernetes.local" not in wanted_of(kubeadm.certificate("apiserver")).names


def test_lost_certificates_made_with_the_configuration_are_as_they_were(kubeadm):
    kubeadm.lay(VALID)
    before = {leaf.base_name: wanted_of(kubeadm.certificate(leaf.base_name)) for leaf in LEAVES}
    authorities = kubeadm.certificate("ca"), kubeadm.certificate("etcd/ca")
    for leaf in LEAVES:
        for kind in ("crt", "key"):
            kubeadm.path(f"{CERTIFICATES}/{leaf.base_name}.{kind}").unlink()

    done = kubeadm.run("init", "phase", "certs", "all", "--config", "/c.yaml")

    assert done.returncode == 0, done.stderr
    after = {leaf.base_name: wanted_of(kubeadm.certificate(leaf.base_name)) for leaf in LEAVES}
    assert after == before
    assert (kubeadm.certificate("ca"), kubeadm.certificate("etcd/ca")) == authorities


def test_a_lost_authority_is_made_anew_and_the_rest_no_longer_fits_it(kubeadm):
    kubeadm.lay(VALID)
    for kind in ("crt", "key"):
        kubeadm.path(f"{CERTIFICATES}/ca.{kind}").unlink()

    done = kubeadm.run("init", "phase", "certs", "all", "--config", "/c.yaml")

    assert done.returncode == 1
    assert "apiserver not signed by CA certificate ca" in done.stderr
    assert kubeadm.path(f"{CERTIFICATES}/ca.key").exists()


def test_an_expired_kubeconfig_is_used_as_it_is_and_it_exits_0(kubeadm):
    kubeadm.lay(LEAVES_EXPIRED)
    before = kubeadm.files()

    done = kubeadm.run("init", "phase", "kubeconfig", "all", "--config", "/c.yaml")

    assert done.returncode == 0
    assert done.stdout.count("Using existing kubeconfig file") == 5
    assert kubeadm.files() == before


def test_a_lost_kubeconfig_is_made_for_its_user(kubeadm):
    kubeadm.lay(VALID)
    kubeadm.path(f"{KUBERNETES}/admin.conf").unlink()

    kubeadm.run("init", "phase", "kubeconfig", "admin", "--config", "/c.yaml")

    certificate, server = kubeadm.client_of("admin.conf")
    said = wanted_of(certificate)
    assert (said.common_name, said.organizations) == (
        "kubernetes-admin",
        ("kubeadm:cluster-admins",),
    )
    assert server == "https://lb-apiserver.kubernetes.local:6443"


def test_everything_can_be_made_in_other_folders(kubeadm):
    kubeadm.lay(VALID)
    before = kubeadm.files()
    authorities = ("ca", "front-proxy-ca", "etcd/ca")
    for base in (f"{base}.{kind}" for base in authorities for kind in ("crt", "key")):
        path = kubeadm.path(f"/new/pki/{base}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kubeadm.path(f"{CERTIFICATES}/{base}").read_bytes())
    config = kubeadm.path("/c.yaml").read_text().replace(CERTIFICATES, "/new/pki")
    kubeadm.path("/new/c.yaml").write_text(config)

    certs = kubeadm.run("init", "phase", "certs", "apiserver", "--config", "/new/c.yaml")
    elsewhere = ("--config", "/new/c.yaml", "--kubeconfig-dir", "/new")
    configs = kubeadm.run("init", "phase", "kubeconfig", "admin", *elsewhere)

    assert (certs.returncode, configs.returncode) == (0, 0), certs.stderr + configs.stderr
    after = kubeadm.files()
    assert {path: after[path] for path in before} == before
    made = {"new/pki/apiserver.crt", "new/pki/apiserver.key", "new/admin.conf"}
    assert made < after.keys()


def test_a_kubeconfig_for_a_kubelet_is_printed_and_nothing_is_written(kubeadm):
    kubeadm.lay(VALID)
    before = kubeadm.files()
    name = ("--client-name", "system:node:cp1", "--org", "system:nodes")

    done = kubeadm.run("kubeconfig", "user", *name, "--config", "/c.yaml")

    assert done.returncode == 0, done.stderr
    assert kubeadm.files() == before
    kubeadm.path(f"{KUBERNETES}/new.conf").write_text(done.stdout)
    certificate, _ = kubeadm.client_of("new.conf")
    assert wanted_of(certificate).common_name == "system:node:cp1"
    assert wanted_of(certificate).organizations == ("system:nodes",)


def test_signing_requests_are_made_for_everything_or_refused(kubeadm):
    kubeadm.lay_tree({})

    made = kubeadm.run("certs", "generate-csr", "--config", "/c.yaml")
    again = kubeadm.run("certs", "generate-csr", "--config", "/c.yaml")

    assert (made.returncode, again.returncode) == (0, 1)
    assert "file already exists" in again.stderr
    requests = {path.name for path in kubeadm.root.rglob("*.csr")}
    leaves = {f"{Path(leaf.base_name).name}.csr" for leaf in LEAVES}
    assert requests == leaves | {f"{name}.csr" for name in (*CONFIGS, "kubelet.conf")}
    assert not list(kubeadm.root.rglob("*.crt"))


def test_a_configuration_of_a_much_older_cluster_is_refused(kubeadm):
    kubeadm.lay(VALID)
    path = kubeadm.path("/c.yaml")
    path.write_text(path.read_text().replace("v1.36.2", "v1.33.1"))

    done = kubeadm.run("certs", "renew", "all", "--config", "/c.yaml")

    assert done.returncode == 1
    assert ">= 1.35.0. Current version: v1.33.1" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("certs renew nonesuch", 1, 'unknown command "nonesuch" for "kubeadm certs renew"'),
        ("certs renew all extra", 1, 'unknown command "extra" for "kubeadm certs renew all"'),
        ("certs renew", 1, "subcommand is required"),
        ("certs check-expiration --bogus", 1, "unknown flag: --bogus"),
        ("certs check-expiration -o xml", 1, 'output format "xml", allowed formats are: '),
        ("certs renew all --config /none", 1, 'unable to read config from "/none" : open /none'),
        ("init phase kubeconfig al --config /c.yaml", 1, "unknown flag: --config"),
        ("kubeconfig user", 1, 'required flag(s) "client-name" not set'),
        ("version -o bogus", 1, "invalid output format: bogus"),
        ("nonesuch", 1, 'unknown command "nonesuch" for "kubeadm"'),
        ("alpha certs check-expiration", 0, "Kubeadm experimental sub-commands"),
        ("version -o short", 0, "v1.36.2"),
    ],
)
def test_a_mistake_is_told_and_the_exit_code_is_what_it_is(kubeadm, words, code, said):
    kubeadm.lay(VALID)

    done = kubeadm.run(*words.split())

    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_its_version_can_be_read_as_json(kubeadm):
    kubeadm.lay_tree({})

    told = json.loads(kubeadm.run("version", "-o", "json").stdout)

    assert told["clientVersion"]["gitVersion"] == "v1.36.2"
    assert (told["clientVersion"]["major"], told["clientVersion"]["minor"]) == ("1", "36")


@pytest.mark.parametrize("state", STATES)
def test_the_standin_says_and_does_what_the_real_one_does(state, tmp_path):
    """Goal: no difference is left to chance. Method: the same files, the same commands, both."""
    age, patterns = STATES[state]
    keys = Keys()
    tree = node_files(SHAPE, NODE, Authorities.made(age, keys), age, keys)
    removed(*patterns)(tree)

    for number, words in enumerate(SAME_IN_BOTH):
        one, other = real(tmp_path / f"real{number}"), standin(tmp_path / f"standin{number}")
        seen = []
        for each in (one, other):
            each.lay_tree(tree)
            done = each.run(*words.split())
            seen.append(
                (done.returncode, normal(done.stdout), normal(done.stderr), [*each.files()])
            )
        assert seen[0] == seen[1], words


@pytest.mark.parametrize("version", ["1.15.12", "1.19.16"])
def test_releases_before_1_20_know_the_commands_as_alpha_and_nothing_of_json(version, tmp_path):
    old = standin(tmp_path / "root", version)
    old.lay(LEAVES_EXPIRED, design=replace(SHAPE, version=version))

    checked = old.run("alpha", "certs", "check-expiration")
    as_json = old.run("alpha", "certs", "check-expiration", "-o", "json")
    today = old.run("certs", "check-expiration")
    renewed = old.run("alpha", "certs", "renew", "all")

    assert checked.returncode == 0, checked.stderr
    assert "super-admin.conf" not in checked.stdout
    assert ("CERTIFICATE AUTHORITY" in checked.stdout) == (version == "1.19.16")
    assert checked.stdout.count("<invalid>") == 10
    assert (as_json.returncode, today.returncode) == (1, 1)
    assert "unknown shorthand flag: 'o' in -o" in as_json.stderr
    assert 'unknown command "certs" for "kubeadm"' in today.stderr
    assert renewed.returncode == 0
    assert "Done renewing" not in renewed.stdout
    assert wanted_of(old.client_of("admin.conf")[0]).organizations == ("system:masters",)


def test_the_oldest_release_fails_where_a_certificate_is_missing(tmp_path):
    old = standin(tmp_path / "root", "1.15.12")
    old.lay(VALID, removed(f"{CERTIFICATES}/etcd/.*"), design=replace(SHAPE, version="1.15.12"))

    done = old.run("alpha", "certs", "check-expiration")

    assert done.returncode == 1
    assert "etcd" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("1h0m0s", 3600), ("87600h0m0s", 315360000), ("2m30s", 150), (None, 7)]
)
def test_durations_are_read_as_go_writes_them(text, seconds):
    assert seconds_of(text, 7) == seconds
