"""A renewal of certificates by hand on a real control plane, and what the stand-ins took from it.

It is skipped where the programs of Kubernetes, containerd, runc or a C compiler are absent.
"""

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from recovery.journal.history import RecoveryState
from tests.integration.certificate_renewal import Renewal
from tests.lab.pki import load_certificates
from tests.lab.processes import LabError, wait_until
from tests.lab.real_control_plane import real_control_plane
from tests.lab.served import served, served_by
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(600)

CRICTL = "crictl --runtime-endpoint unix:///run/containerd/containerd.sock"
KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PKI = "/etc/kubernetes/pki"
FILES = {
    "apiserver": f"{PKI}/apiserver.crt",
    "etcd-server": f"{PKI}/etcd/server.crt",
    "etcd-peer": f"{PKI}/etcd/peer.crt",
    "kubelet-serving": "/var/lib/kubelet/pki/kubelet.crt",
}
MANIFEST = "/etc/kubernetes/manifests/kube-scheduler.yaml"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with started_or_skipped(
        real_control_plane(tmp_path_factory.mktemp("real")), is_optional=True
    ) as cluster:
        cluster.wait_until_ready()
        yield cluster


@pytest.fixture
def host(cluster):
    cluster.wait_until_ready()
    return cluster.host


def running(host):
    listed = json.loads(host.run(f"{CRICTL} ps -o json 2>/dev/null"))["containers"]
    return {one["metadata"]["name"]: one for one in listed}


def started_at(host, container):
    known = json.loads(host.run(f"{CRICTL} inspect {container['id']} 2>/dev/null"))
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", known["status"]["startedAt"]))


def on_disk(host):
    return {
        name: load_certificates(host.read_file(path))[0].serial_number
        for name, path in FILES.items()
    }


def shown(host):
    return {name: one.serial for (_, name), one in served_by([host.address], FILES).items()}


def remove_pod(host, component):
    pods = f"{CRICTL} pods --namespace kube-system --name '^{component}' -q 2>/dev/null"
    host.run(f"{pods} | xargs -r {CRICTL} rmp -f")


def answers(host, path):
    try:
        return host.run(f"{KUBECTL} get --raw {path}") == "ok"
    except LabError:
        return False


def settled(look, what, within_seconds=90):
    return wait_until(look, what, within_seconds=within_seconds)


def test_a_renewal_is_served_once_every_static_pod_has_been_made_anew(cluster, host):
    before, old = running(host), on_disk(host)
    assert shown(host) == old
    assert before.keys() == set(COMPONENTS)

    began = datetime.now(UTC)
    said = host.run("kubeadm certs renew all")
    assert said.count(" renewed\n") == 11
    new = on_disk(host)
    # Both read their files anew, without a restart: etcd ever did, the API server since 1.17.
    settled(lambda: served(host.address, 6443).serial == new["apiserver"], "the new certificate")
    assert served(host.address, 2379).serial == new["etcd-server"] != old["etcd-server"]

    for component in COMPONENTS:
        remove_pod(host, component)
        settled(lambda c=component: c in running(host), f"{component} to be made again")
        settled(lambda: answers(host, "/livez"), "the API to live")
    cluster.wait_until_ready()

    after = running(host)
    for component in COMPONENTS:
        attempts = [one[component]["metadata"]["attempt"] for one in (before, after)]
        assert attempts[1] > attempts[0]
        assert started_at(host, after[component]) > began
    assert shown(host) == new
    assert new["kubelet-serving"] == old["kubelet-serving"]
    assert "kubernetes-admin" in host.run(f"{KUBECTL} auth whoami")
    assert host.run(f"{KUBECTL} -n kube-system logs kube-scheduler-{cluster.node_name} --tail 1")


def test_the_recovery_renews_them_too(cluster, host, tmp_path, monkeypatch):
    for name in ("RECOVER_JOURNAL", "RECOVER_WORK_DIR"):
        monkeypatch.setenv(name, "")  # which the renewal sets, and is undone by this
    cluster.age(certificate_hours=240)
    before = on_disk(host)

    ended = Renewal(cluster, tmp_path).run()

    assert ended.state is RecoveryState.RECOVERED, ended
    after = on_disk(host)
    assert shown(host) == after
    assert {name for name in FILES if after[name] != before[name]} == FILES.keys() - {
        "kubelet-serving"
    }


