"""Steps on a Redis that lies, lags or fails at the wrong moment: on a scripted host and session."""

import contextlib
from dataclasses import dataclass, field, replace

import pytest

from blocks.redis_session import RedisSaidNo, Silent
from blocks.ssh.command import Answer
from recovery.errors import BadInput, NotVerified, Refused, Unreachable, UnreadableOutput
from tasks.redis_server import (
    aof,
    contents,
    copies,
    ending,
    failover,
    freeing,
    logs,
    orders,
    running,
    saving,
    sentinels,
    starting,
    triage,
    units,
    waiting,
)
from tasks.redis_server.contents import Before
from tasks.redis_server.files import AofDamage
from tasks.redis_server.sentinels import Watch
from tasks.redis_server.status import Keys
from tasks.redis_server.target import RedisServer, redis_server
from tasks.redis_server.triage import Due, Finding
from tasks.redis_server.units import Process, parse_redis_unit
from tests.unit.test_redis_outputs import AOF_CUT, INFO, RDB_CUT, STORAGE, UNIT

DUE = Due(Finding.RESTART_ORDERED, "redis-server.service", Process(64, 12729696546), "")
BEFORE = Before("run-before", is_master=True, keys=(Keys(0, 12, 2), Keys(3, 1, 0)), offset=714,
                replicas_online=1, last_save_at=1795239948, save_seconds=0)  # fmt: skip
WATCH = Watch("divoc", "10.0.0.1", 6379, ("10.0.0.4:26379",), ("10.0.0.2:6379",))
REPLICA = INFO.replace(
    "role:master",
    "role:slave\nmaster_host:10.0.0.1\nmaster_port:6379\nmaster_link_status:up\nslave_repl_offset:1",
)
SETTINGS = ["dir", "/var/lib/redis", "save", "3600 1", "port", "6379", "dbfilename", "dump.rdb"]
PROMOTED = INFO.replace("replid2:0", "replid2:aaaa").replace("offset:-1", "offset:715")
HELLO = "10.0.0.4,26379,e977,0,divoc,10.0.0.1,6379,0"


def slave(place="10.0.0.2", flags="slave", link="ok", priority="100"):
    return ["ip", place, "port", "6379", "flags", flags, "master-link-status", link,
            "slave-priority", priority]  # fmt: skip


def of_master(flags="master"):
    return ["name", "divoc", "flags", flags, "failover-timeout", "180000"]


FAILING_OVER = of_master("master,failover_in_progress")


def said_no(word, text="no"):
    return RedisSaidNo("db1", "", word, text)


@dataclass
class Session:
    """Answers each command by its first words; a list of answers is used up, the last one stays."""

    answers: dict
    sent: list = field(default_factory=list)

    def read(self, *words, within_seconds=0):
        self.sent.append(" ".join(words))
        for count in (3, 2, 1):
            key = " ".join(words[:count])
            if key in self.answers:
                answer = self.answers[key]
                if isinstance(answer, Turns):
                    answer = answer.next()
                if isinstance(answer, BaseException):
                    raise answer
                return answer
        raise AssertionError(f"nobody scripted {words}")

    change = read

    @contextlib.contextmanager
    def repeated(self, *words):
        yield lambda: self.read(*words)

    def heard(self, channel, within_seconds):
        yield from self.answers.get("heard", [])


class Turns(list):
    """Answers one after the other."""

    def next(self):
        return self.pop(0) if len(self) > 1 else self[0]


@dataclass
class Host:
    """Prints what fits the command; the first key that is part of it counts."""

    printed: dict
    address: str = "db1"
    target: str = "root@db1"
    sent: list = field(default_factory=list)

    def read(self, argv, *, within_seconds=0, accept=(0,), as_root=False):
        command = " ".join(argv)
        self.sent.append(command)
        for key, answer in self.printed.items():
            if key in command:
                text = answer.next() if isinstance(answer, Turns) else answer
                code, text = text if isinstance(text, tuple) else (0, text)
                assert code in accept, (command, code)
                return Answer(command, self.target, code, text, "")
        raise AssertionError(f"nobody scripted {command!r}")

    change = read

    def command_line(self, argv, *, as_root=False):
        return " ".join(argv)


