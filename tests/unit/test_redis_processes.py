"""Processes of Redis that do not end, and causes that only a certain host has."""

import pytest

from blocks.redis_session import RedisSaidNo, Silent
from recovery.errors import NotVerified, Refused
from tasks.redis_server import (
    aof,
    ending,
    freeing,
    orders,
    starting,
    triage,
    units,
)
from tasks.redis_server.units import parse_redis_unit
from tests.unit.redis_scripted import DUE, SETTINGS, Turns, info, said_no
from tests.unit.redis_scripted import make as make  # noqa: PLC0414 (the fixture)
from tests.unit.test_redis_outputs import UNIT


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
