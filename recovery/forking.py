"""Forks: a new recovery that reuses what another one has done, from any step, with other inputs."""

from dataclasses import dataclass
from typing import Any

from recovery.errors import BadInput
from recovery.inputs import known_recovery
from recovery.journal.events import Kind
from recovery.journal.history import History, StepRecord, StepState, read_history
from recovery.journal.opening import find_recovery
from recovery.journal.store import Lease
from recovery.run import Run
from recovery.secrecy.redaction import redact
from recovery.stage import PlainStage
from recovery.walk import step_logger

IN_DOUBT = {StepState.INTENDED, StepState.IN_DOUBT, StepState.FAILED, StepState.STALE}


@dataclass(frozen=True)
class Difference:
    """What a fork changes against the recovery it comes from, before anything is done.

    Attributes:
        parent: id of that recovery.
        lineage: its id and those of the recoveries that it was forked from.
        from_step: the first step not reused, where one was named.
        changed: parameters that differ, by name: what they were and are.
        reused: steps taken over as done; each one's probe is asked again.
        redone: steps that will be done (or found to be so already).
        at_seq: how far that recovery's journal had come.
    """

    parent: str
    lineage: list[str]
    from_step: str
    changed: dict[str, list[Any]]
    reused: list[str]
    redone: list[str]
    at_seq: int

    def as_plain(self) -> dict[str, Any]:
        """As it is journaled and printed."""
        return {
            "recovery": self.parent,
            "lineage": self.lineage,
            "from_step": self.from_step,
            "changed": self.changed,
            "reused": self.reused,
            "redone": self.redone,
            "at_seq": self.at_seq,
        }


def fork(run: Run, lease: Lease, recovery_id: str) -> None:
    """Begin the new recovery; `complete_fork` takes along what it goes on with.

    Raises:
        BadInput: the recovery or the step to fork from does not exist.
    """
    parent = known_recovery(run, find_recovery(run.journal, run.options.resume))
    difference = _difference(run, parent, recovery_id)
    step_logger().info("fork of %s: %s", parent.recovery_id, redact(str(difference.as_plain())))
    run.open(recovery_id, lease, forked_from=difference.as_plain())


def complete_fork(run: Run, lease: Lease, history: History) -> None:
    """Take along what a fork reuses, and what is in doubt: that is in doubt in this one, too.

    A worker may be killed before all of it is written, so each attempt that finds a fork without
    attempts sees to it first. What is there is not written again.
    """
    forked_from = history.forked_from
    events = run.journal.events(forked_from["recovery"])
    at_seq = forked_from.get("at_seq") or len(events)
    parent = read_history(event for event in events if event.seq <= at_seq)
    if parent is None:
        raise BadInput(
            "resume",
            f"recovery {history.recovery_id} was forked from {forked_from['recovery']}, which this "
            "journal no longer has",
            "Start a new one: nothing was done by this one",
        )
    for key in forked_from["reused"]:
        if key not in history.steps:
            _take_over(run, lease, history, parent.steps[key])
    for record in parent.steps.values():
        is_in_doubt = record.kind == "act" and record.state in IN_DOUBT
        if is_in_doubt and record.key not in history.steps:
            body = {**_about(record), "verdict": "unknown", "was": str(record.state)}
            body["has_way_back"] = record.has_way_back
            _append(run, lease, history.recovery_id, Kind.VERDICT, body, record.key)


def _difference(run: Run, parent: History, recovery_id: str) -> Difference:
    lineage = list(parent.identities)
    _, walk = run.make_plan(
        PlainStage(),
        (recovery_id, *lineage),
        reusable=_done_before(parent, run.options.from_step),
    )
    return Difference(
        parent=parent.recovery_id,
        lineage=lineage,
        from_step=run.options.from_step,
        changed={
            name: [parent.parameters.get(name), value]
            for name, value in run.plain.items()
            if parent.parameters.get(name) != value
        },
        reused=walk.reused,
        redone=walk.redone,
        at_seq=parent.last_seq,
    )


def _done_before(parent: History, first: str) -> dict[str, StepRecord]:
    """The parent's done acts and decisions before the step to fork from, by key."""
    if first and first not in parent.steps:
        raise BadInput(
            "from_step",
            f"recovery {parent.recovery_id} has no step {first!r}",
            f"Choose one of: {', '.join(parent.steps)}",
        )
    keys = list(parent.steps)
    if first:
        keys = keys[: keys.index(first)]
    return {
        key: parent.steps[key]
        for key in keys
        if parent.steps[key].is_done and parent.steps[key].arguments_hash
    }


def _take_over(run: Run, lease: Lease, history: History, step: StepRecord) -> None:
    about = {
        **_about(step),
        "arguments": step.arguments,
        "arguments_hash": step.arguments_hash,
        "reused_from": step.taken_over_from or history.forked_from["recovery"],
    }
    if step.kind == "decision":
        body = {**about, "value": step.result}
        _append(run, lease, history.recovery_id, Kind.DECIDED, body, step.key)
    else:
        body = {**about, "how": "reused", "result": step.result}
        body["has_way_back"] = step.has_way_back
        _append(run, lease, history.recovery_id, Kind.DONE, body, step.key)


def _about(step: StepRecord) -> dict[str, Any]:
    return {"kind": step.kind, "target": step.target, "danger": step.danger}


def _append(  # noqa: PLR0913, PLR0917 (the parts of an event)
    run: Run, lease: Lease, recovery_id: str, kind: Kind, body: dict[str, Any], key: str
) -> None:
    run.journal.append(recovery_id, kind, body, step=key, lease=lease, needs_live_lease=True)
