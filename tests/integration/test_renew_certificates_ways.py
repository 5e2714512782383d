"""The ways to renew, and the way back, on a control-plane host of the lab."""

import pytest

from recovery.errors import Refused
from tests.integration.certificate_renewal import (
    BACKUPS,
    KEPT,
    PKI,
    Renewal,
    assert_renewed,
    changed,
    files_of,
    names_of,
    on_disk,
    presented,
    serials,
    sha256_of,
)
from tests.lab.control_plane import control_planes
from tests.lab.control_plane_design import EXPIRED_WITH_KUBELETS, EXPIRING
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(600)

SERVED = {"apiserver": "6443", "etcd/server": "2379", "etcd/peer": "2380"}
RENEW_BY_HAND = """set -e
kubeadm certs renew all
rm -f /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet.key
systemctl restart kubelet
"""


@pytest.fixture(scope="module")
def a_cluster(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"))) as cluster:
        yield cluster


@pytest.fixture
def cluster(a_cluster):
    """The cluster with certificates that end in twenty days."""
    a_cluster.become(EXPIRING)
    a_cluster.wait_until_ready()
    return a_cluster


@pytest.fixture
def expired(a_cluster):
    """The cluster with everything expired, so that neither API nor kubelet work."""
    a_cluster.become(EXPIRED_WITH_KUBELETS)
    return a_cluster


@pytest.fixture
def host(a_cluster):
    return a_cluster.hosts[0]


@pytest.fixture
def renewal(a_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", "")
    monkeypatch.setenv("RECOVER_WORK_DIR", "")
    return Renewal(a_cluster, tmp_path)


def test_what_has_expired_with_the_kubelet_and_the_api_down_is_brought_back(expired, host, renewal):
    before, kept = serials(host), sha256_of(host, KEPT)

    ended = renewal.run(users="root")

    assert ended.error is None, ended.error
    assert_renewed(host, before)
    assert sha256_of(host, KEPT) == kept
    expired.wait_until_ready()
    current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    subject = host.run(f"openssl x509 -noout -subject -in {current}").replace(" ", "")
    assert subject.strip() == "subject=O=system:nodes,CN=system:node:cp1"

    after = files_of(host)
    undone = renewal.undo(ended)
    assert "that would stop it" in str(undone.error)
    assert files_of(host) == after


def test_undo_puts_every_file_back_and_every_process_uses_them(cluster, host, renewal):
    before, kept = serials(host), files_of(host)
    ended = renewal.run(users="root ops")

    undone = renewal.undo(ended)

    assert (undone.error, str(undone.state)) == (None, "undone")
    assert files_of(host) == kept
    for leaf, port in SERVED.items():
        assert presented(host, port).serial_number == before[leaf], leaf
    cluster.wait_until_ready()


def test_undo_takes_the_sealed_copy_where_the_archive_on_the_host_is_gone(cluster, host, renewal):
    kept = files_of(host)
    ended = renewal.run(users="ops")
    host.run(f"rm -r {BACKUPS}/{ended.recovery_id}")

    undone = renewal.undo(ended)

    assert undone.error is None, undone.error
    assert files_of(host) == kept


def test_processes_that_were_never_restarted_are_restarted_and_no_file_is_touched(
    cluster, host, renewal
):
    host.run(RENEW_BY_HAND)
    cluster.wait_until_ready()
    renewed, files = serials(host), files_of(host)

    ended = renewal.run()

    assert ended.error is None, ended.error
    assert ended.result.certificates == 0
    assert {step.partition("[")[0] for step, _ in renewal.commands(ended)} == {"restart"}
    assert not [path for path in changed(files, files_of(host)) if path.startswith("/etc")]
    assert presented(host, "6443").serial_number == renewed["apiserver"]


def test_a_reboot_takes_the_place_of_the_restarts(cluster, host, renewal):
    before, reboots = serials(host), host.reboot_count

    ended = renewal.run(reboot=True)

    assert ended.error is None, ended.error
    assert host.reboot_count == reboots + 1
    assert_renewed(host, before)
    assert not [step for step, _ in renewal.commands(ended) if step.startswith("restart[")]


def test_a_regeneration_keeps_names_authorities_and_the_service_account_key(cluster, host, renewal):
    before, kept = serials(host), sha256_of(host, KEPT)
    names = {leaf: names_of(host, leaf) for leaf in SERVED}

    ended = renewal.run(method="regenerate")

    assert ended.error is None, ended.error
    assert_renewed(host, before)
    assert sha256_of(host, KEPT) == kept
    assert {leaf: names_of(host, leaf) for leaf in SERVED} == names
    assert ".recover" not in host.run("ls -A /etc/kubernetes")


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

    assert isinstance(ended.error, Refused), ended.error
    assert "would lose DNS:api.example.net, IP Address:192.0.2.10" in str(ended.error)
    assert renewal.commands(ended) == []
    assert changed(before, files_of(host)) == set()


def test_a_damaged_certificate_is_refused_by_a_renewal_and_healed_by_a_regeneration(
    cluster, host, renewal
):
    host.run(f"truncate -s 500 {PKI}/apiserver.crt; rm {PKI}/front-proxy-client.crt")

    refused = renewal.run()
    healed = renewal.run(method="regenerate")

    for told in ("apiserver.crt cannot be read", "front-proxy-client.crt missing", "regenerate"):
        assert told in str(refused.error)
    assert healed.error is None, healed.error
    assert presented(host, "6443").serial_number == on_disk(host, "apiserver").serial_number
    assert "DNS:api.example.net" in names_of(host, "apiserver")


def test_a_regeneration_with_the_api_down_needs_a_configuration(expired, host, renewal):
    ended = renewal.run(method="regenerate")

    assert "no configuration is named" in str(ended.error)
    assert renewal.commands(ended) == []


def test_an_account_that_is_not_root_renews_by_sudo(cluster, host, renewal):
    before = serials(host)

    ended = renewal.run(hosts=host.url("ops"), users="ops")

    assert ended.error is None, ended.error
    assert_renewed(host, before)
    assert host.run("stat -c '%a %u' /home/ops/.kube/config").strip() == "640 2000"


CUT = f"""#!/bin/sh
/usr/bin/kubeadm "$@" || exit
case "$*" in *"renew all"*)
  truncate -s 300 {PKI}/apiserver.crt; echo > /etc/kubernetes/scheduler.conf; exit 9;;
esac
"""


def test_a_renewal_cut_off_while_it_wrote_is_mended_from_the_backup(cluster, host, renewal):
    """Goal: a file that was being written when the power failed does not stop the renewal.

    Method: let kubeadm leave one certificate cut short and one kubeconfig empty, and fail; resume
    with the real kubeadm, which cannot read such files.
    """
    before = serials(host)
    path = "/usr/local/bin/kubeadm"  # before /usr/bin where commands are looked for
    host.write(path, CUT, 0o755)
    try:
        ended = renewal.run()
        host.write(path, '#!/bin/sh\nexec /usr/bin/kubeadm "$@"\n', 0o755)
        resumed = renewal.resume(ended)
    finally:
        host.run(f"rm {path}")

    assert ended.error is not None
    assert resumed.error is None, resumed.error
    assert_renewed(host, before)
    assert [c for s, c in renewal.commands(resumed) if "only-if-a-renewal-was-cut-off" in c]
