"""Recovering an etcd of 3.5 or later, which restores with etcdutl and puts its revision ahead.

A client that watches, such as an API server, goes on from the revision it saw last. Where a restore
goes back, that revision comes again with other keys; where it is put ahead and let go of, the
client is told so, and reads everything anew.
"""

import re

import pytest

from tests.faults.conftest import IS_WHOLE
from tests.integration.etcd_runs import assert_moves_to_a_spare, copies_watched
from tests.integration.etcd_runs import etcd as etcd  # noqa: PLC0414 (the fixture)
from tests.integration.etcd_runs import runs as runs  # noqa: PLC0414 (the fixture)
from tests.lab.etcd_hosts import COPIES, DATA, etcd_lab
from tests.lab.processes import LabError, wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(600)
KEYS = 150


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    directory = tmp_path_factory.mktemp("newer")
    newer = etcd_lab(directory, spares=1 if IS_WHOLE else 0, is_newer=True)
    with started_or_skipped(newer, is_optional=True) as etcd:
        yield etcd


def assert_whole(members, ended, before):
    assert ended.error is None, ended.error
    for member in members:
        contents = member.contents()
        assert {key: contents.get(key) for key in before} == before, member.host


def assert_no_client_misses_anything(members, seen):
    """Goes on from a revision of before, as a watch would, and is told to read all anew."""
    for member in members:
        assert member.revision() > seen, member.host
        with pytest.raises(LabError, match="required revision has been compacted"):
            member.ctl("watch", "key/", "--prefix", f"--rev={seen}")


def test_a_survivor_that_serves_brings_all_back_and_no_revision_comes_again(etcd, runs):
    survivor, *others = etcd.members
    before = survivor.contents()
    with survivor.writer() as acknowledged:
        wait_until(acknowledged, "the first write", within_seconds=60)
        for member in others:
            member.lose_data()
        planned = runs.run(plan_only=True)
        seen = survivor.revision()
        with copies_watched(survivor):
            ended = runs.run(approve=planned.plan.hash, approved_by="Ada")
        written = acknowledged()

    assert_whole(etcd.members, ended, before)
    for member in etcd.members:
        contents = member.contents()
        assert [key for key in written if key not in contents] == [], member.host
    assert_no_client_misses_anything(etcd.members, seen)
    survivor.fill(KEYS + 10)
    assert others[0].contents()[f"key/{KEYS + 9:05}"]
    assert runs.run().result.cure == "nothing"
    assert runs.run("triage-etcd").result.recovery == "none"


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_a_survivor_that_serves_nobody_is_copied_and_brings_all_back(etcd, runs):
    survivor, *others = etcd.members
    before, seen = survivor.contents(), survivor.revision()
    for member in others:
        member.lose_data()
    again = "systemctl kill -s KILL etcd; systemctl stop etcd; systemctl start --no-block etcd"
    survivor.host.run(again)

    found = runs.run("triage-etcd")
    with copies_watched(survivor):
        ended = runs.run()

    assert found.result.recovery == "recover-etcd-quorum"
    assert_whole(etcd.members, ended, before)
    assert_no_client_misses_anything(etcd.members, seen)
    assert survivor.host.run(f"ls -d {DATA}/recover-*/before {COPIES}/etcd-*/snapshot.db")


def snapshot_of(member, runs):
    member.ctl("snapshot", "save", "/root/taken.db")
    file = runs.folder / "taken.db"
    file.write_bytes(member.host.read_file("/root/taken.db"))
    return file


def test_a_snapshot_that_is_older_than_what_clients_saw_takes_none_of_them_back(etcd, runs):
    first = etcd.members[0]
    before, file = first.contents(), snapshot_of(first, runs)
    damaged = runs.folder / "damaged.db"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    first.fill(KEYS + 5)
    seen = first.revision()
    for member in etcd.members:
        member.lose_data()
    first.host.run(f"rm -rf {DATA}")  # as on a host that was installed anew

    refused = runs.run(snapshot_file=str(damaged))
    ended = runs.run(snapshot_file=str(file))

    assert "nothing was stopped" in str(refused.error)
    assert "sha256" in str(refused.error)
    assert_whole(etcd.members, ended, before)
    assert first.contents() == before
    assert_no_client_misses_anything(etcd.members, seen)


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_a_snapshot_from_before_an_earlier_recovery_takes_no_client_back_either(etcd, runs):
    first, *others = etcd.members
    before, file = first.contents(), snapshot_of(first, runs)
    given_up = [member.host.address for member in etcd.members]
    for member in others:
        member.lose_data()
    earlier = runs.run()
    first.fill(KEYS + 5)
    seen = first.revision()
    for member in others:
        member.lose_data()

    refused = runs.run(snapshot_file=str(file), lost=given_up)
    name = re.search(r"revisions:\d+", str(refused.error)).group()
    ended = runs.run(snapshot_file=str(file), lost=given_up, accept=[name])

    assert earlier.error is None, earlier.error
    assert_whole(etcd.members, ended, before)
    assert_no_client_misses_anything(etcd.members, seen)


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_a_member_is_replaced_by_another_host_and_no_write_stands_still(etcd, runs):
    assert_moves_to_a_spare(etcd, runs)


def test_a_full_database_is_defragmented_and_takes_writes_again(etcd, runs):
    first = etcd.members[0]
    before = first.contents()
    first.fill_up()
    found = runs.run("triage-etcd")
    first.compact()

    ended = runs.run("defragment-etcd")

    assert found.result.recovery == "defragment-etcd"
    assert ended.error is None, ended.error
    assert ended.result.gained_bytes > 0
    assert ended.result.was_disarmed
    first.fill(1)
    assert_whole(etcd.members, ended, before)
    assert runs.run("triage-etcd").result.recovery == "none"