LISTENS = 'LISTEN 0 511 127.0.0.1:6379 0.0.0.0:* users:(("redis-server",pid=64,fd=6))\n'
PRINTED = {
    "ss -Hltnp": LISTENS,
    "systemctl show --no-pager": UNIT,
    "grep -ihE": "dir /var/lib/redis\nsave 3600 1\n",
    "stat -c 'folder": STORAGE,
    "overcommit": "overcommit 1\n",
    "cat /proc/meminfo": "MemAvailable: 9 kB\n",
    "journalctl": "",
    "tail -n": "",
    "/stat": "64 (redis-server) S 1",
    "MainPID": "",
    "df -P": "overlay 1 1 99999999999 1% /\n",
    "test -f": (1, ""),
    "temp-*.rdb": "",
}
ANSWERS = {
    "PING": "PONG",
    "INFO": INFO,
    "CONFIG GET": SETTINGS,
    "CONFIG REWRITE": "OK",
    "TIME": ["1795239999", "0"],
    "BGSAVE": "Background saving started",
    "SET": "OK",
    "DEL": 1,
    "GET": "none",
    "PUBSUB": ["__sentinel__:hello", 1],
    "heard": [HELLO, HELLO],
    "SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.1", "6379"],
    "SENTINEL SLAVES": [slave()],
    "SENTINEL MASTER": of_master(),
    "ACL USERS": ["default"],
    "ACL SETUSER": "OK",
    "SENTINEL CKQUORUM": "OK 3 usable Sentinels",
    "SENTINEL FAILOVER": "OK",
    "CLIENT": "OK",
    "REPLICAOF": "OK",
    "ROLE": ["master", 714, [["10.0.0.2", "6379", "714"]]],
}


@dataclass(frozen=True)
class Scripted(RedisServer):
    """A Redis whose sessions are scripted."""

    scripted: Session = None

    @contextlib.contextmanager
    def session(self, address=""):
        if isinstance(self.scripted.answers.get("connect"), BaseException):
            raise self.scripted.answers["connect"]
        yield self.scripted

    @contextlib.contextmanager
    def session_at(self, address, port, login):
        if isinstance(self.scripted.answers.get(f"connect {port}"), BaseException):
            raise self.scripted.answers[f"connect {port}"]
        yield self.scripted

    @property
    def label(self):
        return "redis:6379@db1"


@pytest.fixture
def make(monkeypatch):
    for module in (waiting, saving, failover):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "LOADING_PAUSE_SECONDS", 0.0)

    def make(printed=None, **answers):
        words = {name.replace("_", " "): answer for name, answer in answers.items()}
        printed = dict(printed or {})
        host = Host({**printed, **{k: v for k, v in PRINTED.items() if k not in printed}})
        return Scripted(host, 6379, scripted=Session({**ANSWERS, **words}))

    return make


def info(**changed):
    text = INFO
    for name, value in changed.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        text = text.replace(line, f"{name}:{value}")
    return text


# -- verifying -----------------------------------------------------------------------------------


def test_a_canary_that_is_gone_is_told(make):
    with pytest.raises(NotVerified, match="what was written since the last save is lost"):
        contents.canary_was_kept(make(GET=None))


def test_a_write_that_cannot_be_read_back_is_told(make):
    with pytest.raises(NotVerified, match="read back"):
        contents.prove_write(make(GET="another"))


def test_nothing_is_written_to_a_replica(make):
    server = make(INFO=REPLICA)

    contents.prove_write(server)

    assert server.scripted.sent == ["INFO"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run_id": "run-before"}, "another run than the one before"),
        ({"db0": "keys=5,expires=0,avg_ttl=0"}, "10 keys that do not expire in database 0"),
        ({"db3": "keys=0,expires=0,avg_ttl=0"}, "1 keys that do not expire in database 3"),
        ({"rdb_last_bgsave_status": "err"}, "last save failed"),
        ({"aof_last_write_status": "err"}, "AOF cannot be written"),
        ({"slave0": "ip=10.0.0.2,port=6379,state=wait_bgsave"}, "1 replicas to be connected again"),
    ],
)
def test_what_is_not_as_before_the_restart_is_told(make, changed, message, monkeypatch):
    monkeypatch.setattr(waiting, "REPLICAS_WITHIN_SECONDS", 0.01)
    server = make(INFO=info(**changed))

    with pytest.raises(NotVerified, match=message):
        waiting.serves_as_before(server, DUE, BEFORE, was_failed_over=False)


