"""What can go wrong, each error named by what the operator must do about it.

Every error keeps its fields, passes all of them to `super().__init__` by position and makes its
text in `__str__`: errors are stored by Prefect and must survive being pickled and read back.
"""

from enum import IntEnum

from recovery.secrecy.redaction import redacted_head

UNKNOWN_NAME = "Name or service not known"  # EAI_NONAME in the words of the C library
ANSWER_LOST_REMEDY = "It may have run, or still run, there: look before anything is done again"


class ExitCode(IntEnum):
    """What the command line ends with."""

    RECOVERED = 0
    BAD_INPUT = 2
    FAILED = 3
    NEEDS_PERSON = 4
    REFUSED = 5


class RecoveryError(Exception):
    """Anything that ends an attempt on purpose. `state` names how the run ends in the UI."""

    state = "Failed"
    exit_code = ExitCode.FAILED
    is_retried = False


class BadInput(RecoveryError):
    """A parameter, option or file is wrong; nothing was touched. Fields: field, seen, remedy."""

    state = "Refused"
    exit_code = ExitCode.BAD_INPUT

    def __init__(self, field: str, seen: str, remedy: str) -> None:
        super().__init__(field, seen, remedy)
        self.field, self.seen, self.remedy = field, seen, remedy

    def __str__(self) -> str:
        """Write `field: what was seen. Remedy.`."""
        return f"{self.field}: {self.seen}. {self.remedy}"


class Unreachable(RecoveryError):
    """No answer: asked again with growing delays. Fields: target, what was asked, what was seen."""

    is_retried = True

    def __init__(self, target: str, asked: str, seen: str, remedy: str = "") -> None:
        super().__init__(target, asked, seen, remedy)
        self.target, self.asked, self.seen, self.remedy = target, asked, seen, remedy

    def __str__(self) -> str:
        """What was asked of which target, what was seen, what to do next."""
        remedy = (
            self.remedy or "Check that it runs and can be reached from this worker, then resume"
        )
        return f"{self.target} gave no answer to `{self.asked}`: {self.seen}. {remedy}."


class NameUnknown(Unreachable):
    """No host has that name: asking again cannot help. Fields as of Unreachable."""

    is_retried = False


def unanswered(target: str, asked: str, seen: str, remedy: str = "") -> Unreachable:
    """Nobody answered: as what a client library says of it tells, the name may be none."""
    kind = NameUnknown if UNKNOWN_NAME in seen else Unreachable
    return kind(target, asked, seen, remedy)


class AnswerLost(Unreachable):
    """It was sent and no outcome came back: it may have run. Fields as of Unreachable."""

    def __init__(self, target: str, asked: str, seen: str, remedy: str = "") -> None:
        super().__init__(target, asked, seen, remedy or ANSWER_LOST_REMEDY)


class CommandFailed(RecoveryError):
    """It answered, and said no. Fields: target, command, exit code, end of output, remedy."""

    def __init__(
        self, target: str, command: str, exit_code: int | str, tail: str, remedy: str = ""
    ) -> None:
        super().__init__(target, command, exit_code, tail, remedy)
        self.target, self.command, self.code = target, command, exit_code
        self.tail, self.remedy = tail, remedy

    def __str__(self) -> str:
        """What was run where, how it ended, what it said, what to do next."""
        remedy = self.remedy or "Mend the cause, then resume"
        return (
            f"{self.target} said no to `{self.command}` (exit code {self.code}): "
            f"{self.tail.strip() or 'it printed nothing'}. {remedy}."
        )


class UnreadableOutput(RecoveryError):
    """A tool printed what we do not understand. Fields: the command, the text."""

    def __init__(self, command: str, printed: str) -> None:
        super().__init__(command, printed)
        self.command, self.printed = command, printed

    def __str__(self) -> str:
        """What was run and the text that could not be read."""
        printed = redacted_head(self.printed, 500)
        return (
            f"`{self.command}` printed what this release cannot read: {printed!r}. "
            "Hand this text over with the bundle; nothing was done on the strength of it."
        )


