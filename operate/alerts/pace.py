"""How fast anybody may post: a bucket of tokens for each sender, and few of them for strangers."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

SENDERS_MAX = 10_000


@dataclass(frozen=True)
class Rate:
    """So many at once, and so many a second from then on."""

    at_once: float
    a_second: float


class Pace:
    """Buckets by sender; those not seen for longest are forgotten when there are too many."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def has_left(self, sender: str) -> bool:
        """Whether there is a token in the sender's bucket; takes none."""
        return self.allows(sender, 0.0) and self._buckets[sender][0] >= 1.0

    def allows(self, sender: str, cost: float = 1.0) -> bool:
        """Take a token from the sender's bucket; false where there is none."""
        now = self._clock()
        with self._lock:
            left, at = self._buckets.pop(sender, (self._rate.at_once, now))
            left = min(self._rate.at_once, left + (now - at) * self._rate.a_second)
            is_allowed = left >= cost
            self._buckets[sender] = (left - cost if is_allowed else left, now)
            if len(self._buckets) > SENDERS_MAX:
                self._buckets.popitem(last=False)
        return is_allowed
