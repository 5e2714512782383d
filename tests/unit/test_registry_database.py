"""Why a registry's database is not there: parsers, and the judgements made of what is seen."""

from dataclasses import replace

import pytest

from blocks.health_url import HealthUrl, says_healthy
from blocks.postgres.answer import ConnectionAnswer
from blocks.postgres.server import Knock
from blocks.ssh.command import Answer
from recovery.errors import BadInput, CommandFailed, Refused, UnreadableOutput
from recovery.values import from_plain, to_plain
from tasks.postgres_server.clusters import Cluster, choose, parse_lsclusters, parse_units
from tasks.postgres_server.condition import Condition, Folder, parse_ss
from tasks.postgres_server.disk import FileSystem, is_out_of_inodes, parse_df
from tasks.postgres_server.inside import ask_inside
from tasks.postgres_server.patroni import (
    Patroni,
    choose_unit,
    members_of,
    parse_list,
    parse_names,
)
from tasks.postgres_server.process import Holders, Process, parse_lock_file, parse_processes
from tasks.postgres_server.server_log import ServerLog, parse_journal
from tasks.registry_database import restarting, starting, stopped, triage
from tasks.registry_database.causes import ADVICE, AT_THE_DOOR, Cause, Finding, Reason, Remedy
from tasks.registry_database.order import database_order
from tasks.services import UnitState, UnitStatus

# postgresql-common 248, `pg_lsclusters -h`.
LISTED = """\
13  old     5433 down             postgres /var/lib/postgresql/13/old  /var/log/postgresql/postgresql-13-old.log
15  main    5432 online,recovery  postgres /var/lib/postgresql/15/main /var/log/postgresql/postgresql-15-main.log
"""  # noqa: E501 (as it is printed)
# systemd 252, `systemctl show -p Id,LoadState,Environment,ExecStart,User`.
SHOWN = """\
Id=postgresql.service
LoadState=loaded
Environment=
ExecStart={ path=/bin/true ; argv[]=/bin/true ; ignore_errors=no ; start_time=[n/a] ; pid=0 }

Id=postgresql-15.service
LoadState=loaded
Environment="PGDATA=/var/lib/pgsql/15/data/" PG_OOM_ADJUST_VALUE=0
ExecStart={ path=/usr/pgsql-15/bin/postgres ; argv[]=/usr/pgsql-15/bin/postgres -D ${PGDATA} ; ignore_errors=no ; pid=0 }
User=postgres

Id=own.service
LoadState=loaded
ExecStart={ path=/opt/pg/bin/postmaster ; argv[]=/opt/pg/bin/postmaster -D /srv/data -p 5434 ; ignore_errors=no ; pid=0 }
"""  # noqa: E501 (as it is printed)
LOCK = """62
/var/lib/postgresql/15/main
1795241236
5432
/var/run/postgresql
localhost
  5449352         0
ready
"""
STAT = (
    "62 (postgres) S 1 62 62 0 -1 4194560 1733 5417 0 1 1 2 1 2 20 0 1 0 1795241 222347264 7168\n"
    "99 (a (b) c) T 62 99 99 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1795300 2 7168\n"
)
CLUSTER = Cluster("postgresql@15-main.service", 5432, "/data", "postgres", "/log", "/bin", "/conf")
PATRONI = Patroni(
    "/etc/patroni/15-main.yml", "registry", "h1", "patroni@15-main.service", is_running=True
)


@pytest.mark.parametrize("printed", ["15 main x online postgres /d /l", "15 main 5432"])
def test_clusters_are_read_as_debian_lists_them(printed):
    old, main = parse_lsclusters(LISTED)

    assert (old.unit, old.port) == ("postgresql@13-old.service", 5433)
    assert main.log == "/var/log/postgresql/postgresql-15-main.log"
    assert main.config == "/etc/postgresql/15/main/postgresql.conf"
    assert parse_lsclusters("") == []
    with pytest.raises(UnreadableOutput):
        parse_lsclusters(printed)


def test_units_are_read_and_the_umbrella_of_debian_is_none():
    assert [(u.unit, u.binaries, u.data_folder) for u in parse_units(SHOWN)] == [
        ("postgresql-15.service", "/usr/pgsql-15/bin", "/var/lib/pgsql/15/data"),
        ("own.service", "/opt/pg/bin", "/srv/data"),
    ]


class Named:
    target = "db1"