def test_a_run_that_was_counted_after_its_host_had_booted_is_not_the_one_that_was_found(make):
    server = make(INFO=info(run_id="run-before"))
    found = replace(DUE, process=Process(17, 1))  # of the boot before

    serving = waiting.serves_as_before(server, found, BEFORE, was_failed_over=False)

    assert serving.run_id == "run-before"


def test_another_role_than_before_is_told(make):
    with pytest.raises(NotVerified, match="role master, as before"):
        waiting.serves_as_before(make(INFO=REPLICA), DUE, BEFORE, was_failed_over=False)
    with pytest.raises(NotVerified, match="role slave, as before"):
        waiting.serves_as_before(make(), DUE, BEFORE, was_failed_over=True)


def test_a_link_to_the_master_that_stays_down_is_told(make, monkeypatch):
    monkeypatch.setattr(waiting, "FOLLOWS_WITHIN_SECONDS", 0.01)
    down = REPLICA.replace("link_status:up", "link_status:down")

    with pytest.raises(NotVerified, match=r"link to the master 10\.0\.0\.1:6379"):
        waiting.serves_as_before(make(INFO=down), DUE, BEFORE, was_failed_over=True)


def test_fewer_keys_than_were_counted_on_disk_are_told(make):
    with pytest.raises(NotVerified, match="the 100 keys that were counted"):
        waiting.serves(make(), DUE, 100)


def test_an_aof_with_data_that_was_not_loaded_is_told(make):
    empty = INFO.replace("db0:keys=12,expires=2,avg_ttl=0\n", "").replace(
        "db3:keys=1,expires=0,avg_ttl=0\n", ""
    )
    loaded = "1:M # Redis is starting\n1:M * DB loaded from base file x.base.rdb: 0.000 seconds\n"

    with pytest.raises(NotVerified, match="to have loaded its AOF, which had data"):
        waiting.serves(make(INFO=empty), DUE, contents.SOME)
    assert waiting.serves(make({"journalctl": loaded}, INFO=empty), DUE, contents.SOME).keys == 0


def test_another_trouble_after_the_cure_is_told_with_its_word(make):
    with pytest.raises(NotVerified, match="MISCONF"):
        waiting.serves(make(PING=said_no("MISCONF")), DUE)


def test_loading_that_does_not_get_on_is_given_up(make, monkeypatch):
    monkeypatch.setattr(waiting, "STANDSTILL_SECONDS", 0.01)

    with pytest.raises(NotVerified, match="no progress for"):
        waiting.has_loaded(make(INFO=info(loading=1)), DUE)


def test_one_that_crashes_again_and_again_is_given_up(make):
    shown = Turns(UNIT.replace("MainPID=64", f"MainPID={pid}") for pid in range(100, 120))
    server = make({"systemctl show --no-pager": shown}, connect=Unreachable("db1", "connect", "no"))

    with pytest.raises(NotVerified, match="restarted 0 times"):
        waiting.has_loaded(server, DUE)


# -- saving and copying --------------------------------------------------------------------------


def test_a_save_that_fails_tells_what_the_log_says(make):
    log = "84:M 21 Nov 2026 05:55:43.8 # Write error saving DB on disk: No space left on device\n"
    before = replace(BEFORE, run_id="7be6ed546f289ec2bc54fb33d9777e3de2bb199b")
    answers = Turns([INFO, INFO, info(rdb_last_bgsave_status="err")])

    with pytest.raises(NotVerified, match="No space left on device"):
        saving.save(make({"journalctl": log}, INFO=answers), DUE, before)


def test_a_fork_that_the_kernel_would_not_grant_is_not_tried(make):
    printed = {"overcommit": "0\n", "cat /proc/meminfo": "MemAvailable: 0 kB\n"}

    with pytest.raises(Refused, match="no-memory-to-fork: a save would fail"):
        saving.refuse_unless_save_fits(make(printed), DUE)


def test_memory_that_nobody_tells_of_is_not_understood(make):
    with pytest.raises(UnreadableOutput):
        logs.available_memory_bytes(make({"cat /proc/meminfo": "MemTotal: 9 kB\n"}))


