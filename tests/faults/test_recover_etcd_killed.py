"""Recovering the quorum of etcd while the worker is killed and hosts go away.

What counts is what the members hold and what lies on the disks; what the recovery says of itself
comes second.
"""

import contextlib
import secrets
from functools import partial

import pytest

from tests.faults.conftest import (
    IS_WHOLE,
    JournaledWorld,
    flaws_of,
    kill_points,
    sampled,
    the_recovery,
)
from tests.lab.etcd_hosts import COPIES, etcd_lab
from tests.lab.etcd_pods import etcd_pods
from tests.lab.processes import LabError, wait_until
from tests.lab.session import started_or_skipped

KEYS = 120
POINTS = 1  # of an ordinary run; all of them with FAULTS=all
TIMEOUT_SECONDS = 7200 if IS_WHOLE else 900
STOPS = {"stand_down", "put_in_place"}
REASON = "fault test"


class World(JournaledWorld):
    """A lab etcd of three, of which one has data, and the journal of whoever recovers it."""

    module = "flows.etcd"
    flow = "recover-etcd-quorum"
    retry_delays = (0.3, 0.6, 1.2)
    lease_seconds = 4

    def __init__(self, etcd, folder, *, is_silent):
        self.etcd, self.folder = etcd, folder
        self.begun = []  # the acts, in every process
        folder.mkdir()
        key = folder / "key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        self.parameters = {"hosts": etcd.hosts(), "backup_key_file": str(key)}
        etcd.begin_anew()
        self.survivor, *self.others = etcd.members
        self.survivor.fill(KEYS)
        self.before = self.survivor.contents()
        self.inode = self.survivor.host.run(
            f"stat -c %i {self.survivor.data}/member/snap/db"
        ).strip()
        self.empty()
        if is_silent:  # as after a boot: it serves nobody, and is copied
            self.survivor.kill()
            self.survivor.start()

    def empty(self):
        """Those that do not survive have nothing left."""
        for member in self.others:
            member.lose_data()

    def run(self, runs, **options):
        ended = runs.run(self, break_glass=REASON, **options)
        self.begun += [step for kind, step, *_ in ended.events if kind == "intended"]
        return ended

    def assert_copies(self, _ended, at):
        """The survivor's data is in place or beside it; once anything was stopped, also elsewhere.

        Asked when the worker is dead: nothing moves then.
        """
        data = self.survivor.data
        places = f"{data}/member/snap/db {data}/recover-*/before/snap/db"
        found = self.survivor.host.run(f"stat -c %i {places} 2>/dev/null || true").split()
        assert self.inode in found, (at, found)
        if any(step.partition("[")[0] in STOPS for step in self.begun):
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

    ends = ("undone",)

    def __init__(self, etcd, folder):
        super().__init__(etcd, folder, is_silent=False)
        self.stopped, self.emptied = self.others

    def empty(self):
        """One is only stopped, so that the old cluster has quorum once it is back."""
        stopped, emptied = self.others
        stopped.stop()
        emptied.lose_data()
        self.parameters["lost"] = [member.host.address for member in self.others]

    def recover(self, runs):
        ended = super().run(runs)
        assert ended.answer["state"] == "recovered", ended.answer

    def run(self, runs, **options):
        return super().run(runs, **{**options, "resume": the_recovery(self), "undo_by": REASON})

    def assert_undone(self, at):
        for member in (self.survivor, self.stopped):
            wait_until(member.is_healthy, f"{member.host}", within_seconds=60)
            assert member.contents() == self.before, (at, member.host)
        assert self.survivor.inode() == self.inode, at
        assert self.emptied.is_at_rest(), at
        assert (
            self.emptied.host.run(f"ls -d {self.emptied.data}/member 2>/dev/null || true") == ""
        ), at
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
        return runs.run(self, break_glass=REASON, **options)

    def assert_quorum(self, _ended, at):
        """The members that are left serve reads and writes, whatever has become of the third.

        They elect a leader first, where it was the one that is lost.
        """
        for member in self.rest:
            wait_until(partial(takes_writes, member), f"{member.host} to write", within_seconds=60)
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


def takes_writes(member):
    with contextlib.suppress(LabError):
        member.ctl("put", "while/it/lasts", "1")
        return True
    return False


FORMS = ["unit", "static pod"]


def forms(in_a_sample):
    """Of the members: with FAULTS=all each in turn."""
    return pytest.mark.parametrize(
        "lab", FORMS if IS_WHOLE else [in_a_sample], indirect=True, scope="module"
    )