def test_a_cluster_is_chosen_by_unit_then_by_port_then_because_it_is_the_only_one():
    old, main = parse_lsclusters(LISTED)

    assert choose(Named(), [old, main], 5432) is main
    assert choose(Named(), [old, main], 5432, "postgresql@13-old") is old
    assert choose(Named(), [main], 5000) is main
    supervised = replace(main, unit="patroni.service", data_folder="/data/registry")
    assert choose(Named(), [main, supervised], 5432) is supervised
    with pytest.raises(Refused, match="not clear which"):
        choose(Named(), [old, main], 5000)
    with pytest.raises(Refused, match="no cluster that other"):
        choose(Named(), [main], 5432, "other")
    with pytest.raises(Refused, match="it has no cluster"):
        choose(Named(), [], 5432)


def test_a_lock_file_is_read_also_when_it_is_half_written():
    whole = parse_lock_file(LOCK)
    assert (whole.pid, whole.port, whole.socket_folder) == (62, 5432, "/var/run/postgresql")
    assert whole.status == "ready"
    assert parse_lock_file("62\n/data\n").port == 0
    assert parse_lock_file("-62\n/data\n").pid == 62
    with pytest.raises(UnreadableOutput):
        parse_lock_file("what\n")


def test_processes_are_read_whatever_their_names():
    first, second = parse_processes(STAT)

    assert (first.pid, first.parent, first.started, first.title) == (62, 1, 1795241, "postgres")
    assert (second.title, second.is_paused, first.is_paused) == ("a (b) c", True, False)


def test_free_room_is_read():
    printed = "Filesystem 1-blocks Used Available Capacity Mounted on\ntmpfs 10 4 6 40% /a b\n"
    assert parse_df(printed) == [FileSystem("/a b", 6)]
    for broken in ("", "Filesystem\n/dev 1 2 x 3 /", "Filesystem\n/dev 1"):
        with pytest.raises(UnreadableOutput):
            parse_df(broken)
    head = "Filesystem Inodes IUsed IFree IUse% Mounted on\n"
    assert is_out_of_inodes(f"{head}/dev/vda 10 10 0 100% /")
    assert not is_out_of_inodes(f"{head}/dev/vda 10 9 1 90% /\nbtrfs 0 0 0 - /b")


def test_who_listens_is_read():
    printed = (
        'LISTEN 0 244 127.0.0.1:5432 0.0.0.0:* users:(("postgres",pid=62,fd=5))\n'
        "LISTEN 0 128 [::]:22 [::]:*\n"
    )
    assert parse_ss(printed) == [
        ("127.0.0.1", 5432, 'users:(("postgres",pid=62,fd=5))'), ("::", 22, ""),
    ]  # fmt: skip


def test_patroni_is_read():
    # Patroni 3.0.2, `patronictl list -f json`.
    listed = '[{"Cluster": "registry", "Member": "h1", "Host": "10.0.0.1", "Role": "Leader", "State": "running", "TL": 1}]'  # noqa: E501
    (member,) = parse_list(listed)
    assert (member.name, member.is_leader, member.state) == ("h1", True, "running")
    for broken in ("no json", "{}x", '[{"Host": 1}]', "3"):
        with pytest.raises(UnreadableOutput):
            parse_list(broken)
    assert parse_names("scope: 'registry'\nname: h1 # me\n") == [
        ("scope", "registry"), ("name", "h1"),
    ]  # fmt: skip
    assert (
        choose_unit(["patroni@.service"], "/etc/patroni/15-main.yml") == "patroni@15-main.service"
    )
    assert choose_unit(["patroni.service"], "/etc/patroni/config.yml") == "patroni.service"
    assert choose_unit([], "/etc/patroni/config.yml") == ""


class Scripted:
    """A host that answers commands by a word in them."""

    target = "db1"

    def __init__(self, **said):
        self.said = said

    def read(self, argv, **_):
        for word, (code, text) in self.said.items():
            if word in " ".join(argv):
                printed, told = (text, "") if code == 0 else ("", text)
                return Answer(" ".join(argv), self.target, code, printed, told)
        return Answer(" ".join(argv), self.target, 0, "", "")


def test_a_store_of_patroni_that_does_not_answer_is_told():
    silent = members_of(
        Scripted(patronictl=(1, "etcd: no response\nCluster unavailable\n")), PATRONI
    )
    assert (silent.members, silent.refusal) == ((), "Cluster unavailable")
    absent = members_of(Scripted(patronictl=(127, "not found")), PATRONI)
    assert not absent.has_program


