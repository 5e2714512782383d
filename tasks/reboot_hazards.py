"""Reasons not to reboot a host now: each is asked at the moment of the act."""

import shlex
from collections.abc import Sequence

from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, Refused, UnreadableOutput

LOGIN = "org.freedesktop.login1"
LIST_INHIBITORS = (
    "busctl",
    "call",
    LOGIN,
    "/org/freedesktop/login1",
    f"{LOGIN}.Manager",
    "ListInhibitors",
)
FIELDS_OF_INHIBITOR = 6
NO_LOGIND = ("was not provided", "is masked", "not found")
SCHEDULED = "/run/systemd/shutdown/scheduled"
PACKAGE_LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/rpm/.rpm.lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
)
LOCKS = 'for file; do [ ! -e "$file" ] || stat -c "%i %n" "$file"; done; echo; cat /proc/locks'
ANY_STATE = (0, 1, 3, 4)  # is-system-running ends with 0 for "running" only


def is_shutting_down(host: SshHost) -> bool:
    """Whether the host is on its way down; errors are those of `SshHost.read`."""
    answer = host.read(["systemctl", "is-system-running"], within_seconds=20, accept=ANY_STATE)
    return answer.stdout.strip() == "stopping"


def refuse_if_shutting_down(host: SshHost) -> None:
    """Refuse while the host goes down, or somebody has scheduled that it will.

    Raises:
        Refused: with what was scheduled.
    """
    if is_shutting_down(host):
        raise Refused(
            host.target,
            "it is shutting down already",
            "Wait until it is back, then resume; see `journalctl -b -1 -e` for who did it",
        )
    answer = host.read(["cat", SCHEDULED], within_seconds=20, accept=(0, 1))
    if answer.exit_code == 0:
        raise Refused(
            host.target,
            f"a shutdown is scheduled there already ({' '.join(answer.stdout.split())})",
            "Wait for it, or cancel it with `shutdown -c` there, then resume",
        )


def refuse_if_inhibited(host: SshHost) -> None:
    """Refuse while a program there holds a lock against a shutdown.

    Up to systemd 256 root goes past such locks unasked, so they are looked at here.

    Raises:
        Refused: with who holds it, and why.
        CommandFailed: nobody could tell; that is not "none".
    """
    answer = host.read(LIST_INHIBITORS, within_seconds=30, accept=(0, 1))
    if answer.exit_code:
        if "login1" in answer.stderr and any(words in answer.stderr for words in NO_LOGIND):
            return  # without logind nobody can hold one
        raise CommandFailed(
            host.target, answer.command, answer.exit_code, answer.stderr, "Mend its D-Bus"
        )
    for what, who, why, mode in parse_inhibitors(answer.whole()):
        if "shutdown" in what.split(":") and mode.startswith("block"):
            raise Refused(
                host.target,
                f"{who!r} holds a lock against shutdown: {why!r}",
                "Let it end, or end it there (`systemd-inhibit --list` names it), then resume",
            )


def parse_inhibitors(printed: str) -> list[tuple[str, str, str, str]]:
    r"""Read what `busctl call … ListInhibitors` prints: what, who, why, mode of each.

        a(ssssuu) 1 "shutdown:sleep" "it\'s \"me\"" "back up $x" "block" 0 58

    Raises:
        UnreadableOutput: it is not that.
    """
    try:
        signature, count, *words = shlex.split(printed.replace("\\'", "'"))
        wanted = int(count) * FIELDS_OF_INHIBITOR
    except ValueError as error:
        raise UnreadableOutput(" ".join(LIST_INHIBITORS), printed) from error
    if signature != "a(ssssuu)" or len(words) != wanted:
        raise UnreadableOutput(" ".join(LIST_INHIBITORS), printed)
    rows = [words[n : n + FIELDS_OF_INHIBITOR] for n in range(0, wanted, FIELDS_OF_INHIBITOR)]
    return [(what, who, why, mode) for what, who, why, mode, _, _ in rows]


def refuse_if_root_went_read_only(host: SshHost) -> None:
    """Refuse where the root file system is read-only now and fstab means it to be written to.

    The kernel does that after an error of the disk. The host may then not come up again.

    Raises:
        Refused: it is so.
    """
    mounts = host.read(["cat", "/proc/mounts"], within_seconds=20).whole()
    fstab = host.read(["cat", "/etc/fstab"], within_seconds=20, accept=(0, 1)).whole()
    meant = options_of_root(fstab)
    if "ro" in options_of_root(mounts) and meant and "ro" not in meant:
        raise Refused(
            host.target,
            "its root file system is read-only now, though fstab has it writable",
            "See `dmesg` for errors of the disk; have its console at hand and mend that first",
        )


def options_of_root(table: str) -> Sequence[str]:
    """Mount options of `/` in text of the form of fstab(5); the last line counts. None: empty."""
    rows = [line.split() for line in table.splitlines() if not line.lstrip().startswith("#")]
    found = [row[3].split(",") for row in rows if len(row) > 3 and row[1] == "/"]  # noqa: PLR2004
    return found[-1] if found else ()


def refuse_if_packages_are_changing(host: SshHost) -> None:
    """Refuse while dpkg or rpm holds its lock: a kernel may be half written.

    Raises:
        Refused: with the process that holds it.
    """
    argv = ["sh", "-c", LOCKS, "locks", *PACKAGE_LOCKS]
    held = parse_locks(host.read(argv, within_seconds=20).whole())
    if held:
        path, pid = held[0]
        raise Refused(
            host.target,
            f"packages are being changed: process {pid} holds {path}",
            "Let it end, then resume",
        )


def parse_locks(printed: str) -> list[tuple[str, int]]:
    """Read inodes of files, an empty line and /proc/locks; return those locked, and by whom.

        5311774 /var/lib/dpkg/lock-frontend

        1: OFDLCK ADVISORY  WRITE -1 fe:00:1515618 0 EOF
        2: POSIX  ADVISORY  WRITE 83 00:3b:5311774 0 EOF

    The device is not compared: on an overlay or btrfs the two name different ones.

    Raises:
        UnreadableOutput: it is not that.
    """
    files, _, locks = printed.partition("\n\n") if not printed.startswith("\n") else ("", "", "")
    paths = dict(line.split(" ", 1) for line in files.splitlines())
    held = []
    for line in locks.splitlines():
        words = line.split()
        if "->" in words:
            continue  # it waits for one
        try:
            pid, inode = int(words[4]), words[5].rpartition(":")[2]
        except (IndexError, ValueError) as error:
            raise UnreadableOutput("cat /proc/locks", printed) from error
        if inode in paths:
            held.append((paths[inode], pid))
    return held
