"""Renewing the certificates of a control-plane host: real PKI, real etcd, real TLS, real kubeadm."""

import re
import ssl

import pytest

from recovery.errors import CommandFailed, Refused
from tests.integration.certificate_renewal import (
    CONFIGS,
    KEPT,
    LEAVES,
    PKI,
    Renewal,
    assert_renewed,
    files_of,
    on_disk,
    presented,
    processes,
    serials,
    sha256_of,
)
from tests.lab.control_plane import control_planes
from tests.lab.control_plane_design import (
    EXPIRED_WITH_AUTHORITIES,
    EXPIRED_WITH_KUBELETS,
    EXPIRING,
    FRESH,
)
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)

BACKUPS = "/var/backups/kubernetes-certificates"


@pytest.fixture(scope="module")
def a_cluster(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"))) as cluster:
        cluster.wait_until_ready()
        yield cluster


@pytest.fixture
def cluster(a_cluster):
    """The cluster with certificates that end in twenty days."""
    a_cluster.become(EXPIRING)
    a_cluster.wait_until_ready()
    a_cluster.hosts[0].run(f"rm -rf {BACKUPS}")
    return a_cluster


@pytest.fixture
def host(cluster):
    return cluster.hosts[0]


@pytest.fixture
def renewal(a_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", "")  # so that what a Renewal sets is taken back
    monkeypatch.setenv("RECOVER_WORK_DIR", "")
    return Renewal(a_cluster, tmp_path)


def test_a_plan_shows_every_command_and_changes_nothing(cluster, host, renewal):
    before, running = files_of(host), processes(host)

    planned = renewal.plan(users="root ops").plan

    text = str([step.commands for step in planned.steps])
    assert planned.refusals == []
    assert "kubeadm certs renew all" in text
    assert "crictl" in text
    assert "PRIVATE KEY" not in text
    assert files_of(host) == before
    assert processes(host) == running
    assert "No such file" in host.run(f"ls {BACKUPS} 2>&1 || :")
    assert planned.hash == renewal.plan(users="root ops").plan.hash


def test_a_renewal_leaves_every_certificate_new_and_every_process_with_it(cluster, host, renewal):
    before, kept = serials(host), sha256_of(host, KEPT)

    ended = renewal.run(users="root ops")

    assert ended.error is None, ended.error
    assert ended.result.certificates == len(LEAVES) + len(CONFIGS)
    assert_renewed(host, before)
    assert sha256_of(host, KEPT) == kept
    for path, about in {
        "/root/.kube/config": "600 0:0",
        "/home/ops/.kube/config": "640 2000:2000",
    }.items():
        assert host.read_file(path) == host.read_file("/etc/kubernetes/admin.conf")
        assert host.run(f"stat -c '%a %u:%g' {path}").strip() == about
    assert host.run("kubectl --kubeconfig /home/ops/.kube/config get --raw /readyz") == "ok"


def test_a_second_renewal_finds_nothing_to_do(cluster, host, renewal):
    renewal.run(users="root ops")
    before, running = files_of(host), processes(host)

    again = renewal.run(users="root ops")

    assert (again.error, again.result.hosts) == (None, ())
    assert renewal.commands(again) == []
    assert files_of(host) == before
    assert processes(host) == running


def test_a_fresh_cluster_has_nothing_to_do_and_needs_neither_key_nor_consent(a_cluster, renewal):
    a_cluster.become(FRESH)
    a_cluster.wait_until_ready()

    ended = renewal.run(backup_key_file="")

    assert (ended.error, str(ended.state)) == (None, "recovered")
    assert ended.result.hosts == ()


def test_names_and_addresses_survive_a_renewal(cluster, host, renewal):
    names = {leaf: on_disk(host, leaf).extensions for leaf in ("apiserver", "etcd/server")}

    renewal.run()

    for leaf, extensions in names.items():
        san = ssl.OID_SAN if hasattr(ssl, "OID_SAN") else "2.5.29.17"
        before = [e for e in extensions if e.oid.dotted_string == san]
        after = [e for e in on_disk(host, leaf).extensions if e.oid.dotted_string == san]
        assert before == after


def test_no_key_leaves_the_host_in_the_clear(cluster, host, renewal):
    ended = renewal.run(users="root ops")

    told = renewal.journal_bytes()
    assert ended.error is None
    assert b"PRIVATE KEY" not in told
    secrets_there = [
        host.run(f"sed -n 's/^ *client-key-data: //p' /etc/kubernetes/{conf}").strip()
        for conf in CONFIGS
    ]
    secrets_there += [
        line
        for name in ("ca.key", "sa.key", "apiserver.key")
        for line in host.read_file(f"{PKI}/{name}").decode().splitlines()[1:-1]
    ]
    assert not [secret for secret in secrets_there if secret.encode()[:60] in told]
    assert renewal.key.read_text().encode() not in told


def test_the_backup_is_for_root_alone_on_the_host_and_sealed_on_the_worker(cluster, host, renewal):
    before = files_of(host)

    ended = renewal.run(users="root ops")

    folder = f"{BACKUPS}/{ended.recovery_id}"
    assert host.run(f"stat -c %a {BACKUPS} {folder}").split() == ["700", "700"]
    assert host.run(f"stat -c %a {folder}/*").split() == ["600"] * 3
    host.run(f"mkdir /root/look && tar -C /root/look -xzpf {folder}/archive.tgz")
    restored = host.run("cd /root/look && find . -type f -exec sha256sum {} + && rm -r /root/look")
    assert {
        line.split()[1].removeprefix("."): line.split()[0] for line in restored.splitlines()
    } == before
    (sealed,) = renewal.folder.rglob("*.sealed")
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert b"ca.key" not in sealed.read_bytes()


def test_undo_puts_every_file_back_and_every_process_uses_them(cluster, host, renewal):
    before, kept = serials(host), files_of(host)
    ended = renewal.run(users="root ops")

    undone = renewal.undo(ended)

    assert (undone.error, str(undone.state)) == (None, "undone")
    assert serials(host) == before
    assert files_of(host) == kept
    for leaf, port in (("apiserver", "6443"), ("etcd/server", "2379"), ("etcd/peer", "2380")):
        assert presented(host, port).serial_number == before[leaf]
    cluster.wait_until_ready()


def test_undo_takes_the_sealed_copy_where_the_archive_on_the_host_is_gone(cluster, host, renewal):
    kept = files_of(host)
    ended = renewal.run(users="ops")
    host.run(f"rm -r {BACKUPS}")

    undone = renewal.undo(ended)

    assert undone.error is None, undone.error
    assert files_of(host) == kept


def test_undo_of_a_renewal_that_brought_the_cluster_back_is_refused(a_cluster, renewal):
    a_cluster.become(EXPIRED_WITH_KUBELETS)
    host = a_cluster.hosts[0]
    ended = renewal.run()
    after = files_of(host)

    undone = renewal.undo(ended)

    assert "that would stop it" in str(undone.error)
    assert files_of(host) == after
    a_cluster.wait_until_ready()


def test_what_has_expired_with_the_kubelet_and_the_api_down_is_brought_back(a_cluster, renewal):
    a_cluster.become(EXPIRED_WITH_KUBELETS)
    host = a_cluster.hosts[0]
    before, kept = serials(host), sha256_of(host, KEPT)

    ended = renewal.run(users="root")

    assert ended.error is None, ended.error
    assert_renewed(host, before)
    assert sha256_of(host, KEPT) == kept
    a_cluster.wait_until_ready()
    current = host.run("readlink /var/lib/kubelet/pki/kubelet-client-current.pem").strip()
    subject = host.run(f"openssl x509 -noout -subject -in {current}")
    assert "system:nodes" in subject
    assert "system:node:cp1" in subject


def test_processes_that_were_never_restarted_are_restarted_and_no_file_is_touched(
    cluster, host, renewal
):
    host.run(
        "kubeadm certs renew all && rm -f /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet.key && systemctl restart kubelet"
    )
    renewed, files = serials(host), files_of(host)

    ended = renewal.run()

    assert ended.error is None, ended.error
    assert ended.result.certificates == 0
    assert {step.partition("[")[0] for step, _ in renewal.commands(ended)} == {"restart"}
    assert serials(host) == renewed
    assert {path: sha for path, sha in files_of(host).items() if path.startswith("/etc")} == {
        path: sha for path, sha in files.items() if path.startswith("/etc")
    }
    assert presented(host, "6443").serial_number == renewed["apiserver"]


def test_a_reboot_takes_the_place_of_the_restarts(cluster, host, renewal):
    before, reboots = serials(host), host.reboot_count

    ended = renewal.run(reboot=True)

    assert ended.error is None, ended.error
    assert host.reboot_count == reboots + 1
    assert_renewed(host, before)
    assert not [step for step, _ in renewal.commands(ended) if step.startswith("restart[")]


# -- the runbook's own way -----------------------------------------------------------------------


def test_a_regeneration_keeps_names_authorities_and_the_service_account_key(cluster, host, renewal):
    before, kept = serials(host), sha256_of(host, KEPT)
    names = names_of(host, "apiserver"), names_of(host, "etcd/server"), names_of(host, "etcd/peer")

    ended = renewal.run(method="regenerate")

    assert ended.error is None, ended.error
    assert_renewed(host, before)
    assert sha256_of(host, KEPT) == kept
    assert names == (
        names_of(host, "apiserver"), names_of(host, "etcd/server"), names_of(host, "etcd/peer")
    )  # fmt: skip
    assert host.run("ls -A /etc/kubernetes").split() == host.run("ls /etc/kubernetes").split()


def names_of(host, leaf):
    text = host.run(f"openssl x509 -noout -ext subjectAltName -in {PKI}/{leaf}.crt")
    return set(re.findall(r"(?:DNS|IP Address):[^,\s]+", text))


def test_a_configuration_that_would_lose_a_name_is_refused_and_nothing_is_changed(
    cluster, host, renewal
):
    before = files_of(host)
    config = renewal.folder / "kubeadm.yaml"
    config.write_text(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
        "networking: {serviceSubnet: 10.233.0.0/18, dnsDomain: k8s.example.net}\n"
        "controlPlaneEndpoint: lb-apiserver.kubernetes.local:6443\n"
    )

    ended = renewal.run(method="regenerate", kubeadm_config=str(config))

    assert isinstance(ended.error, Refused)
    assert "would lose DNS:api.example.net, IP Address:192.0.2.10" in str(ended.error)
    assert files_of(host) == before


def test_a_damaged_certificate_is_refused_by_a_renewal_and_healed_by_a_regeneration(
    cluster, host, renewal
):
    host.run(f"truncate -s 500 {PKI}/apiserver.crt; rm {PKI}/front-proxy-client.crt")

    refused = renewal.run()
    healed = renewal.run(method="regenerate")

    assert "apiserver.crt cannot be read" in str(refused.error)
    assert "front-proxy-client.crt missing" in str(refused.error)
    assert "regenerate" in str(refused.error)
    assert healed.error is None, healed.error
    assert presented(host, "6443").serial_number == on_disk(host, "apiserver").serial_number
    assert "DNS:api.example.net" in names_of(host, "apiserver")


def test_a_regeneration_with_the_api_down_needs_a_configuration(a_cluster, renewal):
    a_cluster.become(EXPIRED_WITH_KUBELETS)
    before = files_of(a_cluster.hosts[0])

    ended = renewal.run(method="regenerate")

    assert "no configuration is named" in str(ended.error)
    assert changed(before, files_of(a_cluster.hosts[0])) == set()


def changed(before, after):
    return {path for path in {*before, *after} if before.get(path) != after.get(path)}


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "mend", "why"),
    [
        ("mv /usr/bin/openssl /usr/bin/openssl.away", "mv /usr/bin/openssl.away /usr/bin/openssl", "there is no openssl"),
        ("mv /usr/bin/crictl /usr/bin/crictl.away", "mv /usr/bin/crictl.away /usr/bin/crictl", "no crictl"),
        (f"mv {PKI}/ca.key /root/ca.key", f"mv /root/ca.key {PKI}/ca.key", "ca.key is not on this host"),
        (f"cp {PKI}/etcd/ca.key {PKI}/front-proxy-ca.key", "", "front-proxy-ca.key is not on this host or does not fit"),
        (f"rm {PKI}/etcd/ca.crt", "", "authority etcd/ca.crt is missing"),
        ("mv /etc/kubernetes/manifests/kube-scheduler.yaml /root", "", "no manifest of kube-scheduler"),
        ("systemctl stop kubelet", "", "the kubelet is not active"),
        ("echo : > /etc/kubernetes/admin.conf", "", "admin.conf cannot be read"),
        (f"rm {PKI}/etcd/peer.crt {PKI}/etcd/peer.key", "", "etcd/peer.crt missing"),
    ],
)  # fmt: skip
def test_each_obstacle_is_refused_by_its_name_and_nothing_is_changed(
    cluster, host, renewal, broken, mend, why
):
    host.run(broken)
    before = files_of(host)
    try:
        ended = renewal.run()
    finally:
        host.run(mend or ":")

    assert isinstance(ended.error, Refused), ended.error
    assert why in str(ended.error)
    assert renewal.commands(ended) == []
    assert "No such file" in host.run(f"ls {BACKUPS} 2>&1 || :")
    assert changed(before, files_of(host)) <= {f"{PKI}/ca.key"}