@pytest.mark.parametrize(
    ("code", "said", "answer"),
    [
        (124, "", ConnectionAnswer.SILENT),
        (2, "timeout expired", ConnectionAnswer.SILENT),
        (2, "FATAL:  the database system is starting up", ConnectionAnswer.STARTING_UP),
        (2, "FATAL:  sorry, too many clients already", ConnectionAnswer.TOO_MANY_CLIENTS),
    ],
)
def test_asking_from_inside_tells_how_it_ended(code, said, answer):
    assert ask_inside(Scripted(psql=(code, said)), CLUSTER, "SELECT 1").answer is answer


def test_what_psql_prints_is_json_or_not_understood():
    assert ask_inside(Scripted(psql=(0, '[{"a": 1}]')), CLUSTER, "SELECT 1").rows == ({"a": 1},)
    with pytest.raises(UnreadableOutput):
        ask_inside(Scripted(psql=(0, "oops")), CLUSTER, "SELECT 1")


LOG = ServerLog(
    "log",
    (
        "2026-01-01 LOG:  starting PostgreSQL 15.20",
        "2026-01-01 PANIC:  could not locate a valid checkpoint record",
        "2026-01-01 LOG:  startup process (PID 5) was terminated by signal 6: Aborted",
        "2026-01-01 LOG:  starting PostgreSQL 15.20",
        "2026-01-01 LOG:  redo starts at 0/15",
        "2026-01-01 LOG:  redo in progress, elapsed time: 10.0 s, current LSN: 0/2A",
        '2026-01-01 FATAL:  password authentication failed for user "x"',
    ),
)


def test_a_log_tells_the_last_run_from_those_before():
    assert len(LOG.last_run) == 4
    assert LOG.last_redo == "redo in progress, elapsed time: 10.0 s, current LSN: 0/2A"
    assert LOG.last_severe == "PANIC: could not locate a valid checkpoint record"
    assert ServerLog("log", ()).last_severe == ""


FOLDER = Folder("postgres", 0o700, is_readable=True, has_database=True, is_read_only=False)


def condition(**other):
    unit = UnitStatus(
        unit=CLUSTER.unit, state=UnitState.INACTIVE, load_state="loaded", sub_state="dead",
        file_state="enabled", result="success", main_pid=0, restarts=0, triggered_by=(),
    )  # fmt: skip
    whole = Condition(
        unit=unit, start_timeout="infinity", is_job_queued=False,
        held=Holders(None, None, (), None), folder=FOLDER,
        disks=(FileSystem("/", 10**10), FileSystem("/wal", 10**10)), is_out_of_inodes=False,
        control="", state="shut down", misconfigured="", on_its_port="", log=ServerLog("log", ()),
    )  # fmt: skip
    fields = {k: v for k, v in other.items() if hasattr(whole, k)}
    units = {k: v for k, v in other.items() if k not in fields}
    return replace(whole, **{"unit": replace(unit, **units), **fields})


BACKEND = Process(77, 1, "S", 5, "postgres")
STOPPED = {
    "stopped": condition(),
    "crashed": condition(state="in production"),
    "crashed, by its unit": condition(
        unit=replace(condition().unit, state=UnitState.FAILED, result="signal")
    ),
    "start-limit-hit": condition(
        unit=replace(condition().unit, state=UnitState.FAILED, result="start-limit-hit")
    ),
    "stale-lock-file": condition(
        held=Holders(parse_lock_file(LOCK), None, (), Process(62, 1, "S", 9, "sleep"))
    ),
    "unit-masked": condition(load_state="masked"),
    "unknown": condition(unit=replace(condition().unit, state=UnitState.NOT_FOUND)),
    "start-times-out": condition(result="timeout", start_timeout="1min 30s"),
    "data-folder-missing": condition(folder=replace(FOLDER, has_database=False, owner="")),
    "data-folder-read-only": condition(folder=replace(FOLDER, is_read_only=True)),
    "data-folder-permission": condition(folder=replace(FOLDER, mode=0o777)),
    "data-folder-permission, owner": condition(folder=replace(FOLDER, owner="root")),
    "data-folder-permission, above": condition(folder=replace(FOLDER, is_readable=False)),
    "orphaned-processes": condition(held=Holders(None, None, (BACKEND,), None)),
    "port-taken": condition(on_its_port='users:(("haproxy",pid=9)) on *:5432'),
    "disk-full": condition(disks=(FileSystem("/", 0), FileSystem("/", 0))),
    "disk-full, inodes": condition(is_out_of_inodes=True),
    "wal-disk-full": condition(disks=(FileSystem("/", 10**9), FileSystem("/wal", 0))),
    "control-file-damaged": condition(control="checksum"),
    "will-not-start": condition(log=ServerLog("log", LOG.lines[:3])),
    "configuration-wrong": condition(misconfigured="FATAL: contains errors"),
}


