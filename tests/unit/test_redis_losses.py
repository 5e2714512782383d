"""What a restart would lose, worked out before it is done."""

from dataclasses import replace

import pytest

from recovery.errors import BadInput, Refused
from tasks.redis_server.frozen import losses_of_frozen
from tasks.redis_server.losses import (
    Loss,
    Terms,
    checked_names,
    losses,
    refuse_losses,
)
from tasks.redis_server.settings import read_settings
from tasks.redis_server.status import parse_info
from tasks.redis_server.storage import parse_storage
from tasks.redis_server.units import parse_redis_unit
from tests.unit.test_redis_outputs import INFO, STORAGE, UNIT

FOREVER = Terms(float("inf"), float("inf"), kills_at_the_end=True)
SAVES = read_settings("/etc/redis/redis.conf", [("dir", "/var/lib/redis")])
NEVER = read_settings("/etc/redis/redis.conf", [("dir", "/var/lib/redis"), ("save", "")])
LOGS = replace(SAVES, is_aof=True)
ALONE = replace(parse_info(INFO), replicas_online=0)
REPLICA = replace(ALONE, role="slave", master="10.0.0.1:6379")
FOLLOWS = replace(NEVER, replica_of="10.0.0.1 6379")


def names(info, running, on_file, terms=FOREVER):
    return [loss.name or loss.what for loss in losses(info, running, on_file, terms)]


@pytest.mark.parametrize("settings", [SAVES, LOGS, replace(NEVER, is_aof=True)])
def test_one_that_saves_or_logs_loses_nothing(settings):
    assert names(ALONE, settings, settings) == []


def test_one_that_does_neither_would_lose_what_is_in_memory_only():
    assert names(ALONE, NEVER, NEVER) == ["memory-only"]


def test_one_that_does_neither_and_has_replicas_cannot_be_accepted():
    (loss,) = losses(replace(ALONE, replicas_online=2), NEVER, NEVER, FOREVER)

    assert not loss.name
    assert "its 2 replicas would copy that" in loss.what


def test_a_replica_with_its_link_up_loses_nothing():
    assert names(REPLICA, FOLLOWS, FOLLOWS) == []
    assert names(replace(REPLICA, last_save_is_ok=False), FOLLOWS, FOLLOWS) == []


def test_a_replica_without_link_is_the_only_one_with_its_data():
    assert names(replace(REPLICA, is_link_up=False), FOLLOWS, FOLLOWS) == ["memory-only"]


def test_a_replica_that_its_file_makes_a_master_is_not_restarted():
    (loss,) = losses(REPLICA, SAVES, SAVES, FOREVER)

    assert "would come back as a master beside that one" in loss.what


@pytest.mark.parametrize(
    ("info", "what"),
    [
        (replace(ALONE, last_save_is_ok=False), "the last save failed and 10 changes are unsaved"),
        (replace(ALONE, aof_write_is_ok=False), "the AOF cannot be written"),
        (replace(ALONE, is_cluster=True), "master of a Redis Cluster"),
    ],
)
def test_what_it_could_not_write_cannot_be_accepted(info, what):
    (loss,) = losses(info, SAVES, SAVES, FOREVER)

    assert not loss.name
    assert what in loss.what


@pytest.mark.parametrize(
    ("running", "on_file", "what"),
    [
        (LOGS, SAVES, "would load other files: is_aof is True"),
        (SAVES, LOGS, "would load other files: is_aof is False"),
        (replace(SAVES, folder="/elsewhere"), SAVES, "folder is /elsewhere"),
        (replace(SAVES, rdb="other.rdb"), SAVES, "rdb is other.rdb"),
        (SAVES, NEVER, "would not any more after a restart"),
        (SAVES, replace(SAVES, replica_of="10.0.0.1 6379"), "come back as replica of 10.0.0.1"),
    ],
)
def test_a_file_that_says_otherwise_than_the_server_runs_cannot_be_accepted(running, on_file, what):
    (loss,) = losses(ALONE, running, on_file, FOREVER)

    assert not loss.name
    assert what in loss.what


