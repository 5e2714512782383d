"""What the watch says of an orphan, in the run's state, in the log and to a person."""

from operate.orphans.attempts import Orphan
from operate.orphans.ruling import Ruling, What

NAMED_MAX = 5


def prefix_of(recovery_id: str) -> str:
    """How every state message begins that tells of a recovery."""
    return f"recovery {recovery_id}: "


def what_is_known(orphan: Orphan) -> str:
    """Say which attempt is gone, in which step it was, and what is in doubt."""
    if not orphan.n:
        return (
            f"it was opened at {_moment(orphan.last_heard_at)} and its first attempt never began; "
            "nothing was done"
        )
    return (
        f"the worker of attempt {orphan.n} ({orphan.worker}) is gone: last heard of at "
        f"{_moment(orphan.last_heard_at)}, and its lease on {orphan.target} ran out. "
        f"{_where_it_was(orphan)}"
    )


def _where_it_was(orphan: Orphan) -> str:
    if orphan.in_doubt:
        named = ", ".join(orphan.in_doubt[:NAMED_MAX])
        more = len(orphan.in_doubt) - NAMED_MAX
        named += f" and {more} more" if more > 0 else ""
        verb = "undoing" if orphan.goes_back else "in"
        return (
            f"It was {verb} {named}, which is in doubt: the effect may be there or not, "
            "and a resume asks the probe before anything is sent again"
        )
    if orphan.was_in:
        return f"It had come to {orphan.was_in}; nothing is in doubt"
    return "It had not come to a step; nothing is in doubt"


def what_is_next(orphan: Orphan, ruling: Ruling) -> str:
    """Say what becomes of it, and what a person is to type where one is needed."""
    if ruling.what is What.PERSON:
        return f"A person resumes it ({ruling.why}): {how_to_resume(orphan)}"
    if ruling.what is What.RESUME:
        return f"It is resumed by itself: {ruling.why}"
    pause = f" ({ruling.seconds:.0f} s)" if ruling.seconds else ""
    return f"Nothing is to be done yet: {ruling.why}{pause}"


def how_to_resume(orphan: Orphan) -> str:
    """Say exactly how a person goes on with it."""
    if orphan.goes_back:
        return f"`recover undo {orphan.recovery_id} --by NAME --reason TEXT`"
    return (
        f"`recover resume {orphan.recovery_id}`, *Retry* of its run in the UI, or a new run with "
        f"resume={orphan.recovery_id}"
    )


def crash_message(orphan: Orphan) -> str:
    """Write the message of the crashed run."""
    return (
        f"{prefix_of(orphan.recovery_id)}{what_is_known(orphan)}. To go on: "
        f"{how_to_resume(orphan)}."
    )


def _moment(at: str) -> str:
    return at.replace("T", " ").partition(".")[0] + " UTC" if at else "an unknown time"
