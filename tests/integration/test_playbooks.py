"""A real ansible-playbook on this machine: followed, told of, never two at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from blocks.deploy_machine import OwnMachine
from recovery.errors import Refused
from tasks.kubespray import playbooks
from tasks.kubespray.playbooks import Playbook, PlaybookFailed
from tasks.kubespray.target import Kubespray
from tests.lab.processes import wait_until
from tests.lab.ssh_attempt import attempt

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
INVENTORY = f"here ansible_connection=local ansible_python_interpreter={sys.executable}\n"
PLAY = """---
- name: Try it
  hosts: all
  gather_facts: false
  become: false
  tasks:
    - name: Give it away
      ansible.builtin.command: sh -c 'echo hunter2 >&2; exit 1'
      no_log: true
      ignore_errors: true

    - name: Look for the file
      ansible.builtin.command: cat {{ playbook_dir }}/there
      changed_when: false

    - name: Wait while it is there
      ansible.builtin.shell: "while [ -e {{ playbook_dir }}/wait ]; do sleep 0.2; done"
"""
PLAYBOOK = Playbook("try", "try.yml", variables=(("etcd_retries", 3),), within_seconds=120)
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def order(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "try.yml").write_text(PLAY)
    (tmp_path / "hosts.ini").write_text(INVENTORY)
    return Kubespray(OwnMachine(), str(tmp_path), str(tmp_path / "hosts.ini"), program=str(ANSIBLE))


def run(order):
    with attempt(1) as gate:
        playbooks.run_playbook(order, PLAYBOOK)
        return gate


def test_a_failure_names_task_and_host_and_the_next_attempt_runs_it_anew(order, tmp_path):
    with pytest.raises(PlaybookFailed) as failed:
        run(order)
    (tmp_path / "there").touch()

    run(order)

    assert "task 'Look for the file' failed on here" in str(failed.value)
    assert "hunter2" not in str(failed.value)
    with attempt(1):
        assert playbooks.has_succeeded(order, PLAYBOOK)
        (events,) = Path(order.kept).glob("*.events")
    assert "hunter2" not in events.read_text()


def test_another_playbook_of_the_inventory_is_waited_out_and_never_joined(order, tmp_path):
    (tmp_path / "there").touch()
    (tmp_path / "wait").touch()
    argv = [ANSIBLE, "-i", order.inventory, "try.yml"]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL) as other, attempt(1):
        wait_until(lambda: playbooks.running_now(order), "it to run", within_seconds=60)
        with pytest.raises(Refused, match="another playbook of this inventory runs"):
            playbooks.refuse_unless_alone(order, PLAYBOOK)
        (tmp_path / "wait").unlink()
        assert other.wait(60) == 0

        playbooks.refuse_unless_alone(order, PLAYBOOK)


def test_one_that_ansible_cannot_read_is_refused_before_it_is_run(order, tmp_path):
    (tmp_path / "try.yml").write_text("- hosts: all\n  rolls: []\n")

    with attempt(1), pytest.raises(Refused, match=r"try\.yml cannot be run"):
        playbooks.refuse_unless_understood(order, PLAYBOOK)


def test_what_the_plan_shows_is_what_is_sent_and_has_no_secret(order, tmp_path):
    (tmp_path / "there").touch()
    with attempt(1):
        shown = playbooks.run_commands(order, PLAYBOOK)

    gate = run(order)

    assert {call.command for call in gate.sent if call.is_change} == set(shown[1:])
    assert shown[0].startswith(f"# in {tmp_path}: ")
    assert '"etcd_retries": 3' in shown[0]
