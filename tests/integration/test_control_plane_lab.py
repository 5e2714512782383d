"""The lab's control plane: that it behaves as a real one where certificates are concerned."""

import base64
import json
import re
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from tests.lab.control_plane import control_planes, is_ready
from tests.lab.control_plane_design import EXPIRED, EXPIRED_WITH_KUBELETS, EXPIRING, Age
from tests.lab.control_plane_files import File
from tests.lab.pki import ends_at, load_certificates, wanted_of
from tests.lab.processes import wait_until
from tests.lab.served import PORTS, served, served_by, served_inside
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system

CRICTL = "crictl --runtime-endpoint unix:///run/containerd/containerd.sock"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PKI = "/etc/kubernetes/pki"
FILES = {
    "apiserver": f"{PKI}/apiserver.crt",
    "etcd-server": f"{PKI}/etcd/server.crt",
    "etcd-peer": f"{PKI}/etcd/peer.crt",
    "kubelet-serving": "/var/lib/kubelet/pki/kubelet.crt",
}
KUBELET_FILES = "/etc/kubernetes/kubelet.conf /var/lib/kubelet/pki/kubelet-client-*"
MANIFEST = "/etc/kubernetes/manifests/kube-scheduler.yaml"


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("three"), 3)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def spoilt():
    """Whether a test has changed something since the hosts were last put back: a set, for yes."""
    return {"just started"}


@pytest.fixture
def quiet(three, spoilt):
    """Three control planes, ready, with 20 days left; for tests that only look."""
    if spoilt:
        three.become(EXPIRING)
        three.wait_until_ready()
        spoilt.clear()
    return three


@pytest.fixture
def cluster(quiet, spoilt):
    """The same, to be changed."""
    spoilt.add("by this test")
    return quiet


@pytest.fixture
def host(cluster):
    return cluster.hosts[0]


@pytest.fixture
def looked_at(quiet):
    """The first host, for tests that only look."""
    return quiet.hosts[0]


def client_of(host, path):
    """A way to ask the API as a kubeconfig of a host says, with an answer for every code."""
    said = yaml.safe_load(host.read_file(path))
    user = said["users"][0]["user"]
    parts = [base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")]
    return asker(host, said["clusters"][0]["cluster"]["certificate-authority-data"], parts)


def asker(host, authority="", parts=()):
    context = ssl.create_default_context(cadata=base64.b64decode(authority).decode() or None)
    context.check_hostname = False
    if not authority:
        context.verify_mode = ssl.CERT_NONE
    if parts:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"".join(parts))
            file.flush()
            context.load_cert_chain(file.name)

    def ask(path, method="GET", body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"https://{host.address}:6443{path}",
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
                text, code = answer.read().decode(), answer.status
        except urllib.error.HTTPError as error:
            text, code = error.read().decode(), error.code
        return code, json.loads(text) if text.startswith("{") else text

    return ask


def containers(host, name=""):
    listed = json.loads(host.run(f"{CRICTL} ps --name '{name}' -o json"))
    return {one["metadata"]["name"]: one for one in listed["containers"]}


def started_at(host, name):
    (container,) = host.run(f"{CRICTL} ps --name '^{name}$' -q").split()
    text = json.loads(host.run(f"{CRICTL} inspect {container}"))["status"]["startedAt"]
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text))


def remove_pod(host, component):
    pods = f"{CRICTL} pods --namespace kube-system --name '^{component}-cp' -q"
    host.run(f"{pods} | xargs -r {CRICTL} rmp -f")


def on_disk(host, name):
    return load_certificates(host.read_file(FILES[name]))[0].serial_number


def settled(look, what):
    return wait_until(look, what, within_seconds=40)


def test_every_port_serves_the_certificate_that_lies_on_disk(quiet):
    by_address = {host.address: host for host in quiet.hosts}

    seen = served_by(by_address)

    assert len(seen) == 3 * len(PORTS)
    for (address, name), shown in seen.items():
        assert shown.serial == on_disk(by_address[address], name), (address, name)
        assert shown.days_left == pytest.approx(20, abs=0.1)