def test_authorities_that_have_ended_are_refused(a_cluster, renewal):
    a_cluster.become(EXPIRED_WITH_AUTHORITIES)
    before = files_of(a_cluster.hosts[0])

    ended = renewal.run()

    assert "the authority ca.crt ended" in str(ended.error)
    assert "manual rotation of CA" in str(ended.error)
    assert changed(before, files_of(a_cluster.hosts[0])) == set()


def test_without_a_key_the_backup_stays_on_the_host_only_where_that_is_said(cluster, host, renewal):
    refused = renewal.run(backup_key_file="")
    agreed = renewal.run(backup_key_file="", off_host_backup=False)

    assert "openssl rand -hex 32" in str(refused.error)
    assert renewal.commands(refused) == []
    assert agreed.error is None, agreed.error
    assert not list(renewal.folder.rglob("*.sealed"))
    assert host.run(f"ls {BACKUPS}/{agreed.recovery_id}").split() == [
        "archive.tgz", "files.sha256", "seal.sha256"
    ]  # fmt: skip


def test_a_kubeconfig_with_more_in_it_is_left_alone(cluster, host, renewal):
    host.run(
        "sed -i 's/^contexts:/contexts:\\n- context: {cluster: production, user: x}\\n  name: other/' "
        "/home/ops/.kube/config"
    )
    before = files_of(host)

    ended = renewal.run(users="ops")

    assert isinstance(ended.error, Refused), ended.error
    assert "/home/ops/.kube/config" in str(ended.error)
    assert changed(before, files_of(host)) == set()