class Refused(RecoveryError):
    """Not safe to go on; the step changed nothing. Fields: target, reason, remedy."""

    state = "Refused"
    exit_code = ExitCode.REFUSED

    def __init__(self, target: str, reason: str, remedy: str) -> None:
        super().__init__(target, reason, remedy)
        self.target, self.reason, self.remedy = target, reason, remedy

    def __str__(self) -> str:
        """Write `refused on target: reason. Remedy.`."""
        return f"refused on {self.target}: {self.reason}. {self.remedy}."


class TargetTaken(Refused):
    """Another recovery holds the lease. Fields as of Refused, and the holder's recovery id.

    Of a mere part, it is no use to order a take-over: none takes a part from another recovery. The
    holder may be an attempt of this very recovery (`is_own`) that is alive.
    """

    def __init__(
        self,
        target: str,
        holder: str,
        seconds_left: float,
        is_part: bool = False,  # noqa: FBT001, FBT002
        is_own: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        RecoveryError.__init__(self, target, holder, seconds_left, is_part, is_own)
        self.target, self.holder, self.seconds_left = target, holder, seconds_left
        self.is_own = is_own
        who = "a living attempt of this recovery" if is_own else f"recovery {holder}"
        self.reason = f"{who} holds it (lease for another {max(0.0, seconds_left):.0f} s)"
        if is_own:
            remedy = "wait for its end; only where its worker is known to be gone, and the lease "
            remedy += "does not run out, order a take-over with --take-over --by NAME"
        elif is_part:
            remedy = "wait for its end, or stop it: a take-over takes no part from another recovery"
        else:
            remedy = "resume that one, or order a take-over with --take-over --by NAME once its "
            remedy += "worker is known to be gone"
        self.remedy = f"See `recover status {holder}`; {remedy}"


class NotVerified(RecoveryError):
    """Done, but the effect did not show in time. Fields: target, expected, last seen, remedy."""

    def __init__(self, target: str, expected: str, seen: str, remedy: str = "") -> None:
        super().__init__(target, expected, seen, remedy)
        self.target, self.expected, self.seen, self.remedy = target, expected, seen, remedy

    def __str__(self) -> str:
        """What was expected on which target, what was last seen, what to do next."""
        remedy = self.remedy or "Find out why before resuming"
        return f"{self.target}: expected {self.expected}, last saw {self.seen}. {remedy}."


class UndoFailed(RecoveryError):
    """Half changed, a person is needed now. Fields: target, step, why, what is left by hand."""

    state = "Half done"
    exit_code = ExitCode.NEEDS_PERSON

    def __init__(self, target: str, step: str, why: str, by_hand: str) -> None:
        super().__init__(target, step, why, by_hand)
        self.target, self.step, self.why, self.by_hand = target, step, why, by_hand

    def __str__(self) -> str:
        """Which step back failed where, why, and what is left to do by hand."""
        return f"{self.target}: the way back of {self.step} failed: {self.why}. {self.by_hand}."


class NeedsPerson(RecoveryError):
    """Only a person can settle this. Fields: target, question, what to do."""

    state = "Needs person"
    exit_code = ExitCode.NEEDS_PERSON

    def __init__(self, target: str, question: str, remedy: str) -> None:
        super().__init__(target, question, remedy)
        self.target, self.question, self.remedy = target, question, remedy

    def __str__(self) -> str:
        """Write `target: question. What to do.`."""
        return f"{self.target}: {self.question}. {self.remedy}."


class Fenced(BaseException):
    """This attempt lost the right to act; a later one may hold it. Fields: target, epoch, why.

    A `BaseException`: no `except Exception` on the way can swallow it. Where Prefect looks on it
    becomes Prefect's `Abort`, on which Prefect leaves without proposing a state: that of the newer
    attempt (often the same flow run, retried) is not touched.
    """

    def __init__(self, target: str, epoch: int, why: str) -> None:
        super().__init__(target, epoch, why)
        self.target, self.epoch, self.why = target, epoch, why

    def __str__(self) -> str:
        """Which lease was lost, or never held (epoch 0), and why."""
        what = f"lost the lease on {self.target} (epoch {self.epoch})"
        if not self.epoch:
            what = f"has no lease on {self.target}"
        return f"{what}: {self.why}; nothing more is done."
