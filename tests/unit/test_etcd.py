"""What is read of etcd, and what is judged from it: parsers and tables, without any etcd."""

import struct
from dataclasses import replace
from functools import partial

import pytest

from blocks.ssh.command import Answer
from recovery.errors import (
    BadInput,
    CommandFailed,
    NotVerified,
    Refused,
    Unreachable,
    UnreadableOutput,
)
from tasks.etcd import etcdctl, evidence, joining, placing, quorum_loss
from tasks.etcd.defragmenting import judge_space, refuse_unless_room_was_made
from tasks.etcd.etcdctl import Listed
from tasks.etcd.evidence import MemberSeen, MemberState, parse_on_disk
from tasks.etcd.given import given_file, refuse_unless_hash_is_there
from tasks.etcd.joining import Agreed
from tasks.etcd.judging import Cure, Terms, judge
from tasks.etcd.parts import Part
from tasks.etcd.proving import bump_past, parse_proof, refuse_if_older
from tasks.etcd.replacing import judge_replacement
from tasks.etcd.settings import Settings, settings_of
from tasks.etcd.target import EtcdCluster
from tasks.etcd.triage import finding_of
from tasks.etcd.wal import LogEnd, parse_segment
from tests.unit.etcd_seen import (
    AWAY,
    FIVE,
    LEARNER,
    NO_DATA,
    SILENT,
    STOPPED,
    TWO_URLS,
    WELL,
    member,
    of_another_cluster,
    of_five,
    settings,
    well,
)

STATUS = (  # etcdctl 3.4.23, a member without quorum
    '[{"Endpoint":"https://10.204.179.11:2379","Status":{"header":{"cluster_id":'
    '17237436991929493444,"member_id":9372538179322589801,"revision":4,"raft_term":2},'
    '"version":"3.4.23","dbSize":20480,"raftIndex":12,"raftTerm":2,"raftAppliedIndex":12,'
    '"errors":["etcdserver: no leader"],"dbSizeInUse":16384}}]'
)
STATUS_36 = (  # etcdctl 3.6.14, and what follows
    '[{"Endpoint":"127.0.0.1:12379","Status":{"header":{"cluster_id":12101053776118486841,'
    '"member_id":15985099378392235387,"revision":13,"raft_term":2},"version":"3.6.14",'
    '"dbSize":20480,"leader":15985099378392235387,"raftIndex":16,"raftTerm":2,'
    '"raftAppliedIndex":16,"dbSizeInUse":16384,"storageVersion":"3.6.0","dbSizeQuota":2147483648,'
    '"downgradeInfo":{}}}]'
)
HASH_36 = (
    '[{"Endpoint":"127.0.0.1:12379","HashKV":{"header":{"cluster_id":12101053776118486841,'
    '"member_id":15985099378392235387,"revision":13,"raft_term":2},"hash":1090769097,'
    '"compact_revision":-1,"hash_revision":3}}]'
)
PROOF_36 = '{"hash":1207216424,"revision":13,"totalKey":12,"totalSize":20480,"version":"3.6.0"}'
SHOWN = """Id=etcd.service
LoadState=loaded
ActiveState=active
Environment=DAEMON_ARGS= ETCD_NAME=h1 ETCD_DATA_DIR=/var/lib/etcd/default
EnvironmentFiles=/etc/default/etcd (ignore_errors=yes)
ExecStart={ path=/usr/bin/etcd ; argv[]=/usr/bin/etcd $DAEMON_ARGS ; ignore_errors=no ; pid=0 }
"""
LINES = """file /etc/default/etcd
ETCD_NAME=etcd1
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.0.0.1:2380
ETCD_ADVERTISE_CLIENT_URLS="https://10.0.0.1:2379,https://10.1.0.1:2379"
ETCD_INITIAL_CLUSTER=etcd1=https://10.0.0.1:2380,etcd2=https://10.0.0.2:2380
ETCD_TRUSTED_CA_FILE=/etc/ssl/etcd/ssl/ca.pem
ETCD_CERT_FILE=/etc/ssl/etcd/ssl/member-1.pem
ETCD_KEY_FILE=/etc/ssl/etcd/ssl/member-1-key.pem
ETCDCTL_CERT=/etc/ssl/etcd/ssl/admin-1.pem
ETCDCTL_KEY=/etc/ssl/etcd/ssl/admin-1-key.pem
"""


