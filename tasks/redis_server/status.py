"""What `INFO` and `ROLE` tell of a Redis: its role, memory, keys, and how its data gets to disk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from blocks.redis_session import RedisSession
from recovery.errors import UnreadableOutput
from recovery.secrecy.redaction import redacted_head

MASTER = "master"
REPLICA = re.compile(r"slave\d+")


@dataclass(frozen=True)
class Keys:
    """The keys of one database: all, and those that run out by themselves."""

    database: int
    total: int
    expiring: int

    @property
    def lasting(self) -> int:
        """Those that stay until somebody deletes them."""
        return self.total - self.expiring


@dataclass(frozen=True)
class Info:
    """One answer to `INFO`."""

    run_id: str
    version: str
    file: str
    role: str
    is_loading: bool
    loaded_percent: float
    loading_left_seconds: int
    keys: tuple[Keys, ...]
    used_bytes: int
    maxmemory_bytes: int
    maxmemory_policy: str
    changes_unsaved: int
    last_save_at: int
    is_saving: bool
    last_save_is_ok: bool
    last_save_seconds: int  # how long it took; -1 where there was none
    is_aof: bool
    aof_write_is_ok: bool
    aof_rewrite_is_ok: bool
    is_rewriting: bool
    clients: int
    replicas_online: int
    offset: int
    is_link_up: bool
    master: str
    is_cluster: bool
    replication_id: str  # of the stream of changes
    former_replication_id: str  # of the one it followed before it was promoted
    promoted_at_offset: int  # how far it was in that one; -1 where it was never promoted
    good_replicas: int  # as counted for min-replicas-to-write; -1 where none are wanted

    @property
    def is_master(self) -> bool:
        """Whether it takes writes; one without replicas is a master too."""
        return self.role == MASTER

    @property
    def total_keys(self) -> int:
        """Of all databases."""
        return sum(keys.total for keys in self.keys)

    @property
    def is_memory_full(self) -> bool:
        """Whether writes are refused because nothing may be evicted."""
        is_over = 0 < self.maxmemory_bytes < self.used_bytes
        return is_over and self.maxmemory_policy == "noeviction"


def info_of(session: RedisSession) -> Info:
    """Ask for all sections at once; it answers while it loads, too.

    Raises:
        RedisSaidNo: this account may not ask.
        UnreadableOutput: something else was answered.
    """
    return parse_info(str(session.read("INFO")))


def parse_info(printed: str) -> Info:
    """Read what `INFO` answers (2.8 to 7.2, Valkey 8), one `name:value` a line.

        run_id:7be6ed546f289ec2bc54fb33d9777e3de2bb199b
        role:master
        slave0:ip=10.0.0.2,port=6379,state=online,offset=700,lag=0
        db0:keys=2,expires=0,avg_ttl=0

    Raises:
        UnreadableOutput: a line that must be there is missing, or a number is none.
    """
    said = {}
    for line in printed.splitlines():
        name, mark, value = line.partition(":")
        if mark and not line.startswith("#"):
            said[name] = value.strip()
    try:
        return _info(said)
    except (KeyError, ValueError) as error:
        raise UnreadableOutput("INFO", redacted_head(printed, 2000)) from error


def _info(said: Mapping[str, str]) -> Info:
    is_master = said["role"] == MASTER
    offset = said.get("master_repl_offset" if is_master else "slave_repl_offset", "0")
    return Info(
        run_id=said["run_id"],
        version=said.get("redis_version", ""),
        file=said.get("config_file", ""),
        role=said["role"],
        is_loading=said["loading"] != "0",
        loaded_percent=float(said.get("loading_loaded_perc", "0")),
        loading_left_seconds=int(said.get("loading_eta_seconds", "0")),
        keys=_keys(said),
        used_bytes=int(said.get("used_memory", "0")),
        maxmemory_bytes=int(said.get("maxmemory", "0")),
        maxmemory_policy=said.get("maxmemory_policy", ""),
        changes_unsaved=int(said["rdb_changes_since_last_save"]),
        last_save_at=int(said["rdb_last_save_time"]),
        is_saving=said["rdb_bgsave_in_progress"] != "0",
        last_save_is_ok=said["rdb_last_bgsave_status"] == "ok",
        last_save_seconds=int(said.get("rdb_last_bgsave_time_sec", "-1")),
        is_aof=said["aof_enabled"] == "1",
        aof_write_is_ok=said.get("aof_last_write_status", "ok") == "ok",
        aof_rewrite_is_ok=said.get("aof_last_bgrewrite_status", "ok") == "ok",
        is_rewriting=said.get("aof_rewrite_in_progress", "0") != "0"
        or said.get("aof_rewrite_scheduled", "0") != "0",
        clients=int(said.get("connected_clients", "0")),
        replicas_online=sum(
            "state=online" in value for name, value in said.items() if REPLICA.fullmatch(name)
        ),
        offset=int(offset),
        is_link_up=is_master or said.get("master_link_status") == "up",
        master="" if is_master else f"{said.get('master_host', '?')}:{said.get('master_port')}",
        is_cluster=said.get("cluster_enabled", "0") == "1",
        replication_id=said.get("master_replid", ""),
        former_replication_id=said.get("master_replid2", ""),
        promoted_at_offset=max(int(said.get("second_repl_offset", "-1")) - 1, -1),
        good_replicas=int(said.get("min_slaves_good_slaves", "-1")),
    )


def _keys(said: Mapping[str, str]) -> tuple[Keys, ...]:
    found = []
    for name, value in said.items():
        if name.startswith("db") and name[2:].isdigit():
            counts = dict(part.split("=", 1) for part in value.split(","))
            found.append(Keys(int(name[2:]), int(counts["keys"]), int(counts["expires"])))
    return tuple(found)
