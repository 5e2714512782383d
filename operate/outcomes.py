"""Reading how a run under Prefect ended: by the journal, else by the run's last state."""

from typing import TYPE_CHECKING, Any

from recovery import errors
from recovery.errors import ExitCode, RecoveryError
from recovery.journal.events import Kind
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.run import Ended

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

CODES = {
    "Refused": ExitCode.REFUSED,
    "Needs person": ExitCode.NEEDS_PERSON,
    "Half done": ExitCode.NEEDS_PERSON,
}
REFUSED_LIKE = "refused on "


class ToldError(RecoveryError):
    """An error of another process, as it was told. Fields: kind (its class), text, exit code."""

    def __init__(self, kind: str, text: str, code: int) -> None:
        super().__init__(kind, text, code)
        self.kind, self.text = kind, text
        self.exit_code = ExitCode(code)

    def __str__(self) -> str:
        """What it said."""
        return self.text


def ended_of(state: "State[Any]", recovery_id: str, flow_run_id: str) -> Ended:
    """Tell how a run ended from its last Prefect state and from the journal.

    Args:
        state: the state, final or not.
        recovery_id: the recovery it worked on.
        flow_run_id: the run, to find its attempt in the journal.
    """
    if state.is_completed():
        return Ended(recovery_id, _state_named(state.name), message=state.message or "")
    text = _without_id(state.message or f"the run ended as {state.name}", recovery_id)
    return Ended(
        recovery_id,
        None,
        error=_journaled_error(recovery_id, flow_run_id) or _told_error(state.name or "", text),
    )


def _state_named(name: str | None) -> RecoveryState | None:
    try:
        return RecoveryState((name or "").lower())
    except ValueError:
        return None


def _without_id(text: str, recovery_id: str) -> str:
    return text.removeprefix(f"recovery {recovery_id}: ")


def _told_error(state_name: str, text: str) -> ToldError:
    if state_name == "Refused" and not text.startswith(REFUSED_LIKE):
        return ToldError("BadInput", text, ExitCode.BAD_INPUT)
    return ToldError(
        state_name.replace(" ", "") or "Failed", text, CODES.get(state_name, ExitCode.FAILED)
    )


def _journaled_error(recovery_id: str, flow_run_id: str) -> ToldError | None:
    """Return the error that the run's attempt ended with, where its attempt got that far."""
    if not recovery_id or not flow_run_id:
        return None
    journal = open_journal()
    try:
        events = journal.events(recovery_id)
    finally:
        journal.close()
    mine = 0
    for event in reversed(events):
        if event.kind == Kind.ATTEMPT_STARTED and event.body.get("flow_run_id") == flow_run_id:
            mine = event.attempt
            break
    for event in reversed(events):
        if mine and event.kind == Kind.ATTEMPT_ENDED and event.attempt == mine:
            kind = event.body.get("error_type", "")
            cause = getattr(errors, kind, RecoveryError) if kind else None
            if isinstance(cause, type) and issubclass(cause, RecoveryError):
                return ToldError(kind, event.body.get("error", ""), cause.exit_code)
    return None
