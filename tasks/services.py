"""The state of a systemd unit on a host, and stopping and starting it."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from blocks.ssh.command import Answer
from recovery.errors import BadInput, NotVerified, Refused, UnreadableOutput

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "MainPID",
    "NRestarts",
    "TriggeredBy",
)
NAME = re.compile(
    r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*"
)  # no pattern: systemctl stops all it fits
PAUSE_SECONDS = 0.5


class UnitState(StrEnum):
    """What systemd says of a unit, in the words of its ActiveState where it is loaded."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    FAILED = "failed"
    ACTIVATING = "activating"
    DEACTIVATING = "deactivating"
    RELOADING = "reloading"
    NOT_FOUND = "not-found"
    UNKNOWN = "unknown"


ACTIVE_STATES = {str(state): state for state in UnitState if state is not UnitState.NOT_FOUND}


@dataclass(frozen=True)
class UnitStatus:
    """A unit as systemd sees it. Zero processes and restarts where it keeps no count."""

    unit: str
    state: UnitState
    load_state: str
    sub_state: str
    file_state: str
    result: str
    main_pid: int
    restarts: int
    triggered_by: tuple[str, ...]  # sockets, timers or paths that start it again by themselves

    @property
    def is_active(self) -> bool:
        """Whether it runs; a unit that is starting or reloading does not yet."""
        return self.state is UnitState.ACTIVE

    @property
    def is_at_rest(self) -> bool:
        """Whether it is at rest with no main process; failed is at rest, unknown is not."""
        return self.state in {UnitState.INACTIVE, UnitState.FAILED} and self.main_pid == 0

    def __str__(self) -> str:
        """As an operator would say it."""
        result = f", result {self.result}" if self.result not in {"", "success"} else ""
        return f"{self.unit} {self.state} ({self.sub_state or self.load_state}{result})"


class Host(Protocol):
    """What is asked of a host here: `SshHost`, or a stand-in in tests."""

    @property
    def target(self) -> str:
        """Its name in messages."""

    def command_line(self, argv: Sequence[str], *, as_root: bool = False) -> str:
        """The exact text of a command."""

    def read(self, argv: Sequence[str], *, within_seconds: float) -> Answer:
        """Run what changes nothing."""

    def change(
        self, argv: Sequence[str], *, within_seconds: float, as_root: bool = False
    ) -> Answer:
        """Run what changes the host."""


def parse_unit(asked: str, printed: str) -> UnitStatus:
    """Read what `systemctl show -p …` prints (systemd 219 to 257): one `Name=value` a line.

        Id=grafana-server.service
        LoadState=loaded
        ActiveState=active
        SubState=running
        UnitFileState=enabled
        Result=success
        MainPID=812
        NRestarts=0
        TriggeredBy=

    A property the unit or the release has not (NRestarts before 235, MainPID of a socket) is
    missing. A unit that does not exist is answered too: LoadState=not-found, ActiveState=inactive.

    Raises:
        UnreadableOutput: LoadState or ActiveState is missing, or a number is none.
    """
    command = f"systemctl show {asked}"
    said = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    if not said.get("LoadState") or not said.get("ActiveState"):
        raise UnreadableOutput(command, printed)
    try:
        main_pid, restarts = int(said.get("MainPID") or 0), int(said.get("NRestarts") or 0)
    except ValueError as error:
        raise UnreadableOutput(command, printed) from error
    is_absent = said["LoadState"] == "not-found" and said["ActiveState"] == "inactive"
    return UnitStatus(
        unit=said.get("Id") or asked,
        state=UnitState.NOT_FOUND
        if is_absent
        else ACTIVE_STATES.get(said["ActiveState"], UnitState.UNKNOWN),
        load_state=said["LoadState"],
        sub_state=said.get("SubState", ""),
        file_state=said.get("UnitFileState", ""),
        result=said.get("Result", ""),
        main_pid=main_pid,
        restarts=restarts,
        triggered_by=tuple(said.get("TriggeredBy", "").split()),
    )


def unit_status(host: Host, unit: str) -> UnitStatus:
    """All that is asked of systemd about a unit; a unit that does not exist is `NOT_FOUND`.

    Raises:
        BadInput: the name is none.
        CommandFailed: the host has no systemd, or it does not answer; that is not "inactive".
        Unreachable: no answer; asking again may help.
    """
    name = checked_name(unit)
    argv = ["systemctl", "show", "--no-pager", "-p", ",".join(PROPERTIES), "--", name]
    return parse_unit(name, host.read(argv, within_seconds=20).whole())


def unit_state(host: Host, unit: str) -> UnitState:
    """The state of a unit; errors are those of `unit_status`."""
    return unit_status(host, unit).state


def is_active(host: Host, unit: str) -> bool:
    """Whether the unit runs.

    Raises:
        Refused: there is no such unit, or its state is not known: neither is a "no".
    """
    return _judged(host, unit).is_active


