"""Connections that are kept: shared by all that go the same way to the same host.

One is found dead before a command is sent on it, never after: opening a channel is answered by the
server itself, and only then is the command sent. Inside of a recovery a connection outlives its use
by a while, since the next step will want it.
"""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import paramiko

from blocks.ssh.connection import Connection
from blocks.ssh.deadline import Deadline
from blocks.ssh.running import close_channel
from recovery.commands import current_gate
from recovery.errors import Unreachable

LINGER_SECONDS = 20.0
SWEEP_SECONDS = 5.0
ANSWER_SECONDS = 5.0  # a kept connection that does not answer by then is opened anew
Shown = TypeVar("Shown")


@dataclass(eq=False)
class _Kept:
    """A connection and how many use it; `room` is how many at once it was found to take."""

    connection: Connection
    in_use: int = 0
    room: int | None = None
    is_retired: bool = False

    @property
    def is_free(self) -> bool:
        """Whether one more may be tried on it."""
        has_room = self.room is None or self.in_use < self.room
        return has_room and not self.is_retired and self.connection.is_active()


@dataclass(eq=False)
class Way:
    """All connections of one way to one host, and what was found out about the host on it."""

    target: str
    open: Callable[[Deadline], Connection]
    lock: threading.RLock = field(default_factory=threading.RLock)
    _facts: dict[str, tuple[float, Any]] = field(default_factory=dict)
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _kept: list[_Kept] = field(default_factory=list)
    _sessions: int = 0
    _idle_until: float = 0.0

    def fact(
        self, name: str, find_out: Callable[[], Shown], *, for_seconds: float = math.inf
    ) -> Shown:
        """What is known of the host: found out when it is first asked for, or is too old."""
        known = self._facts.get(name)
        if known is None or time.monotonic() - known[0] > for_seconds:
            found = (time.monotonic(), find_out())
            with self.lock:
                if self._facts.get(name) is known:
                    self._facts[name] = found
            known = self._facts[name]
        shown: Shown = known[1]
        return shown

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Keep what is opened meanwhile."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def hold(self) -> None:
        """Keep what is opened until `let_go` was called as often."""
        with self.lock:
            self._sessions += 1

    def let_go(self) -> None:
        """End what `hold` began."""
        with self.lock:
            self._sessions -= 1
        self._close_unwanted()

    @contextlib.contextmanager
    def channel(
        self, asked: str, deadline: Deadline
    ) -> Iterator[tuple[Connection, paramiko.Channel]]:
        """A channel on which one command can be run; nothing is sent on it yet.

        Raises:
            Unreachable: no connection, or none that takes a command.
        """
        with self._answering(asked, deadline, _open_session) as (connection, channel):
            try:
                yield connection, channel
            finally:
                close_channel(channel)

    @contextlib.contextmanager
    def connection(self, asked: str, deadline: Deadline) -> Iterator[Connection]:
        """A connection that has just given a sign of life.

        Raises:
            Unreachable: there is none.
        """
        with self._answering(asked, deadline, _prove_alive) as (connection, _):
            yield connection

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        with self.lock:
            return [kept.connection for kept in self._kept if kept.connection.is_active()]

    @contextlib.contextmanager
    def _answering(
        self, asked: str, deadline: Deadline, show: Callable[[Connection, float], Shown]
    ) -> Iterator[tuple[Connection, Shown]]:
        kept, shown = self._shown(asked, deadline, show)
        try:
            yield kept.connection, shown
        except Unreachable:
            kept.is_retired = True  # silent once: the next command must not wait for it too
            raise
        finally:
            self._put_back(kept)

    def _shown(
        self, asked: str, deadline: Deadline, show: Callable[[Connection, float], Shown]
    ) -> tuple[_Kept, Shown]:
        while True:
            kept, is_new = self._take(deadline)
            patience = deadline if is_new else deadline.at_most(ANSWER_SECONDS)
            try:
                return kept, show(kept.connection, max(0.01, patience.seconds_left))
            except (paramiko.SSHException, OSError, EOFError) as error:
                with self.lock:
                    is_full = isinstance(error, paramiko.ChannelException) and kept.in_use > 1
                    if is_full:
                        kept.room = kept.in_use - 1
                    else:
                        kept.is_retired = True
                self._put_back(kept)
                if not deadline.is_over and (is_full or not is_new):
                    continue
                raise Unreachable(
                    self.target,
                    asked,
                    f"the connection took no command: {str(error) or type(error).__name__}",
                    "Check that the host answers and what MaxSessions of its sshd_config is, then "
                    "resume",
                ) from error
            except BaseException:
                self._put_back(kept)
                raise

    def _take(self, deadline: Deadline) -> tuple[_Kept, bool]:
        """One that is thought to be alive and to have room, else a new one."""
        if (kept := self._take_free()) is not None:
            return kept, False
        if not self._opening.acquire(timeout=deadline.seconds_left):
            raise Unreachable(self.target, "connect", "another step is still connecting to it")
        try:
            if (kept := self._take_free()) is not None:
                return kept, False
            kept = _Kept(self.open(deadline), in_use=1)
            with self.lock:
                self._kept.append(kept)
            return kept, True
        finally:
            self._opening.release()

    def _take_free(self) -> _Kept | None:
        with self.lock:
            free = [kept for kept in self._kept if kept.is_free]
            least = min(free, key=lambda kept: kept.in_use, default=None)
            if least is not None:
                least.in_use += 1
            return least

    def _put_back(self, kept: _Kept) -> None:
        with self.lock:
            kept.in_use -= 1
        self._close_unwanted()

    def _close_unwanted(self) -> None:
        if current_gate.get() is not None:  # a step: the next one will come this way soon
            with self.lock:
                self._idle_until = time.monotonic() + LINGER_SECONDS
            _sweep_later()
        self.sweep()

    def sweep(self) -> bool:
        """Close what nobody uses and nobody will want again soon; whether anything is left."""
        with self.lock:
            is_wanted = self._sessions > 0 or time.monotonic() < self._idle_until
            closing = [
                kept
                for kept in self._kept
                if not kept.in_use
                and (kept.is_retired or not is_wanted or not kept.connection.is_active())
            ]
            self._kept = [kept for kept in self._kept if kept not in closing]
            is_left = bool(self._kept)
        for kept in closing:
            kept.connection.close()
        return is_left


