"""Rebooting a host once, and proving that it came back as what it was.

What is sent names the boot it is meant for, and the host compares it at the moment of rebooting: a
command that comes twice, late or after the reboot does nothing. So nothing here depends on whether
an answer was lost or a worker was killed.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blocks.ssh import detached
from blocks.ssh.deadline import Deadline
from blocks.ssh.detached import DetachedCommand, DetachedState
from blocks.ssh.host import SshHost
from blocks.ssh.host_key import HostKeyRefused
from recovery.errors import (
    CommandFailed,
    NotVerified,
    RecoveryError,
    Refused,
    Unreachable,
    UnreadableOutput,
)
from recovery.steps import act, decision, verify
from recovery.verdict import Danger, Verdict
from recovery.walk import current_fence
from tasks import services
from tasks.reboot_hazards import (
    is_shutting_down,
    refuse_if_inhibited,
    refuse_if_packages_are_changing,
    refuse_if_root_went_read_only,
    refuse_if_shutting_down,
)

BOOT_ID = "/proc/sys/kernel/random/boot_id"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
WITHIN_SECONDS = 900.0
READ_WITHIN_SECONDS = 20.0
# A connection asked for while the host is down is lost with it, so one is asked for often at first.
TRY_SECONDS, PATIENT_TRY_SECONDS, PATIENT_AFTER_SECONDS = 4.0, 20.0, 60.0
PAUSE_SECONDS = 1.0
CLOCK_SLACK_SECONDS = 2.0
# The pause lets the answer to this command reach the worker before the connection drops.
REBOOT = f"""sleep 2
now=$(cat {BOOT_ID})
if [ "$now" != "$1" ]; then
  echo "this is boot $now; what was meant is boot $1: nothing is done"
  exit 0
