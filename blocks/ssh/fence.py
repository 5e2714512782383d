"""The fence at a host: a command of an attempt that lost its lease refuses itself there.

Each changing command of an attempt is sent inside of a guard, below the gate, so that plans and
evidence show the command alone. The guard lets it run only if the host has not heard of a later
attempt, and holds a lock while it runs. Before the first command of an attempt, also one that only
looks, the host is told of it, and whatever an earlier attempt left running there is waited for.

Epochs are compared per lease target and journal; a host that is leased by several names (see
`blocks.machines`) is fenced under each, one guard around the other. Of two journals, which know
nothing of each other, the attempt that came to the host last goes on. What is kept lies in
/var/lib/recover where the login is root or may become it, else in the home of the account; accounts
without sudo do not see each other's.
"""

import hashlib
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass

from blocks.ssh.command import Answer
from blocks.ssh.deadline import Deadline
from blocks.ssh.fence_scripts import EXIT_CODE, GUARD, RAISE, SAYS
from blocks.ssh.sudo import SudoPasswordWrong, SudoRefused
from recovery.errors import CommandFailed, Fenced, Refused, Unreachable
from recovery.walk import Fence, step_logger, still_holds

DRAIN_SECONDS = 30.0  # an earlier command is waited for as long before the step is tried again
LOOK_AGAIN_SECONDS = 0.25
NOT_FOUND = 127
# Runs a script as root or plainly, with these arguments, and returns its answer.
Run = Callable[[str, list[str], bool], Answer]
WHY = {
    "lacks": (
        "it has no flock, by which later attempts are kept apart from this one",
        "Install util-linux there",
    ),
    "unsafe": (
        "{0} is not this account's alone: it is a link, or others own it or may write to it",
        "Find out who made it, then remove it there",
    ),
    "garbage": (
        "{0} is damaged: which attempt acted there last is not known",
        "Make sure that no other recovery acts on this host, then remove {0} and {0}.lock there",
    ),
    "unreadable": (
        "{0} cannot be read by this account",
        "Log in as the account that acted there before, or as root",
    ),
    "foreign": (
        "another account has fenced it: {0} is root's",
        "Log in as root, or let this user run sudo",
    ),
    "unwritable": (
        "{0} cannot be written, nor can a place in memory",
        "Free a little space on the host (4 KiB do), or mount the disk read-write",
    ),
}


@dataclass(frozen=True)
class Raised:
    """The host knows of this attempt; the two folders where that is kept."""

    lasting: str
    passing: str


def guarded(command: str, fence: Fence, raised: Raised) -> str:
    """The text that runs a command only while the host has not heard of a later attempt."""
    arguments = [*_identity(fence), command, raised.lasting, raised.passing]
    return shlex.join(["sh", "-c", GUARD, SAYS, *arguments])


def is_unheard_of(answer: Answer) -> bool:
    """Whether the guard found no word of this attempt, so that the command was not run."""
    return _said(answer)[:1] == ["missing"]


def refuse_fenced(answer: Answer, fence: Fence) -> None:
    """Raise what the guard has against the command, if it was the guard that ended it.

    Raises:
        Fenced: the host has heard of a later attempt.
        CommandFailed: the fence is damaged; nothing was run.
    """
    said = _said(answer)
    if said:
        raise _error(answer.target, answer.command, fence, said)


class HostFence:
    """What one process knows of the fences at one host."""

    def __init__(self) -> None:
        self._raised: dict[tuple[str, ...], Raised] = {}
        self._broken: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()

    def raised(
        self, fence: Fence, run: Run, target: str, deadline: Deadline, *, is_root: bool
    ) -> Raised:
        """Tell the host of this attempt, unless it knows; wait for what runs there from before.

        Args:
            fence: of the attempt.
            run: runs a script there.
            target: the host, in messages.
            deadline: for all of it.
            is_root: whether the login is root's.

        Raises:
            Fenced: the host has heard of a later attempt.
            Refused: it has, and the journal knows of none.
            Unreachable: a command of before still runs there.
            CommandFailed: the fence is damaged or cannot be written.
        """
        key = tuple(_identity(fence))
        if (known := self._raised.get(key)) is not None:
            return known
        if not self._lock.acquire(timeout=deadline.seconds_left):
            raise Unreachable(target, "fence", "another step is still waiting for it")
        try:
            if (known := self._raised.get(key)) is None:
                known = self._raised[key] = _raise(fence, run, target, deadline, is_root=is_root)
                step_logger().debug("%s knows of epoch %d of %s", target, fence.epoch, fence.target)
        except CommandFailed:
            self._broken.add(key)
            raise
        finally:
            self._lock.release()
        return known

    def forget(self, fence: Fence) -> None:
        """Ask again before the next command: one may still run there, or the files were lost."""
        self._raised.pop(tuple(_identity(fence)), None)

    def is_broken(self, fence: Fence) -> bool:
        """Whether the host could not be told, which keeps nobody from looking."""
        return tuple(_identity(fence)) in self._broken


