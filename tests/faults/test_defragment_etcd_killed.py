"""Defragmenting a full etcd while the worker is killed: before, inside and after every step.

What counts is the members: every key is there, writes are taken again, no alarm is left.
"""

import pytest

from tests.faults.conftest import IS_WHOLE, JournaledWorld, flaws_of, survives_kills
from tests.lab.etcd_hosts import etcd_lab
from tests.lab.session import started_or_skipped

KEYS = 50


class World(JournaledWorld):
    """A lab etcd whose database has reached its quota, and the journal of whoever makes room."""

    module = "flows.etcd"
    flow = "defragment-etcd"
    retry_delays = (0.3, 0.6, 1.2)
    lease_seconds = 4

    def __init__(self, etcd, folder):
        self.etcd, self.folder = etcd, folder
        folder.mkdir()
        etcd.begin_anew()
        first = etcd.members[0]
        first.fill(KEYS)
        first.fill_up()
        first.compact()
        self.before = first.contents()
        self.sizes = [size_of(member) for member in etcd.members]
        self.parameters = {"hosts": etcd.hosts()}

    def assert_roomy(self, at):
        first, *_ = self.etcd.members
        assert first.ctl("alarm", "list") == "", at
        for member, size in zip(self.etcd.members, self.sizes, strict=True):
            contents = member.contents()
            assert {key: contents.get(key) for key in self.before} == self.before, (at, member.host)
            assert size_of(member) < size / 2, (at, member.host)
        first.ctl("put", "written/after", "1")
        assert flaws_of(self) == [], at


def size_of(member):
    """The bytes of its database."""
    return member.status()["dbSize"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(etcd_lab(tmp_path_factory.mktemp("etcd"))) as etcd:
        yield etcd


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
@pytest.mark.timeout(3600)
def test_a_worker_killed_at_any_event_ends_with_room_on_every_member(lab, tmp_path, runs):
    """Goal: no instruction is a point of no return, and the alarm goes only once there is room.

    Method: fill it up, kill -9 the worker before and after every event of one recovery in turn,
    resume, look at sizes, keys and alarm; then singly where that one did not come to.
    """
    survives_kills(
        runs,
        lambda name: World(lab, tmp_path / name),
        World.assert_roomy,
        at_most=1,
    )
