"""The sentinels that watch a Redis, and failing over through them without losing a write.

Sentinel promotes a replica within a second or so, and tells the old master ten seconds later, which
takes writes until then and throws them away (measured with 7.0.15: of 8706 writes that were
confirmed, 8228 were gone). So the writes wait while Sentinel decides, and the old master is told at
once what Sentinel decided.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from blocks.redis_session import HungUp, Login, RedisSaidNo, RedisSession, Silent
from recovery.errors import NotVerified, Refused, Unreachable
from recovery.steps import act, decision
from tasks.redis_server.settings import settings_of
from tasks.redis_server.status import info_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due
from tasks.redis_server.units import redis_unit

HELLO = "__sentinel__:hello"
HELLO_FIELDS = 8
HEARD_WITHIN_SECONDS = 5.0  # each sentinel says hello every two seconds
PAUSE_SECONDS = 0.05
ASK_SECONDS = 1.0
WRITES_WAIT_SECONDS = 20.0  # they go on by themselves after that, whatever became of us
CATCH_UP_SECONDS = 5.0
SWITCH_WITHIN_SECONDS = 12.0
KNOWN_WITHIN_SECONDS = 25.0  # a sentinel asks for the replicas every ten seconds
LINK_WITHIN_SECONDS = 300.0
VERSION_MIN = (6, 2)  # CLIENT PAUSE … WRITE
DOWN_FLAGS = ("down", "disconnected")


@dataclass(frozen=True)
class Watch:
    """Who watches a master, and under which name and address they know it."""

    name: str
    address: str
    port: int
    sentinels: tuple[str, ...]  # address:port
    replicas: tuple[str, ...]  # address:port, as the sentinels know them

    @property
    def is_kept(self) -> bool:
        """Whether anybody watches it."""
        return bool(self.sentinels)


@dataclass(frozen=True)
class Replica:
    """A replica as a sentinel knows it."""

    place: str
    flags: str
    link: str
    priority: int

    @property
    def may_be_promoted(self) -> bool:
        """Whether Sentinel would choose it."""
        is_down = any(flag in self.flags for flag in DOWN_FLAGS)
        return not is_down and self.link == "ok" and self.priority > 0


@decision
def watch_over(server: RedisServer) -> Watch:
    """Who watches the server, heard from what sentinels publish on it; nobody is an answer.

    Raises:
        Refused: sentinels listen to it, and say nothing.
        RedisSaidNo: this account may not listen.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 5.
    """
    nobody = Watch("", "", 0, (), ())
    with server.session() as session:
        if not session.read("PUBSUB", "NUMSUB", HELLO)[1]:
            return nobody
    heard = _heard(server)
    if not heard:
        raise Refused(
            server.label,
            f"sentinels listen to it, and none said anything for {HEARD_WITHIN_SECONDS:g} s",
            "See the log of the sentinels; with `sentinel` in its ACL user, this account also "
            f"needs &{HELLO}",
        )
    first = next(iter(heard.values()))
    if len({one.name for one in heard.values()}) > 1:
        names = ", ".join(sorted({one.name for one in heard.values()}))
        raise Refused(
            server.label,
            f"it is watched under several names: {names}",
            "Remove the wrong one with SENTINEL REMOVE",
        )
    sentinels = tuple(sorted(heard))
    known = Watch(first.name, first.address, first.port, sentinels, ())
    with _sentinel(server, known) as session:
        replicas = tuple(one.place for one in _replicas(session, known))
    return Watch(first.name, first.address, first.port, sentinels, replicas)


def _heard(server: RedisServer) -> dict[str, Watch]:
    """What each sentinel says of the master it watches, by the sentinel's own address."""
    heard: dict[str, Watch] = {}
    ends = time.monotonic() + HEARD_WITHIN_SECONDS
    with server.session() as session:
        for message in session.heard(HELLO, HEARD_WITHIN_SECONDS / 2):
            place, watch = parse_hello(message)
            if place in heard or time.monotonic() > ends:
                break
            if watch is not None:
                heard[place] = watch
    return heard