def test_what_a_member_says_is_read_also_without_a_leader():
    said = etcdctl.parse_status(STATUS)

    assert (said.revision, said.raft_index, said.leader) == (4, 12, 0)
    assert not said.is_leader
    assert said.errors == ("etcdserver: no leader",)


def test_what_a_newer_etcd_says_is_read_with_what_it_says_more():
    said = etcdctl.parse_status(STATUS_36)

    assert said.is_leader
    assert (said.version, said.revision, said.in_use_bytes) == ("3.6.14", 13, 16384)
    assert etcdctl.parse_hash(HASH_36) == etcdctl.Hashed(1090769097, -1)
    assert parse_proof(PROOF_36) == 13


@pytest.mark.parametrize(
    "parse", [etcdctl.parse_status, etcdctl.parse_members, etcdctl.parse_hash, parse_proof]
)
@pytest.mark.parametrize("printed", ["", "[]", "{}", '[{"Status":{}}]', "null", "Error: no"])
def test_other_output_is_carried_in_the_error(parse, printed):
    with pytest.raises(UnreadableOutput):
        parse(printed)


def test_other_output_of_the_look_at_a_disk_is_carried_in_the_error():
    with pytest.raises(UnreadableOutput):
        parse_on_disk("free=lots\n")


def test_a_member_that_never_started_is_listed_without_a_name():
    listed = etcdctl.parse_members(
        '{"header":{},"members":[{"ID":255,"peerURLs":["https://10.0.0.2:2380"],"isLearner":true}]}'
    )

    assert listed == [Listed(255, "", "https://10.0.0.2:2380", "", is_learner=True)]
    assert listed[0].hex_id == "ff"


def test_settings_come_from_the_unit_its_files_and_the_flags_of_its_command_line():
    settings = settings_of("h1", SHOWN, LINES)

    assert settings.name == "etcd1"
    assert settings.data == "/var/lib/etcd/default"
    assert settings.client_url == "https://10.0.0.1:2379"
    assert settings.authority == "/etc/ssl/etcd/ssl/ca.pem"
    assert settings.certificate == "/etc/ssl/etcd/ssl/admin-1.pem"
    assert settings.file == "/etc/default/etcd"
    assert settings.program == "/usr/bin/etcd"
    assert dict(settings.peers)["etcd2"] == "https://10.0.0.2:2380"
    flagged = settings_of("h1", SHOWN, LINES + 'DAEMON_ARGS="--name other --data-dir=/data"\n')
    assert (flagged.name, flagged.data) == ("other", "/data")
    assert flagged.flags == ("name", "data-dir")


@pytest.mark.parametrize(
    ("line", "why"),
    [("ETCD_CONFIG_FILE=/etc/etcd.yml", "configuration file"), ("ETCD_WAL_DIR=/wal", "wal-dir")],
)
def test_settings_that_are_not_known_here_are_refused(line, why):
    with pytest.raises(Refused, match=why):
        settings_of("h1", SHOWN, f"{LINES}{line}\n")


def test_lines_that_no_shell_could_read_are_carried_in_the_error():
    with pytest.raises(UnreadableOutput):
        settings_of("h1", SHOWN, 'file /etc/default/etcd\nETCD_NAME="open\n')


def framed(kind, data):
    """A record of etcd's log; as etcd writes it, padded to 8 bytes."""
    message = bytes([0x08, kind, 0x10, 0, 0x1A, len(data)]) + data
    padding = -len(message) % 8
    header = len(message) | ((0x80 | padding) << 56 if padding else 0)
    return struct.pack("<Q", header) + message + bytes(padding)


def entry(index):
    return framed(2, bytes([0x08, 0, 0x10, 2, 0x18, index, 0x22, 1, 65]))


def state(committed):
    return framed(3, bytes([0x08, 2, 0x10, 1, 0x18, committed]))


NAME = "0000000000000001-0000000000000005.wal"


