"""Recovering the quorum of etcd while the worker is killed and hosts go away.

What counts is what the members hold and what lies on the disks; what the recovery says of itself
comes second.
"""

import secrets
import signal

import pytest

from tests.faults.conftest import (
    IS_WHOLE,
    JournaledWorld,
    flaws_of,
    kill_points,
    sampled,
    shards,
)
from tests.lab.etcd_hosts import COPIES, DATA, etcd_lab
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

KEYS = 120
SHARDS = shards(10, in_a_sample=1)
POINTS = 1  # of each shard in an ordinary run; all of them with FAULTS=all
STOPS = {"stand_down", "put_in_place"}
REPLACE_SHARDS = shards(4, in_a_sample=1)
UNDO_SHARDS = shards(6, in_a_sample=1)


class World(JournaledWorld):
    """A lab etcd of three, of which one has data, and the journal of whoever recovers it."""

    module = "flows.etcd"
    flow = "recover-etcd-quorum"
    retry_delays = (0.3, 0.6, 1.2)
    lease_seconds = 4

    def __init__(self, etcd, folder, *, is_silent):
        self.etcd, self.folder = etcd, folder
        folder.mkdir()
        key = folder / "key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        self.parameters = {"hosts": etcd.hosts(), "backup_key_file": str(key)}
        etcd.begin_anew()
        self.survivor, *self.others = etcd.members
        self.survivor.fill(KEYS)
        self.before = self.survivor.contents()
        self.inode = self.survivor.host.run(f"stat -c %i {DATA}/member/snap/db").strip()
        self.empty()
        if is_silent:  # as after a boot: it serves nobody, and is copied
            again = (
                "systemctl kill -s KILL etcd; systemctl stop etcd; systemctl start --no-block etcd"
            )
            self.survivor.host.run(again)

    def empty(self):
        """Those that do not survive have nothing left."""
        for member in self.others:
            member.lose_data()

    def run(self, runs, **options):
        return runs.run(self, break_glass="fault test", **options)

    def assert_copies(self, at, events):
        """The survivor's data is in place or beside it; once anything was stopped, also elsewhere.

        Asked when the worker is dead: nothing moves then.
        """
        places = f"{DATA}/member/snap/db {DATA}/recover-*/before/snap/db"
        found = self.survivor.host.run(f"stat -c %i {places} 2>/dev/null || true").split()
        assert self.inode in found, (at, found)
        if any(step.partition("[")[0] in STOPS for kind, step, *_ in events if kind == "intended"):
            self.survivor.host.run(f"cd {COPIES}/etcd-* && sha256sum --quiet -c SHA256SUMS")
            assert list((self.folder / "work").glob("*/*.sealed")), at

    def assert_whole(self, at):
        for member in self.etcd.members:
            assert member.is_healthy(), (at, member.host)
            assert member.contents() == self.before, (at, member.host)
        listed = self.survivor.ctl("member", "list").splitlines()
        assert len(listed) == len(self.etcd.members), (at, listed)
        assert all(line.endswith("false") for line in listed), (at, listed)
        assert flaws_of(self) == [], at


class UndoneWorld(World):
    """A lab etcd that was rebuilt from a member that serves, and is to be what it was before.

    Of the two that were given up, one was stopped and has data, the other has none.
    """

    def __init__(self, etcd, folder):
        super().__init__(etcd, folder, is_silent=False)
        self.stopped, self.emptied = self.others

    def empty(self):
        """One is only stopped, so that the old cluster has quorum once it is back."""
        stopped, emptied = self.others
        stopped.host.run("systemctl stop etcd")
        emptied.lose_data()
        self.parameters["lost"] = [member.host.address for member in self.others]

    def recover(self, runs):
        ended = self.run(runs)
        assert ended.answer["state"] == "recovered", ended.answer
        return ended

    def undo(self, runs, recovered, **options):
        return self.run(runs, resume=recovered.answer["id"], undo_by="fault test", **options)

    def assert_undone(self, at):
        for member in (self.survivor, self.stopped):
            wait_until(member.is_healthy, f"{member.host}", within_seconds=60)
            assert member.contents() == self.before, (at, member.host)
        inode = self.survivor.host.run(f"stat -c %i {DATA}/member/snap/db").strip()
        assert inode == self.inode, at
        assert self.emptied.host.run("systemctl is-active etcd || true").strip() == "inactive", at
        assert self.emptied.host.run(f"ls -d {DATA}/member 2>/dev/null || true") == "", at
        assert flaws_of(self) == [], at