def test_the_real_kubeadm_and_kubectl_take_it_for_a_cluster(looked_at):
    checked = looked_at.run("kubeadm certs check-expiration")
    kubectl = "KUBECONFIG=/etc/kubernetes/admin.conf kubectl"
    if not looked_at.run("command -v kubectl || true"):
        pytest.skip("there is no kubectl in KUBEBUILDER_ASSETS")

    assert "Error reading configuration from the Cluster" not in checked
    assert checked.count("19d") == 11
    nodes = looked_at.run(f"{kubectl} get nodes -o name").split()
    assert nodes == ["node/cp1", "node/cp2", "node/cp3"]
    assert "kubernetes-admin" in looked_at.run(f"{kubectl} auth whoami")
    looked_at.run(f"{kubectl} -n kube-system create configmap proof --from-literal=a=b")
    looked_at.run(f"{kubectl} -n kube-system delete configmap proof")
    assert "serving" in looked_at.run(f"{kubectl} -n kube-system logs kube-apiserver-cp2")


def test_the_api_server_shows_what_it_loaded_until_it_is_started_again(host):
    old = {name: on_disk(host, name) for name in FILES}
    started = started_at(host, "kube-apiserver")
    attempt = containers(host)["kube-apiserver"]["metadata"]["attempt"]

    host.run("kubeadm certs renew all")

    assert served(host.address, 6443).serial == old["apiserver"] != on_disk(host, "apiserver")
    # A real etcd reads its files anew at every handshake.
    assert served(host.address, 2379).serial == on_disk(host, "etcd-server") != old["etcd-server"]
    assert served(host.address, 2380).serial == on_disk(host, "etcd-peer") != old["etcd-peer"]

    remove_pod(host, "kube-apiserver")
    settled(lambda: is_ready(host.address), "the API server to be ready")

    assert served(host.address, 6443).serial == on_disk(host, "apiserver")
    assert started_at(host, "kube-apiserver") > started
    assert containers(host)["kube-apiserver"]["metadata"]["attempt"] == attempt + 1


def test_the_kubelet_shows_what_it_loaded_and_makes_a_new_one_where_there_is_none(host):
    old = served(host.address, 10250).serial

    host.run("rm /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet.key")
    assert served(host.address, 10250).serial == old
    host.run("systemctl restart kubelet")
    new = settled(lambda: served(host.address, 10250), "port 10250")

    assert new.serial == on_disk(host, "kubelet-serving") != old
    assert new.days_left == pytest.approx(365, abs=1)


def test_scheduler_and_controller_manager_show_certificates_of_their_own(looked_at):
    for port in (10257, 10259):
        shown = served_inside(looked_at, port)
        assert shown.subject.startswith("CN=localhost@")
        assert shown.days_left > 300


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/readyz", 200),
        ("/healthz", 200),
        ("/livez", 200),
        ("/version", 200),
        ("/api", 403),
        ("/api/v1/nodes", 403),
    ],
)
def test_without_a_certificate_one_may_only_ask_how_it_is(looked_at, path, code):
    assert asker(looked_at)(path)[0] == code


def test_a_group_that_is_bound_to_nothing_may_do_nothing(host):
    made = host.run("kubeadm kubeconfig user --client-name mallory --org nobodies 2>/dev/null")
    host.write("root/mallory.conf", made, 0o600)

    ask = client_of(host, "/root/mallory.conf")

    code, answer = ask("/api/v1/nodes")
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert 'User "mallory" cannot list resource "nodes"' in answer["message"]


def test_an_expired_client_certificate_is_answered_with_401(cluster):
    cluster.become(Age(each={"admin.conf": timedelta(seconds=-30)}))
    settled(lambda: is_ready(cluster.hosts[0].address), "the API server to be ready")

    ask = client_of(cluster.hosts[0], "/etc/kubernetes/admin.conf")

    assert ask("/api/v1/nodes")[0] == 401
    assert (
        client_of(cluster.hosts[0], "/etc/kubernetes/super-admin.conf")("/api/v1/nodes")[0] == 200
    )


def test_the_api_holds_what_kubeadm_and_the_components_put_there(quiet, looked_at):
    ask = client_of(looked_at, "/etc/kubernetes/admin.conf")

    assert ask("/api")[1]["versions"] == ["v1"]
    assert "coordination.k8s.io" in {group["name"] for group in ask("/apis")[1]["groups"]}
    config = ask("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")[1]
    known = yaml.safe_load(config["data"]["ClusterConfiguration"])
    assert known["controlPlaneEndpoint"] == "lb-apiserver.kubernetes.local:6443"
    review = ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", "POST", {})
    assert review[1]["status"]["userInfo"]["username"] == "kubernetes-admin"
    nodes = ask("/api/v1/nodes")[1]["items"]
    boot_ids = [one.run("cat /proc/sys/kernel/random/boot_id").strip() for one in quiet.hosts]
    assert [node["status"]["nodeInfo"]["bootID"] for node in nodes] == boot_ids
    assert ask("/api/v1/nodes/nobody")[0] == 404


