"""Reading what Redis, its tools, systemd and the host print: all captured from real runs.

Redis 7.0.15, systemd 252, iproute2 6.1, Debian 12, unless another version is named.
"""

import math
from dataclasses import replace

import pytest

from recovery.errors import UnreadableOutput
from tasks.redis_server.causes import Cause, signs_in
from tasks.redis_server.files import parse_aof_check, parse_rdb_check
from tasks.redis_server.logs import parse_peers
from tasks.redis_server.sentinels import parse_hello, replica_of
from tasks.redis_server.settings import (
    SAVE_POINTS,
    parse_lines,
    read_settings,
    split_arguments,
)
from tasks.redis_server.starting import parse_state
from tasks.redis_server.status import parse_info
from tasks.redis_server.storage import parse_storage
from tasks.redis_server.target import parse_listeners
from tasks.redis_server.units import (
    parse_redis_unit,
    parse_span,
    parse_unit_names,
    parse_unit_of_cgroup,
)

STARTED = "84:C 21 Nov 2026 05:55:42.100 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo\n"
CONFIGURATION_ERROR = """\
1795240440.1 lab systemd[1]: Starting redis-server.service - Advanced key-value store...
1795240446.520000 lab redis-server[84]: *** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***
1795240446.520001 lab redis-server[84]: Reading the configuration file, at line 2277
1795240446.520002 lab redis-server[84]: >>> 'appendonly yess'
1795240446.520003 lab redis-server[84]: argument must be 'yes' or 'no'
1795240446.6 lab systemd[1]: redis-server.service: Main process exited, code=exited, status=1
1795240446.7 lab systemd[1]: redis-server.service: Start request repeated too quickly.
"""
AOF_CUT = """\
Start checking Multi Part AOF
Start to check BASE AOF (RDB format).
[offset 0] Checking RDB file appendonly.aof.1.base.rdb
[offset 89] Checksum OK
[offset 89] \\o/ RDB looks OK! \\o/
[info] 0 keys read
[info] 0 expires
[info] 0 already expired
RDB preamble is OK, proceeding with AOF tail...
AOF analyzed: filename=appendonly.aof.1.base.rdb, size=89, ok_up_to=89, ok_up_to_line=1, diff=0
BASE AOF appendonly.aof.1.base.rdb is valid
Start to check INCR files.
0x             15c: Expected to read 7 bytes, got 2 bytes
AOF analyzed: filename=appendonly.aof.1.incr.aof, size=350, ok_up_to=320, ok_up_to_line=75, diff=30
AOF appendonly.aof.1.incr.aof is not valid. Use the --fix option to try fixing it.
"""
RDB_CUT = """\
[offset 0] Checking RDB file dump.rdb
--- RDB ERROR DETECTED ---
[offset 20] Unexpected EOF reading RDB file
[additional info] While doing: read-aux
[additional info] Reading type 0 (string)
[info] 0 keys read
[info] 0 expires
[info] 0 already expired
"""
UNIT = """\
Type=notify
Restart=always
TimeoutStartUSec=1min 30s
TimeoutStopUSec=infinity
MainPID=64
Result=success
NRestarts=0
ExecMainStartTimestampMonotonic=12729696546
ExecStart={ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis/redis.conf \
--supervised systemd --daemonize no ; ignore_errors=no ; start_time=[Sat 2026-11-21 05:54:06 UTC] \
; stop_time=[n/a] ; pid=64 ; code=(null) ; status=0/0 }
User=redis
SendSIGKILL=yes
Id=redis-server.service
TriggeredBy=
LoadState=loaded
ActiveState=active
FreezerState=running
SubState=running
UnitFileState=enabled
Job=
"""
INFO = """\
# Server
redis_version:7.0.15
run_id:7be6ed546f289ec2bc54fb33d9777e3de2bb199b
config_file:/etc/redis/redis.conf
# Memory
used_memory:1024
maxmemory:1000
maxmemory_policy:noeviction
# Persistence
loading:0
rdb_changes_since_last_save:10
rdb_bgsave_in_progress:0
rdb_last_save_time:1795239948
rdb_last_bgsave_status:ok
rdb_last_bgsave_time_sec:-1
aof_enabled:1
aof_rewrite_in_progress:0
aof_rewrite_scheduled:0
aof_last_bgrewrite_status:ok
aof_last_write_status:ok
# Replication
role:master
connected_slaves:2
slave0:ip=10.0.0.2,port=6379,state=online,offset=700,lag=0
slave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0
slave_read_repl_offset:700
master_replid:aaaa
master_replid2:0
master_repl_offset:714
second_repl_offset:-1
# Keyspace
db0:keys=12,expires=2,avg_ttl=0
db3:keys=1,expires=0,avg_ttl=0
"""


