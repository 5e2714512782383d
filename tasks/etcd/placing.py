"""Putting the proven copy in the place of the survivor's data, and starting it as the only member.

The former data is moved beside it, in one step of the file system, and stays there.
"""

import time
from collections.abc import Iterable

from recovery.errors import NotVerified, Refused
from recovery.steps import act, undo, verify
from recovery.verdict import Danger, Verdict
from recovery.walk import current_fence
from tasks.etcd import etcdctl
from tasks.etcd.data_home import EMPTIED
from tasks.etcd.parts import Part
from tasks.etcd.proving import MARK
from tasks.etcd.quorum_loss import refuse_if_quorum_came_back
from tasks.etcd.standing_down import change, lines, stand_up, take_down, take_down_lines
from tasks.etcd.terms import Terms

SERVES_SECONDS = 120.0
POD_SERVES_SECONDS = 420.0  # what its probe has ended is started again after 300 s at the latest
SETTLES_SECONDS = 5.0  # what is damaged has failed by then
PAUSE_SECONDS = 0.5
# What etcd may have begun in an empty place, had the host booted in between, is moved aside too.
PLACE = f"""# move the data aside, and what was restored in its place
set -eu
data=$1 aside=$2 mark=$3
[ "$(cat "$data/{MARK}" 2>/dev/null)" != "$mark" ] || exit 0
[ "$(cat "$aside/restored/member/{MARK}")" = "$mark" ]
if [ -e "$data" ]; then
  to=$aside/before n=1
  while [ -e "$to" ]; do to=$aside/before.$n n=$((n + 1)); done
  mv -T "$data" "$to"
fi
: >"$aside/{EMPTIED}"
mv -T "$aside/restored/member" "$data"
sync -f "$data"
"""
IS_PLACED = f'[ "$(cat "$1/{MARK}" 2>/dev/null)" = "$2" ]'


def place_argv(part: Part) -> list[str]:
    """What moves its data aside, and the proven copy in its place."""
    mark = current_fence().recovery_id
    return ["sh", "-c", PLACE, "put-in-place", part.data, part.aside, mark]


def is_placed(part: Part) -> Verdict:
    """Whether the data in place is what this recovery has restored."""
    argv = ["sh", "-c", IS_PLACED, "is-placed", part.data, current_fence().recovery_id]
    answer = part.host.read(argv, accept=(0, 1), as_root=True)
    return Verdict.of(answer.exit_code == 0)


def place_commands(part: Part) -> Iterable[str]:
    """What stops the survivor and puts the proven copy in place."""
    return [*take_down_lines(part), *lines(part, place_argv(part))]


@act(
    commands=place_commands,
    done_when=is_placed,
    refuse_if=(refuse_if_quorum_came_back,),
    undo=stand_up,
    danger=Danger.DESTRUCTIVE,
)
def put_in_place(part: Part) -> None:
    """Stop the survivor, move its data aside, and put the proven copy in place.

    Nothing is removed. Cut off anywhere, it is done to its end when done again.

    Raises:
        Refused: the cluster has quorum again, or was written to.
        CommandFailed: its host said no, or what was proven is gone.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 8.
    """
    with part.host.session():
        take_down(part)
        change(part, place_argv(part))


def start_commands(part: Part) -> Iterable[str]:
    """What starts it."""
    return part.run.start_lines()


def serves_alone(part: Part) -> Verdict:
    """Whether the survivor answers a read that needs quorum, on what this recovery has restored."""
    if is_placed(part) is not Verdict.DONE:
        return Verdict.NOT_DONE
    return Verdict.of(part.run.is_up() and etcdctl.is_healthy(part.host, part.settings))


def wait_until_healthy(part: Part, within_seconds: float = SERVES_SECONDS) -> None:
    """Wait until a member answers a read that needs quorum.

    Raises:
        NotVerified: not in time.
        Unreachable: its host gave no answer.
    """
    ends = time.monotonic() + within_seconds
    while not (
        part.run.is_up() and etcdctl.is_healthy(part.host, part.settings, etcdctl.POLL_SECONDS)
    ):
        if time.monotonic() > ends:
            raise NotVerified(
                part.label,
                f"its etcd to answer within {within_seconds:g} s",
                "that it does not",
                f"See {part.run.log} there; mend what it names, then resume",
            )
        time.sleep(PAUSE_SECONDS)


