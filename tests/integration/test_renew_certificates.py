"""A renewal of a control-plane host, looked at from all sides: real etcd, TLS and kubeadm."""

import re

import pytest

from tests.integration.certificate_renewal import (
    BACKUPS,
    CONFIGS,
    KEPT,
    LEAVES,
    PKI,
    Renewal,
    assert_renewed,
    files_of,
    names_of,
    processes,
    serials,
    sha256_of,
)
from tests.lab.control_plane import control_planes
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(600)  # the first run builds the root file system

HOMES = {"/root/.kube/config": "600 0:0", "/home/ops/.kube/config": "640 2000:2000"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"))) as cluster:
        cluster.wait_until_ready()
        yield cluster


@pytest.fixture(scope="module")
def host(cluster):
    return cluster.hosts[0]


class Story:
    """A host before a renewal and after its plan, then the renewal: what all tests look at."""

    def __init__(self, cluster, folder):
        (host,) = cluster.hosts
        self.renewal = Renewal(cluster, folder)
        self.serials, self.kept = serials(host), sha256_of(host, KEPT)
        self.names = {leaf: names_of(host, leaf) for leaf in LEAVES}
        self.files, self.processes = files_of(host), processes(host)
        self.plan = self.renewal.plan(users="root ops").plan
        self.files_after_plan, self.processes_after_plan = files_of(host), processes(host)
        self.backups_after_plan = host.run(f"ls {BACKUPS} 2>/dev/null || :")
        self.ended = self.renewal.run(approve=self.plan.hash, users="root ops")
        assert self.ended.error is None, self.ended.error


@pytest.fixture(scope="module")
def story(cluster, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOVER_JOURNAL", "")  # so that what a Renewal sets is taken back
        patch.setenv("RECOVER_WORK_DIR", "")
        yield Story(cluster, tmp_path_factory.mktemp("story"))


def test_a_plan_shows_every_command_and_changes_nothing(story):
    text = str([step.commands for step in story.plan.steps])

    assert story.plan.refusals == []
    assert "kubeadm certs renew all" in text
    assert "crictl" in text
    assert "PRIVATE KEY" not in text
    assert story.files_after_plan == story.files
    assert story.processes_after_plan == story.processes
    assert story.backups_after_plan == ""


def test_what_was_sent_is_what_the_plan_showed(story):
    planned = {
        (step.key, command.replace("@recovery@", story.ended.recovery_id))
        for step in story.plan.steps
        for command in step.commands
    }

    sent = set(story.renewal.commands(story.ended))

    assert sent
    assert sent <= planned


def test_every_certificate_is_new_and_every_process_uses_it(story, host):
    assert story.ended.result.certificates == len(LEAVES) + len(CONFIGS)
    assert_renewed(host, story.serials)


def test_authorities_and_the_service_account_key_are_what_they_were(story, host):
    assert sha256_of(host, KEPT) == story.kept


def test_names_and_addresses_are_what_they_were(story, host):
    assert {leaf: names_of(host, leaf) for leaf in LEAVES} == story.names
    assert "DNS:api.example.net" in story.names["apiserver"]


def test_kubeconfigs_of_people_are_replaced_with_owner_and_mode_kept(story, host):
    for path, about in HOMES.items():
        assert host.read_file(path) == host.read_file("/etc/kubernetes/admin.conf")
        assert host.run(f"stat -c '%a %u:%g' {path}").strip() == about
    assert "NodeList" in host.run("KUBECONFIG=/home/ops/.kube/config lab-get /api/v1/nodes")


def test_no_key_left_the_host_in_the_clear(story, host):
    told = story.renewal.journal_bytes()

    keys = [
        host.run(f"sed -n 's/^ *client-key-data: //p' /etc/kubernetes/{conf}").strip()
        for conf in CONFIGS
    ]
    keys += [
        line
        for name in ("ca.key", "sa.key", "apiserver.key", "etcd/ca.key")
        for line in host.read_file(f"{PKI}/{name}").decode().splitlines()[1:-1]
        if len(line) > 40
    ]
    assert len(keys) > 40
    assert b"PRIVATE KEY" not in told
    assert not [key for key in keys if key.encode()[:48] in told]
    assert story.renewal.key.read_text().encode() not in told


def test_the_backup_is_for_root_alone_on_the_host_and_sealed_on_the_worker(story, host):
    folder = f"{BACKUPS}/{story.ended.recovery_id}"
    host.run(f"mkdir /root/look && tar -C /root/look -xzpf {folder}/archive.tgz")
    restored = host.run("cd /root/look && find . -type f -exec sha256sum {} + && rm -r /root/look")
    hashes = (line.split() for line in restored.splitlines())

    assert {name.removeprefix("."): sha256 for sha256, name in hashes} == story.files
    assert host.run(f"stat -c %a {BACKUPS} {folder}").split() == ["700", "700"]
    assert host.run(f"stat -c %a {folder}/*").split() == ["600"] * 3
    (sealed,) = story.renewal.folder.rglob("*.sealed")
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert b"ca.key" not in sealed.read_bytes()


def test_a_second_renewal_finds_nothing_to_do_and_needs_neither_key_nor_consent(story, host):
    before, running = files_of(host), processes(host)

    again = story.renewal.run(users="root ops", backup_key_file="")

    assert (again.error, again.result.hosts) == (None, ())
    assert story.renewal.commands(again) == []
    assert files_of(host) == before
    assert processes(host) == running


def test_the_result_tells_hosts_and_numbers(story, host):
    assert re.fullmatch(r"root@\S+", story.ended.result.hosts[0])
    assert story.ended.result.notes == ()
    assert story.ended.result.left_to_person == []
