"""What needs an approval: repairing an AOF, ending a frozen process, and the way back."""

import pytest

from blocks.redis_session import open_session
from recovery.run import RecoveryState
from tasks.redis_server import ending, freeing, target, triage
from tests.integration.test_recover_redis_refusals import with_aof
from tests.lab.processes import wait_until
from tests.lab.redis_hosts import DATA, Recoveries, debian_redis

pytestmark = pytest.mark.timeout(240)
INCREMENT = f"{DATA}/appendonlydir/appendonly.aof.1.incr.aof"


@pytest.fixture
def recover(tmp_path):
    return Recoveries(tmp_path)


@pytest.fixture
def redis(lab_network):
    return debian_redis(lab_network(1).hosts[0])


@pytest.fixture
def impatient(monkeypatch):
    """Silence is known after a moment, and so is that a process stands still."""

    def opened(path, of, login, _seconds):
        return open_session(path, of, login, 1.5)

    monkeypatch.setattr(target, "open_session", opened)
    monkeypatch.setattr(triage, "TIMES_ASKED", 1)
    monkeypatch.setattr(ending, "STANDSTILL_SECONDS", 4.0)
    monkeypatch.setattr(freeing, "LOOK_SECONDS", 1.0)


def cut(redis):
    with_aof(redis)
    redis.host.run(f"truncate -s -5 {INCREMENT}")
    redis.configure("aof-load-truncated no")


def damage(redis):
    with_aof(redis)
    size = int(redis.host.run(f"stat -c %s {INCREMENT}"))
    redis.host.run(
        f"printf 'GARBAGE' | dd of={INCREMENT} bs=1 seek={size - 40} conv=notrunc status=none"
    )


def fail(redis):
    redis.host.run(f"systemctl start {redis.unit} || true")
    wait_until(lambda: redis.state() == "failed", "the start to fail", within_seconds=30)


@pytest.mark.parametrize(("break_it", "left"), [(cut, 19), (damage, 18)])
def test_a_damaged_aof_is_cut_down_to_what_can_be_read_once_that_is_accepted(
    recover, redis, break_it, left
):
    break_it(redis)
    fail(redis)
    damaged = redis.host.run(f"sha256sum < {INCREMENT}")
    refused = recover.redis(redis, "repair-redis-aof", break_glass="test")
    loss = str(refused.error).rpartition("accept_loss: ")[2].rstrip(".")
    unapproved = recover.redis(redis, "repair-redis-aof", accept_loss=[loss])

    ended = recover.redis(
        redis, "repair-redis-aof", accept_loss=[loss], resume=unapproved.recovery_id,
        approve=unapproved.error.question.split()[-1], approved_by="test",
    )  # fmt: skip

    assert refused.state is RecoveryState.REFUSED
    assert loss.startswith("aof-bytes:")
    assert unapproved.state is RecoveryState.NEEDS_PERSON
    assert ended.error is None, ended.error
    assert redis.contents()[0] == left
    kept = f"{ended.result.copy}/appendonlydir/{INCREMENT.rpartition('/')[2]}"
    assert redis.host.run(f"sha256sum < {kept}") == damaged


def test_an_aof_that_is_sound_is_not_repaired(recover, redis):
    with_aof(redis)
    files = redis.files()

    ended = recover.redis(redis, "repair-redis-aof", break_glass="test")

    assert ended.state is RecoveryState.REFUSED
    assert "there is nothing to repair" in str(ended.error)
    assert redis.files() == files


@pytest.mark.parametrize("flow", ["repair-redis-aof", "end-frozen-redis"])
def test_one_that_answers_is_neither_repaired_nor_ended_and_nothing_was_due(recover, redis, flow):
    pid = redis.pid

    ended = recover.redis(redis, flow, break_glass="test")

    assert ended.state is RecoveryState.RECOVERED
    assert ended.result.finding == "well"
    assert recover.changes(ended.recovery_id) == []
    assert redis.pid == pid


@pytest.mark.parametrize("flow", ["repair-redis-aof", "end-frozen-redis"])
def test_one_that_asks_for_a_password_is_neither_repaired_nor_ended(recover, redis, flow):
    redis.cli("CONFIG", "SET", "requirepass", "secret")
    pid = redis.pid

    ended = recover.redis(redis, flow, break_glass="test")

    assert ended.state is RecoveryState.REFUSED
    assert "NOAUTH" in str(ended.error)
    assert redis.pid == pid


