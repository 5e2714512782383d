"""What no cure of ours helps: each cause is produced for real, named, and nothing is changed."""

import pytest

from recovery.errors import ExitCode, Unreachable
from recovery.run import RecoveryState
from tests.lab.processes import made_up_password, wait_until
from tests.lab.redis_hosts import LabRedis, Recoveries, debian_redis, second_redis

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def recover(tmp_path):
    return Recoveries(tmp_path)


@pytest.fixture
def redis(lab_network):
    redis = debian_redis(lab_network(1).hosts[0], "enable-protected-configs local")
    redis.fill(200)
    return redis


def assert_refused(recover, ended, cause):
    assert ended.state is RecoveryState.REFUSED, (ended.state, ended.error)
    assert ended.error.exit_code is ExitCode.REFUSED
    assert cause in str(ended.error), str(ended.error)
    assert recover.changes(ended.recovery_id) == []


def fail_to_start(redis, *lines):
    redis.configure(*lines)
    redis.host.run(f"systemctl reset-failed; systemctl start {redis.unit} || true")
    wait_until(lambda: redis.state() == "failed", "the start to fail", within_seconds=30)


def has_misconf(redis):
    redis.cli("SET", "one-more", "1")
    redis.cli("BGSAVE")
    wait_until(lambda: "MISCONF" in redis.cli("PING"), "MISCONF", within_seconds=10)


def mask(redis):
    redis.stop()
    redis.host.run(f"systemctl mask {redis.unit}")
    return "masked: redis-server.service is masked"


def misspell(redis):
    redis.stop()
    fail_to_start(redis, "appendonly yess")
    return "'appendonly yess' argument must be 'yes' or 'no'"


def name_no_folder(redis):
    redis.stop()
    fail_to_start(redis, "dir /nowhere")
    return "no-such-folder: it cannot start: its folder /nowhere does not exist"


def take_folder_away(redis):
    redis.stop()
    redis.host.run("chown root /var/lib/redis && chmod 700 /var/lib/redis")
    return "permission: it cannot start: redis may not write in /var/lib/redis (owner root"


def close_file(redis):
    redis.stop()
    redis.host.run("chown root /var/lib/redis/dump.rdb && chmod 600 /var/lib/redis/dump.rdb")
    return "permission: it cannot start: redis may not read dump.rdb"


def take_port(redis):
    redis.stop()
    redis.host.run(
        "systemd-run --quiet --unit=thief python3 -c "
        '\'import socket, time; s = socket.create_server(("127.0.0.1", 6379)); '
        "time.sleep(600)'"
    )
    wait_until(lambda: redis.host.run("ss -Hltn sport = :6379"), "thief", within_seconds=10)
    return "port-taken: port 6379 is held by python3"


def truncate_snapshot(redis):
    redis.stop()
    redis.host.run("truncate -s -20 /var/lib/redis/dump.rdb")
    fail_to_start(redis)
    return "rdb-damaged: "


def truncate_snapshot_unseen(redis):
    redis.stop()
    redis.host.run("truncate -s -20 /var/lib/redis/dump.rdb")
    return "/var/lib/redis/dump.rdb is damaged: redis-check-rdb, at byte"


def write_newer_snapshot(redis):
    redis.stop()
    redis.host.run("printf 'REDIS0099xxxxxxxxxxx' > /var/lib/redis/dump.rdb")
    fail_to_start(redis)
    return "newer-format: Can't handle RDB format version 99"


def lose_aof(redis):
    redis.stop()
    redis.configure("appendonly yes")
    return "dump-ignored: /etc/redis/redis.conf says `appendonly yes`, and there is no AOF"


def forget_aof(redis):
    redis.cli("CONFIG", "SET", "appendonly", "yes")
    wait_until(lambda: redis.info("aof_rewrite_in_progress") == "0", "AOF", within_seconds=10)
    redis.cli("CONFIG", "SET", "save", "")
    redis.cli("SET", "last", "1")
    redis.stop()
    redis.host.run("touch -d '1 hour ago' /var/lib/redis/dump.rdb || true")
    return "aof-ignored: /etc/redis/redis.conf says `appendonly no`"


def damage_aof(redis):
    with_aof(redis)
    file = "/var/lib/redis/appendonlydir/appendonly.aof.1.incr.aof"
    redis.host.run(f"printf 'GARBAGE' | dd of={file} bs=1 seek=300 conv=notrunc status=none")
    fail_to_start(redis)
    return "aof-damaged: Bad file format reading the append only file"


