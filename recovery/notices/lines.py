"""Lines in which notices wait for their channel: few at a time, tried again, never without end."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

AT_ONCE_MAX = 8
WAITING_MAX = 1000
AGAIN_AFTER_SECONDS = (1.0, 10.0, 60.0, 300.0)  # the last one from then on
TRIED_FOR_SECONDS = 3600.0


@dataclass(kw_only=True, eq=False)
class Try(ABC):
    """Something that is sent, once or more often.

    Attributes:
        tries: how often it was sent.
        due_at: when it is sent next, on the clock of its line.
        given_up_at: from when on it is not sent again.
        is_over: whether it arrived, or was given up.
        is_left: whether somebody has waited for it, and nobody does from now on.
    """

    tries: int = 0
    due_at: float = 0.0
    given_up_at: float = 0.0
    is_over: bool = False
    is_left: bool = False

    @abstractmethod
    def send(self) -> bool:
        """Send it; return whether it arrived. Must not raise."""

    @abstractmethod
    def give_up(self, why: str) -> None:
        """Take note that it is not tried again."""


Sent = TypeVar("Sent", bound=Try)


class Line(Generic[Sent]):
    """What goes out by one channel. One that hangs holds up what waits for it, and nothing else.

    Args:
        name: of its threads.
        again_after_seconds: pauses between tries; the last one is repeated.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        again_after_seconds: tuple[float, ...] = AGAIN_AFTER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._again_after, self._clock = name, again_after_seconds, clock
        self._changed = threading.Condition()
        self._open: list[Sent] = []  # waiting or being sent, in the order they came
        self._waiting: list[Sent] = []
        self._threads = 0

    def take(self, sent: Sent) -> None:
        """Put something in line."""
        sent.due_at = self._clock()
        sent.given_up_at = sent.due_at + TRIED_FOR_SECONDS
        with self._changed:
            is_full = len(self._open) >= WAITING_MAX
            if not is_full:
                self._open.append(sent)
                self._waiting.append(sent)
                self._changed.notify_all()
                if self._threads < AT_ONCE_MAX:
                    self._threads += 1
                    # A thread that hangs keeps no process from ending.
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
        if is_full:
            sent.is_over = True
            sent.give_up(f"{WAITING_MAX} notices wait for this channel already")

    def wait(self, deadline: float, tries: int) -> list[Sent]:
        """Wait until each was tried so often or arrived; return all that had not arrived before.

        Each is waited for once.

        Args:
            deadline: on the clock of the line.
            tries: how often is enough.
        """
        with self._changed:
            seen = [sent for sent in self._open if not sent.is_left]
            for sent in seen:
                while not (sent.is_over or sent.tries >= tries):
                    left = deadline - self._clock()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                sent.is_left = True
        return seen

    def _work(self) -> None:
        while (sent := self._next()) is not None:
            has_arrived = sent.send()
            with self._changed:
                sent.tries += 1
                pause = self._again_after[min(sent.tries, len(self._again_after)) - 1]
                sent.due_at = self._clock() + pause
                sent.is_over = has_arrived or sent.due_at > sent.given_up_at
                if sent.is_over:
                    self._open.remove(sent)
                else:
                    self._waiting.append(sent)
                self._changed.notify_all()
            if sent.is_over and not has_arrived:
                sent.give_up(f"it was tried {sent.tries} times")

    def _next(self) -> Sent | None:
        """Wait for what is due first; nothing where nothing is left, and this thread ends."""
        with self._changed:
            while self._waiting:
                first = min(self._waiting, key=lambda sent: sent.due_at)
                pause = first.due_at - self._clock()
                if pause <= 0:
                    self._waiting.remove(first)
                    return first
                self._changed.wait(pause)
            self._threads -= 1
            return None