def test_a_copy_of_a_damaged_snapshot_is_told_before_the_restart(make):
    with pytest.raises(NotVerified, match="do not restart Redis, which still has the data"):
        copies.copy_can_be_loaded(make({"redis-check-rdb": (1, RDB_CUT)}), DUE)


def test_a_copy_of_an_aof_that_cannot_be_read_at_all_is_told_before_the_restart(make):
    sound = "[info] 1 keys read\n[info] 0 already expired\n"
    unreadable = AOF_CUT.replace("ok_up_to=320", "ok_up_to=0").replace("diff=30", "diff=350")
    printed = {"redis-check-rdb": sound, "redis-check-aof": (1, unreadable)}

    with pytest.raises(NotVerified, match="BGREWRITEAOF"):
        copies.copy_can_be_loaded(make(printed, CONFIG_GET=[*SETTINGS, "appendonly", "yes"]), DUE)


def test_a_disk_of_which_nothing_is_told_is_not_understood(make):
    with pytest.raises(UnreadableOutput):
        copies.refuse_unless_copy_fits(make({"df -P": "no such disk\n"}), DUE)


def test_without_a_copy_the_way_back_does_nothing(make):
    server = make()

    copies.put_back.fn(server, DUE)

    assert all("test -f" in command for command in server.host.sent)


@pytest.mark.parametrize(
    ("printed", "answers"), [({"ss -Hltnp": ""}, {}), ({}, {"INFO": info(loading=1)})]
)
def test_one_that_has_taken_no_writes_need_not_save_before_the_way_back(make, printed, answers):
    server = make(printed, **answers)

    copies._keep_newer(server, DUE, copies.Kept("/var/lib/redis", "/copy", ("dump.rdb",)))

    assert not {"BGSAVE SCHEDULE", "CONFIG SET"} & set(server.scripted.sent)


def test_where_the_newer_data_cannot_be_saved_the_way_back_is_not_walked(make):
    server = make(BGSAVE=said_no("ERR", "no memory"))

    with pytest.raises(RedisSaidNo):
        copies._keep_newer(server, DUE, copies.Kept("/var/lib/redis", "/copy", ("dump.rdb",)))


# -- processes -----------------------------------------------------------------------------------


def test_what_a_restart_would_lose_is_unknown_where_nobody_tells(make):
    with pytest.raises(Refused, match="it is not known what a restart would lose"):
        running.refuse_unless_nothing_is_lost(make(CONFIG_GET=said_no("NOPERM")), DUE, ())


def test_a_process_that_is_another_one_by_now_has_nothing_to_lose(make):
    server = make({"systemctl show --no-pager": UNIT.replace("MainPID=64", "MainPID=99")})

    running.refuse_unless_nothing_is_lost(server, DUE, ())

    assert server.scripted.sent == []