def cut_aof(redis):
    with_aof(redis)
    redis.host.run("truncate -s -5 /var/lib/redis/appendonlydir/appendonly.aof.1.incr.aof")
    fail_to_start(redis, "aof-load-truncated no")
    return "aof-cut-off: Unexpected end of file reading the append only file"


def with_aof(redis):
    redis.cli("FLUSHALL")
    redis.configure("appendonly yes")
    redis.cli("CONFIG", "SET", "appendonly", "yes")
    wait_until(lambda: redis.info("aof_rewrite_in_progress") == "0", "AOF", within_seconds=10)
    for n in range(20):
        redis.cli("SET", f"key:{n}", "value")
    redis.stop()


def load_too_long(redis):
    redis.cli("CONFIG", "SET", "rdbcompression", "no")
    redis.fill(20_000, "more", 200)
    redis.stop()
    redis.drop_in("TimeoutStartSec=1", "Restart=no")
    fail_to_start(redis, "key-load-delay 50")
    return "start-timeout: systemd gave it 1 s to load its data"


@pytest.mark.parametrize(
    "break_it",
    [
        mask, misspell, name_no_folder, take_folder_away, close_file, take_port,
        truncate_snapshot, truncate_snapshot_unseen,
        write_newer_snapshot, lose_aof, forget_aof, damage_aof, cut_aof, load_too_long,
    ],
)  # fmt: skip
def test_one_that_cannot_start_is_not_started_and_the_cause_is_named(recover, redis, break_it):
    cause = break_it(redis)
    files, starts = redis.files(), redis.starts()

    ended = recover.redis(redis)

    assert_refused(recover, ended, cause)
    assert (redis.files(), redis.starts()) == (files, starts)


def lose_permission(redis):
    redis.host.run("chown root /var/lib/redis && chmod 700 /var/lib/redis")
    has_misconf(redis)
    return "permission: it cannot save (MISCONF): redis may not write in /var/lib/redis"


def mount_read_only(redis):
    redis.host.run("mount -t tmpfs -o mode=777 tmpfs /mnt && mount -o remount,ro /mnt")
    redis.cli("CONFIG", "SET", "dir", "/mnt")
    has_misconf(redis)
    return "read-only-file-system: it cannot save (MISCONF): /mnt lies on a file system"


def unmount_folder(redis):
    redis.host.run("mkdir /srv/data && chown redis /srv/data")
    redis.cli("CONFIG", "SET", "dir", "/srv/data")
    redis.host.run("rmdir /srv/data")
    has_misconf(redis)
    return "no-such-folder: it cannot save (MISCONF): its folder (deleted while it runs) does not"


def reach_maxmemory(redis):
    redis.cli("CONFIG", "SET", "maxmemory", "500kb")
    assert "OOM" in redis.cli("SET", "k", "v")
    return "memory-full: "


def want_password(redis):
    redis.cli("CONFIG", "SET", "requirepass", "secret")
    return "no-password: it runs and asks for a password"


def run_out_of_clients(redis):
    redis.cli("CONFIG", "SET", "maxclients", "3")
    for n in range(3):
        redis.host.run(f"systemd-run --quiet --unit=client{n} redis-cli BLPOP nothing 0")
    count = "ss -Htn state established sport = :6379 | wc -l"
    wait_until(lambda: int(redis.host.run(count)) >= 3, "clients", within_seconds=10)
    return "too-many-clients: it takes no more clients; most connections come from 127.0.0.1 (3)"


def lose_master(redis):
    redis.cli("REPLICAOF", "127.0.0.1", "6999")
    return "replica-link-down: it is a replica and has no link to its master 127.0.0.1:6999"


@pytest.mark.parametrize(
    "break_it",
    [
        lose_permission, mount_read_only, unmount_folder, reach_maxmemory, want_password,
        run_out_of_clients, lose_master,
    ],
)  # fmt: skip
@pytest.mark.parametrize("restart", [False, True])
def test_what_a_restart_would_not_cure_is_not_restarted_even_on_order(
    recover, redis, break_it, restart
):
    cause, pid = break_it(redis), redis.pid

    ended = recover.redis(redis, restart=restart)

    assert_refused(recover, ended, cause)
    assert redis.pid == pid