@pytest.fixture(scope="module", params=FORMS)
def lab(request, tmp_path_factory):
    make = etcd_pods if request.param == "static pod" else etcd_lab
    with started_or_skipped(make(tmp_path_factory.mktemp("etcd"))) as etcd:
        yield etcd


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("is_silent", [True, *([False] if IS_WHOLE else [])])
@forms(in_a_sample="unit")
def test_a_worker_killed_at_any_event_loses_no_key_and_no_copy(lab, tmp_path, runs, is_silent):
    """Goal: no instruction is a point of no return, and no copy of the data is ever the only one.

    Method: kill -9 the worker before and after an event of the journal (hence before, inside and
    after every step and every command), look at the disks, resume, and read every key back. With
    FAULTS=all, at every event of one recovery in turn, then singly where that one did not come to.
    """
    undisturbed = World(lab, tmp_path / "undisturbed", is_silent=is_silent)
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    undisturbed.assert_copies(whole, "undisturbed")

    points = kill_points(whole.events)
    if IS_WHOLE:
        world = World(lab, tmp_path / "in-turn", is_silent=is_silent)
        points = world.killed_in_turn(runs, points, whole.events, world.assert_copies)
        world.assert_whole("in turn")

    for point in sampled(points, POINTS, "etcd"):
        world = World(lab, tmp_path / f"{point[0]}-{point[1]}", is_silent=is_silent)
        at = world.killed_and_resumed(runs, point, world.assert_copies)
        world.assert_whole(at)
        world.assert_copies(None, at)


@pytest.mark.timeout(TIMEOUT_SECONDS)
@forms(in_a_sample="static pod")
def test_a_worker_killed_while_a_member_is_replaced_costs_no_quorum(lab, tmp_path, runs):
    """Goal: whenever the worker is lost, the members that are left go on, and a resume ends it.

    Method: kill -9 the worker before and after an event of the journal, write to the members that
    are left, resume, and read every key of every member. With FAULTS=all as above.
    """
    undisturbed = ReplaceWorld(lab, tmp_path / "undisturbed")
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")

    points = kill_points(whole.events)
    if IS_WHOLE:
        world = ReplaceWorld(lab, tmp_path / "in-turn")
        points = world.killed_in_turn(runs, points, whole.events, world.assert_quorum)
        world.assert_whole("in turn")

    for point in sampled(points, POINTS, "replace"):
        world = ReplaceWorld(lab, tmp_path / f"{point[0]}-{point[1]}")
        world.assert_whole(world.killed_and_resumed(runs, point, world.assert_quorum))


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_an_undo_killed_at_any_event_ends_with_the_old_cluster_as_it_was(lab, tmp_path, runs):
    """Goal: the way back has no point of no return either, and loses no copy.

    Method: recover, begin to undo, kill -9 the worker before or after an event, look at the disks,
    undo again, and read every key of the members that had data; first at every event of one undo
    in turn, then singly where that one did not come to.
    """

    def recovered(name):
        world = UndoneWorld(lab, tmp_path / name)
        world.recover(runs)
        return world

    undisturbed = recovered("undisturbed")
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "undone", whole.answer
    undisturbed.assert_undone("undisturbed")

    world = recovered("in-turn")
    points = kill_points(whole.events)
    rest = world.killed_in_turn(runs, points, whole.events, world.assert_copies)
    world.assert_undone("in turn")
    for point in rest:
        world = recovered(f"{point[0]}-{point[1]}")
        world.assert_undone(world.killed_and_resumed(runs, point, world.assert_copies))


def step_points(events):
    """Before each act is begun, at each change in it, and before it is noted as done."""
    return [
        n
        for n, (kind, step, is_change, _) in enumerate(events, 1)
        if step and (is_change or kind in {"intended", "done"})
    ]


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_a_survivor_that_loses_its_power_at_any_step_loses_no_key(lab, tmp_path, runs):
    """Goal: wherever the survivor's host goes down, it comes back with its data or the new one.

    Method: stop the worker at an event, cut the power of the survivor and give it back, let the
    worker go on, resume, and read every key of every member; at every step of one recovery in turn,
    then singly where that one did not come to. Its etcd starts at boot.
    """

    def make(name):
        world = World(lab, tmp_path / name, is_silent=False)
        world.lease_seconds = 30  # the worker stands still while the host boots
        return world

    def cut():
        survivor = lab.members[0]
        survivor.host.power_cut()
        survivor.power_on()

    whole = make("undisturbed").run(runs)
    assert whole.answer["state"] == "recovered", whole.answer

    world = make("in-turn")
    points = [(n, "stop") for n in step_points(whole.events)]
    rest = world.killed_in_turn(runs, points, whole.events, meanwhile=cut)
    world.assert_whole("in turn")
    for point in rest:
        world = make(f"{point[0]}")
        world.assert_whole(world.killed_and_resumed(runs, point, meanwhile=cut))
