"""Proofs, saves and ways back on a Redis that lies, lags or fails at the wrong moment."""

from dataclasses import replace

import pytest

from blocks.redis_session import RedisSaidNo
from recovery.errors import NotVerified, Refused, Unreachable, UnreadableOutput
from tasks.redis_server import (
    contents,
    copies,
    logs,
    running,
    saving,
    waiting,
)
from tasks.redis_server.contents import Before
from tasks.redis_server.status import Keys
from tasks.redis_server.units import Process
from tests.unit.redis_scripted import DUE, REPLICA, SETTINGS, Turns, info, said_no
from tests.unit.redis_scripted import make as make  # noqa: PLC0414 (the fixture)
from tests.unit.test_redis_outputs import AOF_CUT, INFO, RDB_CUT, UNIT

BEFORE = Before("run-before", is_master=True, keys=(Keys(0, 12, 2), Keys(3, 1, 0)), offset=714,
                replicas_online=1, last_save_at=1795239948, save_seconds=0)  # fmt: skip


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


def test_what_a_restart_would_lose_is_unknown_where_nobody_tells(make):
    with pytest.raises(Refused, match="it is not known what a restart would lose"):
        running.refuse_unless_nothing_is_lost(make(CONFIG_GET=said_no("NOPERM")), DUE, ())


def test_a_process_that_is_another_one_by_now_has_nothing_to_lose(make):
    server = make({"systemctl show --no-pager": UNIT.replace("MainPID=64", "MainPID=99")})

    running.refuse_unless_nothing_is_lost(server, DUE, ())

    assert server.scripted.sent == []