def test_a_copy_left_in_the_manifests_folder_takes_the_place_of_what_it_was_made_of(host):
    first = running(host)["kube-scheduler"]["id"]

    # Which of two files of one name a kubelet follows is up to when it reads them: mostly the new.
    for within_seconds in (30, 30, 90):
        host.run(f"rm -f {MANIFEST}.bak && cp {MANIFEST} {MANIFEST}.bak")
        with contextlib.suppress(LabError):
            settled(lambda: is_another(host, first), "the copy", within_seconds)
            break
    assert is_another(host, first)
    second = running(host)["kube-scheduler"]["id"]
    host.run(f"rm {MANIFEST}.bak")
    settled(
        lambda: running(host).get("kube-scheduler", {"id": second})["id"] != second, "the other"
    )


def is_another(host, scheduler):
    return running(host).get("kube-scheduler", {"id": scheduler})["id"] != scheduler


def test_leases_move_and_the_node_has_its_boot_id(host):
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler"

    def renewed_at():
        text = json.loads(host.run(f"{KUBECTL} get --raw {path}"))["spec"]["renewTime"]
        return datetime.fromisoformat(text)

    settled(lambda: datetime.now(UTC) - renewed_at() < timedelta(seconds=15), "a fresh lease")
    (node,) = json.loads(host.run(f"{KUBECTL} get nodes -o json"))["items"]
    boot = host.run("cat /proc/sys/kernel/random/boot_id").strip()
    assert node["status"]["nodeInfo"]["bootID"] == boot


def test_without_a_certificate_one_may_only_ask_how_it_is(host):
    codes = host.run(
        "for path in readyz livez healthz version api; do "
        f'python3 -c "{ASK}" https://{host.address}:6443/$path; done'
    )

    assert codes.split() == ["200", "200", "200", "200", "403"]


ASK = (
    "import ssl,sys,urllib.request as r,urllib.error as e\n"
    "c=ssl._create_unverified_context()\n"
    "try: print(r.urlopen(sys.argv[1],context=c).status)\n"
    "except e.HTTPError as error: print(error.code)"
)


def test_a_kubelet_whose_certificate_has_expired_does_not_start_and_its_pods_run_on(cluster, host):
    before = {name: one["id"] for name, one in running(host).items()}
    current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    name = f"system:node:{cluster.node_name}"
    user = f"kubeadm kubeconfig user --org system:nodes --client-name {name}"
    config = "--config /opt/lab/kubeadm.yaml"
    host.run(f"{user} --validity-period 1s {config} > /root/short.conf 2>/dev/null")
    host.run(f"cat {current} > /root/kept.pem")
    extract = "grep {} /root/short.conf | sed 's/.*: //' | base64 -d"
    parts = [extract.format(f"client-{part}-data") for part in ("certificate", "key")]
    host.run(f"({parts[0]}; {parts[1]}) > {current}")

    settled(
        lambda: "will expire" in host.run(f"openssl x509 -checkend 0 -in {current} || true"), ""
    )
    host.run("systemctl restart kubelet")

    failed = "part of the existing bootstrap client certificate in /etc/kubernetes/kubelet.conf"
    settled(lambda: failed in host.run("journalctl -u kubelet -n 60 --no-pager -o cat"), failed)
    assert {name: one["id"] for name, one in running(host).items()} == before

    # The kubelet asks for one that it can rotate as soon as it has one that is good.
    host.run("rm /etc/kubernetes/kubelet.conf /var/lib/kubelet/pki/kubelet-client-*")
    host.run(f"{user} {config} > /etc/kubernetes/kubelet.conf 2>/dev/null")
    host.run("systemctl restart kubelet")
    settled(lambda: host.run(f"readlink {current} || true"), "a certificate that can be rotated")
    cluster.wait_until_ready()
