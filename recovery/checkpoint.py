"""What an attempt comes to held against what is on record: inputs, results, the flow, the plan.

Nothing is done here but to compare, and to refuse by naming exactly what differs.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from recovery.errors import NeedsPerson, Refused
from recovery.journal.history import History, StepRecord, StepState
from recovery.plan import without_identity
from recovery.secrecy.redaction import contains_secret, redact
from recovery.values import canonical, fingerprint, from_plain, shortly, to_plain
from recovery.verdict import Danger
from recovery.walk import SecretInResult, StepCall


def arguments_hash(plain: Mapping[str, Any], identities: Iterable[str]) -> str:
    """Hash a step's arguments, leaving out which recovery it is: a fork has the same ones."""
    return fingerprint(without_identity(canonical(plain), identities))


def plain_arguments(call: StepCall, identities: Iterable[str]) -> tuple[dict[str, Any], str]:
    """A step's arguments as the journal keeps them, and their hash."""
    plain = {name: to_plain(value) for name, value in call.arguments.items()}
    return plain, arguments_hash(plain, identities)


def kept_result(call: StepCall, result: object) -> tuple[Any, Any]:
    """A step's result as the journal keeps it, and as a resume will read it back.

    Raises:
        SecretInResult: it holds a secret; masked, a resume would walk on with the mask.
        TypeError: it has no plain form, or cannot be read back as what the step says it returns.
    """
    if call.step.returns_nothing:
        return None, None
    plain = to_plain(result)
    if plain is None:
        return None, None
    if contains_secret(canonical(plain)):
        raise SecretInResult(call.key)
    try:
        return plain, from_plain(call.step.returns, plain)
    except ValidationError as error:
        raise TypeError(
            f"{call.key} returned {shortly(plain)}, which cannot be read back as "
            f"{call.step.returns}: {error.errors(include_input=False)[0]['msg']}"
        ) from None


def refuse_changed_arguments(
    call: StepCall,
    made: Mapping[str, Any],
    arguments: Mapping[str, Any],
    hashed: str,
    history: History,
) -> None:
    """Refuse a step whose inputs are not those of its record; name what changed.

    Raises:
        Refused: they are not.
    """
    if made.get("arguments_hash") in {"", None, hashed}:
        return
    before = made.get("arguments", {})
    changed = [
        f"{name} was {shortly(before.get(name))}, is now {shortly(arguments.get(name))}"
        for name in {**before, **arguments}
        if before.get(name) != arguments.get(name)
    ]
    raise Refused(
        call.target,
        f"the inputs of {call.key} changed since its checkpoint: {'; '.join(sorted(changed))}",
        f"Resume with what it was, or fork: `recover resume {history.recovery_id} "
        f"--from '{call.key}'`",
    )


def missed(
    history: History, met: Collection[str], attempt: int, to_come: Collection[str] = ()
) -> list[str]:
    """Keys of acts and decisions of earlier attempts that this walk has not come to.

    Those of targets `to_come` are no sign of another flow: a fan-out comes to them in its order.
    """
    return [
        record.key
        for record in tuple(history.steps.values())  # other threads may add to it meanwhile
        if record.kind in {"act", "decision"}
        and record.key not in met
        and record.attempt < attempt
        and record.state is not StepState.UNDONE
        and record.key.partition("[")[2].rstrip("]").partition(",")[0] not in to_come
    ]


def refuse_changed_flow(history: History, before: str, target: str, keys: Sequence[str]) -> None:
    """Refuse to go on while steps on record were not come to.

    Args:
        history: what is on record.
        before: what the walk came to instead.
        target: what is repaired.
        keys: the steps that were not come to.

    Raises:
        Refused: there are some.
    """
    if keys:
        raise Refused(
            target,
            f"this run comes to {before} before {', '.join(keys[:5])}, which an earlier attempt "
            "has recorded: the flow is not the one that was begun, or it branches on something "
            "that is no decision",
            f"Resume with the release that began it ({history.release or 'unknown'}), or "
            f"fork: `recover resume {history.recovery_id} --from '{keys[0]}'`",
        )


def refuse_unapproved(
    call: StepCall,
    danger: Danger,
    commands: Iterable[str],
    approved: Mapping[str, list[str]] | None,
    history: History,
) -> None:
    """Refuse an act that would send anything else than the plan that was consented to.

    Raises:
        Refused: it would; the difference is named.
    """
    if approved is None:
        return
    mine = [redact(without_identity(text, history.identities)) for text in commands]
    planned = approved.get(call.key)
    if planned == mine:
        return
    if planned is None:
        difference = f"the approved plan does not have this step ({danger})"
    else:
        new = [text for text in mine if text not in planned]
        gone = [text for text in planned if text not in mine]
        difference = f"it would send {shortly(new)} in place of {shortly(gone)}"
        if not new and not gone:
            difference = f"it would send the same commands in another order: {shortly(mine)}"
    raise Refused(
        call.target,
        f"{call.key} differs from the approved plan: {difference}",
        "Make a new plan, look at it, and approve that one",
    )


def refuse_danger(call: StepCall, danger: Danger, declared: Danger, *, may_destroy: bool) -> None:
    """Refuse an act that is more dangerous than what was declared or consented to.

    Raises:
        RuntimeError: the recovery is declared less dangerous than its step. A mistake in it.
        NeedsPerson: it is destructive, and nobody has consented.
    """
    if danger.rank > declared.rank:
        raise RuntimeError(f"{call.key} is {danger}, but the recovery is declared {declared}")
    if danger is Danger.DESTRUCTIVE and not may_destroy:
        raise NeedsPerson(
            call.target,
            f"{call.key} is destructive and nobody has approved it",
            "See `recover plan`, then approve its hash with --approve HASH",
        )


def is_ended(record: StepRecord, lasts_until: str, history: History) -> bool:
    """Whether an act that ends this one's effect on purpose has begun.

    Begun is enough: what it left half done its own probe settles, and doing this one over again
    would take back what it did. Of acts mapped over targets, the one on the same target counts.
    """
    if not lasts_until:
        return False
    _, _, mine = record.key.partition("[")
    for other in tuple(history.steps.values()):
        name, _, its = other.key.partition("[")
        is_same_target = not mine or not its or mine == its
        if name == lasts_until and is_same_target and other.state is not StepState.UNDONE:
            return True
    return False
