"""Recoveries of a lab etcd, with a journal, a key and a work folder of their own."""

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from uuid import uuid4

import pytest

import flows.etcd  # noqa: F401 (declares the recoveries)
from recovery.declare import OPTION_NAMES, RECOVERIES
from recovery.journal.sqlite_store import SqliteJournal
from recovery.launch import launch
from recovery.run import Options
from recovery.stage import PlainStage
from tests.lab.etcd_hosts import COPIES
from tests.lab.processes import LabError, wait_until

# Runs on the survivor: its data from before is in place or beside it, always, and once it is not
# served any more there is a snapshot as well. Looked at in the order in which it is moved.
GUARD = """
data=$1 copies=$2
inode=$(stat -c %i $data/member/snap/db)
is() { [ "$(stat -c %i "$1" 2>/dev/null)" = "$inode" ]; }
echo "watching $inode" >/root/copies
while :; do
  is $data/member/snap/db || for one in $data/recover-*/before/snap/db $data/member/snap/db; do
    ! is "$one" || continue 2
  done && is $data/member/snap/db || is $data/recover-*/before/snap/db ||
    echo "the data of the survivor is nowhere" >>/root/copies
  if ! is $data/member/snap/db; then
    ls $copies/etcd-*/snapshot.db >/dev/null 2>&1 || echo "there is no snapshot" >>/root/copies
  fi
  sleep 0.05
done
"""


@dataclass
class EtcdRuns:
    """Runs recoveries of one lab etcd in this process, asking again at once."""

    etcd: object
    folder: Path

    def __post_init__(self):
        self.key = self.folder / "backup.key"
        self.key.write_text(secrets.token_hex(32))
        self.key.chmod(0o600)

    def run(self, flow="recover-etcd-quorum", **given):
        """Options of every recovery are told from its parameters by their name."""
        options = {name: given.pop(name) for name in list(given) if name in OPTION_NAMES}
        if not {"plan_only", "approve"} & set(options):
            options.setdefault("break_glass", "test")
        declared = RECOVERIES[flow]
        parameters = {name: default for name, (_, default) in declared.parameters.items()}
        parameters |= {"hosts": self.etcd.hosts()}
        if "backup_key_file" in parameters:
            parameters["backup_key_file"] = str(self.key)
        stage = PlainStage((0.2, 0.5, 1.0))
        places = {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(self.folder / "work"),
        }
        with mock.patch.dict(os.environ, places):
            return launch(
                declared, {**parameters, **given}, Options(**options), stage, str(uuid4())
            )

    def changes(self, recovery_id):
        """The changing commands that were sent, in order."""
        journal = SqliteJournal(self.folder / "journal.sqlite")
        try:
            events = journal.events(recovery_id)
        finally:
            journal.close()
        return [e.body["command"] for e in events if e.kind == "command" and e.body["is_change"]]


@pytest.fixture
def etcd(lab, request):
    """The lab of a module anew, with as many `KEYS` as the module says."""
    lab.begin_anew()
    lab.members[0].fill(request.module.KEYS)
    return lab


@pytest.fixture
def runs(etcd, tmp_path):
    return EtcdRuns(etcd, tmp_path)


@contextlib.contextmanager
def copies_watched(member):
    """Watch on its host that the data of the survivor is never gone; raise where it was."""
    member.host.write("root/watch.sh", GUARD)
    member.host.run(f"systemd-run --quiet --unit=watch sh /root/watch.sh {member.data} {COPIES}")
    yield
    member.host.run("systemctl stop watch")
    seen = member.host.read_file("/root/copies").decode().splitlines()
    if len(seen) != 1:
        raise LabError(f"on {member.host}: {seen[:5]}")


def assert_moves_to_a_spare(etcd, runs):
    """Replace a member by another host while a client writes; then let that host boot."""
    first, second, lost = etcd.members
    (spare,) = etcd.spares
    given = {"hosts": etcd.hosts(with_spares=True), "host": lost.host.address}
    lost.lose_data()

    with first.writer() as acknowledged:
        ended = runs.run("replace-etcd-member", **given, by=spare.host.address)
        written = acknowledged()

    assert ended.error is None, ended.error
    assert written
    listed = first.ctl("member", "list")
    assert spare.host.address in listed
    assert lost.host.address not in listed
    for member in (first, second, spare):
        contents = member.contents()
        assert [key for key in written if key not in contents] == [], member.host
    spare.host.power_cut()
    spare.power_on()
    wait_until(spare.is_healthy, f"{spare.host}", within_seconds=60)
    assert lost.host.run("systemctl is-enabled etcd || true").strip() == "disabled"
    found = runs.run("triage-etcd", hosts=given["hosts"])
    assert (found.result.recovery, lost.host.address in found.result.why) == ("none", True)
    again = runs.run("replace-etcd-member", **given)
    assert "would make their number even" in str(again.error)
