"""Limits in time for what knows none of its own."""

import contextlib
import heapq
import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from queue import Empty, SimpleQueue
from typing import TypeVar

Given = TypeVar("Given")


class Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, within_seconds: float) -> None:
        self.within_seconds = within_seconds
        self._ends = time.monotonic() + within_seconds

    @property
    def seconds_left(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether none are left."""
        return self.seconds_left <= 0

    def __str__(self) -> str:
        """How long it was, for people."""
        return f"{round(self.within_seconds, 1) or self.within_seconds:g} s"

    def at_most(self, within_seconds: float) -> "Deadline":
        """The earlier one of this and one that many seconds from now."""
        return Deadline(min(within_seconds, self.seconds_left))


def call_within(deadline: Deadline, ask: Callable[[], Given]) -> Given:
    """Call what knows no deadline of its own, in a thread that is left behind if it hangs.

    Raises:
        TimeoutError: it has not come back in time.
    """
    answers: SimpleQueue[Given | BaseException] = SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask())
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked
            answers.put(error)

    threading.Thread(target=run, daemon=True, name="ssh-call").start()
    try:
        answer = answers.get(timeout=deadline.seconds_left)
    except Empty:
        raise TimeoutError(f"no answer within {deadline}") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


class _Alarms:
    """Calls that are due at a moment, waited for by one thread for all of them.

    A thread for each alarm would cost as much as the command that it watches. One that rings is
    called from a thread of its own: the call may take its time, and the others are due as well.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Know of none: at first, and after a fork, which no thread survives and many a lock."""
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None

    def set(self, seconds: float, call: Callable[[], None]) -> int:
        """Call in so many seconds unless it is cancelled by the number that is returned."""
        with self._changed:
            number = next(self._numbers)
            heapq.heappush(self._due, (time.monotonic() + seconds, number, call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="ssh-alarms")
                self._thread.start()
            elif self._due[0][1] == number:
                self._changed.notify()
        return number

    def cancel(self, number: int) -> None:
        """Forget it; one that has rung already is no error."""
        with self._changed:
            self._due = [alarm for alarm in self._due if alarm[1] != number]
            heapq.heapify(self._due)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    left = self._due[0][0] - time.monotonic() if self._due else None
                    self._changed.wait(left)
                _, _, call = heapq.heappop(self._due)
            threading.Thread(target=call, daemon=True, name="ssh-alarm").start()


_alarms = _Alarms()
os.register_at_fork(after_in_child=_alarms.begin)


@contextlib.contextmanager
def called_at(deadline: Deadline, call: Callable[[], None]) -> Iterator[None]:
    """Call it from another thread if the block has not ended at the deadline."""
    number = _alarms.set(deadline.seconds_left + 0.01, call)
    try:
        yield
    finally:
        _alarms.cancel(number)