@pytest.mark.parametrize("name", STOPPED)
def test_each_reason_not_to_run_is_told_from_the_others(name):
    found = stopped.judge_stopped(Scripted(), CLUSTER, None, STOPPED[name])

    assert found.cause == name.partition(",")[0]
    assert found.remedy is not Remedy.REFUSE or found.advice
    assert from_plain(Finding, to_plain(found)) == found


def test_a_log_of_a_run_before_the_last_damages_nothing():
    found = stopped.judge_stopped(Scripted(), CLUSTER, None, condition(log=LOG))

    assert found.cause is Cause.STOPPED


def test_a_folder_that_was_restored_since_is_no_longer_damaged():
    restored = condition(
        log=replace(LOG, lines=LOG.lines[:3], written_at=5.0),
        folder=replace(FOLDER, changed_at=6.0),
    )

    assert stopped.judge_stopped(Scripted(), CLUSTER, None, restored).cause is Cause.STOPPED


def test_a_journal_is_read_with_its_time():
    log = parse_journal("journal", "1795241238.5 db1 pg[1]: FATAL:  no\n")
    assert (log.lines, log.written_at) == (("db1 pg[1]: FATAL:  no",), 1795241238.5)
    assert parse_journal("journal", "-- No entries --\n").written_at == 0


def test_every_cause_that_is_refused_at_the_door_has_advice():
    for cause in AT_THE_DOOR.values():
        assert ADVICE[cause]
        assert Finding.of(Reason(cause, "so")).remedy is Remedy.REFUSE


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (ConnectionAnswer.STARTING_UP, Cause.STARTING_UP),
        (ConnectionAnswer.CRASH_RECOVERY, Cause.CRASH_RECOVERY),
        (ConnectionAnswer.TOO_MANY_CLIENTS, Cause.TOO_MANY_CLIENTS),
        (ConnectionAnswer.REFUSED, Cause.NO_HOST_GIVEN),
    ],
)
def test_from_outside_only_what_a_server_says_itself_is_known(answer, cause):
    assert triage.judge_without_host(Knock(answer, "so")).cause is cause


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("25006", Cause.READ_ONLY), ("53100", Cause.DISK_FULL), ("53200", Cause.OUT_OF_MEMORY),
        ("XX001", Cause.DAMAGED), ("42P01", Cause.UNKNOWN),
    ],
)  # fmt: skip
def test_a_write_that_is_refused_tells_its_cause(code, cause):
    failed = CommandFailed("db", "INSERT", code, "so it is")

    assert triage.judge_refused_write(failed).cause is cause


def test_sessions_are_told_by_the_titles_of_their_processes():
    titles = [
        "/usr/lib/postgresql/15/bin/postgres -D /data",
        "postgres: 15/main: checkpointer ",
        "postgres: 15/main: walsender rep 10.0.0.2(4711) streaming 0/3000060",
        "postgres: 15/main: registry registry 10.0.0.9(40112) idle in transaction",
        "postgres: 15/main: registry registry 10.0.0.9(40113) idle",
        "postgres: 15/main: registry registry 10.0.0.9(40114) SELECT",
    ]

    assert restarting.open_titles(titles) == [titles[3], titles[5]]
    assert restarting.standby_titles(titles) == [titles[2]]


def test_a_server_is_started_on_its_host_only():
    order = database_order("postgresql://u@h/d", "")

    with pytest.raises(TypeError):
        starting.place_of(order, Finding.of(Reason(Cause.STOPPED, "so")))


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"accept": ["all"]}, "accept"),
        ({"within_minutes": 0}, "crash_recovery_within_minutes"),
        ({"database": "mysql://u@h/d"}, "database (scheme)"),
        ({"unit": "post*"}, "unit"),
        ({"host": "ssh://a ssh://b"}, "host"),
        ({"registry_url": "ftp://x"}, "registry_url"),
        ({"registry_url": "http://u:p@x"}, "registry_url"),
        ({"registry_url": "http://x:99999999"}, "registry_url"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(parameters, field):
    with pytest.raises(BadInput) as refusal:
        database_order(**{"database": "postgresql://u@h/d", "host": "", **parameters})

    assert refusal.value.field == field


def test_health_is_read_as_the_registry_tells_it():
    assert HealthUrl.from_url("http://registry:8081").url == "http://registry:8081/health"
    assert HealthUrl.from_url("http://r/up?x=1").url == "http://r/up?x=1"
    assert says_healthy('{"result": {"name": "registry", "healthy": true, "checks": []}}')
    assert not says_healthy('{"result": {"healthy": false}}')
    assert says_healthy("OK")
    assert says_healthy("[1]")