@undo
def stop_survivor(part: Part) -> None:
    """Stop the survivor; what it holds is put back by the way back of the step before.

    Raises:
        CommandFailed: its host said no.
        Unreachable: no answer.
    """
    part.run.stop()


@act(commands=start_commands, done_when=serves_alone, undo=stop_survivor)
def start_survivor(part: Part) -> None:
    """Start the survivor, alone in a new cluster, and wait until it answers.

    Done twice, the second does nothing.

    Raises:
        NotVerified: it does not answer in time.
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 9.
    """
    with part.host.session():
        part.run.start()
        wait_until_healthy(part)


@verify
def holds_what_was_seen(part: Part, terms: Terms) -> int:
    """The revision of the survivor, once it holds all that was seen of it before.

    Where a snapshot was given, what it is at was accepted before anything was stopped.

    Raises:
        NotVerified: its keys are not those that were hashed, or its revision went back.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 9.
    """
    now, before = etcdctl.status(part.host, part.settings), part.member
    if before.status is None or terms.snapshot:
        return now.revision
    if now.revision < before.status.revision:
        raise NotVerified(
            part.label,
            f"revision {before.status.revision}, at which it was seen",
            f"revision {now.revision}",
            "Stop what writes to it; `recover undo` puts back what was there",
        )
    # One that was put ahead by its restore has let go of all revisions before.
    if before.hash and not before.can_bump:
        found = etcdctl.hash_at(part.host, part.settings, before.revision)
        if found.compacted == before.compacted and found.hash != before.hash:
            raise NotVerified(
                part.label,
                f"the keys of before, hash {before.hash} up to revision {before.revision}",
                f"hash {found.hash}",
                "Stop what writes to it; `recover undo` puts back what was there",
            )
    return now.revision


def serves(part: Part) -> Verdict:
    """Whether it runs, or is about to."""
    return Verdict.of(part.run.is_started())


@act(commands=start_commands, done_when=serves, each=("part",))
def start_stopped(part: Part) -> None:
    """Start a member that is stopped and has its data; it need not serve before others run, too.

    Done twice, the second does nothing.

    Raises:
        Refused: it fails at once; says how to go on without it.
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 3.
    """
    part.run.start()
    ends = time.monotonic() + SETTLES_SECONDS
    while not part.run.is_up() and time.monotonic() < ends:
        refuse_if_it_fails(part, is_queued=True)
        time.sleep(PAUSE_SECONDS)


def refuse_if_it_fails(part: Part, *, is_queued: bool = False) -> None:
    """Refuse to wait for a member that has failed, or fails again and again.

    Args:
        part: the member.
        is_queued: whether its start may still be waiting for other units, and it is inactive so
            long.

    Raises:
        Refused: it does; carries what it logged, and says how to go on without it.
        Unreachable: no answer.
    """
    failure = part.run.failure(is_queued=is_queued)
    if not failure:
        return
    raise Refused(
        part.cluster.label,
        f"{part.label} was started and fails: {failure}",
        f"See {part.run.log} there. Where its data is damaged, begin a new recovery with "
        f"lost=[{part.member.host}]",
    )


@verify
def has_quorum(parts: list[Part], within_seconds: float = 0.0) -> str:
    """That the members which were started answer reads that need quorum.

    Args:
        parts: those members.
        within_seconds: for each; 0: as long as what runs it may take.

    Raises:
        Refused: one of them fails; says how to go on without it.
        NotVerified: not in time.

    Runbook: docs/runbooks/etcd.md, step 3.
    """
    for part in parts:
        usual = POD_SERVES_SECONDS if part.settings.is_static_pod else SERVES_SECONDS
        seconds = within_seconds or usual
        ends = time.monotonic() + seconds
        while not (part.run.is_up() and etcdctl.is_healthy(part.host, part.settings)):
            refuse_if_it_fails(part)
            if time.monotonic() > ends:
                raise NotVerified(
                    part.cluster.label,
                    f"quorum within {seconds:g} s",
                    f"that {part.label} was started and gives no answer",
                    f"See {part.run.log} there: do the members reach each other? Where its data is "
                    f"damaged, begin a new recovery with lost=[{part.member.host}]",
                )
            time.sleep(PAUSE_SECONDS)
    return f"{len(parts)} started"