def _raise(fence: Fence, run: Run, target: str, deadline: Deadline, *, is_root: bool) -> Raised:
    patience = deadline.at_most(DRAIN_SECONDS)
    by_sudo = not is_root
    is_told = False
    while True:
        arguments = [*_identity(fence), "root" if is_root or by_sudo else "home"]
        try:
            answer = run(RAISE, arguments, by_sudo)
        except SudoPasswordWrong:
            raise  # with the right one it may, and others do: its fence is not to be elsewhere
        except SudoRefused:
            by_sudo = False  # this account may not: it keeps its fence at home
            continue
        if by_sudo and answer.exit_code == NOT_FOUND:
            by_sudo = False  # there is no sudo
            continue
        lines = answer.stdout.splitlines()
        if f"{SAYS} raised" in lines:
            lasting, passing = lines[lines.index(f"{SAYS} raised") + 1 :][:2]
            return Raised(lasting, passing)
        said = _said(answer)
        if said[:1] == ["later"] and still_holds(fence):
            raise _restored(target, fence, *said[1:])
        if said[:1] != ["held"] or patience.is_over:
            raise _error(target, "fence", fence, said or ["?", answer.stderr.strip()])
        if not is_told:
            is_told = True
            step_logger().info("%s: waiting for an earlier command: %s", target, _held(said))
        threading.Event().wait(min(LOOK_AGAIN_SECONDS, patience.seconds_left))


def _identity(fence: Fence) -> list[str]:
    name = hashlib.sha256(fence.target.encode()).hexdigest()[:32]
    return [name, str(fence.epoch), fence.recovery_id, fence.journal or "-"]


def _said(answer: Answer) -> list[str]:
    """What a script has against it; empty where it was the command that ended so."""
    if answer.exit_code != EXIT_CODE:
        return []
    lines = [line for line in answer.stderr.splitlines() if line.startswith(f"{SAYS} ")]
    return lines[-1].split(" ", 3)[1:] if lines else []


def _error(target: str, command: str, fence: Fence, said: list[str]) -> BaseException:
    word, *rest = said
    if word == "later":
        at, by = rest
        why = f"{target} has since heard of epoch {at} of recovery {by}, and ran nothing"
        return Fenced(fence.target, fence.epoch, why)
    if word == "held":
        return Unreachable(
            target,
            "wait for an earlier command",
            f"still running there: {_held(said)}",
            "Let it end, or end it on the host once you know that it does no good, then resume",
        )
    why, remedy = WHY.get(word, (f"it could not be fenced: {' '.join(said)}", "See on the host"))
    return CommandFailed(
        target, command, EXIT_CODE, why.format(*rest), f"{remedy.format(*rest)}, then resume"
    )


def _restored(target: str, fence: Fence, at: str, by: str) -> Refused:
    name, *_ = _identity(fence)
    return Refused(
        target,
        f"it has heard of epoch {at} of recovery {by}, and in the journal, which says that this "
        f"attempt may act, {fence.target} is only at {fence.epoch}: was the journal restored?",
        "Make sure that no other recovery acts on this host, then remove "
        f"/var/lib/recover/{name}* and /run/recover/{name}* there (of an account without sudo "
        f"~/.local/state/recover/{name}* and /dev/shm/recover-UID/{name}*), and resume",
    )


def _held(said: list[str]) -> str:
    pid, command = (said[1], said[2]) if len(said) > 2 else (said[1], "")  # noqa: PLR2004
    return f"{command} (process {pid})" if command else "a command of another account"