def test_a_full_disk_is_named_and_saving_goes_on_once_there_is_room(recover, lab_network):
    host = lab_network(1).hosts[0]
    LabRedis(host).on_small_disk("24M")
    redis = debian_redis(host, "rdbcompression no")
    redis.fill(3000, "key", 1000)
    host.run("head -c 23M /dev/zero > /var/lib/redis/old || true")
    has_misconf(redis)
    refused = recover.redis(redis)
    host.run("rm /var/lib/redis/old")
    before, pid = redis.contents(), redis.pid

    ended = recover.redis(redis)

    assert_refused(recover, refused, "disk-full: it cannot save (MISCONF): the disk of")
    assert ended.error is None, ended.error
    assert (redis.contents(), redis.pid) == (before, pid)
    assert redis.info("rdb_last_bgsave_status") == "ok"


def test_a_wrong_password_is_no_reason_to_restart(recover, lab_network, tmp_path):
    redis = debian_redis(lab_network(1).hosts[0], password=made_up_password())
    (tmp_path / "password").write_text(made_up_password())
    (tmp_path / "password").chmod(0o600)
    pid = redis.pid

    ended = recover.redis(redis, password_file=str(tmp_path / "password"), restart=True)

    assert_refused(recover, ended, "wrong-password: it runs and does not take this password")
    assert redis.pid == pid


def test_a_password_where_none_is_wanted_is_named(recover, redis, tmp_path):
    (tmp_path / "password").write_text("needless")
    (tmp_path / "password").chmod(0o600)

    ended = recover.redis(redis, password_file=str(tmp_path / "password"))

    assert_refused(recover, ended, "wrong-password")


def test_a_process_that_answers_nobody_is_left_to_another_recovery(recover, lab_network):
    redis = debian_redis(lab_network(1).hosts[0], "enable-debug-command local")
    redis.host.run("systemd-run --quiet redis-cli DEBUG SLEEP 120")
    pid = redis.pid

    ended = recover.redis(redis, restart=True)

    assert_refused(recover, ended, f"frozen: process {pid} accepts connections and answers none")
    assert "end-frozen-redis" in str(ended.error)
    assert redis.pid == pid


def test_a_process_that_a_debugger_holds_is_named(recover, redis):
    call = f"ptrace(16, {redis.pid}, 0, 0)"  # PTRACE_ATTACH
    trace = f"import ctypes, time; ctypes.CDLL(None).{call}; time.sleep(600)"
    redis.host.run(f"systemd-run --quiet python3 -c '{trace}'")
    state = f"cut -d' ' -f3 /proc/{redis.pid}/stat"
    wait_until(lambda: redis.host.run(state).strip() == "t", "the debugger", within_seconds=10)

    ended = recover.redis(redis)

    assert_refused(recover, ended, "traced: ")


def test_several_units_for_one_port_are_not_guessed_between(recover, redis):
    redis.stop()
    second = second_redis(redis.host, 6400)
    second.stop()
    redis.host.run("sed -i s/6400/6379/ /etc/redis/6400.conf")

    ended = recover.redis(redis)

    assert_refused(
        recover, ended, "several units are configured for port 6379: redis-server.service"
    )


def test_a_port_that_nobody_is_configured_for_is_not_guessed(recover, redis):
    ended = recover.run("recover-redis", redis.parameters() | {"port": 6999})

    assert_refused(recover, ended, "nothing listens on port 6999, and no unit is configured for it")


def test_a_process_that_belongs_to_no_unit_is_named(recover, redis):
    redis.stop()
    redis.host.run("systemd-run --quiet --scope redis-server --daemonize yes --dir /tmp")

    ended = recover.redis(redis)

    assert_refused(recover, ended, "belongs to no unit of systemd")


def test_what_is_no_redis_is_named(recover, redis):
    redis.host.run(
        "systemd-run --quiet --unit=redis-web python3 -m http.server 6500 --bind 127.0.0.1"
    )
    wait_until(lambda: redis.host.run("ss -Hltn sport = :6500"), "server", within_seconds=10)

    ended = recover.run("recover-redis", redis.parameters() | {"port": 6500})

    assert_refused(recover, ended, "no-redis: python3")


def test_a_host_without_power_is_unreachable_and_a_resume_goes_on_once_it_is_back(
    recover, lab_network
):
    redis = debian_redis(lab_network(1).hosts[0], "appendonly yes", "appendfsync always")
    redis.fill(300)
    before = redis.contents()
    redis.host.power_cut()
    down = recover.redis(redis)
    redis.host.power_on()

    ended = recover.redis(redis, resume=down.recovery_id)

    assert isinstance(down.error, Unreachable)
    assert ended.error is None, ended.error
    assert ended.result.finding == "not-running"
    assert redis.contents() == before