def way_to(key: Hashable, make: Callable[[], Way]) -> Way:
    """The one way of this key in this process; made where there is none yet."""
    way = _ways.get(key)
    if way is None:
        with _lock:
            way = _ways.setdefault(key, make())
    return way


def _open_session(connection: Connection, seconds: float) -> paramiko.Channel:
    return connection.open_session(timeout=seconds)


def _prove_alive(connection: Connection, seconds: float) -> None:
    if not connection.gives_sign_of_life(seconds):
        raise EOFError(f"no sign of life for {seconds:.3g} s")


_ways: dict[Hashable, Way] = {}
_lock = threading.Lock()
_sweeper: threading.Thread | None = None


def _sweep_later() -> None:
    global _sweeper  # noqa: PLW0603 (one for the process)
    if _sweeper is None:
        with _lock:
            if _sweeper is None:
                _sweeper = threading.Thread(target=_sweep, daemon=True, name="ssh-sweeper")
                _sweeper.start()


def _sweep() -> None:
    """Close what has idled long enough, until nothing is left."""
    global _sweeper  # noqa: PLW0603
    while True:
        threading.Event().wait(SWEEP_SECONDS)
        is_left = [way.sweep() for way in list(_ways.values())]
        with _lock:
            if not any(is_left):
                _sweeper = None
                return


def _forget() -> None:
    """Begin anew after a fork: the connections are the parent's, and their threads are not here."""
    global _lock, _sweeper
    _ways.clear()
    _lock, _sweeper = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)
