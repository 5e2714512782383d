"""Whether an alert may start a run now: windows, flapping, strikes, cool-down, blast radius."""

from dataclasses import dataclass
from datetime import UTC, datetime

from operate.alerts.kept import CANCELLING, NEITHER, WELL, Kept, State
from operate.alerts.routes import Guard, Limits, Routes
from operate.alerts.routing import Decision, repairs
from operate.alerts.store import AlertStore

ASKS_AGAIN_SECONDS = 15.0
HOUR_SECONDS = 3600.0
COOL_DOWN, FLAPPING = "cool-down", "flapping"
RELEASABLE = (COOL_DOWN, FLAPPING)


@dataclass(frozen=True)
class Go:
    """It may start."""


@dataclass(frozen=True)
class Hold:
    """It waits, at least until then. `tells` is what a person is told of it, if anything."""

    reason: str
    until: float
    tells: bool = False


@dataclass(frozen=True)
class Join:
    """A run on the same target is on its way already."""

    leader: Kept


@dataclass(frozen=True)
class AskPerson:
    """Only a person can go on."""

    reason: str


Verdict = Go | Hold | Join | AskPerson


def may_start(
    store: AlertStore, routes: Routes, decision: Decision, kept: Kept, now: float
) -> Verdict:
    """Say whether a waiting alert may start its run; looks, in the order of the runbook."""
    guard, work = decision.guard, decision.work
    moment = datetime.fromtimestamp(now, UTC)
    for window in routes.windows:
        if until := window.open_until(kept.labels, moment):
            return Hold(f"maintenance {window.name} until {until:%F %R} UTC", until.timestamp())
    runs = store.runs_on(work, now - max(guard.strikes_within_seconds, guard.cool_down_seconds))
    alike = [run for run in runs if repairs(run.parameters) == repairs(decision.parameters)]
    if verdict := _beside(runs, alike, work, now):
        return verdict
    runs = alike
    if held := _flapping(store, guard, kept, now):
        return held
    if reason := _struck_out(runs, guard, kept, now):
        return AskPerson(reason)
    if held := _cooling_down(runs, guard, kept, now):
        return held
    return _within_limits(store, routes.limits, work, now)


def _beside(runs: list[Kept], alike: list[Kept], work: str, now: float) -> Verdict | None:
    """Share the run on the same target that is on its way, or wait for its end."""
    on_its_way = next((run for run in runs if run.state is State.STARTED), None)
    if on_its_way is None:
        return None
    is_ending = on_its_way.run_state == CANCELLING
    if on_its_way in alike and not is_ending:
        return Join(on_its_way)
    why = "is being cancelled" if is_ending else "is on its way"
    return Hold(f"busy: another run of {work} {why}", now + ASKS_AGAIN_SECONDS)


def is_releasable(kept: Kept) -> bool:
    """Whether a person may let it go on: it was left to one, cools down, or is flapping.

    Limits, maintenance and another run on the target are about more than this alert.
    """
    if kept.state is State.WAITING:
        return kept.reason.partition(":")[0] in RELEASABLE
    return kept.state is State.NEEDS_PERSON


def _cooling_down(runs: list[Kept], guard: Guard, kept: Kept, now: float) -> Hold | None:
    """Hold it for what was started lately; a run that was called off has done nothing."""
    begun = (run.started_at for run in runs if run.state is not State.CANCELLED)
    last = next(begun, 0.0)  # latest first
    until = last + guard.cool_down_seconds
    if until <= now or kept.released_at >= last:
        return None
    at, to = (datetime.fromtimestamp(one, UTC) for one in (last, until))
    return Hold(f"{COOL_DOWN}: a run was started at {at:%T}; it waits until {to:%T} UTC", until)


def _flapping(store: AlertStore, guard: Guard, kept: Kept, now: float) -> Hold | None:
    if not guard.flap_episodes or kept.released_at:
        return None
    episodes = store.episodes(kept.fingerprint, now - guard.flap_within_seconds)
    steady_at = kept.received_at + guard.flap_steady_seconds
    if episodes < guard.flap_episodes or steady_at <= now:
        return None
    reason = (
        f"{FLAPPING}: {episodes} episodes within {guard.flap_within_seconds} s; it starts "
        f"something if it fires until {datetime.fromtimestamp(steady_at, UTC):%T} UTC"
    )
    return Hold(reason, steady_at, tells=True)


def _struck_out(runs: list[Kept], guard: Guard, kept: Kept, now: float) -> str:
    since = max(now - guard.strikes_within_seconds, kept.released_at)
    ended = [
        run
        for run in runs
        if run.outcome and run.outcome not in NEITHER and run.started_at >= since
    ]
    failed = 0
    for run in ended:  # latest first
        if run.outcome in WELL:
            break
        failed += 1
    if not guard.strikes or failed < guard.strikes:
        return ""
    return (
        f"three strikes: the last {failed} runs failed, the latest as {ended[0].outcome} "
        f"(flow run {ended[0].flow_run_id})"
    )


def _within_limits(store: AlertStore, limits: Limits, work: str, now: float) -> Verdict:
    busy = store.busy()
    if busy >= limits.concurrent_recoveries:
        reason = f"limit: {busy} runs are on their way, and {limits.concurrent_recoveries} may be"
        return Hold(reason, now + ASKS_AGAIN_SECONDS)
    works = store.works_since(now - HOUR_SECONDS)
    if work not in works and len(works) >= limits.targets_per_hour:
        allowed = limits.targets_per_hour
        reason = f"blast radius: {len(works)} targets within an hour, and {allowed} may be"
        return Hold(reason, now + 4 * ASKS_AGAIN_SECONDS, tells=True)
    return Go()