def test_an_aof_whose_damage_nobody_has_seen_yet_is_named_when_loading_fails(recover, redis):
    with_aof(redis)
    file = "/var/lib/redis/appendonlydir/appendonly.aof.1.incr.aof"
    redis.host.run(f"printf 'GARBAGE' | dd of={file} bs=1 seek=300 conv=notrunc status=none")

    ended = recover.redis(redis)

    assert (
        ended.state is RecoveryState.FAILED
    )  # by its name, unless Redis ended before a look at it
    refused = recover.redis(redis)
    assert_refused(recover, refused, "`recover plan repair-redis-aof`")


def test_a_start_that_fails_tells_what_was_logged(recover, redis):
    redis.stop()
    redis.configure("bind 10.99.99.99")

    for _ in range(3):  # one that ends before the first look at it is told by its state alone
        ended = recover.redis(redis)
        if "the effect of start" not in str(ended.error):
            break

    assert ended.state is not RecoveryState.RECOVERED
    assert "no-such-address: " in str(ended.error)
    assert "Cannot assign requested address" in str(ended.error)


def test_one_that_listens_elsewhere_than_its_file_says_is_told(recover, redis):
    redis.cli("CONFIG", "SET", "port", "6390")

    ended = recover.redis(redis)

    assert isinstance(ended.error, Unreachable)
    assert "does not listen there" in str(ended.error)
    assert redis.starts() == 1


def test_what_systemd_is_in_the_middle_of_is_not_disturbed(recover, redis):
    redis.stop()
    redis.drop_in("ExecStartPre=/bin/sleep 600")
    redis.host.run(f"systemctl start --no-block {redis.unit}")
    wait_until(lambda: redis.state() == "activating", "the start", within_seconds=10)

    ended = recover.redis(redis)

    assert isinstance(ended.error, Unreachable)
    assert "systemd is still at it" in str(ended.error)


def test_one_that_somebody_is_stopping_is_not_disturbed(recover, redis):
    redis.drop_in("ExecStop=/bin/sleep 600")
    redis.host.run(f"systemctl stop --no-block {redis.unit}")
    wait_until(lambda: redis.state() == "deactivating", "the stop", within_seconds=10)

    ended = recover.redis(redis, restart=True)

    assert isinstance(ended.error, Unreachable)
    assert "somebody is stopping it" in str(ended.error)


def test_an_account_without_the_right_to_ask_is_named(recover, redis, tmp_path):
    redis.cli("ACL", "SETUSER", "guest", "on", ">guestpass", "-@all")
    (tmp_path / "password").write_text("guestpass")
    (tmp_path / "password").chmod(0o600)

    ended = recover.redis(redis, user="guest", password_file=str(tmp_path / "password"))

    assert_refused(recover, ended, "no-right: ")


def test_a_sentinel_is_no_redis(recover, redis):
    redis.host.write("etc/redis/sentinel.conf", "port 26379\ndaemonize yes\ndir /tmp\n"
                     "pidfile /run/sentinel/redis-sentinel.pid\n")  # fmt: skip
    redis.host.run("chown redis /etc/redis/sentinel.conf && systemctl start redis-sentinel")

    ended = recover.run("recover-redis", redis.parameters() | {"port": 26379})

    assert_refused(recover, ended, "runs a sentinel, which keeps no keys")


def test_a_unit_that_does_not_know_its_process_is_not_trusted(recover, redis):
    other = second_redis(redis.host, 6400)
    other.stop()
    redis.host.run(
        f"sed -i '/PIDFile/d; s/^Type=.*/Type=forking\\nGuessMainPID=no/' "
        f"/etc/systemd/system/{other.unit}.service && systemctl daemon-reload"
    )
    other.start()

    ended = recover.redis(other, restart=True)

    assert_refused(recover, ended, "systemd does not know which process belongs to redis_6400")


def test_a_start_that_was_too_short_is_tried_again_once_it_is_given_more_time(recover, redis):
    load_too_long(redis)
    refused = recover.redis(redis)
    assert_refused(recover, refused, "start-timeout")  # the resume adds its changes to the same id
    redis.drop_in("TimeoutStartSec=infinity")

    ended = recover.redis(redis, resume=refused.recovery_id)

    assert ended.error is None, ended.error
    assert redis.contents()[0] == 20_200
