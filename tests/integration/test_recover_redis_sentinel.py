"""Restarting what has replicas and sentinels, with clients that write all the while."""

import pytest

from recovery.run import RecoveryState
from tasks.redis_server import failover
from tests.lab.processes import wait_until
from tests.lab.redis_hosts import Recoveries, debian_redis, sentinel_trio, writer

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def recover(tmp_path):
    return Recoveries(tmp_path)


@pytest.fixture
def trio(lab_network):
    trio = sentinel_trio(lab_network(3))
    trio.redis[0].fill(1000)
    return trio


def test_a_master_is_failed_over_first_and_no_confirmed_write_is_lost(recover, trio):
    old = trio.redis[0]
    before = old.contents()

    with writer(old) as confirmed:
        wait_until(
            lambda: old.host.run(f"wc -l < {confirmed}").strip() not in {"", "0"},
            "writes",
            within_seconds=20,
        )
        ended = recover.redis(old, restart=True)

    assert ended.error is None, ended.error
    assert ended.result.now.role == "slave"
    new = next(redis for redis in trio.redis if redis.host.address == trio.master())
    assert new is not old
    assert trio.roles().count("master") == 1
    written = old.host.read_file(str(confirmed)).decode().split()
    assert len(written) > 20
    missing = [name for name in written if new.cli("EXISTS", name) != "1"]
    assert missing == []
    new.cli("EVAL", "for _, k in ipairs(redis.call('KEYS', 'written:*')) do "
                    "redis.call('DEL', k) end", "0")  # fmt: skip
    assert new.contents() == before
    assert old.starts() == 2
    assert [redis.starts() for redis in trio.redis if redis is not old] == [1, 1]


def prefer(trio, preferred):
    """Let Sentinel choose this replica before the others, however far it is."""
    preferred.cli("CONFIG", "SET", "replica-priority", "1")
    ask = "redis-cli -p 26379 SENTINEL REPLICAS divoc"
    wait_until(
        lambda: "slave-priority\n1\n" in f"{trio.redis[0].host.run(ask)}\n",
        "sentinels to know the priority",
        within_seconds=30,
    )


def test_a_preferred_replica_that_lags_behind_ends_the_failover_before_it_is_ordered(
    recover, trio, monkeypatch
):
    old, _, preferred = trio.redis
    prefer(trio, preferred)
    pid, fail_over = preferred.pid, failover._failed_over

    def fail_over_while_it_stands_still(*given):
        preferred.host.run(f"kill -STOP {pid}")  # after five seconds, Sentinel would pass it over
        old.fill(400, "late", 100_000)
        return fail_over(*given)

    monkeypatch.setattr(failover, "_failed_over", fail_over_while_it_stands_still)
    monkeypatch.setattr(failover, "CATCH_UP_SECONDS", 1.0)

    ended = recover.redis(old, restart=True)
    preferred.host.run(f"kill -CONT {pid}")

    assert ended.state is RecoveryState.FAILED
    assert "each replica that Sentinel could promote to catch up" in str(ended.error)
    assert not [line for line in recover.changes(ended.recovery_id) if "SENTINEL FAILOVER" in line]
    assert (trio.master(), old.starts()) == (old.host.address, 1)
    assert old.cli("SET", "still", "writable") == "OK"
    assert len(old.cli("KEYS", "late:*").split()) == 400


def test_writes_wait_for_a_chosen_replica_that_stands_still_and_none_is_lost(
    recover, trio, monkeypatch
):
    old, _, preferred = trio.redis
    prefer(trio, preferred)
    pid, order = preferred.pid, failover._order

    def order_while_it_stands_still(*given):
        preferred.host.run(f"kill -STOP {pid}")
        order(*given)
        preferred.host.run(
            f"systemd-run --quiet --on-active=15 --timer-property=AccuracySec=1 kill -CONT {pid}"
        )

    monkeypatch.setattr(failover, "_order", order_while_it_stands_still)

    with writer(old) as confirmed:
        ended = recover.redis(old, restart=True)

    assert ended.error is None, ended.error
    new = next(one for one in trio.redis if one.host.address == trio.master())
    written = old.host.read_file(str(confirmed)).decode().split()
    assert written
    assert [name for name in written if new.cli("EXISTS", name) != "1"] == []
    if new is not preferred:
        pytest.skip("it stood still for so long before the order that another one was chosen")


