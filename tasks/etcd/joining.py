"""Members join the new cluster, one by one: as learners first, so that none costs it its quorum."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recovery.errors import CommandFailed, NotVerified, Unreachable
from recovery.steps import act, probe, undo, verify
from recovery.verdict import Verdict
from tasks.etcd import etcdctl
from tasks.etcd.entries import missing
from tasks.etcd.etcdctl import Listed
from tasks.etcd.evidence import members_now
from tasks.etcd.parts import Part
from tasks.etcd.placing import PAUSE_SECONDS, is_placed, wait_until_healthy
from tasks.etcd.standing_down import change, lines

JOIN_SECONDS = 300.0
CHANGE_SECONDS = 60.0
NOT_CONNECTED = "unhealthy cluster"
NOT_AT_BOOT = ("disabled", "masked", "masked-runtime", "enabled-runtime")
NOT_IN_SYNC = "in sync with leader"
# Data without a log is what etcd has begun in an empty place before it was let in.
CLEAR = """# move aside what etcd began before it was let in
set -eu
data=$1 aside=$2
[ -e "$data" ] || exit 0
[ -z "$(ls "$data"/wal/*.wal 2>/dev/null)" ] || exit 0
to=$aside/empty n=1
while [ -e "$to" ]; do to=$aside/empty.$n n=$((n + 1)); done
mkdir -p "$aside"
mv -T "$data" "$to"
"""
# The id of a member is known only once it is listed.
PROMOTE = """# give the member at this address its vote
set -eu
url=$1
shift
id=$("$@" member list | awk -F", " -v url="$url" "\\$4 == url { print \\$1 }")
[ "$id" ]
exec "$@" member promote "$id"
"""


def listed(part: Part) -> Listed | None:
    """How the cluster lists a member, by its peer address; `None` where it does not.

    Raises:
        Unreachable: the survivor gave no answer.
    """
    first = _first(part)
    if first.is_rebuilt and is_placed(first) is not Verdict.DONE:
        return None
    found = etcdctl.members(first.host, first.settings)
    url, former = part.settings.peer_url, part.former_id
    return next((one for one in found if one.peer_url == url and one.member_id != former), None)


def _first(part: Part) -> Part:
    if part.survivor is None:
        raise TypeError(f"{part.label} joins nobody")
    return part.survivor


def add_argv(part: Part) -> list[str]:
    """What lets it in, asked of the survivor."""
    words = ("member", "add", part.settings.name, "--learner")
    return etcdctl.argv(_first(part).settings, *words, f"--peer-urls={part.settings.peer_url}")


def add_commands(part: Part) -> Iterable[str]:
    """What lets it in."""
    return lines(_first(part), add_argv(part))


def is_listed(part: Part) -> Verdict:
    """Whether the new cluster knows it."""
    return Verdict.of(listed(part) is not None)


@act(commands=add_commands, done_when=is_listed, each=("part",))
def let_in(part: Part) -> None:
    """Let a member into the new cluster, as a learner: it takes data and has no vote.

    etcd takes no further member before all voters have been connected for five seconds.

    Raises:
        CommandFailed: etcd said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 10.
    """
    ends = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            change_by_etcdctl(_first(part), add_argv(part))
        except Unreachable as error:
            if NOT_CONNECTED not in error.seen:
                raise
            if time.monotonic() > ends:
                raise not_connected(part, error) from error
            time.sleep(PAUSE_SECONDS)
        else:
            return


def not_connected(part: Part, error: Unreachable) -> Unreachable:
    """That nobody was let in, and for want of whom; errors are those of `etcdctl.ask`."""
    first = _first(part)
    down = missing(etcdctl.members(first.host, first.settings), members_now(part.cluster))
    named = ", ".join(f"{one.name or 'unnamed'} ({one.hex_id}) at {one.peer_url}" for one in down)
    return Unreachable(
        error.target,
        error.asked,
        f"{error.seen.strip()}; not healthy, or not named: {named or 'none'}",
        "etcd lets nobody in before all that vote are connected: bring those up, then resume; "
        "where one is lost, take it out first (`etcdctl member remove`)",
    )


def change_by_etcdctl(first: Part, argv: list[str]) -> None:
    """Send a change by the etcdctl of a member's host; its silence is told from its no.

    Raises:
        CommandFailed: etcd said no.
        Unreachable: etcd, or the host, gave no answer; the change may be made all the same.
    """
    answer = first.host.change(
        argv, within_seconds=CHANGE_SECONDS, accept=etcdctl.EXIT_CODES, as_root=True
    )
    etcdctl.require_answer(first.host, first.settings, tuple(argv[-4:]), answer)


def clear_argv(part: Part) -> list[str]:
    """What moves aside what etcd began before it was let in."""
    return ["sh", "-c", CLEAR, "clear", part.data, part.aside]


def start_commands(part: Part) -> Iterable[str]:
    """What starts it in an empty place."""
    return [*lines(part, clear_argv(part)), *part.run.start_lines()]


def has_joined(part: Part) -> Verdict:
    """Whether it serves as a member of the new cluster."""
    known = listed(part) if part.run.is_up() else None
    if known is None or not known.client_url:
        return Verdict.NOT_DONE
    try:
        said = etcdctl.status(part.host, part.settings, etcdctl.POLL_SECONDS)
    except (Unreachable, CommandFailed):
        part.host.read(["true"])  # raises where it is the host that is away
        return Verdict.NOT_DONE
    return Verdict.of(said.member_id == known.member_id and said.leader != 0)


@undo
def leave(part: Part) -> None:
    """Stop a member that has joined; what it holds is moved aside by the way back of a step before.

    Raises:
        CommandFailed: its host said no.
        Unreachable: no answer.
    """
    part.run.stop()


@act(commands=start_commands, done_when=has_joined, each=("part",), undo=leave)
def start_joining(part: Part) -> None:
    """Start a member with nothing in its place, and wait until it has joined.

    Done twice, the second does nothing.

    Raises:
        NotVerified: it does not join in time.
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 11.
    """
    with part.host.session():
        if not part.run.is_up():
            change(part, clear_argv(part))
            part.run.start()
        ends = time.monotonic() + JOIN_SECONDS
        while has_joined(part) is not Verdict.DONE:
            if time.monotonic() > ends:
                raise NotVerified(
                    part.label,
                    f"its etcd to join within {JOIN_SECONDS:g} s",
                    "that it has not",
                    f"See {part.run.log} there; mend what it names, then resume",
                )
            time.sleep(PAUSE_SECONDS)


def promote_argv(part: Part) -> list[str]:
    """What gives it its vote, asked of the survivor."""
    first = _first(part)
    asked = etcdctl.argv(first.settings)
    return ["sh", "-c", PROMOTE, "promote", part.settings.peer_url, *asked]


def promote_commands(part: Part) -> Iterable[str]:
    """What gives it its vote."""
    return lines(_first(part), promote_argv(part))


def has_vote(part: Part) -> Verdict:
    """Whether it is a full member of the new cluster."""
    known = listed(part)
    return Verdict.of(known is not None and not known.is_learner)


@act(commands=promote_commands, done_when=has_vote, each=("part",))
def give_vote(part: Part) -> None:
    """Make a learner a full member, as soon as it has all data, and wait until it is healthy.

    Raises:
        NotVerified: it does not come to have all data, or is not healthy afterwards.
        CommandFailed: etcd said no for another reason.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 12.
    """
    first = _first(part)
    ends = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            change_by_etcdctl(first, promote_argv(part))
            break
        except CommandFailed as error:
            if NOT_IN_SYNC not in error.tail or time.monotonic() > ends:
                raise
            time.sleep(PAUSE_SECONDS)
    wait_until_healthy(part)


@dataclass(frozen=True)
class Agreed:
    """What the members hold in common."""

    members: int
    revision: int
    hash: int


@verify
def all_agree(parts: Sequence[Part], away: int = 0, within_seconds: float = JOIN_SECONDS) -> Agreed:
    """What the members hold, once all are healthy, vote, and have the same keys.

    Args:
        parts: the members that are asked; the first of them lists all.
        away: how many more are listed, and cannot be asked.
        within_seconds: how long that may take.

    Raises:
        NotVerified: not in time; says who differs, or who gave no answer.

    Runbook: docs/runbooks/etcd.md, step 13.
    """
    first = parts[0]
    ends = time.monotonic() + within_seconds
    while True:
        try:
            found = _in_common(parts, away)
        except (Unreachable, CommandFailed) as error:  # a database may be large, a member slow
            found = str(error)
        if isinstance(found, Agreed):
            return found
        if time.monotonic() > ends:
            raise NotVerified(
                first.cluster.label,
                f"{len(parts)} healthy members with the same keys",
                found,
                "See what etcd logged on those that differ, then resume",
            )
        time.sleep(PAUSE_SECONDS)


def _in_common(parts: Sequence[Part], away: int) -> Agreed | str:
    """What the members hold in common now, or what is still amiss."""
    first = parts[0]
    known = etcdctl.members(first.host, first.settings)
    learners = [one.name or one.peer_url for one in known if one.is_learner]
    revision = min(etcdctl.status(part.host, part.settings).revision for part in parts)
    hashes = {
        part.label: etcdctl.hash_at(part.host, part.settings, revision).hash for part in parts
    }
    ill = [part.label for part in parts if not etcdctl.is_healthy(part.host, part.settings)]
    are_all = len(known) == len(parts) + away and not learners and not ill
    if are_all and len({*hashes.values()}) == 1:
        return Agreed(len(known), revision, hashes[first.label])
    return f"{len(known)} listed; learners {learners}; not healthy {ill}; hashes {hashes}"


@probe
def left_to_person(parts: Sequence[Part]) -> list[str]:
    """What is left to do where systemd does not start a member when its host boots.

    One that had begun a cluster of its own is stopped by a person, and disabled with it.

    Raises:
        Unreachable: a host gave no answer.

    Runbook: docs/runbooks/etcd.md, step 13.
    """
    left = []
    for part in parts:
        unit = part.run.unit
        argv = ["systemctl", "show", "-p", "UnitFileState", "--value", "--", unit]
        state = part.host.read(argv).whole().strip()
        if state in NOT_AT_BOOT:
            word = "unmask and enable" if state.startswith("masked") else "enable"
            left.append(
                f"On {part.label}, {word} the unit {unit} (`systemctl enable {unit}`): it is "
                f"{state}, and the member will be missing after the next boot"
            )
    return left