LINES = {
    "# Warning: Could not create server TCP listening socket 127.0.0.1:7103: bind: Address already "
    "in use": Cause.PORT_TAKEN,
    "# Warning: Could not create server TCP listening socket 10.99.99.99:7104: bind: Cannot assign "
    "requested address": Cause.NO_ADDRESS,
    "# Unexpected end of file reading the append only file appendonly.aof.1.incr.aof. You can: 1) "
    "Make a backup of your AOF file, then use ./redis-check-aof": Cause.AOF_CUT,
    "# Bad file format reading the append only file appendonly.aof.1.incr.aof: make a backup of "
    "your AOF file, then use ./redis-check-aof --fix <filename.manifest>": Cause.AOF_DAMAGED,
    "# Short read or OOM loading DB. Unrecoverable error, aborting now.": Cause.RDB_DAMAGED,
    "# Wrong signature trying to load DB from file": Cause.RDB_DAMAGED,
    "# Can't handle RDB format version 99": Cause.NEWER_RDB,
    "# Failed opening the temp RDB file temp-111.rdb (in server root dir /var/lib/redis) for "
    "saving: Permission denied": Cause.PERMISSION,
    "# Fatal error loading the DB: Permission denied. Exiting.": Cause.PERMISSION,
    "# Write error saving DB on disk(rdbSaveRio): No space left on device": Cause.DISK_FULL,
    "# Can't save in background: fork: Cannot allocate memory": Cause.NO_FORK,
}


@pytest.mark.parametrize(("line", "cause"), LINES.items())
def test_a_line_of_the_log_names_its_cause(line, cause):
    signs = signs_in(f"{STARTED}111:C 21 Nov 2026 05:55:43.871 {line}\n")

    assert [sign.cause for sign in signs] == [cause]
    assert signs[0].text == line.removeprefix("# ")


def test_a_configuration_error_tells_the_line_and_when():
    (sign,) = signs_in(CONFIGURATION_ERROR)

    assert sign.cause is Cause.CONFIGURATION
    assert "at line 2277 >>> 'appendonly yess' argument must be 'yes' or 'no'" in sign.text
    assert sign.at == pytest.approx(1795240446.52)


def test_a_folder_that_is_not_there_is_a_configuration_error_of_its_own_kind():
    said = CONFIGURATION_ERROR.replace(
        "argument must be 'yes' or 'no'", "No such file or directory"
    )

    assert signs_in(said)[0].cause is Cause.FOLDER


def test_what_was_logged_before_the_last_start_does_not_count():
    old = "84:M 21 Nov 2026 05:55:43.871 # Write error saving DB: No space left on device\n"

    assert (
        signs_in(old + STARTED + "84:M 21 Nov 2026 05:55:44.0 * Ready to accept connections\n")
        == []
    )


def test_a_cut_off_aof_tells_how_much_is_lost():
    damage = parse_aof_check(AOF_CUT, has_failed=True)

    assert (damage.name, damage.size_bytes, damage.lost_bytes) == (
        "appendonly.aof.1.incr.aof", 350, 30,
    )  # fmt: skip
    assert damage.loss == "aof-bytes:30"
    assert "Expected to read 7 bytes, got 2 bytes" in str(damage)


def test_damage_of_which_nothing_is_said_has_no_empty_brackets():
    damage = parse_aof_check(AOF_CUT, has_failed=True)

    assert str(replace(damage, said="")).endswith(f"bytes of {damage.name}")