def test_a_full_disk_is_told_before_and_during_and_nothing_is_half_done(cluster, host, renewal):
    before = files_of(host)
    host.run(f"mkdir -p {BACKUPS} && mount -t tmpfs -o size=40k none {BACKUPS}")
    try:
        ended = renewal.run()
        left = host.run(f"find {BACKUPS} -type f")
    finally:
        host.run(f"umount {BACKUPS}")

    assert isinstance(ended.error, CommandFailed), ended.error
    assert "No space left on device" in str(ended.error)
    assert left == ""
    assert changed(before, files_of(host)) == set()

    resumed = renewal.resume(ended)
    assert resumed.error is None, resumed.error


# -- how the host is reached ---------------------------------------------------------------------


def test_an_account_that_is_not_root_renews_by_sudo(cluster, host, renewal):
    before = serials(host)

    ended = renewal.run(hosts=host.url("ops"), users="ops")

    assert ended.error is None, ended.error
    assert_renewed(host, before)
    assert host.run("stat -c '%a %u' /home/ops/.kube/config").strip() == "640 2000"


def test_sudo_that_asks_for_a_password_nobody_named_is_told(cluster, host, renewal):
    ended = renewal.run(hosts=host.url("asked"))

    assert "sudo" in str(ended.error)
    assert renewal.commands(ended) == []