def is_inactive(host: Host, unit: str) -> bool:
    """Whether the unit is at rest and its main process gone.

    Raises:
        Refused: there is no such unit, or its state is not known: neither is a "yes".
    """
    return _judged(host, unit).is_at_rest


def refuse_unless_unit_exists(host: Host, unit: str) -> UnitStatus:
    """Return the status of a unit that exists.

    Raises:
        Refused: there is none of this name on the host, or it is masked.
    """
    status = unit_status(host, unit)
    if status.state is UnitState.NOT_FOUND:
        raise Refused(
            host.target,
            f"it has no unit {status.unit}",
            "Find its name with `systemctl list-units --all` on the host and give that",
        )
    return status


def stop_unit(host: Host, unit: str, within_seconds: float = 120) -> None:
    """Stop a unit and wait until systemd says it has; what enables it at boot stays as it is.

    Done twice, the second does nothing. A socket, timer or path unit that triggers it may start
    it again (`UnitStatus.triggered_by`). Undone by `start_unit`.

    Raises:
        Refused: there is no such unit.
        CommandFailed: systemd or sudo said no; carries what it said.
        AnswerLost: not known whether it stopped in time; systemd goes on stopping it.
    """
    _tell(host, "stop", unit, within_seconds)


def start_unit(host: Host, unit: str, within_seconds: float = 120) -> None:
    """Start a unit and wait until systemd says it has; whether it stays up is for the verify.

    Done twice, the second does nothing. Undone by `stop_unit`.

    Raises:
        Refused: there is no such unit.
        CommandFailed: it failed to start, or sudo said no; carries what was said.
        AnswerLost: not known whether it started in time; systemd goes on starting it.
    """
    _tell(host, "start", unit, within_seconds)


def wait_until_active(
    host: Host, unit: str, within_seconds: float = 60, steady_seconds: float = 2
) -> UnitStatus:
    """Wait until a unit runs and has stayed the same process for a while; return its status.

    A unit of Type=simple counts as active as soon as it is forked, hence the while.

    Raises:
        NotVerified: not in time, or it has failed and systemd does not try again.
        Refused: there is no such unit, or its state is not known.
    """
    ends = time.monotonic() + within_seconds
    since, process = time.monotonic(), (0, 0)
    while True:
        status = _judged(host, unit)
        now = time.monotonic()
        if not status.is_active or process != (status.main_pid, status.restarts):
            since, process = now, (status.main_pid, status.restarts)
        if status.is_active and now - since >= steady_seconds:
            return status
        if now >= ends or status.state is UnitState.FAILED:
            raise NotVerified(
                host.target,
                f"{status.unit} to stay active for {steady_seconds:g} s",
                f"{status}, restarted {status.restarts} times",
                f"Read `journalctl -u {status.unit}` on the host, mend it, then resume",
            )
        time.sleep(PAUSE_SECONDS)


def wait_until_inactive(host: Host, unit: str, within_seconds: float = 60) -> UnitStatus:
    """Wait until a unit is at rest and its main process gone; return its status.

    Raises:
        NotVerified: not in time.
        Refused: there is no such unit, or its state is not known.
    """
    ends = time.monotonic() + within_seconds
    while True:
        status = _judged(host, unit)
        if status.is_at_rest:
            return status
        if time.monotonic() >= ends:
            again = ", ".join(status.triggered_by)
            raise NotVerified(
                host.target,
                f"{status.unit} to be stopped",
                f"{status}, process {status.main_pid}",
                f"It is started again by {again}: stop that first, then resume"
                if again
                else f"See `systemctl status {status.unit}` on the host, then resume",
            )
        time.sleep(PAUSE_SECONDS)


def line_to(host: Host, verb: str, unit: str) -> str:
    """The exact text of what `stop_unit` or `start_unit` sends, for a plan.

    Raises:
        BadInput: the name is none.
    """
    return host.command_line(_argv(verb, checked_name(unit)), as_root=True)


def checked_name(unit: str) -> str:
    """Return the name of one unit with its suffix; `.service` where it has none.

    Raises:
        BadInput: it is no name, or a pattern, which systemctl would apply to all that fit.
    """
    if not NAME.fullmatch(unit):
        raise BadInput("unit", f"{unit!r} is no name of a unit", "Give one, as grafana.service")
    return unit if "." in unit else f"{unit}.service"


def _judged(host: Host, unit: str) -> UnitStatus:
    status = refuse_unless_unit_exists(host, unit)
    if status.state is UnitState.UNKNOWN:
        raise Refused(
            host.target,
            f"the state of {status.unit} is not known: {status.load_state}, {status.sub_state}",
            f"See `systemctl status {status.unit}` on the host, then resume",
        )
    return status


def _tell(host: Host, verb: str, unit: str, within_seconds: float) -> None:
    status = refuse_unless_unit_exists(host, unit)
    host.change(_argv(verb, status.unit), within_seconds=within_seconds, as_root=True)


def _argv(verb: str, unit: str) -> list[str]:
    return ["systemctl", "--no-ask-password", verb, "--", unit]
