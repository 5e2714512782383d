"""For how long the watch has seen things as they are, by a clock of its own that nobody sets."""

import time
from collections.abc import Callable

KEPT_MAX = 20_000


class Sightings:
    """Remembers when each thing was first seen; the oldest are forgotten where there are many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[tuple[object, ...], float] = {}

    def seconds(self, thing: tuple[object, ...]) -> float:
        """For how long it has been seen; it is from now on, where it was not before."""
        now = self._clock()
        since = self._since.setdefault(thing, now)
        if len(self._since) > KEPT_MAX:
            del self._since[next(iter(self._since))]
        return now - since

    def forget(self, thing: tuple[object, ...]) -> None:
        """See it for the first time when it comes again."""
        self._since.pop(thing, None)
