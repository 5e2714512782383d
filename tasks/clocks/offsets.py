"""How far the clock of a host is from this worker's, found by asking it for the time."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput

NOW = ("date", "+%s.%N")
MOMENT = re.compile(r"\d{9,11}\.\d{9}")  # busybox prints no nanoseconds, or %N as it is
SAMPLES = 5
SAMPLE_WITHIN_SECONDS = 20.0


@dataclass(frozen=True)
class Offset:
    """By how much a host's clock is ahead of the worker's, and by how much that may be wrong."""

    seconds: float
    uncertainty_seconds: float

    def __str__(self) -> str:
        """As an operator would say it."""
        side = "ahead" if self.seconds >= 0 else "behind"
        return f"{abs(self.seconds):.3f} s {side} (± {self.uncertainty_seconds:.3f} s)"


@dataclass(frozen=True)
class Sample:
    """One answer: the host's time, and the worker's before and after, all in Unix seconds."""

    sent_at: float
    told: float
    round_trip_seconds: float


def offset_of(host: SshHost, samples: int = SAMPLES) -> Offset:
    """The offset of the host's clock, by the quickest of several answers.

    Raises:
        UnreadableOutput: its `date` knows no fractions of a second.
        Unreachable: no answer.
    """
    with host.session():
        return quickest([_sample(host) for _ in range(samples)])


def _sample(host: SshHost) -> Sample:
    sent_at, started = time.time(), time.monotonic()
    answer = host.read(NOW, within_seconds=SAMPLE_WITHIN_SECONDS)
    return Sample(sent_at, parse_now(answer.stdout), time.monotonic() - started)


def quickest(samples: Sequence[Sample]) -> Offset:
    """The offset by the sample with the shortest round trip, taken at the middle of it.

    The host looked at its clock at some moment of the round trip, so half of it is what the
    result can be wrong by.
    """
    best = min(samples, key=lambda sample: sample.round_trip_seconds)
    half = best.round_trip_seconds / 2
    return Offset(best.told - (best.sent_at + half), half)


def parse_now(printed: str) -> float:
    """Read what GNU `date +%s.%N` prints, e.g. `1795240997.643985772`.

    Raises:
        UnreadableOutput: it is not that.
    """
    if not MOMENT.fullmatch(printed.strip()):
        raise UnreadableOutput(" ".join(NOW), printed)
    return float(printed)
