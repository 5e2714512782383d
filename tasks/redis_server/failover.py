"""Failing over through Sentinel without losing a write.

Sentinel promotes a replica within a second or so, and tells the old master ten seconds later, which
takes writes until then and throws them away (measured with 7.0.15: of 8706 writes that were
confirmed, 8228 were gone). So the writes wait until Sentinel has decided, however long that takes,
and the old master is told at once what Sentinel decided. It chooses by priority before it looks who
has more data, so every replica that it could choose must have all of it.
"""

import time

from blocks.redis_session import RedisSaidNo, RedisSession
from recovery.errors import NotVerified, Refused, Unreachable
from recovery.steps import act
from tasks.redis_server.sentinels import (
    Watch,
    master_of,
    replicas_of,
    sentinel_of,
    state_of,
)
from tasks.redis_server.settings import settings_of
from tasks.redis_server.status import info_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due
from tasks.redis_server.units import redis_unit

PAUSE_SECONDS = 0.05
ASK_SECONDS = 1.0
CATCH_UP_SECONDS = 5.0
CATCH_UP_PAUSE_SECONDS = 20.0  # the writes go on by themselves after that: nothing is ordered yet
PARTS_OF_A_FAILOVER = 2  # Sentinel gives each of them its failover-timeout, and aborts then
DECIDES_SECONDS = 30.0  # beyond that
FENCED_SECONDS = 3600.0
KNOWN_WITHIN_SECONDS = 25.0  # a sentinel asks for the replicas every ten seconds
LINK_WITHIN_SECONDS = 300.0
VERSION_MIN = (6, 2)  # CLIENT PAUSE … WRITE
PING_BYTES = 14  # of the master's own, every ten seconds; no write is as short
UNPAUSE = "CLIENT UNPAUSE"


def failover_commands(watch: Watch) -> list[str]:
    """What fails over; the replica that Sentinel chooses is one of those named here."""
    return [
        _pause_line(CATCH_UP_PAUSE_SECONDS),
        _pause_line(_decides_within_seconds(watch)),
        f"SENTINEL FAILOVER {watch.name}",
        *(f"REPLICAOF {' '.join(place.rsplit(':', 1))}" for place in watch.replicas),
        UNPAUSE,
        "CONFIG REWRITE",
        *_fence_lines(watch),
    ]


def _pause_line(seconds: float) -> str:
    return f"CLIENT PAUSE {int(seconds * 1000)} WRITE"


def _fence_lines(watch: Watch) -> list[str]:
    """What keeps Sentinel from making the old master a replica, and clients from writing to it."""
    denied = [f"ACL SETUSER {user} -replicaof -slaveof" for user in watch.users]
    return [_pause_line(FENCED_SECONDS), *denied]


def _decides_within_seconds(watch: Watch) -> float:
    return PARTS_OF_A_FAILOVER * watch.failover_seconds + DECIDES_SECONDS


def has_failed_over(server: RedisServer, due: Due, watch: Watch) -> bool:
    """Whether the server is a replica of the master that Sentinel names, after a restart too."""
    with server.session() as session:
        info = info_of(session)
    unit = redis_unit(server.host, due.unit)
    if info.is_master or not settings_of(server.host, unit.arguments, unit.name).replica_of:
        return False
    with sentinel_of(server, watch) as session:
        return master_of(session, watch) == info.master


def refuse_unless_failover_can_succeed(server: RedisServer, watch: Watch) -> None:
    """Refuse a failover for which there is no quorum or no replica that could take over.

    Raises:
        Refused: there is none; says which.
        Unreachable: no sentinel answers.

    Runbook: docs/runbooks/redis.md, step 6.
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
    with sentinel_of(server, watch) as session:
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
        known = replicas_of(session, watch)
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

    Writes wait meanwhile, a second or two, and until Sentinel has decided at the longest; clients
    then get READONLY and ask Sentinel anew. Begun and cut off, Sentinel ends what it began while
    the writes still wait. Done twice, the second finds the roles swapped and does nothing. The old
    master follows only one that has all it has; else it is fenced, and keeps its data.

    Raises:
        Refused: there is no quorum, or no replica that could take over.
        NotVerified: a replica lags behind, Sentinel did not switch, or the new master has less.
        Unreachable: no answer of the server or of any sentinel.

    Runbook: docs/runbooks/redis.md, step 6.
    """
    del due  # what its probe asks for
    with server.session() as old, sentinel_of(server, watch) as sentinel:
        offset, new = _failed_over(server, old, sentinel, watch)
        if info_of(old).is_master:
            _refuse_less(server, old, watch, offset, new)
            address, _, port = new.rpartition(":")
            old.change("REPLICAOF", address, port)
        old.change(*UNPAUSE.split())
        old.change("CONFIG", "REWRITE")
        _until_linked(server, old)