@pytest.mark.parametrize(
    ("content", "last", "committed"),
    [
        (state(3), 4, 3),
        (state(4) + entry(5) + entry(6) + state(5), 6, 5),
        (state(4) + entry(5) + entry(6) + state(6) + bytes(4096), 6, 6),
        (state(4) + entry(5) + entry(6)[:-9], 5, 4),  # torn by a power cut
        (state(4) + entry(6) + entry(5), 5, 4),  # a new leader has written over it
    ],
)
def test_the_end_of_a_log_is_read_from_its_last_segment(content, last, committed):
    assert parse_segment(NAME, content) == LogEnd(last, committed)


def test_what_is_no_segment_of_a_log_is_no_log():
    with pytest.raises(ValueError, match="no state"):
        parse_segment(NAME, b"")


def test_a_cluster_that_is_well_is_left_alone():
    assert judge("etcd", [member(n, **WELL) for n in (1, 2, 3)], Terms()).cure is Cure.NOTHING


def test_members_that_are_stopped_are_started_where_that_is_enough():
    loss = judge("etcd", [member(1), member(2, STOPPED), member(3, NO_DATA)], Terms())

    assert (loss.cure, loss.starts, loss.survivor) == (Cure.START, ("h2",), "")


def test_two_of_three_with_their_data_are_started_however_many_spares_are_named():
    spares = [member(n, NO_DATA) for n in (3, 4, 5)]

    loss = judge("etcd", [member(1, STOPPED), member(2, STOPPED), *spares], Terms())

    assert (loss.cure, loss.starts) == (Cure.START, ("h1", "h2"))


def test_the_member_whose_log_is_committed_furthest_survives():
    behind = of_five(1, revision=10)
    ahead = of_five(2, STOPPED, log=LogEnd(15, 12))
    five = [behind, ahead, *(of_five(n, NO_DATA) for n in (3, 4, 5))]

    loss = judge("etcd", five, Terms())

    assert (loss.cure, loss.survivor) == (Cure.REBUILD, "h2")
    assert loss.rejoins == ("h1", "h3", "h4", "h5")
    assert loss.may_be_lost == 3


def test_what_another_log_holds_beyond_the_survivor_may_be_lost_as_well():
    five = [of_five(1, SILENT, log=LogEnd(99, 99)), of_five(2, SILENT, log=LogEnd(100, 99))]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    loss = judge("etcd", five, Terms())

    assert (loss.survivor, loss.may_be_lost) == ("h1", 1)
    assert judge("etcd", five, Terms(survivor="h2")).may_be_lost == 1


def test_a_person_may_choose_the_survivor_and_give_others_up():
    five = [of_five(1, revision=9), of_five(2), *(of_five(n, NO_DATA) for n in (3, 4, 5))]

    assert judge("etcd", five, Terms(survivor="h1")).survivor == "h1"
    assert judge("etcd", five, Terms(lost=("h2",))).survivor == "h1"