class ReplaceWorld(JournaledWorld):
    """A lab etcd of three that has quorum, and one member without data, which is replaced."""

    module = "flows.etcd"
    flow = "replace-etcd-member"
    retry_delays = (0.3, 0.6, 1.2)
    lease_seconds = 4

    def __init__(self, etcd, folder):
        self.etcd, self.folder = etcd, folder
        folder.mkdir()
        key = folder / "key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        etcd.begin_anew()
        *self.rest, self.lost = etcd.members
        self.rest[0].fill(KEYS)
        self.before = self.rest[0].contents()
        self.lost.lose_data()
        self.parameters = {
            "hosts": etcd.hosts(),
            "host": self.lost.host.address,
            "backup_key_file": str(key),
        }

    def run(self, runs, **options):
        return runs.run(self, break_glass="fault test", **options)

    def assert_quorum(self, at):
        """The members that are left serve reads and writes, whatever has become of the third."""
        for member in self.rest:
            member.ctl("put", "while/it/lasts", "1")
        self.before["while/it/lasts"] = "1"
        assert len(self.rest[0].ctl("member", "list").splitlines()) in {2, 3}, at

    def assert_whole(self, at):
        for member in self.etcd.members:
            assert member.is_healthy(), (at, member.host)
            assert member.contents() == self.before, (at, member.host)
        listed = self.rest[0].ctl("member", "list").splitlines()
        assert len(listed) == len(self.etcd.members), (at, listed)
        assert all(line.endswith("false") for line in listed), (at, listed)
        assert flaws_of(self) == [], at


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(etcd_lab(tmp_path_factory.mktemp("etcd"))) as etcd:
        yield etcd


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_worker_killed_at_any_event_loses_no_key_and_no_copy(lab, tmp_path, runs, shard):
    """Goal: no instruction is a point of no return, and no copy of the data is ever the only one.

    Method: kill -9 the worker before and after an event of the journal (hence before, inside and
    after every step and every command), look at the disks, resume, and read every key back.
    """
    is_silent = shard % 2 == 0
    undisturbed = World(lab, tmp_path / "undisturbed", is_silent=is_silent)
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    undisturbed.assert_copies("undisturbed", whole.events)
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for number, point in enumerate(sampled(points, POINTS, f"etcd {shard}")):
        world = World(lab, tmp_path / str(number), is_silent=is_silent)
        killed = world.run(runs, kill=point)
        at = (point, whole.events[point[0] - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -signal.SIGKILL, (at, killed)
        world.assert_copies(at, killed.events)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_whole(at)
        world.assert_copies(at, killed.events)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", REPLACE_SHARDS)
def test_a_worker_killed_while_a_member_is_replaced_costs_no_quorum(lab, tmp_path, runs, shard):
    """Goal: whenever the worker is lost, the members that are left go on, and a resume ends it.

    Method: kill -9 the worker before and after an event of the journal, write to the members that
    are left, resume, and read every key of every member.
    """
    undisturbed = ReplaceWorld(lab, tmp_path / "undisturbed")
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    points = kill_points(whole.events)[shard :: len(REPLACE_SHARDS)]
    assert points

    for number, point in enumerate(sampled(points, POINTS, f"replace {shard}")):
        world = ReplaceWorld(lab, tmp_path / str(number))
        killed = world.run(runs, kill=point)
        at = (point, whole.events[point[0] - 1])
        is_past = killed.exit_code == 0
        assert is_past or killed.exit_code == -signal.SIGKILL, (at, killed)
        world.assert_quorum(at)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_whole(at)


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
@pytest.mark.parametrize("shard", UNDO_SHARDS)
def test_an_undo_killed_at_any_event_ends_with_the_old_cluster_as_it_was(
    lab, tmp_path, runs, shard
):
    """Goal: the way back has no point of no return either, and loses no copy.

    Method: recover, begin to undo, kill -9 the worker before or after an event, look at the disks,
    undo again, and read every key of the members that had data.
    """
    undisturbed = UndoneWorld(lab, tmp_path / "undisturbed")
    whole = undisturbed.undo(runs, undisturbed.recover(runs))
    assert whole.answer["state"] == "undone", whole.answer
    undisturbed.assert_undone("undisturbed")
    points = kill_points(whole.events)[shard :: len(UNDO_SHARDS)]
    assert points

    for number, point in enumerate(points):
        world = UndoneWorld(lab, tmp_path / str(number))
        recovered = world.recover(runs)
        killed = world.undo(runs, recovered, kill=point)
        at = (point, whole.events[point[0] - 1])
        is_past = killed.exit_code == 0
        assert is_past or killed.exit_code == -signal.SIGKILL, (at, killed)
        world.assert_copies(at, recovered.events)
        again = killed if is_past else world.undo(runs, recovered)

        assert again.answer["state"] == "undone", (at, again.answer)
        world.assert_undone(at)


def step_points(events):
    """Before each act is begun, at each change in it, and before it is noted as done."""
    return [
        n
        for n, (kind, step, is_change, _) in enumerate(events, 1)
        if step and (is_change or kind in {"intended", "done"})
    ]


@pytest.mark.timeout(5400)
@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
@pytest.mark.parametrize("shard", SHARDS)
def test_a_survivor_that_loses_its_power_at_any_step_loses_no_key(lab, tmp_path, runs, shard):
    """Goal: wherever the survivor's host goes down, it comes back with its data or the new one.

    Method: stop the worker at an event, cut the power of the survivor and give it back, let the
    worker go on, resume, and read every key of every member. Its etcd starts at boot.
    """
    undisturbed = World(lab, tmp_path / "undisturbed", is_silent=False)
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer

    points = step_points(whole.events)[shard :: len(SHARDS)]
    for number, n in enumerate(sampled(points, POINTS, f"power {shard}")):
        world = World(lab, tmp_path / str(number), is_silent=False)
        world.lease_seconds = 30  # the worker stands still while the host boots

        def cut(member=world.survivor):
            member.host.power_cut()
            member.power_on()

        disturbed = world.run(runs, kill=(n, "stop"), meanwhile=cut)
        at = (n, whole.events[n - 1], disturbed.answer)
        if disturbed.answer.get("state") != "recovered":
            resumed = world.resume(runs)
            assert resumed.answer["state"] == "recovered", (at, resumed.answer)

        world.assert_whole(at)
