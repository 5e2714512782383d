"""Whether a host starts its member when it boots, once another host has taken its place."""

from collections.abc import Iterable

from recovery.steps import act
from recovery.verdict import Verdict
from tasks.etcd.parts import Part
from tasks.etcd.standing_down import change, lines


def enable_commands(part: Part) -> Iterable[str]:
    """What has it started at boot."""
    return lines(part, part.run.enable_argv())


def is_enabled(part: Part) -> Verdict:
    """Whether the member is started when its host boots."""
    return Verdict.of(part.run.is_enabled())


@act(commands=enable_commands, done_when=is_enabled)
def enable(part: Part) -> None:
    """Have the new member started when its host boots; a spare is set up without that.

    Done twice, the second does nothing.

    Raises:
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 18.
    """
    change(part, part.run.enable_argv())


def disable_commands(part: Part) -> Iterable[str]:
    """What leaves it at rest at boot."""
    return lines(part, part.run.disable_argv())


def is_disabled(part: Part) -> Verdict:
    """Whether the member is left at rest when its host boots."""
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
    change(part, part.run.disable_argv())