@pytest.mark.parametrize(
    ("members", "terms", "why"),
    [
        ([member(1, **WELL), member(2, **WELL), member(3, NO_DATA)], Terms(), "has quorum"),
        ([member(n, **WELL) for n in (1, 2, 3)], Terms(snapshot="/s"), "would lose what was"),
        ([member(1), member(2, SILENT), member(3, NO_DATA)], Terms(), "elects no leader"),
        ([member(1), member(2, AWAY), member(3, AWAY)], Terms(), "off:h2 off:h3"),
        ([member(1)], Terms(), "not named: h2 at https://h2:2380, h3"),
        ([member(n, NO_DATA) for n in (1, 2, 3)], Terms(), "no member has data"),
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], Terms(snapshot="/s"), "with data"),
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], Terms(survivor="h2"), "can be used"),
        (
            [of_five(1), of_five(2, hash=8), *(of_five(n, NO_DATA) for n in (3, 4, 5))],
            Terms(),
            "disagree about the data: hashes h1 7",
        ),
        (
            [of_five(1), of_five(2, STOPPED), *(of_five(n, NO_DATA) for n in (3, 4, 5))],
            Terms(),
            "how far the log of h2 reaches could not be read",
        ),
        (  # a spare that is named does not make two that are away a minority
            [member(1), member(2, AWAY), member(3, AWAY), member(4, NO_DATA)],
            Terms(),
            "off:h2 off:h3",
        ),
        (
            [member(1), member(2, MemberState.NO_UNIT), member(3, MemberState.NO_UNIT)],
            Terms(),
            "off:h2 off:h3",
        ),
        (
            [member(1), member(2, AWAY), of_another_cluster(3)],
            Terms(),
            "its members are of 2 clusters: h1 of 1, h3 of 9",
        ),
        (
            [
                member(1, errors=("memberID:1 alarm:CORRUPT",)),
                *(member(n, NO_DATA) for n in (2, 3)),
            ],
            Terms(),
            "alarm CORRUPT of h1",
        ),
        (
            [member(1, tool=""), member(2, NO_DATA), member(3, NO_DATA)],
            Terms(),
            "nothing on h1 restores a snapshot",
        ),
        (
            [member(1, version="3.3.8"), member(2, NO_DATA), member(3, NO_DATA)],
            Terms(),
            "this knows 3.4",
        ),
        (
            [
                member(1),
                member(2, NO_DATA, settings=settings(2, flags=("initial-cluster",))),
                member(3, NO_DATA),
            ],
            Terms(),
            "told of its cluster by initial-cluster",
        ),
        (
            [
                member(1),
                member(2, NO_DATA, settings=replace(settings(2), peer_url="http://localhost:2380")),
                member(3, NO_DATA),
            ],
            Terms(),
            "ETCD_INITIAL_ADVERTISE_PEER_URLS is not set on h2",
        ),
        (
            [
                member(1),
                member(2, NO_DATA),
                member(3, NO_DATA, settings=replace(settings(3), peer_url="https://h2:2380")),
            ],
            Terms(),
            "h2 and h3 are set up with one peer address",
        ),
        (  # it began anew by itself, and runs
            [member(1), member(2, NO_DATA), of_another_cluster(3)],
            Terms(lost=("h3",)),
            "Where h3 began a cluster of its own, stop its etcd there first",
        ),
        (
            [member(n, AWAY) for n in (1, 2, 3)],
            Terms(accept=("off:h1", "off:h2", "off:h3"), snapshot="/s"),
            "no host answers",
        ),
    ],
)
def test_what_is_not_safe_is_refused_with_its_reason(members, terms, why):
    with pytest.raises(Refused) as refused:
        judge("etcd", members, terms)

    assert why in str(refused.value)


def test_hashes_are_compared_where_the_same_old_revisions_are_gone():
    five = [of_five(1, hash=7, compacted=3), of_five(2, hash=8, compacted=5, revision=12)]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    assert judge("etcd", five, Terms()).survivor == "h2"


def test_a_hash_that_could_not_be_taken_is_told_and_is_no_disagreement():
    five = [of_five(1), of_five(2, hash=0, revision=12, failure="context deadline exceeded")]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    loss = judge("etcd", five, Terms())

    assert loss.survivor == "h2"
    assert "hash not taken, etcdctl: context deadline exceeded" in loss.saw


@pytest.mark.parametrize("ask", [etcdctl.hash_at, partial(etcdctl.ask, within_seconds=300)])
def test_the_host_waits_for_etcdctl_as_long_as_etcdctl_waits_for_etcd(ask):
    asked = {}

    class Waiting:
        def read(self, argv, within_seconds, **_):
            asked.update(argv=argv, seconds=within_seconds)
            return Answer("", "", 0, '[{"HashKV":{}}]', "")

    ask(Waiting(), settings(1), "10")

    assert "--command-timeout=300s" in asked["argv"]
    assert asked["seconds"] > int(asked["argv"][asked["argv"].index("-k") + 2])


class Running:
    """A host on which etcdctl ends with this code and error."""

    label = "h1"

    def __init__(self, code, said):
        self.code, self.said, self.target = code, said, self

    def read(self, argv, accept=(0,), **_):
        if "etcdctl" not in argv:
            return Answer("true", self.label, 0, "", "")
        if self.code not in accept:
            raise CommandFailed(self.label, "etcdctl", self.code, self.said)
        return Answer("etcdctl", self.label, self.code, "", self.said)


def test_an_etcdctl_that_cannot_be_run_is_no_silence_of_etcd():
    seen = MemberSeen("h1", SILENT, settings=settings(1))
    said = "a warning\nError: tls: bad certificate\n"

    silent = evidence._answering(Running(1, said), seen)

    assert silent.state is SILENT
    assert "Error: tls: bad certificate" in str(silent)
    with pytest.raises(CommandFailed, match="No such file"):
        evidence._answering(Running(127, "timeout: etcdctl: No such file"), seen)


