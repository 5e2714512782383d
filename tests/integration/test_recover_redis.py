"""Recovering a real Redis on a real host, for each cause that a cure is known for."""

import pytest

from recovery.run import RecoveryState
from tests.lab.processes import made_up_password, wait_until
from tests.lab.redis_hosts import Recoveries, debian_redis, second_redis

PASSWORD = made_up_password()
pytestmark = pytest.mark.timeout(180)  # the first run builds the root file system


@pytest.fixture
def recover(tmp_path):
    return Recoveries(tmp_path)


@pytest.fixture
def redis(lab_network):
    redis = debian_redis(lab_network(1).hosts[0])
    redis.fill(1000)
    return redis


def assert_recovered(ended, finding):
    assert ended.error is None, ended.error
    assert ended.state is RecoveryState.RECOVERED
    assert ended.result.finding == finding


def test_one_that_is_well_is_left_alone(recover, redis):
    pid, files = redis.pid, redis.files()

    ended = recover.redis(redis)

    assert_recovered(ended, "well")
    assert recover.changes(ended.recovery_id) == []
    assert (redis.pid, redis.files()) == (pid, files)


def test_one_that_was_killed_comes_back_by_itself_and_is_waited_for(recover, redis):
    redis.cli("SAVE")
    before = redis.contents()
    redis.host.run(f"kill -9 {redis.pid}")

    ended = recover.redis(redis)

    assert ended.error is None, ended.error
    assert redis.contents() == before
    assert redis.starts() == 2


def test_one_that_is_stopped_is_started(recover, redis):
    before = redis.contents()
    redis.stop()

    ended = recover.redis(redis)

    assert_recovered(ended, "not-running")
    assert redis.contents() == before
    assert redis.ours() == []
    assert ended.result.now.keys == 1000


def test_a_second_run_finds_nothing_to_do(recover, redis):
    redis.stop()
    recover.redis(redis)
    pid = redis.pid

    again = recover.redis(redis)

    assert_recovered(again, "well")
    assert recover.changes(again.recovery_id) == []
    assert redis.pid == pid


def test_one_that_ran_into_its_start_limit_is_started_once_the_cause_is_mended(recover, redis):
    before = redis.contents()
    redis.stop()
    redis.configure("appendonly yess")
    redis.host.run(f"systemctl start {redis.unit} || true")
    wait_until(lambda: redis.state() == "failed", "the start limit", within_seconds=30)
    refused = recover.redis(redis)
    redis.host.run(f"sed -i '$d' {redis.file}")

    ended = recover.redis(redis, resume=refused.recovery_id)

    assert "configuration" in str(refused.error)
    assert_recovered(ended, "not-running")
    assert redis.contents() == before


def test_a_stopped_process_goes_on_and_is_not_restarted(recover, redis):
    before, pid = redis.contents(), redis.pid
    redis.host.run(f"kill -STOP {pid}")

    ended = recover.redis(redis)

    assert_recovered(ended, "stopped-by-signal")
    assert redis.contents() == before
    assert (redis.pid, redis.starts()) == (pid, 1)


def test_a_script_that_never_ends_is_ended(recover, redis):
    before, pid = redis.contents(), redis.pid
    redis.cli("CONFIG", "SET", "busy-reply-threshold", "100")
    redis.host.run("systemd-run --quiet redis-cli EVAL 'while true do end' 0")
    wait_until(lambda: "BUSY" in redis.cli("PING"), "the script to run", within_seconds=10)

    ended = recover.redis(redis)

    assert_recovered(ended, "script-runs")
    assert (redis.contents(), redis.pid) == (before, pid)


def test_a_script_that_has_written_is_left_alone(recover, redis):
    redis.cli("CONFIG", "SET", "busy-reply-threshold", "100")
    redis.host.run(
        "systemd-run --quiet redis-cli EVAL \"redis.call('SET', 'half', 1) while true do end\" 0"
    )
    wait_until(lambda: "BUSY" in redis.cli("PING"), "the script to run", within_seconds=10)
    pid = redis.pid

    ended = recover.redis(redis)

    assert ended.state is RecoveryState.REFUSED
    assert "has written already" in str(ended.error)
    assert redis.pid == pid


def test_loading_is_waited_for(recover, redis):
    redis.cli("CONFIG", "SET", "rdbcompression", "no")
    redis.fill(30_000, "more", 500)
    redis.configure("key-load-delay 10")  # microseconds for each key
    redis.host.run(f"systemctl stop {redis.unit}; systemctl start --no-block {redis.unit}")
    wait_until(lambda: "LOADING" in redis.cli("PING"), "LOADING", within_seconds=20)

    ended = recover.redis(redis)

    assert_recovered(ended, "loading")
    assert redis.contents()[0] == 31_000


