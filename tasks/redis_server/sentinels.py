"""The sentinels that watch a Redis: who they are, which replicas they know, what they are at."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from blocks.redis_session import HungUp, Login, RedisSaidNo, RedisSession, Silent
from recovery.errors import Refused, Unreachable
from recovery.steps import decision
from tasks.redis_server.target import RedisServer

HELLO = "__sentinel__:hello"
HELLO_FIELDS = 8
HEARD_WITHIN_SECONDS = 5.0  # each sentinel says hello every two seconds
FAILOVER_SECONDS = 180.0  # what a sentinel gives a failover where nobody set it
IN_PROGRESS = "failover_in_progress"
EVERYBODY = ("default",)
DOWN_FLAGS = ("down", "disconnected")


@dataclass(frozen=True)
class Watch:
    """Who watches a master, and under which name and address they know it."""

    name: str
    address: str
    port: int
    sentinels: tuple[str, ...]  # address:port
    replicas: tuple[str, ...]  # address:port, as the sentinels know them
    failover_seconds: float = FAILOVER_SECONDS  # how long a sentinel tries each part of a failover
    users: tuple[str, ...] = EVERYBODY  # accounts by which somebody may tell it whom to follow

    @property
    def place(self) -> str:
        """Where the master is that they watch."""
        return f"{self.address}:{self.port}"

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
    def could_be_promoted(self) -> bool:
        """Whether Sentinel might choose it: it does so, too, where the link broke a moment ago."""
        is_down = any(flag in self.flags for flag in DOWN_FLAGS)
        return not is_down and self.priority > 0

    @property
    def may_be_promoted(self) -> bool:
        """Whether it follows its master and Sentinel would choose it."""
        return self.could_be_promoted and self.link == "ok"


@dataclass(frozen=True)
class State:
    """What a sentinel is at with a master."""

    is_failing_over: bool
    failover_seconds: float


@decision
def watch_over(server: RedisServer) -> Watch:
    """Who watches the server, heard from what sentinels publish on it; nobody is an answer.

    Raises:
        Refused: sentinels listen to it, and say nothing.
        RedisSaidNo: this account may not listen.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 6.
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
    with sentinel_of(server, known) as session:
        replicas = tuple(one.place for one in replicas_of(session, known))
        timeout = state_of(session.read("SENTINEL", "MASTER", first.name)).failover_seconds
    return replace(known, replicas=replicas, failover_seconds=timeout, users=_users(server))


def _users(server: RedisServer) -> tuple[str, ...]:
    """The accounts of the server; the default one where this account may not ask."""
    with server.session() as session:
        try:
            return tuple(str(user) for user in session.read("ACL", "USERS"))
        except RedisSaidNo:
            return EVERYBODY


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
def sentinel_of(server: RedisServer, watch: Watch) -> Iterator[RedisSession]:
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


def replicas_of(session: RedisSession, watch: Watch) -> list[Replica]:
    """The replicas that a sentinel knows of."""
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


def master_of(session: RedisSession, watch: Watch) -> str:
    """Where Sentinel says that the master is."""
    reply = session.read("SENTINEL", "GET-MASTER-ADDR-BY-NAME", watch.name)
    return f"{reply[0]}:{reply[1]}" if reply else ""


def state_of(reply: list[Any]) -> State:
    """Read what `SENTINEL MASTER` answers (2.8 to 7.2), names and values in turn."""
    said = dict(zip(reply[::2], reply[1::2], strict=True))
    timeout = str(said.get("failover-timeout", ""))
    return State(
        IN_PROGRESS in str(said.get("flags", "")).split(","),
        int(timeout) / 1000 if timeout.isdigit() else FAILOVER_SECONDS,
    )