@pytest.mark.parametrize("told", [" ".join(etcdctl.argv(Settings(), "x")), evidence.ON_DISK])
def test_etcdctl_is_found_where_sudo_would_not_look(told):
    assert "PATH=/usr/local/sbin:/usr/local/bin:" in told


def test_members_are_asked_again_whether_they_agree_while_one_gives_no_answer(monkeypatch):
    part = Part(CLUSTER, Printing(), member(1), "")
    answers = [Unreachable("h1", "hashkv", "slow"), Agreed(1, 10, 7)]

    def in_common(*_):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(joining, "_in_common", in_common)
    monkeypatch.setattr(joining, "PAUSE_SECONDS", 0)

    assert joining.all_agree.fn([part]) == Agreed(1, 10, 7)
    answers[:] = [CommandFailed("h1", "hashkv", 1, "mvcc: required revision has been compacted")]
    with pytest.raises(NotVerified, match="has been compacted"):
        joining.all_agree.fn([part], within_seconds=0)


def test_hosts_that_are_away_and_fewer_than_a_majority_need_no_word():
    members = [member(1), member(2, NO_DATA), member(3, AWAY)]

    loss = judge("etcd", members, Terms())

    assert (loss.survivor, loss.rejoins, loss.away) == ("h1", ("h2",), ("h3",))


def test_where_no_data_is_left_a_snapshot_begins_the_cluster_on_the_first_host():
    members = [member(1, AWAY), member(2, NO_DATA), member(3, NO_DATA)]

    loss = judge("etcd", members, Terms(snapshot="/s"))

    assert (loss.survivor, loss.rejoins) == ("h2", ("h3",))


CLUSTER = EtcdCluster("etcd", ())


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (member(1, STOPPED, log=LogEnd(15, 12)), member(1, STOPPED, log=LogEnd(15, 14)), "at 14"),
        (member(1, SILENT, log=LogEnd(15, 12)), member(1, STOPPED, log=LogEnd(15, 14)), "at 14"),
        (member(1), member(1, STOPPED, log=LogEnd(15, 14)), "at 14"),
        (member(1), member(1, revision=11), "at 11"),
    ],
)
def test_a_survivor_that_was_written_to_meanwhile_is_not_stopped(monkeypatch, before, now, why):
    found = {"now": now}
    monkeypatch.setattr(
        quorum_loss, "members_now", lambda _: [replace(found["now"], log=None), member(2, NO_DATA)]
    )
    monkeypatch.setattr(
        quorum_loss, "with_log", lambda _, seen: replace(seen, log=found["now"].log)
    )
    part = Part(CLUSTER, None, before, "")

    with pytest.raises(Refused, match=why):
        quorum_loss.refuse_if_quorum_came_back(part)
    found["now"] = before
    quorum_loss.refuse_if_quorum_came_back(part)


class Holding:
    """A host on which this recovery has moved data aside, or has not."""

    def __init__(self, exit_code):
        self.exit_code = exit_code

    def read(self, argv, **_):
        return Answer("test", "h1", self.exit_code, "", "")


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (member(1, AWAY), "gave no answer"),
        (member(1, STOPPED), "log cannot be read"),
        (member(1, NO_DATA), "its data is gone"),
    ],
)
def test_a_survivor_that_tells_nothing_of_itself_is_not_taken_for_unchanged(monkeypatch, now, why):
    monkeypatch.setattr(Part, "aside", "/d/recover-1")
    monkeypatch.setattr(quorum_loss, "members_now", lambda _: [now, member(2, NO_DATA)])
    monkeypatch.setattr(quorum_loss, "with_log", lambda _, seen: seen)
    first = Part(CLUSTER, Holding(1), member(1, STOPPED, log=LogEnd(15, 12)), "")
    other = Part(CLUSTER, None, member(2, NO_DATA), "", first)

    for part in (first, other):
        with pytest.raises((Refused, Unreachable), match=why):
            quorum_loss.refuse_if_quorum_came_back(part)
    if now.is_on_host:  # or moved aside by this recovery, in a step that was cut off
        moved = replace(first, host=Holding(0))
        quorum_loss.refuse_if_quorum_came_back(moved)