def test_an_object_is_written_through_etcd_and_only_over_what_was_read(quiet):
    one, other = (client_of(h, "/etc/kubernetes/admin.conf") for h in quiet.hosts[:2])
    path = "/api/v1/namespaces/kube-system/configmaps"

    assert one(path, "POST", {"metadata": {"name": "proof"}, "data": {"a": "1"}})[0] == 201
    assert one(path, "POST", {"metadata": {"name": "proof"}})[0] == 409
    stale = other(f"{path}/proof")[1]
    assert one(f"{path}/proof", "PUT", {**stale, "data": {"a": "2"}})[0] == 200
    assert other(f"{path}/proof", "PUT", {**stale, "data": {"a": "3"}})[0] == 409
    assert other(f"{path}/proof")[1]["data"] == {"a": "2"}
    assert other(f"{path}/proof", "DELETE")[0] == 200
    assert one(f"{path}/proof")[0] == 404


def test_admin_conf_is_nobody_without_its_binding_and_super_admin_conf_can_mend_it(host):
    admin = client_of(host, "/etc/kubernetes/admin.conf")
    above = client_of(host, "/etc/kubernetes/super-admin.conf")
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"

    above(f"{path}/kubeadm:cluster-admins", "DELETE")
    refused = admin("/api/v1/nodes")[0]
    above(path, "POST", {"metadata": {"name": "kubeadm:cluster-admins"}})

    assert (refused, admin("/api/v1/nodes")[0]) == (403, 200)


def renewed_at(ask, name):
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}"
    return datetime.fromisoformat(ask(path)[1]["spec"]["renewTime"])


def test_leases_are_renewed_by_whoever_leads(looked_at):
    ask = client_of(looked_at, "/etc/kubernetes/admin.conf")
    for name in ("kube-controller-manager", "kube-scheduler"):
        first = renewed_at(ask, name)
        settled(lambda name=name, first=first: renewed_at(ask, name) > first, f"{name} to move")
        assert datetime.now(UTC) - renewed_at(ask, name) < timedelta(seconds=30)


def test_components_whose_client_certificate_expires_lose_their_lease_until_renewed(cluster):
    soon = timedelta(seconds=9)
    each = {"controller-manager.conf": soon}
    cluster.become(Age(each=each))
    ask = client_of(cluster.hosts[0], "/etc/kubernetes/super-admin.conf")
    settled(lambda: renewed_at(ask, "kube-controller-manager"), "a lease")

    def is_stale():
        return datetime.now(UTC) - renewed_at(ask, "kube-controller-manager") > soon

    settled(is_stale, "the lease to go stale")
    for host in cluster.hosts:
        host.run("kubeadm certs renew controller-manager.conf")
    settled(lambda: "kube-controller-manager" in containers(cluster.hosts[0]), "it to be started")
    time_of_two_looks(cluster.hosts[0])
    assert is_stale()  # each of them runs, and holds what had expired when it was started
    for host in cluster.hosts:
        remove_pod(host, "kube-controller-manager")
    settled(lambda: not is_stale(), "the lease to be renewed again")
    assert datetime.now(UTC) - renewed_at(ask, "kube-scheduler") < timedelta(seconds=10)


def test_etcd_lets_nobody_in_without_a_certificate_of_its_authority(looked_at):
    ask = "ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:2379 --command-timeout=3s"
    trust = f"--cacert {PKI}/etcd/ca.crt"
    client = f"{PKI}/etcd/healthcheck-client"

    known = f"{ask} {trust} --cert {client}.crt --key {client}.key member list -w json"
    assert len(json.loads(looked_at.run(known))["members"]) == 3
    assert "refused" in looked_at.run(
        f"{ask} {trust} endpoint health 2>&1 >/dev/null || echo refused"
    )


