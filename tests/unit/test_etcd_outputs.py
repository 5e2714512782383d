"""What is read of etcd, its unit and its disk, and how it is asked."""

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
from tasks.etcd import etcdctl, evidence, joining
from tasks.etcd.etcdctl import Listed
from tasks.etcd.evidence import MemberSeen, parse_on_disk
from tasks.etcd.given import given_file, refuse_unless_hash_is_there
from tasks.etcd.joining import Agreed
from tasks.etcd.parts import Part
from tasks.etcd.proving import parse_proof
from tasks.etcd.settings import Settings, settings_of
from tasks.etcd.terms import Terms
from tests.unit.etcd_seen import (
    CLUSTER,
    SILENT,
    Printing,
    member,
    settings,
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
    seen = MemberSeen("h1", SILENT, settings=settings(1), db_bytes=1)
    said = "a warning\nError: tls: bad certificate\n"

    silent = evidence._answering(Running(1, said), seen)

    assert silent.state is SILENT
    assert "Error: tls: bad certificate" in str(silent)
    with pytest.raises(CommandFailed, match="No such file"):
        evidence._answering(Running(127, "timeout: etcdctl: No such file"), seen)


@pytest.mark.parametrize("told", [" ".join(etcdctl.argv(Settings(), "x")), evidence.ON_DISK])
def test_etcdctl_is_found_where_sudo_would_not_look(told):
    assert "/usr/local/sbin:/usr/local/bin:" in told


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