def test_a_replica_is_restarted_without_a_failover(recover, trio):
    replica, master = trio.redis[1], trio.master()
    before = trio.redis[0].contents()

    ended = recover.redis(replica, restart=True)

    assert ended.error is None, ended.error
    assert (ended.result.now.role, trio.master()) == ("slave", master)
    assert replica.contents() == before
    assert (replica.starts(), trio.redis[0].starts()) == (2, 1)
    assert not [line for line in recover.changes(ended.recovery_id) if "FAILOVER" in line]


def test_without_a_replica_to_promote_nothing_is_begun(recover, trio):
    old = trio.redis[0]
    for redis in trio.redis[1:]:
        redis.cli("CONFIG", "SET", "replica-priority", "0")
    ask = "redis-cli -p 26379 SENTINEL REPLICAS divoc"
    wait_until(
        lambda: old.host.run(ask).split().count("100") == 0,
        "sentinels to know the priority",
        within_seconds=30,
    )

    ended = recover.redis(old, restart=True)

    assert ended.state is RecoveryState.REFUSED
    assert "Sentinel has no replica to promote" in str(ended.error)
    assert old.starts() == 1
    assert old.cli("SET", "still", "writable") == "OK"


def test_without_a_quorum_nothing_is_begun(recover, trio):
    old = trio.redis[0]
    for redis in trio.redis[1:]:
        redis.host.run("systemctl stop redis-sentinel")
    ask = "redis-cli -p 26379 SENTINEL CKQUORUM divoc || true"
    wait_until(lambda: "NOQUORUM" in old.host.run(ask), "the quorum to be lost", within_seconds=60)

    ended = recover.redis(old, restart=True)

    assert ended.state is RecoveryState.REFUSED
    assert "NOQUORUM" in str(ended.error)
    assert old.starts() == 1


def test_a_master_that_is_down_comes_back_as_the_replica_that_sentinel_makes_it(recover, trio):
    old = trio.redis[0]
    before = old.contents()
    old.stop()
    wait_until(
        lambda: trio.redis[1].host.run(
            "redis-cli -p 26379 SENTINEL GET-MASTER-ADDR-BY-NAME divoc"
        ).split()[0] != old.host.address,
        "Sentinel to fail over",
        within_seconds=60,
    )  # fmt: skip

    ended = recover.redis(old)

    assert ended.error is None, ended.error
    wait_until(lambda: old.info("role") == "slave", "the old master to follow", within_seconds=60)
    assert old.contents() == before


def test_a_master_without_sentinels_is_restarted_and_its_replica_is_waited_for(
    recover, lab_network
):
    lab = lab_network(2)
    lines = ["protected-mode no", "repl-diskless-sync-delay 0"]
    hosts = lab.hosts
    master = debian_redis(hosts[0], f"bind {hosts[0].address} 127.0.0.1", *lines)
    replica = debian_redis(
        hosts[1], f"bind {hosts[1].address} 127.0.0.1", f"replicaof {hosts[0].address} 6379", *lines
    )
    master.fill(500)
    wait_until(lambda: replica.contents() == master.contents(), "the copy", within_seconds=30)
    before = master.contents()

    ended = recover.redis(master, restart=True)

    assert ended.error is None, ended.error
    assert ended.result.now.replicas_online == 1
    assert master.contents() == before
    wait_until(lambda: replica.contents() == before, "the replica", within_seconds=30)


def test_a_master_in_memory_only_is_never_restarted_under_its_replicas(recover, lab_network):
    lab = lab_network(2)
    lines = ["protected-mode no", "repl-diskless-sync-delay 0", 'save ""']
    hosts = lab.hosts
    master = debian_redis(hosts[0], f"bind {hosts[0].address} 127.0.0.1", *lines)
    debian_redis(
        hosts[1], f"bind {hosts[1].address} 127.0.0.1", f"replicaof {hosts[0].address} 6379", *lines
    )
    wait_until(
        lambda: "state=online" in master.cli("INFO", "replication"), "replica", within_seconds=30
    )

    ended = recover.redis(master, restart=True, accept_loss=["memory-only"])

    assert ended.state is RecoveryState.REFUSED
    assert "its 1 replicas would copy that" in str(ended.error)
    assert master.starts() == 1