def test_a_sound_aof_has_lost_nothing():
    said = "AOF analyzed: size=355, ok_up_to=355, diff=0\nAOF is valid\n"  # Redis 6

    damage = parse_aof_check(said, has_failed=False)

    assert damage.lost_bytes == 0
    assert "no fault" in str(damage)


@pytest.mark.parametrize("said", ["Cannot open file x: Permission denied\n", ""])
def test_a_check_that_could_not_look_is_no_sound_aof(said):
    with pytest.raises(UnreadableOutput):
        parse_aof_check(said, has_failed=True)


def test_a_check_that_failed_without_a_loss_is_not_understood():
    with pytest.raises(UnreadableOutput):
        parse_aof_check("AOF analyzed: size=3, ok_up_to=3, diff=0\n", has_failed=True)


def test_a_damaged_snapshot_is_told_with_its_place():
    assert (
        parse_rdb_check(RDB_CUT).error
        == "redis-check-rdb, at byte 20: Unexpected EOF reading RDB file"
    )


def test_a_sound_snapshot_tells_its_keys():
    look = parse_rdb_check("[info] 12 keys read\n[info] 3 expires\n[info] 1 already expired\n")

    assert (look.keys, look.expired, look.error) == (12, 1, "")


def test_a_snapshot_check_that_says_nothing_is_not_understood():
    with pytest.raises(UnreadableOutput):
        parse_rdb_check("Cannot open file\n")


def test_a_unit_tells_how_it_is_stopped_and_which_process_it_runs():
    unit = parse_redis_unit("redis-server", UNIT)

    assert (unit.process.pid, unit.process.started_us) == (64, 12729696546)
    assert (unit.stop_within_seconds, unit.start_within_seconds) == (math.inf, 90)
    assert unit.arguments.startswith("/usr/bin/redis-server /etc/redis/redis.conf --supervised")
    assert not unit.has_job
    assert not unit.is_masked


def test_a_masked_unit_is_known_as_one():
    masked = UNIT.replace("LoadState=loaded", "LoadState=masked")

    assert parse_redis_unit("redis-server", masked).is_masked


def test_a_start_that_is_no_number_is_not_understood():
    with pytest.raises(UnreadableOutput):
        parse_redis_unit("redis-server", UNIT.replace("=12729696546", "=soon"))


@pytest.mark.parametrize(
    ("printed", "seconds"),
    [
        ("1min 30s", 90),
        ("infinity", math.inf),
        ("100ms", 0.1),
        ("2h", 7200),
        ("5min", 300),
        ("0", None),
    ],
)
def test_spans_of_time_are_read(printed, seconds):
    if seconds is None:
        with pytest.raises(UnreadableOutput):
            parse_span(printed)
    else:
        assert parse_span(printed) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("9:name=systemd:/system.slice/redis-server.service\n8:pids:/\n0::/system.slice/redis-server.service\n",
         "redis-server.service"),
        ("0::/system.slice/system-redis\\x2dserver.slice/redis-server@6380.service\n",
         "redis-server@6380.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", ""),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", ""),
        ("0::/system.slice/docker-1b2c.scope\n", ""),
        ("4:memory:/foo.service\n0::/\n", ""),
    ],
)  # fmt: skip
def test_the_unit_of_a_process_is_read_from_its_control_groups(printed, name):
    assert parse_unit_of_cgroup(printed) == name


def test_unit_names_are_taken_once_and_templates_left_out():
    printed = (
        "redis-sentinel.service loaded active running Advanced key-value store\n"
        "● redis-server.service   masked failed failed  redis-server.service\n"
        "redis-server.service    masked   enabled\n"
        "redis-server@.service   disabled enabled\n"
        "redis.service           alias    -\n"
        "\n"
    )

    assert parse_unit_names(printed) == [
        "redis-sentinel.service", "redis-server.service", "redis.service",
    ]  # fmt: skip


