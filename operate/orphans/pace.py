"""How patient the watch is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take. All in seconds.

    Attributes:
        back_off: how long to wait before the first, second and third resume without a person. The
            first is longer than the two seconds after which a worker reports a crash once more.
        fresh: an orphan that was heard of longer ago than this is left to a person.
        settle: how long a run may stay as it was after its attempt has ended or is gone.
        taken: how long a run may wait for a worker, or for its end once it is cancelled.
        begin: how long a run may take from its worker to its first event in the journal.
        away: how long the Prefect server may give no answer before that is told.
    """

    back_off: tuple[float, ...] = (10.0, 60.0, 300.0)
    fresh: float = 3600.0
    settle: float = 20.0
    taken: float = 60.0
    begin: float = 300.0
    away: float = 30.0