class Printing:
    """A host that prints the proof of a snapshot."""

    label = "h1"

    def read(self, argv, **_):
        return Answer("cat", self.label, 0, '{"revision":10}', "")


def test_a_higher_member_that_is_given_up_is_accepted_by_the_revisions_it_costs(monkeypatch):
    monkeypatch.setattr(EtcdCluster, "folder", "/copies")

    def ask(terms, seen_at=10):
        part = Part(CLUSTER, Printing(), member(1, revision=seen_at), "")
        refuse_if_older.fn(part, terms, 13)

    for terms in (Terms(lost=("h2",)), Terms(survivor="h1"), Terms(snapshot="/s")):
        with pytest.raises(Refused, match="accept it by name: revisions:3"):
            ask(terms)
        ask(replace(terms, accept=("revisions:3",)))
    with pytest.raises(NotVerified, match="revision 11"):
        ask(Terms(accept=("revisions:3",)), seen_at=11)


@pytest.mark.parametrize(
    ("highest", "bump"), [(0, 10**9), (204, 10**9), (10**9, 2 * 10**9), (2 * 10**9 + 5, 3 * 10**9)]
)
def test_a_revision_is_put_past_all_that_were_seen_also_after_an_earlier_recovery(highest, bump):
    assert bump_past(highest) == bump > highest


def test_the_survivor_is_asked_for_immediately_before_it_is_put_back():
    assert quorum_loss.refuse_if_quorum_came_back in placing.put_in_place.terms.refuse_if


@pytest.mark.parametrize(
    ("members", "recovery", "why"),
    [
        ([well(1), well(2), well(3)], "none", "healthy"),
        ([well(1), well(2), member(3, NO_DATA)], "replace-etcd-member", "host=h3"),
        ([well(1), well(2), well(3), member(4, NO_DATA)], "none", "No member: h4"),
        (
            [*(well(n, listed=FIVE[:2]) for n in (1, 2)), member(3, NO_DATA)],
            "replace-etcd-member",
            "host=h3",
        ),
        ([well(1), well(2), member(3, AWAY)], "by hand", "Bring h3 up"),
        ([well(1), well(2), member(3, STOPPED)], "by hand", "start it"),
        ([well(1), well(2), well(3, hash=9)], "replace-etcd-member", "host=h3"),
        ([well(1, errors=("alarm:NOSPACE",)), well(2), well(3)], "defragment-etcd", "grows"),
        ([well(1, errors=("alarm:CORRUPT",)), well(2), well(3)], "by hand", "Compare keys"),
        ([member(1), member(2, STOPPED), member(3, NO_DATA)], "recover-etcd-quorum", "starts h2"),
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], "recover-etcd-quorum", "from h1"),
        ([member(1), member(2, AWAY), member(3, AWAY)], "recover-etcd-quorum", "off:h2"),
        ([member(1), member(2, SILENT), member(3, NO_DATA)], "by hand", "network"),
    ],
)
def test_a_triage_names_the_recovery_to_run(members, recovery, why):
    found = finding_of(CLUSTER, "/etc/etcd hosts.yaml", members)

    assert found.recovery == recovery
    assert why in f"{found.finding} {found.why} {found.command}"
    assert ("'hosts=/etc/etcd hosts.yaml'" in found.command) == (
        recovery not in {"none", "by hand"}
    )
    assert len(found.members) == len(members)


def test_a_lost_member_is_replaced_on_its_own_host_or_on_another():
    new = member(4, NO_DATA)

    same = judge_replacement("etcd", [well(1), well(2), member(3, NO_DATA)], "h3", "h3", ())
    other = judge_replacement("etcd", [well(1), well(2), member(3, AWAY), new], "h3", "h4", ())

    assert (same.asked, same.listed.member_id, same.is_reachable) == ("h2", 3, True)
    assert other.others == ("h1=https://h1:2380", "h2=https://h2:2380")
    assert (other.listed.member_id, other.is_reachable) == (3, False)