def parse_hello(message: str) -> tuple[str, Watch | None]:
    """Read what a sentinel publishes (3.0 to 7.2); `None` where it is something else.

    127.0.0.1,26379,e977a498cf4d4eb27f1dc45ac263b336d3ebe3ec,0,mymaster,127.0.0.1,6379,0
    """
    fields = message.split(",")
    if len(fields) != HELLO_FIELDS or not (fields[1].isdigit() and fields[6].isdigit()):
        return "", None
    place = f"{fields[0]}:{fields[1]}"
    return place, Watch(fields[4], fields[5], int(fields[6]), (place,), ())


@contextmanager
def _sentinel(server: RedisServer, watch: Watch) -> Iterator[RedisSession]:
    """The first sentinel that answers; with the password of the server only where it asks for one.

    Raises:
        Unreachable: none does.
    """
    seen = []
    for place in watch.sentinels:
        address, _, port = place.rpartition(":")
        for login in (Login(tls_ca_file=server.login.tls_ca_file), server.login):
            try:
                with server.session_at(address, int(port), login) as session:
                    session.read("PING")
                    yield session
                    return
            except RedisSaidNo as no:
                if no.word != "NOAUTH" or login == server.login:
                    raise
            except (Silent, HungUp, Unreachable) as error:
                seen.append(f"{place}: {error.seen}")
                break
    raise Unreachable(server.label, "ask a sentinel", "; ".join(seen))


def _replicas(session: RedisSession, watch: Watch) -> list[Replica]:
    return [replica_of(reply) for reply in session.read("SENTINEL", "SLAVES", watch.name)]


def replica_of(reply: list[Any]) -> Replica:
    """Read one entry of `SENTINEL SLAVES`, names and values in turn."""
    said = dict(zip(reply[::2], reply[1::2], strict=True))
    return Replica(
        f"{said['ip']}:{said['port']}",
        str(said.get("flags", "")),
        str(said.get("master-link-status", "")),
        int(said.get("slave-priority", "0")),
    )


def _master(session: RedisSession, watch: Watch) -> str:
    """Where Sentinel says that the master is."""
    reply = session.read("SENTINEL", "GET-MASTER-ADDR-BY-NAME", watch.name)
    return f"{reply[0]}:{reply[1]}" if reply else ""


def failover_commands(watch: Watch) -> list[str]:
    """What fails over; the replica that Sentinel chooses is one of those named here."""
    return [
        _pause_line(),
        f"SENTINEL FAILOVER {watch.name}",
        *(f"REPLICAOF {' '.join(place.rsplit(':', 1))}" for place in watch.replicas),
        "CLIENT UNPAUSE",
        "CONFIG REWRITE",
    ]


def _pause_line() -> str:
    return f"CLIENT PAUSE {int(WRITES_WAIT_SECONDS * 1000)} WRITE"


def has_failed_over(server: RedisServer, due: Due, watch: Watch) -> bool:
    """Whether the server is a replica of the master that Sentinel names, after a restart too."""
    with server.session() as session:
        info = info_of(session)
    unit = redis_unit(server.host, due.unit)
    if info.is_master or not settings_of(server.host, unit.arguments, unit.name).replica_of:
        return False
    with _sentinel(server, watch) as session:
        return _master(session, watch) == info.master


def refuse_unless_failover_can_succeed(server: RedisServer, watch: Watch) -> None:
    """Refuse a failover for which there is no quorum or no replica that could take over.

    Raises:
        Refused: there is none; says which.
        Unreachable: no sentinel answers.

    Runbook: docs/runbooks/redis.md, step 5.
    """
    with server.session() as session:
        info = info_of(session)
    if tuple(int(part) for part in info.version.split(".")[:2]) < VERSION_MIN:
        raise Refused(
            server.label,
            f"Redis {info.version} cannot hold writes back during a failover, and those of some "
            "ten seconds would be lost",
            f"Stop what writes, `SENTINEL FAILOVER {watch.name}` at a sentinel, wait until this "
            "server is a replica, then start this recovery again",
        )
    with _sentinel(server, watch) as session:
        _refuse_without_quorum(server, session, watch)
        _refuse_without_replica(server, session, watch)


def _refuse_without_quorum(server: RedisServer, session: RedisSession, watch: Watch) -> None:
    try:
        session.read("SENTINEL", "CKQUORUM", watch.name)
    except RedisSaidNo as no:
        raise Refused(
            server.label,
            f"Sentinel could not fail over {watch.name}: {no.word} {no.tail}",
            "Bring the missing sentinels back, then resume",
        ) from no


