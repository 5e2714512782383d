"""What a time daemon says of itself: which sources it has, and how wrong it believes the clock is.

None of this proves that a clock is right: all of them have been seen to say "synchronised" of a
clock that was 30 s off. The proof is the offset that is measured.
"""

import re
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, UnreadableOutput
from tasks.clocks.daemons import Daemon, DaemonKind

CHRONY_SOURCE = re.compile(r"[\^=#]([*+\-x~?]) +(\S+) +\d+ +-?\d+ +([0-7]+) ")
CHRONY_BELIEF = re.compile(
    r"^System time +: +(\d+\.\d+) seconds (fast|slow) of NTP time$", re.MULTILINE
)
NTPQ_COLUMNS = 10
NOT_UP_YET = ("506 Cannot talk", "Connection refused", "timed out", "not running")
READ_WITHIN_SECONDS = 30.0


@dataclass(frozen=True)
class Source:
    """A source of time: whether it has answered lately, and whether the daemon follows it."""

    name: str
    is_reached: bool
    is_followed: bool


@dataclass(frozen=True)
class Following:
    """What a daemon goes by.

    `ahead_seconds` is how far ahead of the source it believes the clock to be; `None` where it
    follows none, or does not say.
    """

    sources: tuple[Source, ...] = ()
    ahead_seconds: float | None = None

    @property
    def has_source(self) -> bool:
        """Whether it follows one that answers."""
        return any(source.is_followed and source.is_reached for source in self.sources)

    def __str__(self) -> str:
        """As an operator would say it."""
        told = [f"{source.name} ({_standing(source)})" for source in self.sources]
        return ", ".join(told) or "no source at all"


def _standing(source: Source) -> str:
    if source.is_followed:
        return "followed"
    return "answers, not followed" if source.is_reached else "does not answer"


def following(host: SshHost, daemon: Daemon) -> Following:
    """What the daemon goes by now; one that is not up yet follows nothing.

    Raises:
        CommandFailed: its tool is missing, or says no.
        UnreadableOutput: it prints what we do not understand.
    """
    match daemon.kind:
        case DaemonKind.CHRONYD:
            tracking = _asked(host, "chronyc", "-n", "tracking")
            sources = _asked(host, "chronyc", "-n", "sources", "-v")
            return parse_chrony(tracking, sources) if tracking and sources else Following()
        case DaemonKind.TIMESYNCD:
            return parse_timesync_status(_asked(host, "timedatectl", "timesync-status"))
        case DaemonKind.NTPD:
            return parse_ntpq(_asked(host, "ntpq", "-pn", "127.0.0.1"))
    raise AssertionError(daemon.kind)


def _asked(host: SshHost, *argv: str) -> str:
    answer = host.read(argv, within_seconds=READ_WITHIN_SECONDS, accept=(0, 1), as_root=True)
    said = answer.stdout + answer.stderr
    if any(words in said for words in NOT_UP_YET):
        return ""
    if answer.exit_code:
        raise CommandFailed(host.target, answer.command, answer.exit_code, said)
    return answer.whole()


def parse_chrony(tracking: str, sources: str) -> Following:
    """Read `chronyc -n tracking` and `chronyc -n sources -v` (chrony 1.29 to 4.x).

        System time     : 29.608789444 seconds fast of NTP time
        Leap status     : Normal

        ^* 10.0.2.2                      3   0   377     0  -4840ns[  -14us] +/-  155us

    "Leap status" is Normal whatever the clock shows; "Not synchronised" has a System time of 0.

    Raises:
        UnreadableOutput: a line is missing.
    """
    belief = CHRONY_BELIEF.search(tracking)
    if belief is None or "Leap status" not in tracking:
        raise UnreadableOutput("chronyc -n tracking", tracking)
    if not sources.rstrip().splitlines() or "MS Name/IP address" not in sources:
        raise UnreadableOutput("chronyc -n sources -v", sources)
    found = tuple(
        Source(row[2], is_reached=int(row[3], 8) > 0, is_followed=row[1] == "*")
        for line in sources.splitlines()
        if (row := CHRONY_SOURCE.match(line))
    )
    ahead = float(belief[1]) * (1 if belief[2] == "fast" else -1)
    is_synchronised = (
        re.search(r"^Leap status +: +Not synchronised$", tracking, re.MULTILINE) is None
    )
    return Following(found, ahead if is_synchronised else None)


def parse_timesync_status(printed: str) -> Following:
    """Read `timedatectl timesync-status` (systemd 239 and later).

               Server: 10.0.2.2 (10.0.2.2)
                 Leap: normal
               Offset: -29.938807s
         Packet count: 2

    The offset is that of the last answer, and the clock was stepped when it came: it says nothing
    of now. Without an answer there is no line of it, and "NTPSynchronized" is yes all the same.

    Raises:
        UnreadableOutput: there is no server or no count, though it runs.
    """
    said = {
        name.strip(): value.strip()
        for name, mark, value in (line.partition(": ") for line in printed.splitlines())
        if mark
    }
    if not printed.strip():
        return Following()
    if not said.get("Packet count", "").isdigit():
        raise UnreadableOutput("timedatectl timesync-status", printed)
    if said.get("Server", "n/a") == "n/a":
        return Following()
    has_answered = int(said["Packet count"]) > 0
    is_usable = has_answered and said.get("Leap") == "normal"
    return Following((Source(said["Server"], has_answered, is_usable),))


def parse_ntpq(printed: str) -> Following:
    """Read `ntpq -pn` (ntp 4.2, ntpsec 1.2); it ends with 0 even where no ntpd runs.

             remote           refid      st t when poll reach   delay   offset   jitter
        ===============================================================================
        *10.0.2.2        127.127.1.1      3 u    6    8   17   0.4166  -0.1009   0.1524
         10.0.2.77       .STEP.          16 u    -   64    0   0.0000   0.0000   0.0010

    The offset is in milliseconds, and that of the source: the clock is ahead where it is negative.

    Raises:
        UnreadableOutput: it is no such table.
    """
    if not printed.strip() or printed.startswith("No association"):
        return Following()
    head, _, body = printed.partition("===\n")
    if "reach" not in head:
        raise UnreadableOutput("ntpq -pn", printed)
    sources, ahead = [], None
    for line in body.splitlines():
        words = line[1:].split()
        if len(words) != NTPQ_COLUMNS:
            raise UnreadableOutput("ntpq -pn", printed)
        is_followed = line[0] in "*o"
        sources.append(Source(words[0], int(words[6], 8) > 0, is_followed))
        if is_followed:
            ahead = -float(words[8]) / 1000
    return Following(tuple(sources), ahead)