def test_with_everything_expired_nothing_is_ready_until_renewed_and_started_again(cluster):
    cluster.become(EXPIRED)
    for host in cluster.hosts:
        settled(lambda host=host: containers(host).keys() >= {"etcd"}, "etcd to run")
        assert host.run("systemctl is-active kubelet").strip() == "active"
        with pytest.raises(OSError, match=r"refused|reset"):
            asker(host)("/readyz")

    for host in cluster.hosts:
        host.run("kubeadm certs renew all")
    for component in COMPONENTS:
        for host in cluster.hosts:
            remove_pod(host, component)

    cluster.wait_until_ready()
    seen = served_by([host.address for host in cluster.hosts], ("apiserver", "etcd-server"))
    assert all(shown.days_left > 360 for shown in seen.values())


def test_an_api_server_that_runs_is_not_ready_while_etcd_has_no_quorum(cluster, host):
    for other in cluster.hosts[1:]:
        other.run("mv /etc/kubernetes/manifests/etcd.yaml /root/")

    settled(lambda: asker(host)("/readyz")[0] == 500, "the API server to say that it is not")
    text = asker(host)("/readyz")[1]

    assert "[-]etcd failed: reason withheld" in text
    for other in cluster.hosts[1:]:
        other.run("mv /root/etcd.yaml /etc/kubernetes/manifests/")
    settled(lambda: is_ready(host.address), "the API server to be ready")


def test_a_kubelet_whose_certificate_has_expired_does_not_start_and_its_pods_run_on(cluster, host):
    expired = cluster.files(host, EXPIRED_WITH_KUBELETS)
    (pem,) = [f.content for path, f in expired.items() if "kubelet-client-2" in path]
    host.write("var/lib/kubelet/pki/kubelet-client-current.pem", pem, 0o600)
    before = containers(host)

    host.run("systemctl restart kubelet")

    settled(lambda: host.run("systemctl is-active kubelet || true").strip() != "active", "its end")
    said = host.run("journalctl -u kubelet -n 20 --no-pager")
    assert "client certificate in /etc/kubernetes/kubelet.conf is expired" in said
    assert (
        "unable to load bootstrap kubeconfig: stat /etc/kubernetes/bootstrap-kubelet.conf" in said
    )
    assert {one["id"] for one in containers(host).values()} == {o["id"] for o in before.values()}
    remove_pod(host, "kube-scheduler")
    assert "kube-scheduler" not in containers(host)

    host.run(f"rm {KUBELET_FILES}")
    user = "--org system:nodes --client-name system:node:cp1"
    host.run(f"kubeadm kubeconfig user {user} > /etc/kubernetes/kubelet.conf 2>/dev/null")
    host.run(
        f"sed -i 's,server: .*,server: https://{host.address}:6443,' /etc/kubernetes/kubelet.conf"
    )
    host.run("systemctl restart kubelet")

    current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    settled(lambda: host.run(f"readlink {current} || true"), "a certificate that can be rotated")
    issued = load_certificates(host.read_file(current))[0]
    assert wanted_of(issued).organizations == ("system:nodes",)
    assert ends_at(issued) > datetime.now(UTC) + timedelta(days=360)
    settled(lambda: "kube-scheduler" in containers(host), "the scheduler to be made again")


def test_a_kubelet_that_runs_renews_its_own_certificate_in_time(cluster, host):
    cluster.become(Age(each={"kubelet-client": timedelta(hours=2)}))
    current = "/var/lib/kubelet/pki/kubelet-client-current.pem"

    def left():
        return ends_at(load_certificates(host.read_file(current))[0]) - datetime.now(UTC)

    settled(lambda: left() > timedelta(days=360), "the kubelet to have a new certificate")
    cluster.wait_until_ready()


def test_a_manifest_that_is_moved_away_ends_its_pod_and_one_put_back_starts_it(host):
    host.run(f"mv {MANIFEST} /root/")
    settled(lambda: "kube-scheduler" not in containers(host), "the scheduler to end")

    host.run(f"mv /root/kube-scheduler.yaml {MANIFEST}")

    settled(lambda: "kube-scheduler" in containers(host), "the scheduler to start")


def test_a_touched_manifest_changes_nothing_and_another_content_starts_anew(host):
    first = containers(host)["kube-scheduler"]["id"]
    host.run(f"touch {MANIFEST}")
    time_of_two_looks(host)
    assert containers(host)["kube-scheduler"]["id"] == first

    host.run(f"sed -i 's/  labels:/  annotations: {{renewed: now}}\\n  labels:/' {MANIFEST}")

    settled(lambda: is_another(host, first), "another scheduler")


def is_another(host, scheduler):
    return containers(host).get("kube-scheduler", {}).get("id") not in {scheduler, None}