def test_listeners_are_read_loopback_first():
    printed = (
        'LISTEN 0      511    10.0.0.5:6379 0.0.0.0:* users:(("redis-server",pid=64,fd=8))\n'
        'LISTEN 0      511    127.0.0.1:6379 0.0.0.0:* users:(("redis-server",pid=64,fd=6))\n'
        'LISTEN 0      511        [::1]:6379    [::]:* users:(("redis-server",pid=64,fd=7))\n'
    )

    found = parse_listeners(printed)

    assert [one.address for one in found] == ["127.0.0.1", "::1", "10.0.0.5"]
    assert {(one.pid, one.name) for one in found} == {(64, "redis-server")}


def test_one_that_listens_everywhere_is_reached_on_loopback():
    assert parse_listeners("LISTEN 0 511 *:6379 *:*\n")[0].address == "127.0.0.1"
    assert parse_listeners("LISTEN 0 511 0.0.0.0:6379 0.0.0.0:*\n")[0].pid == 0


def test_other_words_of_ss_are_not_understood():
    with pytest.raises(UnreadableOutput):
        parse_listeners("Cannot open netlink socket: Permission denied\n")


def test_info_is_read():
    info = parse_info(INFO)

    assert info.is_master
    assert [(keys.database, keys.lasting) for keys in info.keys] == [(0, 10), (3, 1)]
    assert (info.replicas_online, info.offset, info.total_keys) == (1, 714, 13)
    assert info.is_memory_full
    assert info.last_save_is_ok
    assert info.is_link_up


def test_info_of_a_replica_tells_its_master_and_link():
    said = INFO.replace(
        "role:master",
        "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:down\r\n"
        "slave_repl_offset:690",
    )

    info = parse_info(said)

    assert not info.is_master
    assert not info.is_link_up
    assert (info.master, info.offset) == ("10.0.0.1:6379", 690)


@pytest.mark.parametrize(
    "said", ["", INFO.replace("loading:0", "loading"), INFO.replace(":10\n", ":x\n")]
)
def test_an_info_that_lacks_a_line_is_not_understood(said):
    with pytest.raises(UnreadableOutput):
        parse_info(said)


def test_a_process_state_is_read_whatever_its_name_holds():
    assert parse_state("64 (redis) T (x) S 1 64 64 0 -1 4194560") == "S"
    with pytest.raises(UnreadableOutput):
        parse_state("64")


def test_the_last_directive_counts_and_save_points_add_up():
    pairs = parse_lines(
        'port 6379\nsave 3600 1\nSAVE\t60 10\ndir "/var/lib/my redis/"\nport 6380\n'
    )

    settings = read_settings("/etc/redis.conf", pairs)

    assert (settings.port, settings.folder) == (6380, "/var/lib/my redis")
    assert settings.save_points == "3600 1 60 10"


@pytest.mark.parametrize(
    ("lines", "points"),
    [
        ("", SAVE_POINTS),
        ('save ""', ""),
        ("save 60 1\nsave ''", ""),
        ("save ''\nsave 60 1", "60 1"),
    ],
)
def test_save_points_are_settled_as_redis_does(lines, points):
    assert read_settings("x", parse_lines(lines)).save_points == points


def test_options_of_the_start_command_are_read_without_quotes():
    file, options = split_arguments(
        ["/etc/redis/redis.conf", "--save", "--appendonly", "yes", "--port", "7000"]
    )

    settings = read_settings(file, options)

    assert (settings.file, settings.port, settings.is_aof) == ("/etc/redis/redis.conf", 7000, True)
    assert not settings.save_points


def test_both_names_of_a_replica_are_one():
    assert read_settings("", [("slaveof", "10.0.0.1 6379")]).replica_of == "10.0.0.1 6379"
    assert read_settings("", [("replicaof", "a 1"), ("slaveof", "")]).replica_of == "a 1"
    assert read_settings("", [("replicaof", "NO ONE")]).replica_of == ""


def test_a_port_that_is_no_number_is_not_understood():
    with pytest.raises(UnreadableOutput):
        read_settings("x", [("port", "many")])


