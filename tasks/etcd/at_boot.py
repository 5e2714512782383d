"""Whether a host starts its member when it boots, once another host has taken its place."""

from collections.abc import Iterable

from recovery.steps import act
from recovery.verdict import Verdict
from tasks.etcd.parts import Part
from tasks.etcd.standing_down import change, lines


def _argv(part: Part, word: str) -> list[str]:
    return ["systemctl", "--no-ask-password", word, "--", part.cluster.unit]


def enable_commands(part: Part) -> Iterable[str]:
    """What enables the unit."""
    return lines(part, _argv(part, "enable"))


def is_enabled(part: Part) -> Verdict:
    """Whether systemd starts the unit when the host boots."""
    argv = ["systemctl", "is-enabled", "--quiet", "--", part.cluster.unit]
    return Verdict.of(part.host.read(argv, accept=(0, 1)).exit_code == 0)


@act(commands=enable_commands, done_when=is_enabled)
def enable(part: Part) -> None:
    """Have the new member started when its host boots; a spare is set up without that.

    Done twice, the second does nothing.

    Raises:
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 18.
    """
    change(part, _argv(part, "enable"))


def disable_commands(part: Part) -> Iterable[str]:
    """What disables the unit."""
    return lines(part, _argv(part, "disable"))


def is_disabled(part: Part) -> Verdict:
    """Whether systemd leaves the unit alone when the host boots."""
    return Verdict.of(is_enabled(part) is Verdict.NOT_DONE)


@act(commands=disable_commands, done_when=is_disabled)
def disable(part: Part) -> None:
    """Leave what is no member any more at rest when its host boots: it would fail again and again.

    Done twice, the second does nothing.

    Raises:
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 17.
    """
    change(part, _argv(part, "disable"))