def test_a_wrong_key_and_an_unknown_host_are_two_errors(cluster, host, renewal, tmp_path):
    import subprocess

    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    fingerprint = "SHA256:" + "A" * 43

    wrong = renewal.run(hosts=host.url(key_file=str(key)))
    unknown = renewal.run(hosts=f"{host.url()}&host_key={fingerprint}")

    assert type(wrong.error).__name__ == "LoginRefused", wrong.error
    assert type(unknown.error).__name__ == "HostKeyRefused", unknown.error


def test_a_host_without_kubectl_answers_all_the_same(cluster, host, renewal):
    host.run(
        "mount --bind /bin/false /usr/bin/kubectl; rm -f /usr/bin/kubectl; umount /usr/bin/kubectl; "
        "mv /usr/bin/kubectl /usr/bin/kubectl.away || mount -t tmpfs none /opt/lab/none || :"
    )
    before = serials(host)

    ended = renewal.run()

    assert ended.error is None, ended.error
    assert_renewed(host, before)


# -- cut off -------------------------------------------------------------------------------------

CUT = f"""#!/bin/sh
/usr/bin/kubeadm.real "$@" || exit
case "$*" in *"renew all"*)
  truncate -s 300 {PKI}/apiserver.crt; echo > /etc/kubernetes/scheduler.conf; kill -9 $PPID;;
esac
"""


def test_a_renewal_cut_off_while_it_wrote_a_file_is_mended_from_the_backup(cluster, host, renewal):
    """Goal: a file that was being written when the power failed does not stop the renewal.

    Method: let kubeadm leave one certificate cut short and one kubeconfig empty, and die; resume
    with the real kubeadm, which cannot read such files.
    """
    before = serials(host)
    host.run("mkdir -p /usr/local/sbin")
    host.write(
        "usr/local/sbin/kubeadm", CUT.replace("/usr/bin/kubeadm.real", "/usr/bin/kubeadm"), 0o755
    )
    try:
        ended = renewal.run()
    finally:
        host.run("rm /usr/local/sbin/kubeadm")
    assert ended.error is not None
    host.write("usr/local/sbin/kubeadm", '#!/bin/sh\nexec /usr/bin/kubeadm "$@"\n', 0o755)

    resumed = renewal.resume(ended)

    host.run("rm /usr/local/sbin/kubeadm")
    assert resumed.error is None, resumed.error
    assert_renewed(host, before)
