"""Which clocks are wrong, what is due on each host, and what speaks against it: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tasks.clocks.daemons import Daemon
from tasks.clocks.offsets import Offset
from tasks.clocks.sources import Following

WORKER_CLOCK = "worker-clock"
STEP_BACK = "step-back"


@dataclass(frozen=True)
class Limits:
    """What is too far off, what is allowed, and what was accepted by name.

    Attributes:
        warn_seconds: an offset over it is due.
        fail_seconds: an offset over it is stepped; below it the daemon slews.
        may_step: clocks may be stepped at all.
        step_back_max_seconds: no clock goes back further unless accepted.
        accept: names of what was accepted: `worker-clock`, `step-back:HOST`.
    """

    warn_seconds: float
    fail_seconds: float
    may_step: bool
    step_back_max_seconds: float
    accept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A host's clock as it was found, and what keeps it."""

    host: str
    offset: Offset
    daemons: tuple[Daemon, ...]
    following: Following
    has_etcd: bool

    @property
    def active(self) -> list[Daemon]:
        """The daemons that run."""
        return [daemon for daemon in self.daemons if daemon.is_active]

    @property
    def daemon(self) -> Daemon | None:
        """The one to keep its clock: which runs, else which starts at boot, else the best."""
        usable = [daemon for daemon in self.daemons if not daemon.is_masked]
        ranked = sorted(usable, key=lambda each: (not each.is_active, not each.starts_at_boot))
        return ranked[0] if ranked else None


@dataclass(frozen=True)
class Due:
    """What is due on a host; `unit` is that of the daemon to use."""

    host: str
    unit: str
    kind: str
    steps: bool
    has_etcd: bool


@dataclass(frozen=True)
class Objection:
    """A reason not to begin. `name` is what accepts it; empty where nothing does."""

    target: str
    reason: str
    remedy: str
    name: str = ""


def agreeing(found: Sequence[Found], warn_seconds: float) -> list[Found]:
    """The largest set of hosts whose clocks lie within the limit of each other, if it is most.

    One host is nobody's majority: empty then, and where no set has more than half of them.
    """
    ranked = sorted(found, key=lambda each: each.offset.seconds)
    best: list[Found] = []
    for first, each in enumerate(ranked):
        together = [
            other
            for other in ranked[first:]
            if other.offset.seconds - each.offset.seconds <= warn_seconds
        ]
        best = max(best, together, key=len)
    return best if len(best) > 1 and 2 * len(best) > len(found) else []


def objections(found: Sequence[Found], limits: Limits) -> list[Objection]:
    """All that speaks against beginning, and was not accepted."""
    said = [each for each in _about_worker(found, limits) if each.name not in limits.accept]
    is_worker_right = not said
    for each in found:
        said += _about_measuring(each, limits)
        said += _about_daemon(each)
        if is_worker_right:  # else no offset says anything
            said += _about_source(each, limits)
            said += _about_going_back(each, limits)
    return said


def _about_worker(found: Sequence[Found], limits: Limits) -> list[Objection]:
    together = agreeing(found, limits.warn_seconds)
    if not together:
        return []
    apart = median(each.offset.seconds for each in together)
    if abs(apart) <= limits.warn_seconds:
        return []
    faithful = sum(each.following.has_source for each in together)
    side = "behind" if apart > 0 else "ahead of"
    return [
        Objection(
            "this worker",
            f"its clock is {abs(apart):.3f} s {side} that of {len(together)} of {len(found)} "
            f"hosts, which agree with each other ({faithful} of them follow a time source)",
            "Compare the worker with a third clock and mend it; if it is right and the hosts "
            f"stood still together, accept {WORKER_CLOCK!r}",
            WORKER_CLOCK,
        )
    ]


def _about_measuring(each: Found, limits: Limits) -> list[Objection]:
    if each.offset.uncertainty_seconds <= limits.warn_seconds:
        return []
    return [
        Objection(
            each.host,
            f"its clock cannot be measured to within {limits.warn_seconds:g} s: {each.offset}",
            "Find out why it answers so slowly, or use a worker nearer to it",
        )
    ]


def _about_daemon(each: Found) -> list[Objection]:
    if len(each.active) > 1:
        names = " and ".join(daemon.unit for daemon in each.active)
        return [
            Objection(
                each.host,
                f"{names} run at once and fight over its clock",
                "Decide on one, and `systemctl disable --now` the other",
            )
        ]
    if each.daemon is not None:
        return []
    if each.daemons:
        return [
            Objection(
                each.host,
                f"its time daemon is masked: {', '.join(map(str, each.daemons))}",
                "Find out who masked it and why, then `systemctl unmask` it",
            )
        ]
    return [
        Objection(
            each.host,
            "nothing there keeps its clock: no chronyd, systemd-timesyncd or ntpd is installed",
            "Install chrony and name its sources",
        )
    ]


def _about_source(each: Found, limits: Limits) -> list[Objection]:
    believed = each.following.ahead_seconds
    if (
        not each.following.has_source
        or believed is None
        or abs(believed) > limits.warn_seconds
        or abs(each.offset.seconds) <= limits.warn_seconds
    ):
        return []
    return [
        Objection(
            each.host,
            f"its clock is {each.offset} of the worker, and it follows its source faithfully "
            f"({each.following}): that source, or the worker's clock, tells another time",
            "Compare its sources with those of the other hosts, and the worker with a third clock",
        )
    ]


def _about_going_back(each: Found, limits: Limits) -> list[Objection]:
    """A clock that is ahead goes back by a step, or when a daemon has its first answer.

    One that is slewed by a daemon that follows its source already never goes back.
    """
    may_step = is_stepped(each, limits) or not (each.active and each.following.has_source)
    if not may_step or each.offset.seconds <= limits.step_back_max_seconds:
        return []
    name = f"{STEP_BACK}:{each.host}"
    if name in limits.accept:
        return []
    return [
        Objection(
            each.host,
            f"its clock would go back by {each.offset.seconds:.3f} s, and there moments come twice",
            f"Stop what must not see that, then accept {name!r}; or let a daemon that runs slew "
            "it, with step=false",
            name,
        )
    ]


def is_stepped(each: Found, limits: Limits) -> bool:
    """Whether its clock is to be stepped."""
    return limits.may_step and abs(each.offset.seconds) > limits.fail_seconds


def due_of(each: Found, limits: Limits) -> Due | None:
    """What is due on a host; `None` where nothing is, or where no daemon could do it."""
    daemon = each.daemon
    if daemon is None:
        return None
    is_well = (
        daemon.is_active
        and daemon.starts_at_boot
        and each.following.has_source
        and abs(each.offset.seconds) <= limits.warn_seconds
    )
    if is_well:
        return None
    return Due(each.host, daemon.unit, str(daemon.kind), is_stepped(each, limits), each.has_etcd)


def widest(offsets: dict[str, float]) -> tuple[str, str, float]:
    """The two hosts whose clocks are furthest apart, and by how much."""
    first, last = min(offsets, key=offsets.__getitem__), max(offsets, key=offsets.__getitem__)
    return first, last, offsets[last] - offsets[first]
