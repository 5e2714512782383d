"""What is run on the machine of the playbooks and on hosts of etcd, tried on this machine."""

import subprocess
import sys

import pytest

from tasks.kubespray.etcd import LOOK
from tasks.kubespray.playbooks import OTHERS

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
