"""Restarting a Redis on order: what would be lost, what hangs, and what is in the way."""

import pytest

from recovery.run import RecoveryState
from tasks.redis_server import running
from tests.lab.processes import wait_until
from tests.lab.redis_hosts import LabRedis, Recoveries, debian_redis

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def recover(tmp_path):
    return Recoveries(tmp_path)


@pytest.fixture
def redis(lab_network):
    redis = debian_redis(lab_network(1).hosts[0], "enable-protected-configs local")
    redis.fill(200)
    return redis


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (("CONFIG SET appendonly yes",), "would load other files: is_aof is True"),
        (("CONFIG SET dbfilename other.rdb",), "would load other files: rdb is other.rdb"),
        (("CONFIG SET save ''",), "memory-only: neither AOF nor save points are configured"),
    ],
)
def test_a_restart_that_would_lose_data_is_refused_by_name(recover, redis, change, cause):
    for words in change:
        redis.host.run(f"redis-cli {words}")
    wait_until(lambda: redis.info("aof_rewrite_in_progress") == "0", "AOF", within_seconds=10)
    pid = redis.pid

    ended = recover.redis(redis, restart=True)

    assert ended.state is RecoveryState.REFUSED
    assert cause in str(ended.error)
    assert redis.pid == pid


def test_a_master_that_its_file_makes_a_replica_is_not_restarted(recover, redis):
    redis.configure("replicaof 10.0.0.99 6379")
    pid = redis.pid

    ended = recover.redis(redis, restart=True)

    assert "would come back as replica of 10.0.0.99 6379" in str(ended.error)
    assert redis.pid == pid


def test_what_is_in_memory_only_is_saved_when_its_loss_is_accepted(recover, lab_network):
    redis = debian_redis(lab_network(1).hosts[0], 'save ""')
    redis.fill(500)
    before = redis.contents()

    ended = recover.redis(redis, restart=True, accept_loss=["memory-only"])

    assert ended.error is None, ended.error
    assert redis.contents() == before
    assert redis.starts() == 2


def test_a_stop_that_systemd_would_cut_short_is_not_begun(recover, redis):
    redis.drop_in("TimeoutStopSec=1")
    redis.cli("CONFIG", "SET", "rdb-key-save-delay", "10000")
    redis.cli("BGSAVE")
    wait_until(lambda: redis.info("rdb_last_bgsave_time_sec") not in "-10", "a slow save",
               within_seconds=20)  # fmt: skip
    pid = redis.pid

    ended = recover.redis(redis, restart=True)

    assert "systemd kills it after 1 s" in str(ended.error)
    assert redis.pid == pid


def test_a_stop_that_hangs_is_helped_by_a_signal_and_nothing_is_killed(recover, redis, monkeypatch):
    monkeypatch.setattr(running, "STOP_WITHIN_SECONDS", 3.0)
    # As the script of an installer that asks without the password, and waits for the end.
    redis.drop_in("ExecStop=/bin/sh -c 'while redis-cli PING; do sleep 0.1; done'")
    before = redis.contents()

    ended = recover.redis(redis, restart=True)

    assert ended.error is None, ended.error  # SIGTERM to the process itself, which saves
    assert redis.contents() == before
    signals = [line for line in recover.changes(ended.recovery_id) if "kill -s" in line]
    assert [line.split("kill -s ")[1].split()[0] for line in signals] == ["TERM"]


def test_no_space_for_the_copy_is_refused_and_may_be_accepted(recover, redis):
    redis.host.run("mkdir -p /small && mount -t tmpfs -o size=64k tmpfs /small")
    pid = redis.pid
    refused = recover.redis(redis, restart=True, copies_in="/small/copies")

    ended = recover.redis(redis, restart=True, copies_in="/small/copies", accept_loss=["no-copy"])

    assert "disk-full: /small/copies has" in str(refused.error)
    assert ended.error is None, ended.error
    assert redis.pid != pid
    assert ended.result.copy == ""


def test_a_process_that_does_not_end_is_told_and_a_resume_waits_for_the_stop_that_goes_on(
    recover, redis, monkeypatch
):
    monkeypatch.setattr(running, "STOP_WITHIN_SECONDS", 1.0)
    redis.cli("CONFIG", "SET", "rdb-key-save-delay", "20000")  # a save takes four seconds
    before = redis.contents()

    hanging = recover.redis(redis, restart=True)
    ended = recover.redis(redis, resume=hanging.recovery_id)

    assert "to save and end" in str(hanging.error), hanging.error
    assert ended.error is None, ended.error
    assert redis.contents() == before
    assert redis.starts() == 2


def test_a_save_that_would_fail_is_not_begun_for_it_would_stop_all_writes(recover, lab_network):
    host = lab_network(1).hosts[0]
    LabRedis(host).on_small_disk("20M")
    redis = debian_redis(host)
    redis.fill(100)
    host.run("head -c 19M /dev/zero > /var/lib/redis/old || true")

    ended = recover.redis(redis, restart=True)

    assert ended.state is RecoveryState.REFUSED
    assert "disk-full: a save would fail" in str(ended.error)
    assert redis.cli("SET", "still", "writable") == "OK"


def test_an_account_that_may_not_ask_for_the_settings_restarts_nothing(recover, redis, tmp_path):
    redis.cli("ACL", "SETUSER", "medic", "on", ">medicine", "~*", "&*", "+@all", "-config")
    (tmp_path / "password").write_text("medicine")
    (tmp_path / "password").chmod(0o600)
    pid = redis.pid

    ended = recover.redis(
        redis, restart=True, user="medic", password_file=str(tmp_path / "password")
    )

    assert "NOPERM" in str(ended.error)
    assert redis.pid == pid


def test_the_plan_of_a_restart_changes_nothing(recover, redis):
    pid, files = redis.pid, redis.files()

    planned = recover.redis(redis, restart=True, plan_only=True)

    keys = [step.key for step in planned.plan.steps if step.kind == "act"]
    assert keys == ["save", "copy_aside", "leave_canary", "restart", "prove_write"]
    assert planned.plan.refusals == []
    assert (redis.pid, redis.files(), redis.ours()) == (pid, files, [])
