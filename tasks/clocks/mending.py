"""What is done on a host whose clock is due: start, enable, ask, step, each with its probe."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from blocks.ssh.deadline import Deadline
from blocks.ssh.host import SshHost
from recovery.errors import NotVerified, Refused
from recovery.steps import act, undo, verify
from recovery.verdict import Verdict
from tasks import services
from tasks.clocks.daemons import Daemon, DaemonKind, daemon_named, daemons_of
from tasks.clocks.judging import STEP_BACK, Due, Limits
from tasks.clocks.offsets import Offset, offset_of
from tasks.clocks.sources import Following, following

TELL_WITHIN_SECONDS = 60.0
PAUSE_SECONDS = 1.0
SAMPLES_WHILE_WAITING = 3
Seen = TypeVar("Seen")
BURST = "4/8"  # four good answers out of at most eight


@dataclass(frozen=True)
class DueClock:
    """A host whose clock is due, and on which terms it is mended."""

    host: SshHost
    due: Due
    limits: Limits
    within_seconds: float

    @property
    def label(self) -> str:
        """The name of the host in the keys of steps."""
        return self.host.label

    @property
    def target(self) -> str:
        """Its name in messages."""
        return self.host.target


def start_commands(clock: DueClock) -> Iterable[str]:
    """What starts its daemon."""
    return [_line(clock, "start")]


def is_started(clock: DueClock) -> bool:
    """Whether the daemon runs."""
    return _daemon(clock).is_active


def refuse_going_back(clock: DueClock) -> None:
    """Refuse where the clock would go back by more than the bound: a start may step it too.

    Raises:
        Refused: it would, and that was not accepted.
    """
    name = f"{STEP_BACK}:{clock.due.host}"
    if name in clock.limits.accept:
        return
    offset = offset_of(clock.host)
    if offset.seconds > clock.limits.step_back_max_seconds:
        raise Refused(
            clock.target,
            f"its clock is {offset} now and would go back",
            f"Stop what must not see a moment twice, then accept {name!r}",
        )


@undo
def stop_daemon(clock: DueClock) -> None:
    """Stop the daemon that was started."""
    services.stop_unit(clock.host, clock.due.unit, TELL_WITHIN_SECONDS)


@act(
    commands=start_commands,
    done_when=is_started,
    each=("clock",),
    refuse_if=(refuse_going_back,),
    undo=stop_daemon,
)
def start_daemon(clock: DueClock) -> None:
    """Start the daemon that keeps the clock. It may step the clock when it has asked its sources.

    What starts it at boot stays as it is. Done twice, the second does nothing.

    Raises:
        CommandFailed: systemd or sudo said no.
        Refused: there is no such unit, or its clock would go back.

    Runbook: docs/runbooks/clocks.md, step 5.
    """
    services.start_unit(clock.host, clock.due.unit, TELL_WITHIN_SECONDS)


def enable_commands(clock: DueClock) -> Iterable[str]:
    """What lets it start at boot."""
    return [_line(clock, "enable")]


def is_enabled(clock: DueClock) -> bool:
    """Whether the daemon starts at boot."""
    return _daemon(clock).starts_at_boot


@undo
def disable_daemon(clock: DueClock) -> None:
    """Keep the daemon from starting at boot, as before."""
    _tell(clock, "disable")


@act(commands=enable_commands, done_when=is_enabled, each=("clock",), undo=disable_daemon)
def enable_daemon(clock: DueClock) -> None:
    """Let the daemon start at boot. It is not started by this. Done twice does nothing more.

    Raises:
        CommandFailed: systemd or sudo said no.

    Runbook: docs/runbooks/clocks.md, step 6.
    """
    _tell(clock, "enable")


def ask_commands(clock: DueClock) -> Iterable[str]:
    """What has its sources asked at once."""
    if clock.due.kind == DaemonKind.CHRONYD:
        return [
            clock.host.command_line(["chronyc", "online"], as_root=True),
            clock.host.command_line(["chronyc", "burst", BURST], as_root=True),
        ]
    return [_line(clock, "restart")]


def follows_a_source(clock: DueClock) -> bool:
    """Whether the daemon follows a source that answers."""
    daemon = _daemon(clock)
    return daemon.is_active and following(clock.host, daemon).has_source


@act(
    commands=ask_commands,
    done_when=follows_a_source,
    each=("clock",),
    refuse_if=(refuse_going_back,),
)
def ask_sources(clock: DueClock) -> None:
    """Have the sources asked at once, and wait until one is followed.

    chronyd is told so; the others are started anew, which may step the clock. No configuration is
    changed. Done twice, they are asked twice.

    Raises:
        NotVerified: no source is followed in time; names them.
        CommandFailed: the daemon or sudo said no.

    Runbook: docs/runbooks/clocks.md, step 7.
    """
    if clock.due.kind == DaemonKind.CHRONYD:
        _chronyc(clock, "online")
        _chronyc(clock, "burst", BURST)
    else:
        _tell(clock, "restart")
    _wait_for_source(clock)


def step_commands(clock: DueClock) -> Iterable[str]:
    """What steps the clock."""
    if clock.due.kind == DaemonKind.CHRONYD:
        return [clock.host.command_line(["chronyc", "makestep"], as_root=True)]
    return [_line(clock, "restart")]


def needs_no_step(clock: DueClock) -> Verdict:
    """Whether the clock is near enough now, or is left to be slewed."""
    return Verdict.of(not clock.due.steps or _is_near(clock, offset_of(clock.host)))


@act(
    commands=step_commands,
    done_when=needs_no_step,
    each=("clock",),
    refuse_if=(refuse_going_back,),
)
def step_clock(clock: DueClock) -> None:
    """Step the clock to what the daemon's source says, and see that it went there.

    Timers of the host that are due by then fire at once. It is not taken back. Done twice, the
    second step is as small as the clock is right.

    Raises:
        NotVerified: the daemon said yes, and the clock stayed: it may not set it.
        CommandFailed: the daemon or sudo said no.

    Runbook: docs/runbooks/clocks.md, step 8.
    """
    if clock.due.kind == DaemonKind.CHRONYD:
        _chronyc(clock, "makestep")
    else:
        _tell(clock, "restart")
    _wait_until_near(clock)


@verify(each=("clock",))
def wait_until_kept(clock: DueClock) -> str:
    """The offset and source of the clock, once it is right and one daemon keeps it so.

    Raises:
        NotVerified: the offset is still over the limit, no source is followed, or etcd is gone.

    Runbook: docs/runbooks/clocks.md, step 9.
    """
    state, offset = _wait_for_source(clock), _wait_until_near(clock)
    if clock.due.has_etcd and not has_etcd(clock.host):
        raise NotVerified(
            clock.target,
            "etcd to go on running",
            "no process of it",
            "Mend that member before the next clock is touched, then resume",
        )
    return f"{offset}; {state}"


def has_etcd(host: SshHost) -> bool:
    """Whether an etcd runs there, in a container or not."""
    return host.read(["pgrep", "-x", "etcd"], within_seconds=20, accept=(0, 1)).exit_code == 0


def _is_near(clock: DueClock, offset: Offset) -> bool:
    return abs(offset.seconds) <= clock.limits.warn_seconds


def _daemon(clock: DueClock) -> Daemon:
    daemon = daemon_named(daemons_of(clock.host), clock.due.unit)
    if daemon is None:
        raise Refused(
            clock.target,
            f"its unit {clock.due.unit} is gone",
            "Find out who removed it; a new recovery looks again",
        )
    return daemon


def _state_of(clock: DueClock) -> Following:
    daemon = _daemon(clock)
    return following(clock.host, daemon) if daemon.is_active else Following()


def _wait_for_source(clock: DueClock) -> Following:
    return _wait(
        clock, lambda: _state_of(clock), lambda seen: seen.has_source, "to follow a source"
    )


def _wait_until_near(clock: DueClock) -> Offset:
    return _wait(
        clock,
        lambda: offset_of(clock.host, SAMPLES_WHILE_WAITING),
        lambda seen: _is_near(clock, seen),
        f"its clock to be within {clock.limits.warn_seconds:g} s of this worker's",
    )


def _wait(
    clock: DueClock, look: Callable[[], Seen], is_so: Callable[[Seen], bool], what: str
) -> Seen:
    deadline = Deadline(clock.within_seconds)
    while True:
        seen = look()
        if is_so(seen):
            return seen
        if deadline.is_over:
            raise NotVerified(
                clock.target,
                f"{what}, in {clock.within_seconds:g} s",
                str(seen),
                f"See `chronyc tracking` and `journalctl -u {clock.due.unit}` there; sources that "
                "do not answer mostly lack UDP port 123",
            )
        time.sleep(PAUSE_SECONDS)


def _line(clock: DueClock, verb: str) -> str:
    return services.line_to(clock.host, verb, clock.due.unit)


def _tell(clock: DueClock, verb: str) -> None:
    argv = ["systemctl", "--no-ask-password", verb, "--", clock.due.unit]
    clock.host.change(argv, within_seconds=TELL_WITHIN_SECONDS, as_root=True)


def _chronyc(clock: DueClock, *words: str) -> None:
    clock.host.change(["chronyc", *words], within_seconds=TELL_WITHIN_SECONDS, as_root=True)