def test_quotes_that_do_not_end_are_left_for_redis_to_refuse():
    assert parse_lines('dir "/x') == [("dir", '"/x')]


SETTINGS = read_settings(
    "/etc/redis/redis.conf", [("dir", "/var/lib/redis"), ("appendonly", "yes")]
)
STORAGE = (
    "folder redis 750\nfree 74483728384\ninodes 16000000\nwritable\n"
    "file\t104\t1795240544.2480000000\tredis\tdump.rdb\n"
    "file\t88\t1795240545.1\tredis\tappendonlydir/appendonly.aof.manifest\n"
    "file\t355\t1795240546.1\tredis\tappendonlydir/appendonly.aof.1.incr.aof\n"
)


def test_storage_is_read():
    storage = parse_storage(STORAGE, SETTINGS)

    assert storage.snapshot.size_bytes == 104
    assert storage.aof_path == "/var/lib/redis/appendonlydir/appendonly.aof.manifest"
    assert storage.size_bytes == 547
    assert not storage.has_keys_in_snapshot
    assert storage.why_not_writable("redis", 1000) is None


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("absent\n", Cause.FOLDER),
        (STORAGE.replace("free 74483728384", "free 999"), Cause.DISK_FULL),
        (STORAGE.replace("inodes 16000000", "inodes 0"), Cause.DISK_FULL),
        (STORAGE.replace("writable\n", ""), Cause.PERMISSION),
        (STORAGE + "read-only\n", Cause.READ_ONLY),
        (STORAGE + "closed\tdump.rdb\n", Cause.PERMISSION),
    ],
)
def test_what_keeps_it_from_saving_is_named(said, cause):
    assert parse_storage(said, SETTINGS).why_not_writable("redis", 1000)[0] is cause


def test_an_aof_of_one_file_is_found():
    said = "folder redis 750\nfree 9\nwritable\nfile\t5\t1.0\tredis\tappendonly.aof\n"

    storage = parse_storage(said, SETTINGS)

    assert storage.aof_path == "/var/lib/redis/appendonly.aof"
    assert [file.path for file in storage.aof_files] == ["appendonly.aof"]


@pytest.mark.parametrize("said", ["", "folder redis\nfree 1\n", "folder redis 750\nfree lots\n"])
def test_a_look_at_the_disk_that_lacks_a_line_is_not_understood(said):
    with pytest.raises(UnreadableOutput):
        parse_storage(said, SETTINGS)


def test_the_addresses_with_most_connections_come_first():
    printed = "".join(
        f"0 0 127.0.0.1:6379 10.0.0.{last}:4{n:04d}\n" for last, n in [(2, 1), (3, 2), (3, 3)]
    )

    assert parse_peers(printed) == "10.0.0.3 (2), 10.0.0.2 (1)"
    assert parse_peers("") == "nowhere"


def test_what_a_sentinel_says_is_read():
    message = "10.0.0.4,26379,e977a498cf4d4eb27f1dc45ac263b336d3ebe3ec,0,divoc,10.0.0.1,6379,0"

    place, watch = parse_hello(message)

    assert place == "10.0.0.4:26379"
    assert (watch.name, watch.address, watch.port) == ("divoc", "10.0.0.1", 6379)


@pytest.mark.parametrize("message", ["1", "a,b,c,d,e,f,g,h", ""])
def test_what_is_no_hello_is_passed_over(message):
    assert parse_hello(message)[1] is None


@pytest.mark.parametrize(
    ("flags", "link", "priority", "may"),
    [
        ("slave", "ok", "100", True),
        ("s_down,slave", "ok", "100", False),
        ("slave,disconnected", "ok", "100", False),
        ("slave", "err", "100", False),
        ("slave", "ok", "0", False),
    ],
)
def test_a_replica_may_be_promoted_only_where_sentinel_would(flags, link, priority, may):
    reply = ["ip", "10.0.0.2", "port", "6379", "flags", flags, "master-link-status", link,
             "slave-priority", priority]  # fmt: skip

    assert replica_of(reply).may_be_promoted is may