def _refuse_without_replica(server: RedisServer, session: RedisSession, watch: Watch) -> None:
    ends = time.monotonic() + KNOWN_WITHIN_SECONDS
    while True:
        known = _replicas(session, watch)
        if any(one.may_be_promoted for one in known):
            return
        if time.monotonic() > ends:
            told = ", ".join(f"{one.place} ({one.flags}, link {one.link})" for one in known)
            raise Refused(
                server.label,
                f"Sentinel has no replica to promote: {told or 'it knows none'}",
                "Recover a replica first, and wait until the sentinels see it; then resume",
            )
        time.sleep(ASK_SECONDS)


@act(
    commands=failover_commands,
    done_when=has_failed_over,
    refuse_if=(refuse_unless_failover_can_succeed,),
    redo_stale=False,
    lasts_until="restart",
)
def fail_over(server: RedisServer, due: Due, watch: Watch) -> None:
    """Have Sentinel promote a replica, and have the old master follow it. Both keep all data.

    Writes wait meanwhile, a second or two; clients then get READONLY and ask Sentinel anew. Begun
    and cut off, the writes go on by themselves and Sentinel ends what it began. Done twice, the
    second finds the roles swapped and does nothing.

    Raises:
        Refused: there is no quorum, or no replica that could take over.
        NotVerified: the replicas lag behind, or Sentinel did not switch in time.
        Unreachable: no answer of the server or of any sentinel.

    Runbook: docs/runbooks/redis.md, step 5.
    """
    del due  # what its probe asks for
    with server.session() as old, _sentinel(server, watch) as sentinel:
        here = f"{watch.address}:{watch.port}"
        new = _master(sentinel, watch)
        try:
            if new == here:
                old.change(*_pause_line().split())
                _until_caught_up(server, old)
                _order(sentinel, watch)
                new = _until_switched(server, sentinel, watch, here)
            if info_of(old).is_master:
                address, _, port = new.rpartition(":")
                old.change("REPLICAOF", address, port)
        finally:
            old.change("CLIENT", "UNPAUSE")
        old.change("CONFIG", "REWRITE")
        _until_linked(server, old)


def _until_caught_up(server: RedisServer, old: RedisSession) -> None:
    ends = time.monotonic() + CATCH_UP_SECONDS
    with old.repeated("ROLE") as role:
        while True:
            _, offset, replicas = role()
            if any(int(place[2]) >= int(offset) for place in replicas):
                return
            if time.monotonic() > ends:
                raise NotVerified(
                    server.label,
                    f"a replica to catch up while no writes come (offset {offset})",
                    ", ".join(f"{place[0]}:{place[1]} at {place[2]}" for place in replicas),
                    "See the network between them and the load of the replicas, then resume",
                )
            time.sleep(PAUSE_SECONDS)


def _order(sentinel: RedisSession, watch: Watch) -> None:
    try:
        sentinel.change("SENTINEL", "FAILOVER", watch.name)
    except RedisSaidNo as no:
        if no.word != "INPROG":  # one is under way already, and that one counts
            raise


def _until_switched(server: RedisServer, sentinel: RedisSession, watch: Watch, here: str) -> str:
    ends = time.monotonic() + SWITCH_WITHIN_SECONDS
    words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", watch.name)
    with sentinel.repeated(*words) as ask:
        while True:
            new = ":".join(ask())
            if new != here:
                return new
            if time.monotonic() > ends:
                raise NotVerified(
                    server.label,
                    f"Sentinel to make another server the master of {watch.name}",
                    f"{new} after {SWITCH_WITHIN_SECONDS:g} s",
                    "See the log of the sentinels (-failover-abort-no-good-slave?), then resume",
                )
            time.sleep(PAUSE_SECONDS)


def _until_linked(server: RedisServer, old: RedisSession) -> None:
    ends = time.monotonic() + LINK_WITHIN_SECONDS
    while not (info := info_of(old)).is_link_up or info.is_master:
        if time.monotonic() > ends:
            raise NotVerified(
                server.label,
                f"its link to the new master {info.master} to be up",
                "that it is down",
                "See its log: masterauth, and the network between them",
            )
        time.sleep(PAUSE_SECONDS)
