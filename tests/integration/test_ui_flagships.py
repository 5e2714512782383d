"""Flagship recoveries in a real browser: filled, run, failed, mended, resumed and approved.

What counts at the end is what the repaired system shows, not what the page says. `move-grafana-to-
mysql` has `test_ui` of its own, in each run; these are for FAULTS=all.
"""

import secrets
import sys
import tempfile
from pathlib import Path

import pytest

from recovery.run import recovery_id_of
from tests.faults.conftest import IS_WHOLE
from tests.integration.certificate_renewal import assert_renewed, serials
from tests.integration.pods_runs import MongodbInPods
from tests.integration.ui_runs import page as page  # noqa: PLC0414 (the fixture)
from tests.integration.ui_runs import stack_with, take
from tests.lab.control_plane import control_planes
from tests.lab.hosts import lab_hosts
from tests.lab.kubespray_cluster import FILES, KEYS, UNITS, KubesprayCluster
from tests.lab.processes import scratch_directory
from tests.lab.session import started_or_skipped

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not IS_WHOLE, reason="one of the whole campaign: FAULTS=all"),
]
ENDS_WITHIN_SECONDS = 600
NAMES = ["node1", "node2", "node3", "node4"]
RULES = "approvers: {Ada: {}, Grace: {}}\nrules: [{danger: destructive}]\n"


@pytest.fixture(scope="module")
def stack():
    folder = tempfile.TemporaryDirectory(prefix="ui-", ignore_cleanup_errors=True)
    with folder as home, stack_with(RULES, Path(home)) as stack:  # short: it holds sockets of ssh
        yield stack


@pytest.fixture
def control_plane(page, tmp_path):
    with started_or_skipped(control_planes(tmp_path / "control-plane")) as cluster:
        cluster.wait_until_ready()
        yield cluster


@pytest.fixture
def kubespray(page, tmp_path):
    shown = [(Path(prefix), Path(prefix), True) for prefix in {sys.prefix, sys.base_prefix}]
    lab = lab_hosts(tmp_path / "lab", 4, names=NAMES, files=FILES, units=UNITS, binds=shown)
    with started_or_skipped(lab) as lab:
        cluster = KubesprayCluster(lab, tmp_path)
        cluster.build()
        yield cluster


@pytest.fixture
def mongodb(page, pods_kubernetes):
    with scratch_directory("podsdata") as folder:
        api = pods_kubernetes
        yield MongodbInPods(api, api.namespace("mongodb"), replicas=1, folder=folder)


def test_a_key_that_is_missing_is_made_and_the_renewal_goes_on_in_a_run_that_resumes_it(
    page, control_plane, tmp_path
):
    (host,) = control_plane.hosts
    before = serials(host)
    key = tmp_path / "backup.key"
    wanted = {
        "Hosts": host.url(),
        "Days left at least": "60",
        "Users": "root ops",
        "Backup key file": str(key),
    }

    fill(page, "renew-control-plane-certificates", wanted)
    page.choose("Method", "renew")
    refused = page.submit()
    page.shows_state("Refused", ENDS_WITHIN_SECONDS)
    why = page.says_why()
    key.write_text(secrets.token_hex(32))  # as the page says
    key.chmod(0o600)
    fill(page, "renew-control-plane-certificates", wanted)
    page.fill("Resume: id of the recovery", recovery_id_of(refused))
    page.submit()
    page.shows_state("Suspended", ENDS_WITHIN_SECONDS)
    page.fill_answer({"Decision": "approve", "Your name": "Ada", "Reason": "they end soon"})
    take(page, "certificates-approval", height=1200)
    page.send_answer()
    page.shows_state("Recovered", ENDS_WITHIN_SECONDS)

    assert f"(umask 077; openssl rand -hex 32 > {key})" in why
    assert_renewed(host, before)


def test_a_new_host_that_is_off_is_switched_on_and_a_retry_puts_it_in_the_place_of_the_old(
    page, kubespray
):
    one, two, three, four = kubespray.hosts
    four.power_cut()
    given = kubespray.parameters()
    fill(
        page,
        "replace-control-plane-node",
        {
            "Project": given["project"],
            "Inventory": given["inventory"],
            "Hosts": " ".join(host.url() for host in (one, two, three)),
            "Old host": "node2",
            "New host": kubespray.line(four),
            "Etcd retries": "5",
            "Ansible playbook": given["ansible_playbook"],
            "Time limit (minutes)": "30",
        },
    )

    run = page.submit()
    page.shows_state("Suspended", ENDS_WITHIN_SECONDS)
    page.answer({"Decision": "approve", "Your name": "Ada", "Reason": "its disk fails"})
    page.shows_state("Failed", ENDS_WITHIN_SECONDS)
    why = page.says_why()
    four.power_on()
    page.retry()
    page.shows_state("Recovered", ENDS_WITHIN_SECONDS)
    page.open_tasks(run)
    take(page, "node-recovered")

    assert "could not be reached on node4" in why
    assert kubespray.member_names(four) == ["etcd1", "etcd3", "etcd4"]
    assert kubespray.nodes(one) == ["node1", "node3", "node4"]
    assert kubespray.keys(four) == KEYS
    assert "node2" not in kubespray.inventory.read_text()


def test_a_backup_that_was_not_there_is_put_there_and_a_fork_restores_from_it(page, mongodb):
    (mongodb.data / "document-1").write_text("as it was\n")
    mongodb.deploy()

    def order():
        given = mongodb.parameters
        fill(
            page,
            "restore-mongodb",
            {
                "Cluster": given["cluster"],
                "Namespace": mongodb.namespace,
                "Time limit (seconds)": str(given["within_seconds"]),
                "Restore within (seconds)": str(given["restore_within_seconds"]),
            },
        )
        page.add_to_list("Clients", "statefulset/vantiq")
        page.switch_on("Take backup first")  # off: it would be the backup that is missing

    def approve():
        page.shows_state("Suspended", ENDS_WITHIN_SECONDS)
        page.answer({"Decision": "approve", "Your name": "Grace", "Reason": "it reads nonsense"})

    order()
    failed = page.submit()
    approve()
    page.shows_state("Failed", ENDS_WITHIN_SECONDS)
    why = page.says_why()
    take(page, "restore-failed")
    (mongodb.backup / "document-1").write_text("from the backup\n")
    order()
    page.fill("Resume: id of the recovery", recovery_id_of(failed))
    page.switch_on("Resume: as a new recovery (fork)")
    page.fill("Resume: fork from this step", "job_for[mongorestore]")
    page.submit()
    approve()
    page.shows_state("Recovered", ENDS_WITHIN_SECONDS)

    assert "there is no archive" in why
    assert mongodb.documents()["document-1"] == "from the backup"
    assert mongodb.is_well()


def fill(page, recovery, fields):
    """Open the form of a recovery and type into its fields."""
    page.open_form(recovery)
    for title, text in fields.items():
        page.fill(title, text)
