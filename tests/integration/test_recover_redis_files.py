"""Starting a Redis whose files are not the ones that hold its data; and stopping without a save."""

import pytest

from recovery.run import RecoveryState
from tests.lab.processes import wait_until
from tests.lab.redis_hosts import DATA, Recoveries, debian_redis

pytestmark = pytest.mark.timeout(180)
MANIFEST = f"{DATA}/appendonlydir/appendonly.aof.manifest"


@pytest.fixture
def recover(tmp_path):
    return Recoveries(tmp_path)


@pytest.fixture
def redis(lab_network):
    redis = debian_redis(lab_network(1).hosts[0])
    redis.fill(100)
    return redis


@pytest.fixture
def logging(lab_network):
    redis = debian_redis(lab_network(1).hosts[0], "appendonly yes")
    redis.fill(100)
    return redis


def assert_refused(redis, ended, cause):
    assert ended.state is RecoveryState.REFUSED, ended
    assert cause in str(ended.error)
    assert (redis.starts(), redis.state()) == (1, "inactive")


def test_an_aof_that_was_left_is_not_loaded_over_a_newer_snapshot(recover, logging):
    logging.cli("CONFIG", "SET", "appendonly", "no")
    logging.host.run(f"touch -d '1 minute ago' {DATA}/appendonlydir/*")
    logging.fill(400, "newer")
    logging.stop()

    ended = recover.redis(logging)

    assert_refused(logging, ended, "dump-ignored: /etc/redis/redis.conf says `appendonly yes`")
    assert "newer-dump" in str(ended.error)


def test_an_aof_that_was_in_use_until_the_stop_is_loaded(recover, logging):
    before = logging.contents()
    logging.stop()  # it saves a snapshot, although nothing was written for long
    logging.host.run(f"touch -d '1 hour ago' {DATA}/appendonlydir/*")

    ended = recover.redis(logging)

    assert ended.error is None, ended.error
    assert logging.contents() == before


def test_an_aof_without_its_manifest_is_not_started_beside(recover, logging):
    logging.stop()
    manifest = logging.host.read_file(MANIFEST).decode()
    logging.host.run(f"rm {MANIFEST}")

    ended = recover.redis(logging)
    logging.host.write(MANIFEST.removeprefix("/"), manifest)
    resumed = recover.redis(logging, resume=ended.recovery_id)

    assert "aof-missing: /var/lib/redis/appendonlydir has files of an AOF" in str(ended.error)
    assert resumed.error is None, resumed.error
    assert logging.contents()[0] == 100


def test_an_aof_whose_keys_are_all_gone_is_loaded_without_complaint(recover, logging):
    logging.cli("FLUSHALL")
    logging.stop()

    ended = recover.redis(logging)

    assert ended.error is None, ended.error
    assert ended.result.now.keys == 0


def test_an_empty_folder_in_the_place_of_the_data_is_not_started_on(recover, redis):
    redis.stop()
    redis.on_small_disk("20M")

    ended = recover.redis(redis)

    assert_refused(redis, ended, "no-data-files: /var/lib/redis has neither a snapshot nor an AOF")
    assert "DB saved on disk" in str(ended.error)


def test_a_new_start_without_files_may_be_accepted(recover, redis):
    redis.stop()
    redis.host.run(f"rm {DATA}/dump.rdb")

    ended = recover.redis(redis, accept_loss=["no-files"])

    assert ended.error is None, ended.error
    assert ended.result.now.keys == 0


def test_a_disk_of_fstab_that_is_not_mounted_is_named(recover, redis):
    redis.stop()
    redis.host.run(f"echo '/dev/sdx1 {DATA}/ ext4 defaults 0 2' >> /etc/fstab")

    ended = recover.redis(redis)

    assert_refused(redis, ended, f"no-data-files: {DATA}, on which {DATA} lies, is in /etc/fstab")


def test_a_stop_without_a_save_is_refused_by_name(recover, redis):
    redis.cli("CONFIG", "SET", "shutdown-on-sigterm", "nosave")
    pid = redis.pid

    ended = recover.redis(redis, restart=True)

    assert ended.state is RecoveryState.REFUSED
    assert "stop-without-save: `shutdown-on-sigterm nosave`" in str(ended.error)
    assert redis.pid == pid


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("ExecStop=/usr/bin/redis-cli -a hunter2 shutdown nosave", "an ExecStop with nosave"),
        ("KillSignal=SIGKILL", "KillSignal 9"),
    ],
)
def test_a_unit_that_stops_it_without_a_save_is_refused_by_name(recover, redis, line, how):
    redis.drop_in(line)
    pid = redis.pid

    ended = recover.redis(redis, restart=True)

    assert f"stop-without-save: its unit stops it by {how}" in str(ended.error)
    assert redis.pid == pid
    journal = b"".join(path.read_bytes() for path in recover.folder.glob("journal.sqlite*"))
    assert b"hunter2" not in journal


def test_a_master_that_wants_more_replicas_than_it_has_is_not_called_well(recover, redis):
    redis.cli("CONFIG", "SET", "min-replicas-to-write", "1")
    assert "NOREPLICAS" in redis.cli("SET", "a", "b")

    ended = recover.redis(redis)

    assert ended.state is RecoveryState.REFUSED
    assert "too-few-replicas: it takes no writes (NOREPLICAS): 0 replicas" in str(ended.error)


def test_passwords_that_are_quoted_or_have_blanks_stay_on_the_host(recover, redis):
    redis.stop()
    redis.configure('REQUIREPASS "hunter2 one" oops')
    redis.drop_in(
        "ExecStart=",
        f"ExecStart=/usr/bin/redis-server {redis.file} --supervised systemd --daemonize no "
        '--requirepass "first second-hunter2"',
    )
    redis.host.run(f"systemctl start {redis.unit} || true")
    wait_until(lambda: redis.state() == "failed", "the start to fail", within_seconds=30)

    ended = recover.redis(redis)

    assert "configuration: " in str(ended.error)
    assert "REQUIREPASS ***" in str(ended.error)
    journal = b"".join(path.read_bytes() for path in recover.folder.glob("journal.sqlite*"))
    assert b"hunter2" not in journal


def test_the_way_back_keeps_what_was_in_memory_only_among_the_newer_files(recover, lab_network):
    redis = debian_redis(lab_network(1).hosts[0], 'save ""', "rdbcompression no")
    redis.fill(50)
    before = redis.contents()
    ended = recover.redis(redis, restart=True, accept_loss=["memory-only"])
    redis.fill(300, "since")

    undone = recover.redis(redis, resume=ended.recovery_id, undo_by="test", break_glass="test")

    assert undone.state is RecoveryState.UNDONE, undone.error
    assert redis.contents() == before
    aside = f"{DATA}/replaced-{ended.recovery_id}/dump.rdb"
    counted = redis.host.run(f"redis-check-rdb {aside} | grep 'keys read'")
    assert counted.split()[1] == "350"


def test_the_way_back_is_not_walked_over_one_that_does_not_answer(recover, redis):
    ended = recover.redis(redis, restart=True)
    pid = redis.pid
    redis.host.run(f"kill -STOP {pid}")

    undone = recover.redis(redis, resume=ended.recovery_id, undo_by="test", break_glass="test")
    redis.host.run(f"kill -CONT {pid}")

    assert "it runs and does not answer" in str(undone.error)
    assert redis.pid == pid
