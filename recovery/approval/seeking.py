"""Seeking consent for one attempt: what was said is taken in once, counted, and asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from recovery.approval.approvers import (
    Approvers,
    Count,
    Rule,
    counted,
    known_as,
    not_proven,
)
from recovery.approval.proof import is_proven
from recovery.approval.question import Answer, Decision, Question
from recovery.errors import NeedsPerson, Refused
from recovery.journal.consents import BREAK_GLASS, LOOKED, Approval, Asked, Rejection
from recovery.journal.events import Kind
from recovery.journal.history import read_history
from recovery.journaled_walk import JournaledWalk
from recovery.notices.notice import Notice, Occasion
from recovery.notices.sending import notify
from recovery.run import Run
from recovery.values import shortly

APPROVAL_LASTS = timedelta(hours=24)


def until_of_new() -> str:
    """Until when a consent that is given now holds."""
    return (datetime.now(UTC) + APPROVAL_LASTS).isoformat(timespec="seconds")


@dataclass
class Seeking:
    """One attempt's way to the consent it needs.

    Attributes:
        run: the run that wants to go on.
        walk: its attempt, which writes the journal.
        policy: who may consent.
        rule: what it takes here.
        goes_back: consent is sought for the way back.
        wanting: why what was said so far does not do, as sentences without an end.
    """

    run: Run
    walk: JournaledWalk
    policy: Approvers
    rule: Rule
    goes_back: bool = False
    wanting: list[str] = field(default_factory=list)

    @property
    def pending(self) -> Asked | None:
        """What this very run has asked before, and has taken in no answer to."""
        asked = self.walk.history.consents.open_question(self.run.flow_run_id)
        return asked if asked is not None and asked.goes_back == self.goes_back else None

    def say(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Write down what a person said, and take it in."""
        event = self.walk.write(kind, {**body, "flow_run_id": self.run.flow_run_id})
        self.walk.history.consents.hear(event, event.body)

    def approve(self, plan_hash: str, by: str, how: str, reason: str, **more: str) -> None:
        """Write down a consent, and tell of it."""
        until = until_of_new()
        body = {"hash": plan_hash, "by": by, "until": until, "how": how, "reason": reason, **more}
        self.say(Kind.APPROVED, body)
        is_approved = how != BREAK_GLASS
        self._tell(
            Occasion.APPROVED if is_approved else Occasion.BREAK_GLASS,
            f"{by} consented to plan {plan_hash}" if is_approved else f"{by} goes ahead: {reason}",
        )

    def hear_answer(self, plan_hash: str, difference: str) -> None:
        """Take in what was answered to the question that this run asked, once.

        Args:
            plan_hash: what would be done now.
            difference: how that differs from what was asked about, where it does.

        Raises:
            Refused: a person said no.
        """
        asked = self.pending
        if asked is None:
            return
        answer = self.run.form.answer(asked) if self.run.form is not None else None
        if answer is not None:
            self._take(asked, answer, plan_hash, difference)
        if said := self.walk.history.consents.rejection_of(asked):
            raise self._rejected(said)

    def refuse_if_rejected(self) -> None:
        """Look for a no that was said since this attempt read the journal.

        Raises:
            Refused: there is one.
        """
        known = len(self.walk.history.consents.rejections)
        now = read_history(self.run.journal.events(self.walk.history.recovery_id))
        for said in now.consents.rejections[known:] if now is not None else ():
            raise self._rejected(said)

    def _rejected(self, said: Rejection) -> Refused:
        return Refused(
            self.walk.target,
            f"{said.by} rejected plan {said.plan_hash}" + (f": {said.reason}" * bool(said.reason)),
            f"Nothing more is done; `{self.run.order(self.walk.history.recovery_id)}` asks anew",
        )

    def _take(self, asked: Asked, answer: Answer, plan_hash: str, difference: str) -> None:
        by = known_as(answer.approver, self.rule.of) or answer.approver
        body = {"key": asked.key, "hash": asked.plan_hash, "by": by, "through": "form"}
        if answer.decision is Decision.LOOK_AGAIN:
            self.say(Kind.DISREGARDED, {**body, "why": LOOKED})
            return
        flaw = self._flaw_of(asked, answer)
        if not flaw and answer.decision is Decision.REJECT:
            self.say(Kind.REJECTED, {**body, "reason": answer.reason})
            self._tell(Occasion.REJECTED, f"{by} rejected plan {asked.plan_hash}: {answer.reason}")
            return
        if not flaw and asked.plan_hash != plan_hash:
            flaw = changed(asked.plan_hash, plan_hash, difference)
        if flaw:
            self.say(Kind.DISREGARDED, {**body, "why": flaw})
            self.wanting.append(flaw)
            return
        self.approve(
            plan_hash,
            by,
            "approved",
            answer.reason,
            key=asked.key,
            through="form",
            code=answer.code,
            about=asked.key,
        )

    def _flaw_of(self, asked: Asked, answer: Answer) -> str:
        """Why an answer does not count; empty where it does."""
        who = answer.approver.strip() or "somebody"
        if answer.flaw or answer.decision is None:
            return f"{who} did not answer what the form asks: {answer.flaw or 'no decision'}"
        if not known_as(answer.approver, self.rule.of):
            may = f" ({', '.join(self.rule.of)} may)" if self.rule.of else ""
            return f"{who} is no approver of it{may}"
        if answer.plan_hash.strip() != asked.plan_hash:
            return f"{who} answered about plan {shortly(answer.plan_hash)}, not {asked.plan_hash}"
        return "" if answer.decision is Decision.REJECT else self._flaw_of_yes(asked, answer, who)

    def _flaw_of_yes(self, asked: Asked, answer: Answer, who: str) -> str:
        if asked.confirm and answer.confirm.strip() != asked.confirm:
            return f"{who} confirmed {shortly(answer.confirm)}, and not {shortly(asked.confirm)}"
        if asked.goes_back and not answer.reason.strip():
            return f"{who} gave no reason for the way back"
        path = self.policy.proof_file(known_as(answer.approver, self.rule.of))
        recovery_id = self.walk.history.recovery_id
        if path and not is_proven(path, answer.code, recovery_id, asked.plan_hash, asked.key):
            return f"{who} did not prove that name"
        return ""

    def count(self, plan_hash: str) -> Count:
        """How far a plan is consented to by now."""
        history = self.walk.history
        standing = [
            given for given in history.consents.standing(plan_hash) if given.how != BREAK_GLASS
        ]
        spent = {one.code for one in history.approvals if one.code and one not in standing}
        doubted = not_proven(self.policy, self.rule, standing, history.recovery_id, spent)
        doubted += self._unprovable(standing)
        return counted(self.rule, standing, self.requester, doubted)

    @property
    def requester(self) -> str:
        """Who asked for what is consented to: the recovery, or its way back."""
        return self.run.options.undo_by if self.goes_back else self.walk.history.requested_by

    def _unprovable(self, standing: Sequence[Approval]) -> list[str]:
        """Who had to prove the name where it was asked, and is not known on this machine."""
        had_to = {
            name
            for asked in self.walk.history.consents.questions
            for name in asked.proven
            if asked.goes_back is self.goes_back and name not in self.policy.approvers
        }
        given = dict.fromkeys(known_as(one.by, self.rule.of) for one in standing)
        return [name for name in given if name in had_to]

    def consent(self, plan_hash: str) -> Approval | None:
        """The consent to act on, made of all that count; `None` while some are missing."""
        standing = self.walk.history.consents.standing(plan_hash)
        for given in reversed(standing):
            if given.how == BREAK_GLASS:
                return given
        count = self.count(plan_hash)
        if count.missing or not count.persons:
            return None
        mine = [one for one in standing if known_as(one.by, self.rule.of) in count.persons]
        by = " and ".join(count.persons)
        return Approval(plan_hash, by, min(one.until for one in mine), "approved", mine[-1].reason)

    def ask(self, planned: Mapping[str, Any], usual: str, remedy: str) -> NoReturn:
        """Write down what is asked, and end the attempt with it.

        Args:
            planned: the plan to consent to.
            usual: why, where nothing was said yet; of a way back, whatever was said.
            remedy: what to do where this run cannot wait for an answer.

        Raises:
            NeedsPerson: always.
        """
        run, history, plan_hash = self.run, self.walk.history, planned["hash"]
        count = self.count(plan_hash)
        told = [*self.wanting, *count.told]
        if count.persons:
            given = len(count.persons)
            told.append(
                f"{given} of {given + count.missing} approvals of plan {plan_hash} are there"
            )
        if self.goes_back or not told:  # the second person is to know what going back costs, too
            told.append(usual)
        seconds = self.rule.answer_within_hours * 3600
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        asked = Asked(
            key=f"approval-{history.recovery_id}-{self.walk.n}-{plan_hash}",
            plan_hash=plan_hash,
            flow_run_id=run.flow_run_id,
            until=until.isoformat(timespec="seconds") if run.form is not None else "",
            needs=len(count.persons) + count.missing,
            of=self.rule.of,
            proven=tuple(name for name in self.rule.of if self.policy.proof_file(name)),
            confirm=self.walk.target,
            why="; ".join(told),
            goes_back=self.goes_back,
            plan=dict(planned) if self.goes_back else {},
            rule_needs=self.rule.needs,
            requester_suffices=self.rule.requester_suffices,
        )
        self.say(Kind.ASKED, asked.as_plain())
        run.question = Question(
            asked,
            history.recovery_id,
            history.flow,
            self.walk.target,
            self.requester,
            count.persons,
            planned,
            seconds,
        )
        if run.form is not None:
            remedy = f"Answer in the UI, or `{run.question.command}`"
        raise NeedsPerson(self.walk.target, asked.why, remedy)

    def _tell(self, occasion: Occasion, text: str) -> None:
        history = self.walk.history
        notice = Notice(
            occasion,
            text,
            history.flow,
            self.walk.target,
            history.recovery_id,
            f"recover status {history.recovery_id}",
            self.run.flow_run_id if self.run.form is not None else "",
        )
        notify(notice, self.run.journal)


def changed(before: str, now: str, difference: str) -> str:
    """That a consent is void, and what changed."""
    return f"plan {before} was approved, but what would be done now is plan {now}{difference}"