def test_a_process_that_sigkill_does_not_end_is_told(make, monkeypatch):
    monkeypatch.setattr(freeing, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(freeing, "KILL_WITHIN_SECONDS", 0.1)
    monkeypatch.setattr(ending, "STANDSTILL_SECONDS", 0.0)
    server = make({"/stat": "64 (redis-server) D 1"}, PING=Silent("db1", "PING", "silence"))

    with pytest.raises(NotVerified, match=r"still there after SIGKILL \(state D\)"):
        freeing.end_process(server, DUE)

    assert [c.split()[-4:] for c in server.host.sent if "kill -s" in c] == [
        ["-s", "TERM", "--", "64"],
        ["-s", "KILL", "--", "64"],
    ]


def test_a_process_that_answers_again_and_does_not_end_is_not_killed(make, monkeypatch):
    monkeypatch.setattr(freeing, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(ending, "ENDS_WITHIN_SECONDS", 0.0)
    server = make()

    with pytest.raises(NotVerified, match="it answers again, and is not killed"):
        freeing.end_process(server, DUE)

    assert not [command for command in server.host.sent if "kill -s KILL" in command]


def test_a_process_that_saves_is_waited_for_while_that_goes_on(make, monkeypatch):
    silent = Silent("db1", "PING", "silence")
    looks = Turns(["", "saving\n", "temp temp-64.rdb 4096\nsaving\n"])
    watch = ending.Ending(make({"temp-*.rdb": looks}, PING=silent), DUE)

    assert watch.goes_on()
    assert watch.goes_on()
    monkeypatch.setattr(ending, "SAVING_STANDSTILL_SECONDS", 0.0)
    assert not watch.goes_on()


def test_an_order_to_another_process_says_that_it_found_none(make):
    server = make({"kill -s": (orders.OTHER_PROCESS, "")})

    assert not orders.send_bound(server, DUE, orders.signal(DUE, "TERM"))


def test_a_script_that_ended_by_itself_is_no_trouble(make):
    freeing.end_script(make(SCRIPT_KILL=said_no("NOTBUSY")))


def test_a_script_that_may_not_be_ended_is_told(make):
    with pytest.raises(RedisSaidNo):
        freeing.end_script(make(SCRIPT_KILL=said_no("NOPERM")))


def test_files_in_use_are_not_repaired(make):
    with pytest.raises(Refused, match="its files are in use"):
        aof.refuse_while_it_runs(make(), DUE)


def test_a_masked_unit_is_not_started(make):
    masked = parse_redis_unit("x", UNIT.replace("LoadState=loaded", "LoadState=masked"))

    with pytest.raises(Refused, match="masked"):
        starting.refuse_unless_startable(make(), masked)


@pytest.mark.parametrize(
    ("shown", "stat", "cause"),
    [
        (UNIT, "64 (redis-server) D 1", "disk-hangs"),
        (UNIT.replace("FreezerState=running", "FreezerState=frozen"), "64 (x) S 1", "freezer"),
    ],
)
def test_a_process_that_no_signal_helps_is_named(make, shown, stat, cause):
    unit = parse_redis_unit("redis-server", shown)

    with pytest.raises(Refused, match=cause):
        triage.refuse_held(make({"/stat": stat}), unit)


@pytest.mark.parametrize(
    ("answers", "printed", "cause"),
    [
        ({"PING": said_no("DENIED", "protected mode")}, {}, "protected-mode"),
        (
            {"PING": said_no("MISCONF"), "INFO": info(rdb_last_bgsave_status="err", maxmemory=0)},
            {"tail -n": "# Can't save in background: fork: Cannot allocate memory\n",
             "overcommit": "0\n", "cat /proc/meminfo": "MemAvailable: 0 kB\n"},
            "no-memory-to-fork",
        ),
        (
            {"PING": said_no("MISCONF"), "INFO": info(rdb_last_bgsave_status="err", maxmemory=0)},
            {"journalctl": "# Failed opening the temp RDB file x: Read-only file system\n"},
            "ReadWritePaths=/var/lib/redis",
        ),
    ],
)  # fmt: skip
def test_causes_that_only_a_certain_host_has_are_named(make, answers, printed, cause):
    told = {"cat /proc/64/cgroup": "0::/system.slice/redis-server.service\n", **printed}
    answers = {**answers, "CONFIG_GET": [*SETTINGS, "logfile", "/var/log/redis.log"]}

    with pytest.raises(Refused, match=cause):
        triage.cure_due(make(told, **answers), restart=False)


def test_a_unit_that_was_named_must_exist(make):
    absent = "Id=nope.service\nLoadState=not-found\nActiveState=inactive\n"
    server = make({"systemctl show": absent}).with_unit("nope")

    with pytest.raises(Refused, match=r"it has no unit nope\.service"):
        units.find_unit(server)


# -- sentinels -----------------------------------------------------------------------------------


def test_nobody_who_listens_is_no_sentinel(make):
    server = make(PUBSUB=["__sentinel__:hello", 0])

    assert not sentinels.watch_over(server).is_kept


def test_those_who_watch_are_heard(make):
    watch = sentinels.watch_over(make())

    assert watch == WATCH


def test_sentinels_that_say_nothing_are_not_passed_over(make):
    with pytest.raises(Refused, match="none said anything"):
        sentinels.watch_over(make(heard=[]))


def test_two_names_for_one_master_are_not_chosen_between(make):
    with pytest.raises(Refused, match="under several names: divoc, other"):
        sentinels.watch_over(
            make(heard=[HELLO, HELLO.replace("divoc", "other").replace("0.4", "0.5")])
        )


def test_a_redis_that_cannot_hold_writes_back_is_not_failed_over(make):
    old = make(INFO=info(redis_version="6.0.16"))

    with pytest.raises(Refused, match=r"Redis 6\.0\.16 cannot hold writes back"):
        failover.refuse_unless_failover_can_succeed(old, WATCH)


def test_without_an_answer_of_any_sentinel_nothing_is_begun(make):
    server = make(**{"connect 26379": Unreachable("s", "tcp", "refused")})

    with pytest.raises(Unreachable, match=r"10\.0\.0\.4:26379: refused"):
        failover.refuse_unless_failover_can_succeed(server, WATCH)


def test_a_sentinel_that_says_no_is_not_asked_with_another_password(make):
    follows = {"grep -ihE": "dir /var/lib/redis\nreplicaof 10.0.0.1 6379\n"}
    server = make(follows, INFO=REPLICA, **{"connect 26379": said_no("DENIED")})

    with pytest.raises(RedisSaidNo):
        failover.has_failed_over(server, DUE, WATCH)


def test_a_replica_that_its_file_makes_a_master_has_not_failed_over_yet(make):
    follows = {"grep -ihE": "dir /var/lib/redis\nreplicaof 10.0.0.1 6379\n"}

    assert not failover.has_failed_over(make(INFO=REPLICA), DUE, WATCH)
    assert failover.has_failed_over(make(follows, INFO=REPLICA), DUE, WATCH)


def test_a_replica_that_lags_behind_ends_the_failover_before_it_is_ordered(make, monkeypatch):
    monkeypatch.setattr(failover, "CATCH_UP_SECONDS", 0.01)
    both = [slave(), slave("10.0.0.3", priority="1", link="err")]
    lagging = ["master", 714, [["10.0.0.2", "6379", "714"], ["10.0.0.3", "6379", "3"]]]
    server = make(ROLE=lagging, **{"SENTINEL SLAVES": both})

    with pytest.raises(NotVerified, match=r"each replica .* catch up .*10\.0\.0\.3:6379 at 3"):
        failover.fail_over(server, DUE, WATCH)

    assert server.scripted.sent[-1] == "CLIENT UNPAUSE"
    assert not [sent for sent in server.scripted.sent if "FAILOVER" in sent]


def test_a_replica_that_cannot_be_promoted_may_lag_behind(make):
    known = [slave(), slave("10.0.0.3", priority="0"), slave("10.0.0.4", flags="slave,s_down")]
    moving = Turns([["10.0.0.1", "6379"], ["10.0.0.2", "6379"]])
    server = make(
        INFO=Turns([INFO, INFO, PROMOTED, REPLICA]),
        **{"SENTINEL SLAVES": known, "SENTINEL GET-MASTER-ADDR-BY-NAME": moving},
    )

    failover.fail_over(server, DUE, WATCH)

    assert "REPLICAOF 10.0.0.2 6379" in server.scripted.sent


def test_the_writes_go_on_where_sentinel_gives_up(make):
    server = make(**{"SENTINEL MASTER": Turns([of_master(), FAILING_OVER, of_master()])})

    with pytest.raises(NotVerified, match=r"it gave up, and 10\.0\.0\.1:6379 is the master"):
        failover.fail_over(server, DUE, WATCH)

    assert server.scripted.sent[-1] == "CLIENT UNPAUSE"
    assert not [sent for sent in server.scripted.sent if sent.startswith("REPLICAOF")]


def test_the_writes_stay_held_back_while_sentinel_has_not_decided(make, monkeypatch):
    monkeypatch.setattr(failover, "DECIDES_SECONDS", -359.99)
    server = make(**{"SENTINEL MASTER": Turns([of_master(), FAILING_OVER])})

    with pytest.raises(NotVerified, match="the writes are still held back"):
        failover.fail_over(server, DUE, WATCH)

    assert "CLIENT UNPAUSE" not in server.scripted.sent


def test_the_writes_are_held_back_for_as_long_as_sentinel_may_take(make):
    moving = Turns([["10.0.0.1", "6379"], ["10.0.0.2", "6379"]])
    server = make(
        INFO=Turns([INFO, INFO, PROMOTED, REPLICA]),
        **{"SENTINEL GET-MASTER-ADDR-BY-NAME": moving},
    )

    failover.fail_over(server, DUE, replace(WATCH, failover_seconds=60.0))

    sent = server.scripted.sent
    assert sent.index("CLIENT PAUSE 150000 WRITE") < sent.index("SENTINEL FAILOVER divoc")


def test_a_failover_that_sentinel_declines_is_told_and_the_writes_go_on(make):
    server = make(**{"SENTINEL FAILOVER": said_no("NOGOODSLAVE")})

    with pytest.raises(RedisSaidNo):
        failover.fail_over(server, DUE, WATCH)

    assert server.scripted.sent[-1] == "CLIENT UNPAUSE"


def test_a_failover_under_way_is_joined(make):
    server = make(**{"SENTINEL MASTER": Turns([FAILING_OVER, FAILING_OVER, of_master()])})

    with pytest.raises(NotVerified, match="it gave up"):
        failover.fail_over(server, DUE, WATCH)

    assert "SENTINEL FAILOVER divoc" not in server.scripted.sent


@pytest.mark.parametrize(
    ("promoted", "seen"),
    [
        (INFO.replace("replid2:0", "replid2:aaaa").replace("offset:-1", "offset:600"), "599"),
        (INFO, "it is a master of another history"),
        (said_no("NOAUTH"), "it does not tell"),
    ],
)
def test_an_old_master_does_not_follow_one_that_has_less_and_is_fenced(make, promoted, seen):
    moving = Turns([["10.0.0.1", "6379"], ["10.0.0.2", "6379"]])
    server = make(
        INFO=Turns([INFO, INFO, promoted]), **{"SENTINEL GET-MASTER-ADDR-BY-NAME": moving}
    )

    with pytest.raises(NotVerified, match=seen):
        failover.fail_over(server, DUE, WATCH)

    sent = server.scripted.sent
    assert sent[-2:] == ["CLIENT PAUSE 3600000 WRITE", "ACL SETUSER default -replicaof -slaveof"]
    assert "CLIENT UNPAUSE" not in sent
    assert not [one for one in sent if one.startswith("REPLICAOF")]


def test_a_fence_that_is_refused_is_told(make):
    moved = {"SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.2", "6379"]}
    server = make(**moved, ACL_SETUSER=said_no("NOPERM"))

    with pytest.raises(NotVerified, match="not all of that was taken: ACL SETUSER default"):
        failover.fail_over(server, DUE, WATCH)


def test_a_failover_that_sentinel_has_ended_already_is_only_followed(make):
    moved = {"SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.2", "6379"]}
    server = make(INFO=Turns([INFO, INFO, INFO, PROMOTED, REPLICA]), **moved)

    failover.fail_over(server, DUE, WATCH)

    changes = [sent for sent in server.scripted.sent if sent.split()[0] in {"REPLICAOF", "CLIENT"}]
    assert changes == ["CLIENT PAUSE 390000 WRITE", "REPLICAOF 10.0.0.2 6379", "CLIENT UNPAUSE"]


