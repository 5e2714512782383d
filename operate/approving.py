"""Consent from a terminal: written to the journal, which wakes the run that waits for it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operate.waking import wake
from recovery.approval.approvers import Count, approvers, count_of, known_as
from recovery.approval.proof import code_for, key_line
from recovery.approval.seeking import until_of_new
from recovery.errors import BadInput, Refused
from recovery.journal.consents import Asked
from recovery.journal.events import Kind
from recovery.journal.history import History, RecoveryState, read_history
from recovery.journal.store import Journal
from recovery.notices.notice import Notice, Occasion
from recovery.notices.sending import notify, wait_until_sent
from recovery.secrecy.secret import Secret


@dataclass(frozen=True)
class Consent:
    """What a person says: yes or no to a plan, by its hash, with what proves the name."""

    plan_hash: str
    by: str
    reason: str = ""
    rejects: bool = False
    token_file: Path | None = None


def question_of(journal: Journal, recovery_id: str) -> dict[str, Any]:
    """What is asked of persons about a recovery now, with the plan it is about."""
    history = _history_of(journal, recovery_id)
    asked = history.consents.asked
    is_open = asked is not None and _is_open(history, asked)
    plan_hash = asked.plan_hash if asked is not None else history.plan.get("hash", "")
    plan = (asked.plan if asked is not None else {}) or history.plans.get(plan_hash, {})
    count = count_of(history, asked, plan_hash)
    why, following = "nothing is asked now", ""
    if history.called_off:
        why, following = f"it was called off: {history.called_off}", _resumed(history, asked)
    if asked is not None and is_open:
        why, following = asked.why, f"`{asked.command(recovery_id)}`"
        if not count.missing:
            why, following = "what was asked is approved", _resumed(history, asked)
        elif asked.is_over:
            why, following = "nobody answered in time", _resumed(history, asked)
    return {
        "id": recovery_id,
        "flow": history.flow,
        "target": history.target,
        "is_asked": is_open,
        "why": why,
        "plan_hash": plan_hash,
        "goes_back": asked.goes_back if asked is not None else False,
        "requested_by": history.requested_by,
        "of": list(asked.of) if asked is not None else [],
        "given": list(count.persons),
        "missing": count.missing if is_open else 0,
        "until": asked.until if asked is not None and is_open else "",
        "plan": plan,
        "next": following,
    }


def say(journal: Journal, recovery_id: str, consent: Consent) -> dict[str, Any]:
    """Write down what a person says, and wake the run that waits for it.

    Said twice, it is written once. Nothing at the target is touched.

    Raises:
        BadInput: the plan, the person or the token is not what is asked for.
        Refused: there is nothing left to consent to.
    """
    history = _history_of(journal, recovery_id)
    asked = history.consents.asked
    _refuse_unless_asked(history, asked, consent.plan_hash)
    by = _known(asked, consent.by)
    _refuse_without_reason(asked, consent)
    code = _code(asked, recovery_id, consent, by)
    if consent.rejects:
        body = {"hash": consent.plan_hash, "by": by, "reason": consent.reason}
        journal.append(recovery_id, Kind.REJECTED, {**body, "through": "command"})
        told = f"{by} rejected plan {consent.plan_hash}"
    else:
        told = f"{by} approved plan {consent.plan_hash}"
        if by not in count_of(history, asked, consent.plan_hash).persons or code:
            body = {
                "hash": consent.plan_hash,
                "by": by,
                "until": until_of_new(),
                "how": "approved",
                "reason": consent.reason,
                "through": "command",
                "code": code,
                "about": _key_of(asked),
            }
            journal.append(recovery_id, Kind.APPROVED, body)
    history = _history_of(journal, recovery_id)
    count = count_of(history, asked, consent.plan_hash)
    _tell(journal, history, consent, told)
    return {
        "id": recovery_id,
        "said": told,
        "given": list(count.persons),
        "missing": 0 if consent.rejects else count.missing,
        **_goes_on(history, consent, count, by),
    }


def code_of(journal: Journal, recovery_id: str, consent: Consent) -> str:
    """The code that proves a name in the form of the UI, for this plan alone; writes nothing.

    Raises:
        BadInput: no token is given.
    """
    history = _history_of(journal, recovery_id)
    _refuse_unless_asked(history, history.consents.asked, consent.plan_hash)
    by = _known(history.consents.asked, consent.by)
    if consent.token_file is None:
        raise BadInput("--token-file", "a code is made of a token, and none is given", "Add it")
    line = key_line(by, Secret.from_file(consent.token_file))
    return code_for(line, recovery_id, consent.plan_hash, _key_of(history.consents.asked))


def keep_proof(name: str, token_file: Path, to: Path) -> None:
    """Write what a worker needs to tell codes of this approver by, into a new file of mode 0600.

    Raises:
        BadInput: the token cannot be read or is too short, or the file is there already.
    """
    line = key_line(name, Secret.from_file(token_file))
    try:
        with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(line.reveal() + "\n")
    except OSError as error:
        raise BadInput("--to", f"{to}: {error.strerror}", "Name a new file") from error


def _goes_on(history: History, consent: Consent, count: Count, by: str) -> dict[str, Any]:
    """What becomes of it now: the run that waits is woken, or what to type."""
    recovery_id, asked = history.recovery_id, history.consents.asked
    command = f"recover approve {recovery_id} --plan {consent.plan_hash} --by NAME"
    if asked is not None and asked.plan_hash == consent.plan_hash:
        command = asked.command(recovery_id)
    more = f"`{command}` by another person"
    usual = _resumed(history, asked)
    if count.missing and not consent.rejects:
        return {"run": "", "next": more}
    waiting = history.consents.waiting(consent.plan_hash)
    if not waiting:
        return {"run": "", "next": usual}
    woken = [wake(one, by) for one in waiting]
    told = [
        one.why_not or f"flow run {each.flow_run_id} goes on"
        for one, each in zip(woken, waiting, strict=True)
    ]
    if any(not one.why_not for one in woken):
        following = f"`recover status {recovery_id}`"
    else:
        following = next((one.next for one in woken if one.next), usual)
    return {"run": "; ".join(told), "next": following}


def _resumed(history: History, asked: Asked | None) -> str:
    """What goes on with it where no run does by itself."""
    if asked is not None:
        return f"`{asked.order(history.recovery_id)}`"
    return f"`recover resume {history.recovery_id}`"


def _history_of(journal: Journal, recovery_id: str) -> History:
    history = read_history(journal.events(recovery_id))
    if history is None:
        raise BadInput("ID", f"no recovery {recovery_id}", "See `recover status` for the ids")
    return history


def _is_open(history: History, asked: Asked) -> bool:
    """Whether the attempt that asked is still the last one, and its question has no answer."""
    last = history.attempts[-1] if history.attempts else None
    is_last = last is not None and last.flow_run_id == asked.flow_run_id
    return is_last and asked.key not in history.consents.settled


def _refuse_unless_asked(history: History, asked: Asked | None, plan_hash: str) -> None:
    known = [*history.plans, *([asked.plan_hash] if asked is not None else [])]
    if plan_hash not in known:
        raise BadInput(
            "--plan",
            f"recovery {history.recovery_id} has no plan {plan_hash!r}",
            f"Look at what is asked: `recover approve {history.recovery_id}`",
        )
    if history.called_off:
        raise Refused(
            history.target,
            f"recovery {history.recovery_id} was called off: {history.called_off}",
            f"Nothing waits for an answer; {_resumed(history, asked)} asks anew",
        )
    last = history.attempts[-1].ended_as if history.attempts else ""
    forward = history.last_forward
    goes_back = asked is not None and asked.goes_back and asked.plan_hash == plan_hash
    if history.is_undone or (last == RecoveryState.RECOVERED and not goes_back):
        raise Refused(
            history.target,
            f"recovery {history.recovery_id} has come to its end ({last})",
            "There is nothing left to consent to",
        )
    if goes_back and asked is not None and forward is not None and forward.started_seq > asked.seq:
        raise Refused(
            history.target,
            f"an attempt has gone forward since the way back {plan_hash} was asked about",
            "It is another one now: "
            f"`{asked.order(history.recovery_id, is_overtaken=True)}` asks anew",
        )


def _refuse_without_reason(asked: Asked | None, consent: Consent) -> None:
    goes_back = asked is not None and asked.goes_back and asked.plan_hash == consent.plan_hash
    if goes_back and not consent.rejects and not consent.reason.strip():
        raise BadInput(
            "--reason",
            "consent to a way back wants a reason, as the form in the UI does",
            "Add --reason TEXT; nothing was written",
        )


def _known(asked: Asked | None, by: str) -> str:
    """Who speaks, as the file of approvers spells the name."""
    of = asked.of if asked is not None else ()
    of = of or tuple(approvers().approvers)
    if not by.strip():
        raise BadInput("--by", "consent is given by name, and none is given", "Add --by NAME")
    name = known_as(by, of)
    if not name:
        who = f"These are: {', '.join(of)}" if of else "Any person may, and an alert is none"
        raise BadInput("--by", f"{by} is no approver of it", who)
    return name


def _key_of(asked: Asked | None) -> str:
    return asked.key if asked is not None else ""


def _code(asked: Asked | None, recovery_id: str, consent: Consent, by: str) -> str:
    if consent.token_file is not None:
        line = key_line(by, Secret.from_file(consent.token_file))
        return code_for(line, recovery_id, consent.plan_hash, _key_of(asked))
    if asked is not None and by in asked.proven and not consent.rejects:
        raise BadInput(
            "--token-file", f"{by} is to prove that name", "Give the file with your token"
        )
    return ""


def _tell(journal: Journal, history: History, consent: Consent, told: str) -> None:
    occasion = Occasion.REJECTED if consent.rejects else Occasion.APPROVED
    text = told + (f": {consent.reason}" if consent.reason else "")
    following = f"recover status {history.recovery_id}"
    notify(
        Notice(occasion, text, history.flow, history.target, history.recovery_id, following),
        journal,
    )
    wait_until_sent()
