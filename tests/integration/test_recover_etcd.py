"""Recovering the quorum of real etcd members on real hosts; each test looks at keys and disks.

The members are units of systemd, and static pods of a kubelet that stands in.
"""

import re

import pytest

from recovery.run import RecoveryState
from tasks.etcd import placing
from tasks.etcd.parts import Part
from tests.faults.conftest import IS_WHOLE
from tests.integration.etcd_runs import assert_moves_to_a_spare, copies_watched
from tests.integration.etcd_runs import etcd as etcd  # noqa: PLC0414 (the fixture)
from tests.integration.etcd_runs import runs as runs  # noqa: PLC0414 (the fixture)
from tests.lab.etcd_hosts import COPIES, etcd_lab
from tests.lab.etcd_pods import etcd_pods
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)  # the first run builds the root file system
KEYS = 300


FORMS = ["unit", "static pod"]
units_alone_in_a_sample = pytest.mark.parametrize(
    "lab", FORMS if IS_WHOLE else FORMS[:1], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=FORMS)
def lab(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("etcd")
    made = etcd_pods(directory) if request.param == "static pod" else etcd_lab(directory, spares=1)
    with started_or_skipped(made) as etcd:
        yield etcd


def assert_whole(etcd, ended, before):
    assert ended.error is None, ended.error
    assert ended.state is RecoveryState.RECOVERED
    for member in etcd.members:
        contents = member.contents()
        assert {key: contents.get(key) for key in before} == before, member.host


def test_two_of_three_without_data_come_back_with_every_key_and_keep_what_was_there(etcd, runs):
    survivor, *others = etcd.members
    before = survivor.contents()
    rest = f"grep -vi initial.cluster {survivor.file}"
    told = survivor.host.run(rest)
    with survivor.writer() as acknowledged:  # before the loss, while it lasts, and after it
        wait_until(acknowledged, "the first write", within_seconds=60)
        for member in others:
            member.lose_data()
        wait_until(lambda: "leader" not in survivor.status(), "it to give up", within_seconds=60)
        planned = runs.run(plan_only=True)
        until = len(acknowledged())
        with copies_watched(survivor):
            ended = runs.run(approve=planned.plan.hash, approved_by="Ada")
        written = acknowledged()

    assert_whole(etcd, ended, before)
    assert len(written) > until
    for member in etcd.members:
        contents = member.contents()
        assert [key for key in written if key not in contents] == [], member.host
    assert ended.result.now.members == 3
    assert ended.result.left_to_person == []
    survivor.fill(KEYS + 10)  # it takes writes
    assert others[0].contents()["key/00309"]
    kept = survivor.host.run(
        f"ls -d {survivor.data}/recover-*/before {COPIES}/etcd-*/snapshot.db"
    ).split()
    assert len(kept) == 2
    assert survivor.host.run(rest) == told
    assert list((runs.folder / "work" / ended.recovery_id).glob("*.sealed"))
    again = runs.run()
    assert again.result.cure == "nothing"
    assert runs.changes(again.recovery_id) == []


def test_members_that_are_only_stopped_are_started_and_nothing_is_rebuilt(etcd, runs):
    before = etcd.members[0].contents()
    cluster = etcd.members[0].status()["header"]["cluster_id"]
    for member in etcd.members[1:]:
        member.stop()

    ended = runs.run()

    assert_whole(etcd, ended, before)
    assert ended.result.cure == "start"
    assert etcd.members[1].status()["header"]["cluster_id"] == cluster


@units_alone_in_a_sample
def test_what_was_acknowledged_last_is_in_what_is_rebuilt(etcd, runs):
    """A member notes that a majority has an entry with the next one, and is lost before that."""
    survivor, *others = etcd.members
    for n in range(KEYS, KEYS + 5):
        survivor.fill(n)
        before = survivor.contents()
        survivor.kill()
        if survivor.log_end().uncommitted:
            break
        survivor.start()  # an election came in between, which notes it
        wait_until(survivor.is_healthy, f"{survivor.host}", within_seconds=60)
    for member in others:
        member.lose_data()

    ended = runs.run()

    assert_whole(etcd, ended, before)
    assert "not known to be committed" in ended.result.found
    assert ended.result.uncommitted == 0


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_the_files_of_a_member_that_serves_are_copied_while_it_does(etcd, runs, monkeypatch):
    survivor, *others = etcd.members
    before = survivor.contents()
    for member in others:
        member.lose_data()
    monkeypatch.setattr(Part, "is_read_from_files", True)

    with copies_watched(survivor):
        ended = runs.run()

    assert_whole(etcd, ended, before)
    assert any("etcd-copy" in command for command in runs.changes(ended.recovery_id))


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_hosts_without_power_are_a_majority_and_must_be_named_as_off(etcd, runs):
    others = etcd.members[1:]
    for member in others:
        member.host.power_cut()

    refused = runs.run()
    found = runs.run("triage-etcd")

    assert refused.state is RecoveryState.REFUSED
    assert "go on as the old cluster beside the new one" in str(refused.error)
    assert runs.changes(refused.recovery_id) == []
    assert found.result.recovery == "recover-etcd-quorum"
    assert f"off:{others[0].host.address}" in found.result.why


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_without_any_data_a_snapshot_of_the_worker_is_restored(etcd, runs):
    first = etcd.members[0]
    before = first.contents()
    first.ctl("snapshot", "save", "/root/taken.db")
    file = runs.folder / "taken.db"
    file.write_bytes(first.host.read_file("/root/taken.db"))
    first.fill(KEYS + 5)
    damaged = runs.folder / "damaged.db"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    other = runs.run(snapshot_file=str(file), lost=[m.host.address for m in etcd.members])
    for member in etcd.members:
        member.lose_data()

    refused = runs.run(snapshot_file=str(damaged))
    ended = runs.run(snapshot_file=str(file))

    assert "has quorum" in str(other.error)
    assert "nothing was stopped" in str(refused.error)
    assert "sha256" in str(refused.error)
    assert_whole(etcd, ended, before)
    assert first.contents() == before


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_what_an_older_snapshot_loses_is_accepted_by_its_name(etcd, runs):
    first, *others = etcd.members
    before = first.contents()
    first.ctl("snapshot", "save", "/root/taken.db")
    file = runs.folder / "taken.db"
    file.write_bytes(first.host.read_file("/root/taken.db"))
    first.ctl("put", "later", "1")
    for member in others:
        member.lose_data()
    given_up = [first.host.address]

    refused = runs.run(snapshot_file=str(file), lost=given_up)
    name = re.search(r"accept it by name: (revisions:\d+)", str(refused.error))[1]
    ended = runs.run(snapshot_file=str(file), lost=given_up, accept=[name])

    assert etcd.has_other_clients or name == "revisions:1"
    assert_whole(etcd, ended, before)
    assert first.host.run(f"ls -d {first.data}/recover-*/before")


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_what_is_undone_is_the_old_cluster_as_it_was(etcd, runs):
    survivor, stopped, emptied = etcd.members
    before, text = survivor.contents(), survivor.host.read_file(survivor.file)
    stopped.stop()
    emptied.lose_data()
    lost = [member.host.address for member in (stopped, emptied)]

    ended = runs.run(lost=lost)
    for _ in range(2):  # the second changes nothing more
        undone = runs.run(lost=lost, resume=ended.recovery_id, undo_by="Ada", break_glass="test")

    assert ended.error is None, ended.error
    assert undone.error is None, str(undone.error)
    for member in (survivor, stopped):
        wait_until(member.is_healthy, f"{member.host}", within_seconds=60)
        assert member.contents() == before
    assert survivor.host.read_file(survivor.file) == text
    assert emptied.is_at_rest()
    assert emptied.host.run(f"ls {emptied.data}").split() == [f"recover-{ended.recovery_id}"]


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
@pytest.mark.parametrize("is_cut_off", [False, True])
def test_an_undo_starts_no_member_that_was_emptied(etcd, runs, monkeypatch, is_cut_off):
    survivor, *others = etcd.members
    before = survivor.inode()
    for member in others:
        member.lose_data()
        member.host.run(f"install -d -o etcd -g etcd {member.data} {member.data}/member")
    if is_cut_off:  # after the others were stood down, before the survivor is
        survivor.stop()
        monkeypatch.setattr(placing, "place_argv", lambda _: ["false"])

    ended = runs.run()
    monkeypatch.undo()
    undone = runs.run(resume=ended.recovery_id, undo_by="Ada", break_glass="test")

    assert (ended.error is not None) == is_cut_off, ended.error
    assert undone.error is None, str(undone.error)
    for member in others:
        assert member.is_at_rest()
        assert member.host.run(f"find {member.data}/member -type f").split() == []
    assert survivor.inode() == before  # alone it serves nobody, and has all it had


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_a_stopped_survivor_that_was_written_to_meanwhile_is_not_put_back(etcd, runs, monkeypatch):
    survivor, *others = etcd.members
    off = [f"off:{member.host.address}" for member in others]
    cut_all(others)
    survivor.kill()
    monkeypatch.setattr(placing, "place_argv", lambda _: ["false"])
    cut_off = runs.run(accept=off)
    monkeypatch.undo()
    for member in others:
        member.host.power_on()
    survivor.start()
    etcd.wait_until_healthy()
    survivor.ctl("put", "later", "1")
    cut_all(others)
    survivor.kill()

    resumed = runs.run(accept=off, resume=cut_off.recovery_id)

    assert cut_off.error is not None
    assert resumed.state is RecoveryState.REFUSED
    assert "Somebody has written since the snapshot" in str(resumed.error)
    assert survivor.host.run(f"ls -d {survivor.data}/recover-*/before 2>/dev/null || true") == ""


def cut_all(members):
    for member in members:
        member.host.power_cut()


@units_alone_in_a_sample
def test_a_member_that_lost_its_data_is_replaced_and_no_write_stands_still(etcd, runs):
    first, second, third = etcd.members
    third.lose_data()
    found = runs.run("triage-etcd")

    planned = runs.run("replace-etcd-member", host=third.host.address, plan_only=True)
    with first.writer() as acknowledged:
        ended = runs.run(
            "replace-etcd-member",
            host=third.host.address,
            approve=planned.plan.hash,
            approved_by="Ada",
        )
        written = acknowledged()

    assert found.result.recovery == "replace-etcd-member"
    assert ended.error is None, ended.error
    assert ended.result.now.members == 3
    assert written
    contents = third.contents()
    assert [key for key in written if key not in contents] == []
    assert second.contents().keys() >= set(written)
    again = runs.run("replace-etcd-member", host=third.host.address)
    assert "is healthy and holds what the others do" in str(again.error)
    assert runs.changes(again.recovery_id) == []


def test_a_member_is_replaced_by_another_host_which_starts_it_at_boot(etcd, runs):
    if not etcd.spares:
        pytest.skip("a control-plane node is replaced by replace-control-plane-node-kubeadm")
    assert_moves_to_a_spare(etcd, runs)


@units_alone_in_a_sample
def test_a_full_database_is_defragmented_one_by_one_and_takes_writes_again(etcd, runs):
    first = etcd.members[0]
    leader = next(
        m for m in etcd.members if m.status()["leader"] == m.status()["header"]["member_id"]
    )
    before = first.contents()
    first.fill_up()
    found = runs.run("triage-etcd")
    first.compact()

    ended = runs.run("defragment-etcd")

    assert found.result.recovery == "defragment-etcd"
    assert ended.error is None, ended.error
    assert ended.result.hosts[-1] == leader.host.address
    assert ended.result.gained_bytes > 0
    assert ended.result.was_disarmed
    first.fill(1)
    assert {key: first.contents().get(key) for key in before} == before
    assert runs.run("triage-etcd").result.recovery == "none"
    again = runs.run("defragment-etcd")
    assert (again.error, again.result.hosts) == (None, ())