fi
logger -t recover -- "$2" || :
exec systemctl reboot
"""
REBOOT_WITHIN_SECONDS = 120.0
CONSOLE = (
    "Look at its console out of band (IPMI, hypervisor, cloud): it may hang in its shutdown (a "
    "unit that does not stop) or in its boot (file system, emergency mode, network). Once it "
    "answers, resume: it is not rebooted a second time"
)


class DidNotReboot(NotVerified):
    """It was told to reboot and did not. Fields as of NotVerified."""


class CameBackAsAnother(NotVerified):
    """Something with another host key answers in its place. Fields as of NotVerified."""


class CameBackWithout(NotVerified):
    """It came back, and a unit that it needs does not run. Fields as of NotVerified."""


class NeverReturned(NotVerified):
    """It went down and did not answer again in time. Fields as of NotVerified."""


@dataclass(frozen=True)
class Boot:
    """One boot of a host, as it was seen by the worker's clock.

    Attributes:
        boot_id: the kernel's name for it.
        uptime_seconds: how long it had lasted by then.
        seen_at: when that was.
        is_workers_own: the worker runs on this host too, and goes down with it.
    """

    boot_id: str
    uptime_seconds: float
    seen_at: datetime
    is_workers_own: bool = False


def parse_boot(printed: str) -> tuple[str, float]:
    """Read what `cat /proc/sys/kernel/random/boot_id /proc/uptime` prints.

        9f1c8a52-5f0d-4d5b-8f5e-2f8f4f6f1d2a
        52.31 98.20

    Raises:
        UnreadableOutput: it is not a boot id and an uptime in seconds.
    """
    words = printed.split()
    try:
        boot_id, uptime_seconds = words[0], float(words[1])
    except (IndexError, ValueError) as error:
        raise UnreadableOutput(f"cat {BOOT_ID} /proc/uptime", printed) from error
    if not UUID.fullmatch(boot_id):
        raise UnreadableOutput(f"cat {BOOT_ID} /proc/uptime", printed)
    return boot_id, uptime_seconds


def boot_now(host: SshHost, within_seconds: float = READ_WITHIN_SECONDS) -> Boot:
    """The boot that the host is in; errors are those of `SshHost.read`."""
    argv = ["cat", BOOT_ID, "/proc/uptime"]
    boot_id, uptime = parse_boot(host.read(argv, within_seconds=within_seconds).whole())
    return Boot(boot_id, uptime, datetime.now(UTC), boot_id == _own_boot_id())


def _own_boot_id() -> str:
    try:
        return Path(BOOT_ID).read_text().strip()
    except OSError:  # a worker that is no Linux is none of the hosts
        return ""


@decision(each=("host",))
def boot_id_before(host: SshHost) -> Boot:
    """The boot that is to be ended.

    Raises:
        Unreachable: the host gave no answer.
        UnreadableOutput: it has no boot id.
    """
    return boot_now(host)


def reboot_commands(host: SshHost, before: Boot) -> Iterable[str]:
    """What reboots it, and what takes the traces of a reboot that failed aside."""
    return detached.run_lines(host, _command(before))


def _command(before: Boot) -> DetachedCommand:
    reason = f"recovery {current_fence().recovery_id} reboots this host"
    if before.is_workers_own:
        reason += "; its own worker runs here, goes down with it and resumes afterwards"
    argv = ("sh", "-c", REBOOT, "reboot", before.boot_id, reason)
    return DetachedCommand("reboot", argv, REBOOT_WITHIN_SECONDS)


def has_rebooted(host: SshHost, before: Boot, within_seconds: float) -> Verdict:
    """Whether the host is in a later boot. Down or going down, it is waited for.

    Raises:
        CameBackAsAnother, NeverReturned, DidNotReboot: as of `reboot`.
    """
    return _watch(host, before, within_seconds)


@act(
    commands=reboot_commands,
    done_when=has_rebooted,
    wait_in_doubt=has_rebooted,
    each=("host",),
    refuse_if=(
        refuse_if_shutting_down,
        refuse_if_inhibited,
        refuse_if_root_went_read_only,
        refuse_if_packages_are_changing,
    ),
    danger=Danger.DESTRUCTIVE,
)
def reboot(host: SshHost, before: Boot, within_seconds: float = WITHIN_SECONDS) -> None:
    """Reboot the host out of this boot, and wait until it is in a later one.

    All that runs there stops and what is enabled starts again. It cannot be taken back. Done
    twice, late, or by another worker, it does nothing: the host compares the boot id itself.

    Args:
        host: what is rebooted; it may be the one this worker runs on, and the plan says so then.
        before: the boot that is to end.
        within_seconds: for all of it: going down, coming back, letting us in. A resume has as
            long again.

    Raises:
        DidNotReboot: it said no, or something holds it up; says what.
        NeverReturned: it went down and gave no answer in time.
        CameBackAsAnother: another host key answers in its place.
        LoginRefused: it came back and does not let us in any more.
    """
    command = _command(before)
    detached.start(host, command)
    if _watch(host, before, within_seconds) is Verdict.DONE:
        return
    ended = detached.look(host, command)
    if ended.state is DetachedState.FAILED:
        detached.settle(host, command)
    raise DidNotReboot(
        host.target,
        "it to reboot",
        f"{ended.unit} {ended.state}: {ended.output.strip() or ended.result or 'it is gone'}",
        "Mend what it names (`systemd-inhibit --list`, `journalctl -u systemd-logind` there), "
        "then resume",
    )


@verify(each=("host",))
def came_back(
    host: SshHost,
    before: Boot,
    units: tuple[str, ...] = (),
    within_seconds: float = WITHIN_SECONDS,
) -> str:
    """The id of the boot it is in now: a later one, its uptime began anew, these units run.

    Args:
        host: what was rebooted.
        before: the boot that was to end.
        units: names of systemd units that must be active, and stay the same process for a while.
        within_seconds: for all of it.

    Raises:
        CameBackWithout: one of the units is not there or does not stay up.
        DidNotReboot: it is in the same boot, or only its boot id is new.
        CameBackAsAnother, NeverReturned, LoginRefused: as of `reboot`.
    """
    deadline = Deadline(within_seconds)
    if _watch(host, before, within_seconds) is not Verdict.DONE:
        raise DidNotReboot(
            host.target,
            "it to be in a later boot",
            f"still boot {before.boot_id}",
            "Find out who cancelled the reboot (`journalctl -b -t recover` there)",
        )
    now = boot_now(host)
    _refuse_running_kernel(host, before, now)
    for unit in units:
        try:
            services.wait_until_active(host, unit, max(1.0, deadline.seconds_left))
        except (NotVerified, Refused) as error:
            seen = error.seen if isinstance(error, NotVerified) else error.reason
            raise CameBackWithout(
                host.target,
                f"{services.checked_name(unit)} to run after the reboot",
                seen,
                f"See `journalctl -b -u {services.checked_name(unit)}` there, mend it, then resume",
            ) from error
    return now.boot_id


def _refuse_running_kernel(host: SshHost, before: Boot, now: Boot) -> None:
    """Tell a reboot from a boot id that is new by itself, as in a container started anew.

    Either comparison proves it; the second needs clocks that were not set meanwhile.
    """
    since = (now.seen_at - before.seen_at).total_seconds()
    if (
        now.uptime_seconds < before.uptime_seconds
        or now.uptime_seconds <= since + CLOCK_SLACK_SECONDS
    ):
        return
    raise DidNotReboot(
        host.target,
        f"an uptime below {since:.0f} s, the time since {before.seen_at:%H:%M:%S} UTC",
        f"it has been up for {now.uptime_seconds:.0f} s, under another boot id",
        "A container that was started anew looks like this: reboot the machine that it runs on",
    )


def _watch(host: SshHost, before: Boot, within_seconds: float) -> Verdict:
    """Whether the host is in a later boot; while it is down or on its way down, wait."""
    deadline, early = Deadline(within_seconds), Deadline(PATIENT_AFTER_SECONDS)
    while True:
        error: RecoveryError | None = None
        try:
            patience = PATIENT_TRY_SECONDS if early.is_over else TRY_SECONDS
            if boot_now(host, patience).boot_id != before.boot_id:
                return Verdict.DONE
            is_ordered = _is_ordered(host, before)
        except HostKeyRefused as refused:
            raise CameBackAsAnother(
                host.target, "the same host to come back", refused.reason, refused.remedy
            ) from refused
        except (Unreachable, CommandFailed) as unanswered:  # also what a shutdown cuts off
            error = unanswered
        else:
            if not is_ordered:
                return Verdict.NOT_DONE
        if deadline.is_over:
            raise _overdue(host, within_seconds, error) from error
        time.sleep(PAUSE_SECONDS)


def _is_ordered(host: SshHost, before: Boot) -> bool:
    """Whether the reboot is under way; a shutdown may end the unit before it could say so."""
    state = detached.state(host, _command(before))
    return state in {DetachedState.RUNNING, DetachedState.SUCCEEDED} or is_shutting_down(host)


def _overdue(host: SshHost, within_seconds: float, error: RecoveryError | None) -> RecoveryError:
    if error is None:
        return DidNotReboot(
            host.target,
            f"it to have rebooted within {within_seconds:g} s",
            f"it still answers from the same boot; it waits for: {_jobs(host)}",
            "The reboot stays ordered there. Stop what holds it up (`systemctl list-jobs`, then "
            "`systemctl kill` the unit named), then resume: it is not ordered twice",
        )
    if not isinstance(error, Unreachable):
        return error  # it came back, and says no: its own remedy fits
    network = " (its network answers, its SSH server does not)" if "refused" in error.seen else ""
    return NeverReturned(
        host.target,
        f"it to be back within {within_seconds:g} s",
        f"{error.seen}{network}",
        CONSOLE,
    )


def _jobs(host: SshHost) -> str:
    argv = ["systemctl", "list-jobs", "--no-legend", "--no-pager"]
    try:
        printed = host.read(argv, within_seconds=READ_WITHIN_SECONDS, as_root=True).stdout
    except (Unreachable, CommandFailed) as error:
        return f"not known ({error})"
    running = [line.split() for line in printed.splitlines() if line.endswith("running")]
    return ", ".join(f"{words[1]} ({words[2]})" for words in running) or "nothing it names"
