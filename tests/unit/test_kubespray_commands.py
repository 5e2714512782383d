"""What is run on the machine of the playbooks and on hosts of etcd, tried on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.deploy_machine import OwnMachine
from recovery.errors import BadInput
from tasks.kubespray import nodes, playbooks, reading
from tasks.kubespray.etcd import LOOK
from tasks.kubespray.playbooks import OTHERS, Playbook
from tasks.kubespray.target import Kubespray
from tests.lab.ssh_attempt import attempt

WAITS = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def seen(tmp_path):
    """Which playbooks are seen of a checkout that has a link to it."""
    (tmp_path / "kubespray" / "inventory").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "kubespray")
    project = str(tmp_path / "link")
    argv = ["sh", "-c", OTHERS, "others", f"{project}/inventory/hosts.yaml", project]

    def look():
        printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        return [line for line in printed.splitlines() if str(tmp_path) in line or "-i inv" in line]

    return look


def program(tmp_path, folder, *words):
    """Run a program of the name of Ansible's that waits for its input to end."""
    file = tmp_path / "ansible-playbook"
    file.write_text(WAITS)
    return subprocess.Popen(
        [sys.executable, str(file), *words],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("folder", "words", "is_seen"),
    [
        ("kubespray", ["-i", "inventory/hosts.yaml", "cluster.yml"], True),
        (".", ["-i", "@/link/inventory/hosts.yaml", "cluster.yml"], True),
        (".", ["-i", "elsewhere", "cluster.yml"], False),
    ],
)
def test_a_playbook_is_seen_by_its_folder_or_its_inventory(tmp_path, seen, folder, words, is_seen):
    given = [word.replace("@", str(tmp_path)) for word in words]
    with program(tmp_path, tmp_path / folder, *given) as other:
        assert other.stdout.readline() == b"\n"

        assert bool(seen()) is is_seen
        other.stdin.close()


def test_a_command_that_only_names_the_program_and_the_inventory_is_no_playbook(tmp_path, seen):
    inventory = f"{tmp_path}/link/inventory/hosts.yaml"
    named = [f"ansible_playbook={tmp_path}/ansible-playbook", f"inventory={inventory}"]
    argv = [sys.executable, "-c", WAITS, *named]
    with subprocess.Popen(
        argv, cwd=tmp_path / "kubespray", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"\n"

        assert seen() == []
        other.stdin.close()


def test_a_host_without_the_environment_of_etcd_is_said_to_have_none(tmp_path):
    script = LOOK.replace("/etc/etcd.env", str(tmp_path / "etcd.env"))

    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)

    assert ended.returncode == 3
    assert f"no {tmp_path}/etcd.env" in ended.stderr


@pytest.fixture
def order(tmp_path, monkeypatch):
    """A checkout on this machine, whose account has its home beside it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    with attempt(1):
        yield Kubespray(OwnMachine(), str(tmp_path), str(tmp_path / "hosts.ini"))


def test_an_event_with_a_word_for_each_of_600_hosts_is_taken(order):
    playbook, hosts = (
        Playbook("try", "try.yml"),
        {f"node{n}": {"ok": "x" * 100} for n in range(600)},
    )
    told = [{"event": "stats", "hosts": hosts}, {"event": "task", "name": "behind it"}]
    Path(order.kept).mkdir(parents=True)
    lines = "".join(f"{json.dumps(event)}\n" for event in told)
    Path(order.kept, "try.events").write_text(lines + '{"event": "cut')

    progress = playbooks._follow(order, playbook, playbooks.command_of(order, playbook))

    assert len(json.dumps(told[0])) > playbooks.EVENTS_BYTES
    assert progress.task == "behind it"


def test_the_facts_are_gathered_by_the_playbook_that_the_checkout_has(order, tmp_path):
    with pytest.raises(BadInput, match=r"playbooks/facts\.yml nor facts\.yml"):
        reading.facts_file.fn(order)

    (tmp_path / "facts.yml").touch()  # up to v2.21
    assert reading.facts_file.fn(order) == "facts.yml"

    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "facts.yml").touch()
    assert reading.facts_file.fn(order) == "playbooks/facts.yml"


def test_an_inventory_of_hundreds_of_hosts_is_listed_whole(order, tmp_path):
    variables = {
        f"node{n}": {"ip": f"10.0.{n // 250}.{n % 250}", "x": "y" * 10_000} for n in range(500)
    }
    listed = {"_meta": {"hostvars": variables}, "etcd": {"hosts": list(variables)}}
    (tmp_path / "listed").write_text(json.dumps(listed))

    printed = order.machine.text_of(["cat", str(tmp_path / "listed")])

    layout, _ = reading.parse_inventory_list(printed)
    assert len(printed) > 5_000_000
    assert len(layout.hosts) == 500


def test_only_name_and_readiness_are_asked_of_300_nodes(tmp_path):
    """A whole node is 15 kB, and a command may print 1 MB."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"assert sys.argv[1:] == ['get', 'nodes', '-o', 'jsonpath=' + {nodes.READY!r}, "
        "'--request-timeout=20s']\n"
        "print(*(f'node{n}\\tTrue' for n in range(300)), sep='\\n')\n"
    )
    kubectl.chmod(0o755)
    script = nodes.NODES.replace("/usr/local/bin", str(tmp_path))

    printed = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True
    ).stdout

    assert len(nodes.parse_nodes(printed)) == 300
    assert len(printed) < 20_000