def test_an_old_master_that_gets_no_link_is_told(make, monkeypatch):
    monkeypatch.setattr(failover, "LINK_WITHIN_SECONDS", 0.01)
    down = REPLICA.replace("link_status:up", "link_status:down")
    moved = {"SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.2", "6379"]}

    with pytest.raises(NotVerified, match="link to the new master"):
        failover.fail_over(make(INFO=down, **moved), DUE, WATCH)


# -- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "field_named"),
    [
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"password_file": "keys/redis"}, "password_file"),
        ({"tls_ca_file": "ca.pem"}, "tls_ca_file"),
        ({"user": "ops"}, "user"),
        ({"copies": "relative"}, "copies"),
        ({"copies": "/var/../etc"}, "copies"),
        ({"copies": "/"}, "copies"),
        ({"host": ""}, "host"),
    ],
)
def test_a_parameter_that_is_malformed_is_named(changed, field_named):
    right = {"host": "ssh://root@db1", "port": 6379, "unit": "", "user": "", "password_file": "",
             "tls_ca_file": "", "copies": "/var/lib/recover/copies"}  # fmt: skip

    with pytest.raises(BadInput) as wrong:
        redis_server(**{**right, **changed})

    assert wrong.value.field == field_named


def test_a_server_is_named_by_port_and_host():
    server = redis_server("ssh://root@db1:2222", 6380, "", "", "", "", "/var/lib/recover")

    assert server.label == "redis:6380@db1:2222"


def test_a_loss_is_named_by_its_bytes():
    assert AofDamage("x", 355, 89, 266, "").loss == "aof-bytes:266"
