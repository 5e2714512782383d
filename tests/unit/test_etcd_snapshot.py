"""A snapshot that cannot be taken: what is said of the member then, without any etcd."""

import subprocess

import pytest

from blocks.ssh.command import Answer
from recovery.errors import CommandFailed, Refused
from tasks.etcd import snapshot
from tasks.etcd.from_files import CHANGING, COPY, NO_PROGRAM
from tasks.etcd.joining import left_to_person
from tasks.etcd.parts import Part
from tasks.etcd.target import EtcdCluster
from tests.unit.etcd_seen import STOPPED, member


class Enabled:
    """A host on which systemd says this of a unit file."""

    label = "root@h1"

    def __init__(self, state):
        self.state = state

    def read(self, argv, **_):
        return Answer("systemctl", self.label, 0, f"{self.state}\n", "")


def part_on(host):
    return Part(EtcdCluster("etcd", (), copies="/copies"), host, member(1, STOPPED), "")


def test_a_copy_is_not_run_by_what_starts_etcd_in_a_container(tmp_path):
    wrapper, to = tmp_path / "etcd", tmp_path / "copies"
    wrapper.write_text("#!/bin/sh\nexec docker run etcd\n")
    wrapper.chmod(0o755)
    argv = ["sh", "-c", COPY, "copy", str(to), str(tmp_path / "data"), str(wrapper)]

    ended = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert ended.returncode == NO_PROGRAM, ended.stderr
    assert "not the program of etcd" in ended.stderr
    assert not to.exists()


@pytest.mark.parametrize(
    ("code", "said", "why", "is_given_up"),
    [
        (NO_PROGRAM, "/usr/local/bin/etcd is not the program", "Name a member that serves", False),
        (CHANGING, "its database changes while it is copied", "then resume", False),
        (1, "Error: context deadline exceeded", "Nothing says that its data is damaged", False),
        (1, "panic: page 3 already freed", "its data cannot be used", True),
        (1, "snapshot file integrity check failed", "its data cannot be used", True),
        (1, "cp: No space left on device", "there is no room", False),
    ],
)
def test_a_member_is_given_up_only_where_its_data_is_said_to_be_damaged(
    monkeypatch, code, said, why, is_given_up
):
    monkeypatch.setattr(EtcdCluster, "folder", "/copies")  # named by a recovery, and there is none

    def fail(*_):
        raise CommandFailed("h1", "etcd-snapshot", code, said)

    monkeypatch.setattr(snapshot.ssh_detached, "run", fail)

    with pytest.raises(Refused) as refused:
        snapshot.run_or_refuse(part_on(Enabled("enabled")), None)

    assert why in str(refused.value)
    assert ("lost=[h1]" in str(refused.value)) == is_given_up


@pytest.mark.parametrize(
    ("state", "told"),
    [("enabled", ""), ("static", ""), ("disabled", "enable the unit"), ("masked", "unmask and")],
)
def test_a_unit_that_does_not_start_at_boot_is_left_to_a_person(state, told):
    left = left_to_person.fn([part_on(Enabled(state))])

    assert len(left) == bool(told)
    assert told in "".join(left)
