"""The daemons that keep a host's clock: which are there, which run, which start at boot."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput
from tasks.services import PROPERTIES, UnitState, UnitStatus, parse_unit


class DaemonKind(StrEnum):
    """Which program it is; they are asked and told in different ways."""

    CHRONYD = "chronyd"
    TIMESYNCD = "systemd-timesyncd"
    NTPD = "ntpd"


# In the order of preference where several are installed and none runs. The names are those of
# Red Hat, Debian and SUSE; an alias is answered with the name it stands for.
UNITS = {
    "chronyd.service": DaemonKind.CHRONYD,
    "chrony.service": DaemonKind.CHRONYD,
    "systemd-timesyncd.service": DaemonKind.TIMESYNCD,
    "ntpd.service": DaemonKind.NTPD,
    "ntpsec.service": DaemonKind.NTPD,
    "ntp.service": DaemonKind.NTPD,
}
AT_BOOT = {"enabled", "static", "alias", "generated", "indirect"}


@dataclass(frozen=True)
class Daemon:
    """One of them as systemd sees it."""

    kind: DaemonKind
    unit: str
    is_active: bool
    starts_at_boot: bool
    is_masked: bool = False

    def __str__(self) -> str:
        """As an operator would say it."""
        return f"{self.unit} ({'masked' if self.is_masked else _doing(self)})"


def _doing(daemon: Daemon) -> str:
    boot = "starts at boot" if daemon.starts_at_boot else "does not start at boot"
    return f"{'runs' if daemon.is_active else 'stopped'}, {boot}"


def daemons_of(host: SshHost) -> tuple[Daemon, ...]:
    """Every time daemon that is installed there, each once.

    Raises:
        CommandFailed: the host has no systemd, or it does not answer.
        Unreachable: no answer.
    """
    argv = ["systemctl", "show", "--no-pager", "-p", ",".join(PROPERTIES), "--", *UNITS]
    return parse_daemons(host.read(argv, within_seconds=30).whole())


def parse_daemons(printed: str) -> tuple[Daemon, ...]:
    """Read what `systemctl show -p … -- UNIT…` prints: a block of lines for each unit asked.

    Raises:
        UnreadableOutput: there are more or fewer blocks than units.
    """
    blocks = printed.strip().split("\n\n")
    if len(blocks) != len(UNITS):
        raise UnreadableOutput("systemctl show", printed)
    found: dict[str, Daemon] = {}
    for asked, block in zip(UNITS, blocks, strict=True):
        status = parse_unit(asked, block)
        if status.state is not UnitState.NOT_FOUND and status.unit not in found:
            found[status.unit] = _daemon(UNITS.get(status.unit, UNITS[asked]), status)
    return tuple(found.values())


def _daemon(kind: DaemonKind, status: UnitStatus) -> Daemon:
    return Daemon(
        kind,
        status.unit,
        is_active=status.state in {UnitState.ACTIVE, UnitState.RELOADING},
        starts_at_boot=status.file_state in AT_BOOT,
        is_masked=status.load_state == "masked",
    )


def daemon_named(daemons: Sequence[Daemon], unit: str) -> Daemon | None:
    """The one of this unit, if it is there."""
    return next((daemon for daemon in daemons if daemon.unit == unit), None)
