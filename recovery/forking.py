"""Forks: a new recovery that reuses what another one has done, from any step, with other inputs."""

from dataclasses import dataclass
from typing import Any

from recovery.errors import BadInput
from recovery.events import Kind
from recovery.history import History, read_history
from recovery.inputs import known_recovery
from recovery.redaction import redact
from recovery.run import Run, find_recovery, recovery_id_of
from recovery.stage import PlainStage
from recovery.walk import step_logger


@dataclass(frozen=True)
class Difference:
    """What a fork changes against the recovery it comes from, before anything is done.

    Attributes:
        parent: id of that recovery.
        from_step: the first step not reused, where one was named.
        changed: parameters that differ, by name: what they were and are.
        reused: steps taken over as done; each one's probe is asked again.
        redone: steps that will be done (or found to be so already).
    """

    parent: str
    from_step: str
    changed: dict[str, list[Any]]
    reused: list[str]
    redone: list[str]

    def as_plain(self) -> dict[str, Any]:
        """As it is journaled and printed."""
        return {
            "recovery": self.parent,
            "from_step": self.from_step,
            "changed": self.changed,
            "reused": self.reused,
            "redone": self.redone,
        }


def fork(run: Run) -> str:
    """Begin the new recovery and return its id. Nothing at the target is changed by this.

    Parameters that are not given are those of the other recovery.

    Raises:
        BadInput: the recovery or the step to fork from does not exist.
    """
    parent = known_recovery(run, find_recovery(run.journal, run.options.resume))
    recovery_id = recovery_id_of(run.flow_run_id)
    if read_history(run.journal.events(recovery_id)) is not None:
        return recovery_id  # the fork itself is being retried
    difference = _difference(run, parent, recovery_id)
    step_logger().info("fork of %s: %s", parent.recovery_id, redact(str(difference.as_plain())))
    run.open(recovery_id, forked_from=difference.as_plain())
    for key in difference.reused:
        _reuse(run, recovery_id, parent, key)
    return recovery_id


def _difference(run: Run, parent: History, recovery_id: str) -> Difference:
    before = _done_before(parent, run.options.from_step)
    decided = {key: body for key, body in parent.decisions.items() if key in before}
    _, fingerprints = run.make_plan(PlainStage(), recovery_id, decided)
    reused = [
        key for key in before if fingerprints.get(key) == parent.steps[key].arguments_hash != ""
    ]
    return Difference(
        parent=parent.recovery_id,
        from_step=run.options.from_step,
        changed={
            name: [parent.parameters.get(name), value]
            for name, value in run.plain.items()
            if parent.parameters.get(name) != value
        },
        reused=reused,
        redone=[key for key in fingerprints if key not in reused],
    )


def _done_before(parent: History, first: str) -> list[str]:
    """Keys of the parent's done acts and decisions before the step to fork from, in order."""
    if first and first not in parent.steps:
        raise BadInput(
            "from_step",
            f"recovery {parent.recovery_id} has no step {first!r}",
            f"Choose one of: {', '.join(parent.steps)}",
        )
    keys = list(parent.steps)
    if first:
        keys = keys[: keys.index(first)]
    return [key for key in keys if parent.steps[key].is_done]


def _reuse(run: Run, recovery_id: str, parent: History, key: str) -> None:
    step = parent.steps[key]
    about = {
        "kind": step.kind,
        "target": step.target,
        "arguments": step.arguments,
        "arguments_hash": step.arguments_hash,
        "reused_from": parent.recovery_id,
    }
    if step.kind == "decision":
        run.journal.append(recovery_id, Kind.DECIDED, {**about, "value": step.result}, step=key)
    else:
        body = {**about, "how": "reused", "result": step.result, "danger": step.danger}
        run.journal.append(recovery_id, Kind.DONE, body, step=key)