def time_of_two_looks(host):
    """Wait until the kubelet has acted twice, by two pods that it is given one after the other."""
    for name in ("a", "b"):
        pod = {
            "metadata": {"name": f"look-{name}", "namespace": "default"},
            "spec": {
                "containers": [{"name": name, "image": "none", "command": ["sleep", "infinity"]}]
            },
        }
        host.write(f"etc/kubernetes/manifests/look-{name}", yaml.safe_dump(pod))
        settled(lambda name=name: name in containers(host), "the kubelet to look")
    host.run("rm /etc/kubernetes/manifests/look-*")


def test_a_copy_left_in_the_manifests_folder_takes_the_place_of_what_it_was_made_of(host):
    def elects():
        running = containers(host)["kube-scheduler"]["id"]
        command = json.loads(host.run(f"{CRICTL} inspect {running}"))["info"]["config"]["command"]
        return "--leader-elect=true" in command

    first = containers(host)["kube-scheduler"]["id"]
    host.run(f"cp {MANIFEST} {MANIFEST}.bak")
    settled(lambda: is_another(host, first), "the copy to be started")
    copy = containers(host)["kube-scheduler"]["id"]

    host.run(f"sed 's/leader-elect=true/leader-elect=false/' {MANIFEST} > /root/new")
    host.run(f"mv /root/new {MANIFEST}")
    time_of_two_looks(host)
    assert containers(host)["kube-scheduler"]["id"] == copy
    assert elects()

    host.run(f"rm {MANIFEST}.bak")
    settled(lambda: is_another(host, copy), "the changed one to be started")
    assert not elects()


def test_a_pod_that_fails_again_and_again_is_started_ever_later(host):
    pod = {
        "metadata": {"name": "failing", "namespace": "default"},
        "spec": {"containers": [{"name": "failing", "image": "none", "command": ["false"]}]},
    }
    host.write("etc/kubernetes/manifests/failing.yaml", yaml.safe_dump(pod))

    def attempts():
        listed = json.loads(host.run(f"{CRICTL} ps -a --name failing -o json"))["containers"]
        return max((one["metadata"]["attempt"] for one in listed), default=0)

    settled(lambda: attempts() >= 3, "three more attempts")
    assert host.run(f"{CRICTL} ps -q --name failing") == ""
    assert "CrashLoopBackOff" in host.run("journalctl -u kubelet -n 50 --no-pager")


def test_after_a_reboot_everything_runs_again_and_old_containers_are_known(cluster, host):
    boot = host.run("cat /proc/sys/kernel/random/boot_id")
    before = {one["id"] for one in containers(host).values()}

    host.run("systemctl reboot --no-block")
    settled(lambda: host.reboot_count == 1, "the reboot")
    host.wait_until_up()
    cluster.wait_until_ready()

    assert host.run("cat /proc/sys/kernel/random/boot_id") != boot
    after = containers(host)
    assert after.keys() == set(COMPONENTS)
    assert not before & {one["id"] for one in after.values()}
    assert all(one["metadata"]["attempt"] >= 1 for one in after.values())


def test_restoring_is_quick_and_brings_back_files_processes_and_power(cluster):
    first, second, _ = cluster.hosts
    old = served(first.address, 6443).serial
    first.run(
        "kubeadm certs renew all; rm /etc/kubernetes/manifests/*; echo x > /root/.kube/config"
    )
    second.power_cut()

    cluster.restore()
    cluster.wait_until_ready()
    began = time.monotonic()
    cluster.restore()
    took_seconds = time.monotonic() - began

    assert took_seconds < 6  # below one on a quiet machine
    cluster.wait_until_ready()
    assert served(first.address, 6443).serial == old == on_disk(first, "apiserver")
    assert b"client-certificate-data" in first.read_file("/root/.kube/config")


def test_a_process_outlives_its_own_certificate_and_shows_it_still(cluster, host):
    cluster.become(Age(left=timedelta(seconds=24)))
    cluster.wait_until_ready()

    settled(lambda: served(host.address, 6443).days_left < 0, "it to expire")

    assert asker(host)("/readyz") == (200, "ok")
    with pytest.raises(OSError, match="certificate has expired"):
        client_of(host, "/etc/kubernetes/admin.conf")("/api/v1/nodes")


def test_the_files_of_a_user_are_the_users(looked_at):
    shown = looked_at.run(
        "stat -c '%U %a' /home/ops/.kube /home/ops/.kube/config /root/.kube/config"
    )

    assert shown.splitlines() == ["ops 750", "ops 640", "root 600"]