def test_a_repair_without_any_aof_is_refused(recover, redis):
    redis.stop()

    ended = recover.redis(redis, "repair-redis-aof", break_glass="test")

    assert "uses no AOF, or there is none" in str(ended.error)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("hold", "sent"),
    [
        ("DEBUG SLEEP 600", ["TERM"]),  # a signal wakes it, and it saves
        ("EVAL 'while true do end' 0", ["TERM", "KILL"]),
    ],
)
def test_a_frozen_process_is_ended_only_with_the_loss_accepted_and_comes_back(
    recover, lab_network, hold, sent
):
    redis = debian_redis(lab_network(1).hosts[0], "enable-debug-command local")
    redis.fill(500)
    redis.cli("SAVE")
    before, pid = redis.contents(), redis.pid
    redis.cli("CONFIG", "SET", "busy-reply-threshold", "0")
    redis.host.run(f"renice -n 19 -p {pid}")  # it spins, and other tests need the processor
    redis.host.run(f"systemd-run --quiet redis-cli {hold}")
    refused = recover.redis(redis, "end-frozen-redis", break_glass="test")
    unapproved = recover.redis(redis, "end-frozen-redis", accept_loss=["since-last-save"])

    ended = recover.redis(
        redis, "end-frozen-redis", accept_loss=["since-last-save"], break_glass="frozen for good"
    )

    assert "since-last-save: what was written after the last save" in str(refused.error)
    assert unapproved.state is RecoveryState.NEEDS_PERSON
    assert ended.error is None, ended.error
    assert redis.pid != pid
    assert redis.contents() == before
    signals = [line.split("kill -s ")[1].split()[0] for line in recover.changes(ended.recovery_id)
               if "kill -s" in line]  # fmt: skip
    assert signals == sent


@pytest.mark.usefixtures("impatient")
def test_a_process_that_wakes_and_saves_is_not_killed_however_long_that_takes(
    recover, lab_network, monkeypatch
):
    monkeypatch.setattr(ending, "STANDSTILL_SECONDS", 2.0)
    redis = debian_redis(
        lab_network(1).hosts[0], "enable-debug-command local", "rdb-key-save-delay 30000"
    )
    redis.fill(300)  # takes nine seconds to be saved
    before = redis.contents()
    redis.host.run("systemd-run --quiet redis-cli DEBUG SLEEP 600")

    ended = recover.redis(
        redis, "end-frozen-redis", accept_loss=["since-last-save"], break_glass="test"
    )

    assert ended.error is None, ended.error
    assert redis.contents() == before
    assert not [line for line in recover.changes(ended.recovery_id) if "kill -s KILL" in line]


def test_a_process_that_a_signal_stopped_is_not_ended(recover, redis):
    pid = redis.pid
    redis.host.run(f"kill -STOP {pid}")

    ended = recover.redis(
        redis, "end-frozen-redis", accept_loss=["since-last-save"], break_glass="test"
    )

    assert "loses nothing by going on" in str(ended.error)
    assert redis.pid == pid


def test_one_that_does_not_run_is_not_frozen(recover, redis):
    redis.stop()

    ended = recover.redis(redis, "end-frozen-redis", break_glass="test")

    assert "nothing is frozen" in str(ended.error)


@pytest.mark.usefixtures("impatient")
def test_a_frozen_process_that_works_in_another_folder_is_left_alone(recover, lab_network):
    redis = debian_redis(
        lab_network(1).hosts[0], "enable-debug-command local", "enable-protected-configs local"
    )
    redis.host.run("chmod 777 /srv")
    redis.cli("CONFIG", "SET", "dir", "/srv")
    redis.host.run("systemd-run --quiet redis-cli DEBUG SLEEP 600")

    ended = recover.redis(
        redis, "end-frozen-redis", accept_loss=["since-last-save"], break_glass="test"
    )

    assert "it works in /srv" in str(ended.error)
    assert redis.starts() == 1


@pytest.mark.parametrize("lines", [(), ("appendonly yes",)])
def test_the_way_back_puts_the_copied_files_in_place_and_keeps_the_newer_ones(
    recover, lab_network, lines
):
    redis = debian_redis(lab_network(1).hosts[0], *lines)
    redis.fill(300)
    before = redis.contents()
    ended = recover.redis(redis, restart=True)
    redis.cli("FLUSHALL")
    redis.cli("SET", "newer", "1")

    back = {"resume": ended.recovery_id, "undo_by": "test", "break_glass": "a test"}
    undone = recover.redis(redis, **back)
    again = recover.redis(redis, **back)

    assert undone.state is RecoveryState.UNDONE, undone.error
    assert again.state in {RecoveryState.UNDONE, RecoveryState.REFUSED}, again.error
    assert redis.contents() == before
    aside = redis.host.run(f"find {DATA}/replaced-* -type f -name '*.rdb' -o -name '*.aof'")
    assert aside.split()


def test_nothing_is_put_back_over_a_replica(recover, redis):
    redis.fill(10)
    ended = recover.redis(redis, restart=True)
    redis.cli("REPLICAOF", "127.0.0.1", "6999")

    back = {"resume": ended.recovery_id, "undo_by": "test", "break_glass": "a test"}
    undone = recover.redis(redis, **back)

    assert "it is a replica of 127.0.0.1:6999 now" in str(undone.error)
    assert redis.cli("DBSIZE") == "10"