def test_it_saves_again_once_the_cause_of_misconf_is_gone(recover, redis):
    redis.host.run("chmod 500 /var/lib/redis && chown root /var/lib/redis")
    redis.cli("SET", "new", "1")
    redis.cli("BGSAVE")
    wait_until(lambda: "MISCONF" in redis.cli("PING"), "MISCONF", within_seconds=10)
    refused = recover.redis(redis)
    redis.host.run("chmod 750 /var/lib/redis && chown redis /var/lib/redis")
    pid = redis.pid

    ended = recover.redis(redis)

    assert "permission" in str(refused.error)
    assert_recovered(ended, "not-saved")
    assert redis.cli("SET", "newer", "2") == "OK"
    assert redis.pid == pid


@pytest.mark.parametrize("lines", [(), ("appendonly yes",), ("appendonly yes", 'save ""')])
def test_a_restart_that_is_ordered_keeps_every_key(recover, lab_network, lines):
    redis = debian_redis(lab_network(1).hosts[0], *lines)
    redis.fill(1000)
    redis.cli("SELECT", "3")
    before, run_id = redis.contents(), redis.info("run_id")

    ended = recover.redis(redis, restart=True)

    assert_recovered(ended, "restart-ordered")
    assert redis.contents() == before
    assert redis.info("run_id") != run_id
    assert redis.starts() == 2
    assert redis.ours() == []


def test_the_copy_of_a_restart_can_be_loaded_by_another_redis(recover, redis):
    ended = recover.redis(redis, restart=True)

    copy = ended.result.copy
    assert redis.host.run(f"cd {copy} && sha256sum --quiet -c SHA256SUMS") == ""
    redis.host.run(f"cp -r {copy} /tmp/copy && chmod -R 777 /tmp/copy")
    redis.host.run("redis-server --port 7777 --dir /tmp/copy --daemonize yes --save ''")
    wait_until(
        lambda: redis.host.run("redis-cli -p 7777 DBSIZE").strip() == "1000",
        "the copy to be loaded",
        within_seconds=20,
    )


def test_an_account_that_is_not_root_and_a_password_are_enough(recover, lab_network, tmp_path):
    redis = debian_redis(lab_network(1).hosts[0], password=PASSWORD)
    redis.fill(100)
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    before = redis.contents()

    ended = recover.run(
        "recover-redis", redis.parameters("ops", password_file=str(password), restart=True)
    )

    assert_recovered(ended, "restart-ordered")
    assert redis.contents() == before
    journal = b"".join(path.read_bytes() for path in recover.folder.glob("journal.sqlite*"))
    assert b"SHA256SUMS" in journal
    assert PASSWORD.encode() not in journal


def test_one_installed_by_hand_is_found_by_its_port_and_the_other_left_alone(recover, redis):
    other = second_redis(redis.host, 6400)
    other.fill(50, "other")
    before, pid = other.contents(), redis.pid
    other.stop()

    ended = recover.redis(other)

    assert_recovered(ended, "not-running")
    assert ended.result.unit == "redis_6400.service"
    assert other.contents() == before
    assert redis.pid == pid


def test_one_installed_by_hand_is_restarted_by_its_own_unit(recover, redis):
    other = second_redis(redis.host, 6400)
    other.fill(50, "other")
    before, pid = other.contents(), redis.pid

    ended = recover.redis(other, restart=True)

    assert_recovered(ended, "restart-ordered")
    assert (other.contents(), redis.pid, other.starts()) == (before, pid, 2)


def test_a_password_on_the_start_command_stays_on_the_host(recover, redis):
    redis.drop_in(
        "ExecStart=",
        f"ExecStart=/usr/bin/redis-server {redis.file} --supervised systemd --daemonize no "
        "--requirepass hush-hush",
    )
    redis.stop()

    recover.redis(redis)

    journal = b"".join(path.read_bytes() for path in recover.folder.glob("journal.sqlite*"))
    assert b"--requirepass ***" in journal
    assert b"hush-hush" not in journal


def test_one_that_speaks_tls_only_is_reached_with_its_ca(recover, redis, tmp_path):
    redis.host.run(
        "cd /etc/redis && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab "
        "-keyout key.pem -out cert.pem 2>/dev/null && chown redis key.pem cert.pem"
    )
    redis.cli("SAVE")
    redis.stop()
    redis.configure("port 0", f"tls-port {redis.port}", "tls-cert-file /etc/redis/cert.pem",
                    "tls-key-file /etc/redis/key.pem", "tls-auth-clients no")  # fmt: skip
    (tmp_path / "ca.pem").write_bytes(redis.host.read_file("/etc/redis/cert.pem"))

    ended = recover.redis(redis, tls_ca_file=str(tmp_path / "ca.pem"))
    plain = recover.redis(redis)

    assert_recovered(ended, "not-running")
    count = f"redis-cli --tls --cacert /etc/redis/cert.pem -p {redis.port} DBSIZE"
    assert redis.host.run(count).strip() == "1000"
    assert "no-redis" in str(plain.error)


def test_what_may_bring_the_next_outage_is_told(recover, redis):
    redis.host.run(f"kill -9 {redis.pid}")
    redis.wait_until_answering()

    ended = recover.redis(redis)

    told = " ".join(ended.result.now.warnings)
    assert "is not enabled: it will not start with the host" in told
    assert "has restarted redis-server.service 1 times by itself" in told