def test_only_the_first_node_has_super_admin_conf(quiet):
    there = [h.run("ls /etc/kubernetes/super-admin.conf || true") for h in quiet.hosts]

    assert there == ["/etc/kubernetes/super-admin.conf\n", "", ""]


def test_an_api_server_that_reloads_shows_the_new_certificate_without_a_restart(tmp_path):
    with started_or_skipped(control_planes(tmp_path, apiserver_reloads=True)) as cluster:
        cluster.wait_until_ready()
        (host,) = cluster.hosts
        started = started_at(host, "kube-apiserver")

        host.run("kubeadm certs renew all")

        assert served(host.address, 6443).serial == on_disk(host, "apiserver")
        assert started_at(host, "kube-apiserver") == started


def test_an_external_etcd_has_certificates_kubeadm_knows_nothing_of(tmp_path):
    with started_or_skipped(control_planes(tmp_path, etcd="external")) as cluster:
        cluster.wait_until_ready()
        (host,) = cluster.hosts

        checked = host.run("kubeadm certs check-expiration")
        assert "etcd" not in checked
        assert served(host.address, 2379).subject == "CN=etcd-member-cp1"
        assert host.run("systemctl is-active etcd").strip() == "active"
        assert "etcd" not in containers(host)
        missing = "kubeadm certs check-expiration --config /dev/null 2>&1 || true"
        assert "no InitConfiguration or ClusterConfiguration" in host.run(missing)

        cluster.become(EXPIRED)
        settled(lambda: is_ready(host.address), "the API server, whose etcd is well")
        fallback = host.run("kubeadm certs check-expiration")
        assert "Falling back to default configuration" in fallback
        assert fallback.count("!MISSING!") == 5


def test_an_old_node_has_docker_and_the_alpha_commands(tmp_path):
    old = control_planes(
        tmp_path, runtime="docker", kubelet_conf="embedded", kubeadm_version="1.19.16"
    )
    with started_or_skipped(old) as cluster:
        cluster.wait_until_ready()
        (host,) = cluster.hosts
        docker = "docker ps --filter name=k8s_kube-apiserver"

        shown = json.loads(host.run(f"{docker} --format '{{{{json .}}}}'"))
        assert re.fullmatch(
            r"k8s_kube-apiserver_kube-apiserver-cp1_kube-system_[0-9a-f]{32}_0", shown["Names"]
        )
        assert (shown["State"], shown["Networks"]) == ("running", "host")
        started = host.run(f"docker inspect --format '{{{{.State.StartedAt}}}}' {shown['ID']}")
        assert datetime.fromisoformat(started.strip()[:26] + "+00:00") < datetime.now(UTC)
        assert "client-certificate-data" in host.read_file("/etc/kubernetes/kubelet.conf").decode()

        host.run("kubeadm alpha certs renew all")
        assert served(host.address, 6443).days_left < 21
        host.run(f"docker rm -f {shown['ID']}")
        settled(lambda: served(host.address, 6443).days_left > 360, "a new certificate")
        assert "_1" in host.run(f"{docker} --format '{{{{.Names}}}}'")


@pytest.mark.parametrize(
    ("situation", "sign"),
    [
        ("06_ca_key_absent_externally_managed", "Error checking external CA condition for ca"),
        ("08_external_etcd_files_missing", "!MISSING! etcd-server"),
        ("15_everything_expired_incl_ca", "could not validate bounds for certificate CA"),
    ],
)
def test_a_host_can_be_in_any_of_the_kept_situations(tmp_path, situation, sign):
    with started_or_skipped(control_planes(tmp_path, situation=situation)) as cluster:
        (host,) = cluster.hosts

        assert sign in host.run("kubeadm certs check-expiration 2>&1 || true")


def test_a_test_may_change_the_files_of_a_host(tmp_path):
    def change(tree):
        tree["/etc/kubernetes/pki/extra.crt"] = File(b"not a certificate\n", 0o644)

    with started_or_skipped(control_planes(tmp_path, change=change)) as cluster:
        assert cluster.hosts[0].read_file("/etc/kubernetes/pki/extra.crt") == b"not a certificate\n"


def test_nobody_is_served_where_nobody_listens():
    with subprocess.Popen(["sleep", "0"]):
        assert served("127.0.0.1", 9) is None