@pytest.mark.parametrize(
    ("members", "lost", "by", "why"),
    [
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], "h3", "h3", "no quorum"),
        ([well(1), member(2, AWAY), member(3, NO_DATA)], "h3", "h3", "only 1 of 3 members"),
        ([well(1), well(2), well(3)], "h3", "h3", "accept healthy:h3"),
        (
            [*(well(n, listed=FIVE) for n in (1, 2, 3)), member(8, AWAY), member(9, AWAY)],
            "h9",
            "h9",
            "nothing tells which of h4",
        ),
        (  # h5 was taken out by hand, h4 is only off for a while
            [
                *(well(n, listed=FIVE[:4]) for n in (1, 2, 3)),
                member(4, AWAY),
                member(5, AWAY),
                member(6, NO_DATA),
            ],
            "h5",
            "h6",
            "nothing tells which of h4 (4)",
        ),
        (
            [well(1, listed=FIVE[:2]), well(2, listed=FIVE[:2]), member(3)],
            "h3",
            "h3",
            "accept unlisted:h3",
        ),
        (
            [well(1), well(2), well(3), member(4, NO_DATA)],
            "h4",
            "h4",
            "accept unlisted:h4",
        ),
        ([well(1), well(2), member(3, AWAY), member(4, STOPPED)], "h3", "h4", "accept data:h4"),
        (
            [*(well(n, listed=(*FIVE[:3], LEARNER)) for n in (1, 2, 3)), member(4, NO_DATA)],
            "h4",
            "h4",
            "`etcdctl member remove 9`",
        ),
        (
            [*(well(n, listed=(*FIVE[:3], TWO_URLS)) for n in (1, 2, 3)), member(4, NO_DATA)],
            "h4",
            "h4",
            "several peer addresses",
        ),
        ([well(1), well(2), member(3, AWAY)], "h3", "h3", "is to run there"),
        ([well(1), well(2), member(3, NO_DATA)], "h3", "h2", "a member already"),
        (
            [well(1, listed=()), well(2, listed=()), member(3, NO_DATA)],
            "h3",
            "h3",
            "no member lists",
        ),
    ],
)
def test_a_replacement_that_is_not_safe_is_refused(members, lost, by, why):
    with pytest.raises(Refused) as refused:
        judge_replacement("etcd", members, lost, by, ())

    assert why in str(refused.value)


def test_a_member_that_differs_from_the_others_is_replaced_though_it_is_healthy():
    members = [well(1), well(2), well(3, hash=9)]

    assert judge_replacement("etcd", members, "h3", "h3", ()).listed.member_id == 3
    accepted = judge_replacement("etcd", [well(1), well(2), well(3)], "h3", "h3", ("healthy:h3",))
    assert accepted.listed.member_id == 3


def test_a_host_that_was_not_named_is_bad_input():
    with pytest.raises(BadInput, match="h9"):
        judge_replacement("etcd", [well(1), well(2), well(3)], "h9", "h9", ())


def test_members_are_defragmented_with_the_leader_last_or_not_at_all():
    members = [well(1), well(2), well(3)]

    assert judge_space("etcd", members, is_ordered=False).order == ()
    assert judge_space("etcd", members, is_ordered=True).order == ("h2", "h3", "h1")
    with pytest.raises(Refused, match="h3 are down"):
        judge_space("etcd", [well(1), well(2), member(3, STOPPED)], is_ordered=True)


def test_an_alarm_is_not_disarmed_where_next_to_nothing_was_given_back():
    members = [well(n, errors=("alarm:NOSPACE",), db_bytes=100) for n in (1, 2, 3)]
    space = judge_space("etcd", members, is_ordered=False)

    refuse_unless_room_was_made(CLUSTER, space, [50, 50, 50])
    with pytest.raises(Refused, match="etcdctl compact 10"):
        refuse_unless_room_was_made(CLUSTER, space, [95, 99, 120])


def test_a_raw_copy_of_a_database_is_told_from_a_snapshot(tmp_path):
    raw, whole = tmp_path / "db", tmp_path / "snapshot.db"
    raw.write_bytes(bytes(4096))
    whole.write_bytes(bytes(4096 + 32))

    refuse_unless_hash_is_there(given_file(str(whole)), Terms())
    refuse_unless_hash_is_there(given_file(str(raw)), Terms(accept=("no-hash",)))
    with pytest.raises(Refused, match="no hash"):
        refuse_unless_hash_is_there(given_file(str(raw)), Terms())
    with pytest.raises(BadInput, match="snapshot_file"):
        given_file(str(tmp_path / "gone"))
