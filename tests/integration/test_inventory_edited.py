"""Inventories written and put back on this machine: whole or not at all, nobody's work undone."""

import pytest

from blocks.deploy_machine import OwnMachine
from recovery.errors import BadInput, CommandFailed, Refused, UndoFailed
from recovery.verdict import Verdict
from tasks.kubespray import editing, edits, reading
from tasks.kubespray.target import Kubespray
from tests.lab.ssh_attempt import attempt

TEXT = "node1 ansible_password='hunter2'\nnode2\n[etcd]\nnode1\nnode2\n"


@pytest.fixture
def order(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "hosts.ini").write_text(TEXT)
    (tmp_path / "hosts.ini").chmod(0o640)
    return Kubespray(OwnMachine(), str(tmp_path), str(tmp_path / "hosts.ini"))


@pytest.fixture
def change(order):
    edit = edits.Edit(groups=(("etcd", ("node2", "node1")),))
    return edits.change_of(TEXT, order.inventory, edit)


def test_it_is_saved_changed_and_put_back_to_the_byte(order, change, tmp_path):
    file = tmp_path / "hosts.ini"
    with attempt(1) as gate:
        editing.save_inventory(order, change, "x")
        assert editing.is_saved(order, change)
        editing.edit_inventory(order, change, "x")
        changed = file.read_text()
        assert editing.is_edited(order, change) is Verdict.DONE

        editing.restore_inventory(order, change)
        editing.restore_inventory(order, change)

    assert changed.splitlines()[2:] == ["[etcd]", "node2", "node1"]
    assert file.read_text() == TEXT
    assert file.stat().st_mode & 0o777 == 0o640
    assert all("hunter2" not in f"{call.command}{call.answer}" for call in gate.sent)


def test_what_somebody_else_has_written_meanwhile_is_left_alone(order, change, tmp_path):
    file = tmp_path / "hosts.ini"
    with attempt(1):
        editing.save_inventory(order, change, "x")
        file.write_text(TEXT + "node3\n")

        assert editing.is_edited(order, change) is Verdict.UNKNOWN
        later = edits.sha256(TEXT + "node3\n")
        assert editing.is_edited(order, change, later) is Verdict.DONE
        with pytest.raises(Refused, match="changed by somebody"):
            editing.edit_inventory(order, change, "x")
        with pytest.raises(UndoFailed, match="changed since"):
            editing.restore_inventory(order, change)
        with pytest.raises(CommandFailed, match="it was changed"):
            editing.save_inventory(order, change, "x")

    assert file.read_text() == TEXT + "node3\n"


def test_a_link_to_the_inventory_stays_one(order, tmp_path):
    (tmp_path / "hosts.ini").rename(tmp_path / "real.ini")
    (tmp_path / "hosts.ini").symlink_to("real.ini")
    edit = edits.Edit(groups=(("etcd", ("node2", "node1")),))

    with attempt(1):
        editing.edit_inventory(order, edits.change_of(TEXT, order.inventory, edit), "x")

    assert (tmp_path / "hosts.ini").is_symlink()
    assert (tmp_path / "real.ini").read_text() != TEXT


def test_a_missing_inventory_or_checkout_is_bad_input(order, tmp_path):
    (tmp_path / "hosts.ini").unlink()
    away = Kubespray(OwnMachine(), "/nowhere", order.inventory)

    with attempt(1):
        with pytest.raises(BadInput, match=r"hosts\.ini"):
            reading.text_of(order)
        with pytest.raises(BadInput, match="project"):
            reading.version_of(away)
        assert reading.version_of(order) == "unknown"