def _failed_over(
    server: RedisServer, old: RedisSession, sentinel: RedisSession, watch: Watch
) -> tuple[int, str]:
    """How far the old master was when nothing was written any more, and where the new one is."""
    new = master_of(sentinel, watch)
    if new == watch.place and not _is_failing_over(sentinel, watch):
        old.change(*_pause_line(CATCH_UP_PAUSE_SECONDS).split())
        try:
            offset = _until_caught_up(server, old, sentinel, watch)
            old.change(*_pause_line(_decides_within_seconds(watch)).split())
            _order(sentinel, watch)
        except (NotVerified, RedisSaidNo):
            if not _is_failing_over(sentinel, watch):  # by somebody else
                old.change(*UNPAUSE.split())
            raise
    else:  # an earlier attempt, or somebody else, has begun it
        old.change(*_pause_line(_decides_within_seconds(watch)).split())
        offset = info_of(old).offset - PING_BYTES
    if new == watch.place:
        new = _until_decided(server, old, sentinel, watch)
    return offset, new


def _is_failing_over(sentinel: RedisSession, watch: Watch) -> bool:
    return state_of(sentinel.read("SENTINEL", "MASTER", watch.name)).is_failing_over


def _until_caught_up(
    server: RedisServer, old: RedisSession, sentinel: RedisSession, watch: Watch
) -> int:
    """Wait until every replica that Sentinel could promote has all; return how far that is."""
    ends = time.monotonic() + CATCH_UP_SECONDS
    with old.repeated("ROLE") as role:
        while True:
            could_be = [one.place for one in replicas_of(sentinel, watch) if one.could_be_promoted]
            _, offset, replicas = role()
            at = {f"{place[0]}:{place[1]}": int(place[2]) for place in replicas}
            lagging = [place for place in could_be if at.get(place, -1) < int(offset)]
            if could_be and not lagging:
                return int(offset)
            if time.monotonic() > ends:
                told = ", ".join(
                    f"{place} at {at[place]}" if place in at else f"{place} not connected"
                    for place in lagging
                )
                raise NotVerified(
                    server.label,
                    f"each replica that Sentinel could promote to catch up while no writes come "
                    f"(offset {offset})",
                    told or "none that it could promote",
                    "See the network between them and the load of the replicas; "
                    "`replica-priority 0` keeps one from being promoted. Then resume",
                )
            time.sleep(PAUSE_SECONDS)


def _order(sentinel: RedisSession, watch: Watch) -> None:
    try:
        sentinel.change("SENTINEL", "FAILOVER", watch.name)
    except RedisSaidNo as no:
        if no.word != "INPROG":  # one is under way already, and that one counts
            raise


def _until_decided(
    server: RedisServer, old: RedisSession, sentinel: RedisSession, watch: Watch
) -> str:
    """Wait until Sentinel has switched or given up; the writes go on only where it has given up.

    Its choice may stand still and be promoted much later: until then, what the old master confirms
    would be thrown away.
    """
    ends = time.monotonic() + _decides_within_seconds(watch)
    with sentinel.repeated("SENTINEL", "MASTER", watch.name) as state:
        while True:
            is_failing_over = state_of(state()).is_failing_over
            new = master_of(sentinel, watch)  # asked after it: it may switch in between
            if new != watch.place:
                return new
            if not is_failing_over:
                old.change(*UNPAUSE.split())
                raise NotVerified(
                    server.label,
                    f"Sentinel to make another server the master of {watch.name}",
                    f"that it gave up, and {new} is the master as before; its writes go on",
                    "See the log of the sentinels (-failover-abort-...), then resume",
                )
            if time.monotonic() > ends:
                raise NotVerified(
                    server.label,
                    f"Sentinel to make another server the master of {watch.name}, or to give up",
                    "that it goes on, so the writes are still held back",
                    "See the log of the sentinels; then resume, which goes on waiting. `CLIENT "
                    "UNPAUSE` lets the writes on, and they are lost if Sentinel switches after it",
                )
            time.sleep(PAUSE_SECONDS)


def _refuse_less(
    server: RedisServer, old: RedisSession, watch: Watch, offset: int, new: str
) -> None:
    """Keep the old master as it is where the new one has not all that it has, or does not tell.

    Raises:
        NotVerified: the new master has less, or nobody knows.
    """
    history = info_of(old).replication_id
    address, _, port = new.rpartition(":")
    try:
        with server.session_at(address, int(port), server.login) as session:
            taken = info_of(session)
        has_all = taken.former_replication_id == history and taken.promoted_at_offset >= offset
        seen = f"it took over at offset {taken.promoted_at_offset}"
        if taken.former_replication_id != history:
            seen = f"it is a {taken.role} of another history"
    except (RedisSaidNo, Unreachable) as error:
        has_all, seen = False, f"it does not tell: {error}"
    if has_all:
        return
    fenced = []
    for line in _fence_lines(watch):
        try:
            old.change(*line.split())
        except RedisSaidNo as no:
            fenced.append(f"{line}: {no.word}")
    failed = f"; not all of that was taken: {', '.join(fenced)}" if fenced else ""
    users = ", ".join(watch.users)
    raise NotVerified(
        server.label,
        f"the new master {new} to have all that this one has (offset {offset})",
        f"{seen}. This one keeps its data, takes no writes for {FENCED_SECONDS:g} s, and nobody "
        f"may make it a replica ({users}: -replicaof -slaveof){failed}",
        "`BGSAVE` here and keep the file; find out what the new master lacks. To let this one "
        "follow it and lose that: `ACL SETUSER … +replicaof +slaveof` for these accounts, `CLIENT "
        f"UNPAUSE`, `REPLICAOF {address} {port}`",
    )


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