@pytest.mark.parametrize(
    ("terms", "what"),
    [
        (Terms(90, float("inf"), kills_at_the_end=True), "kills it after 90 s"),
        (Terms(float("inf"), 90, kills_at_the_end=True), "ends a start after 90 s"),
    ],
)
def test_a_save_that_takes_longer_than_systemd_waits_is_not_begun(terms, what):
    slow = replace(ALONE, last_save_seconds=60)

    assert what in names(slow, SAVES, SAVES, terms)[0]
    assert names(replace(ALONE, last_save_seconds=10), SAVES, SAVES, terms) == []


def test_a_unit_that_is_never_killed_may_take_its_time_to_stop():
    slow = replace(ALONE, last_save_seconds=60)

    assert names(slow, SAVES, SAVES, Terms(90, float("inf"), kills_at_the_end=False)) == []


@pytest.mark.parametrize("said", ["nosave", "now", "force", "save force"])
def test_a_stop_that_need_not_save_is_a_loss_with_a_name(said):
    hasty = replace(SAVES, on_sigterm=said)

    assert names(ALONE, hasty, SAVES) == ["stop-without-save"]
    assert names(ALONE, SAVES, hasty) == ["stop-without-save"]
    assert names(ALONE, replace(LOGS, on_sigterm=said), replace(LOGS, on_sigterm=said)) == []
    assert names(REPLICA, replace(FOLLOWS, on_sigterm=said), FOLLOWS) == []


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("ExecStop=NOSAVE", "an ExecStop with NOSAVE"),
        ("ExecStop=\nExecStop=kill -9", "an ExecStop with kill -9"),
        ("KillSignal=9", "KillSignal 9"),
        ("RestartKillSignal=3", "RestartKillSignal 3"),
        ("KillSignal=15\nRestartKillSignal=15\nExecStop=", ""),
    ],
)
def test_a_unit_that_stops_it_otherwise_than_by_sigterm_is_known(line, how):
    unit = parse_redis_unit("redis-server", f"{UNIT}{line}\n")
    terms = replace(FOREVER, stops_otherwise=unit.stops_otherwise)

    assert unit.stops_otherwise == how
    assert names(ALONE, LOGS, LOGS, terms) == (["stop-without-save"] if how else [])


def test_what_was_accepted_by_name_is_not_refused():
    lost = [Loss("memory-only", "3 keys", "save them")]

    refuse_losses("db1", lost, ["memory-only"])
    with pytest.raises(Refused, match=r"memory-only: 3 keys.*accept_loss: memory-only"):
        refuse_losses("db1", lost, ["no-copy"])


def test_a_loss_without_a_name_is_refused_whatever_was_accepted():
    with pytest.raises(Refused, match="the AOF cannot be written"):
        refuse_losses("db1", [Loss("", "the AOF cannot be written", "mend it")], ["memory-only"])


def test_names_that_are_no_losses_are_refused():
    assert checked_names(["memory-only", "aof-bytes:266"]) == ("memory-only", "aof-bytes:266")
    assert checked_names(None) == ()
    for wrong in ("memory", "aof-bytes:", "aof-bytes:all", "*"):
        with pytest.raises(BadInput, match="is no loss of Redis"):
            checked_names([wrong])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (SAVES, "since-last-save"),
        (NEVER, "memory-only"),
        (LOGS, "aof-last-second"),
        (replace(LOGS, fsync="always"), None),
    ],
)
def test_a_frozen_process_has_at_most_this_in_memory_only(settings, name):
    storage = parse_storage(STORAGE, settings)

    found = [loss.name for loss in losses_of_frozen(settings, storage, 1795240644.0)]

    assert found == ([name] if name else [])


def test_how_long_ago_a_frozen_process_has_saved_is_told():
    (loss,) = losses_of_frozen(SAVES, parse_storage(STORAGE, SAVES), 1795240644.248)

    assert "100 s ago" in loss.what


def test_a_frozen_process_that_never_saved_would_lose_all():
    storage = parse_storage("folder redis 750\nfree 1\n", SAVES)

    assert "all keys" in losses_of_frozen(SAVES, storage, 0)[0].what
