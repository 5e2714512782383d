"""What persons were asked about plans, and what they said, as the journal tells it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recovery.journal.events import Event, Kind

BREAK_GLASS = "break-glass"
LOOKED = "it only says to look again"


def now() -> datetime:
    """The moment by which consent has run out or not."""
    return datetime.now(UTC)


@dataclass
class Approval:
    """A person's consent to a plan, by its hash. `until` is UTC in ISO 8601.

    `through` is how it was given: with the order of the run itself (empty), `form` or `command`.
    `code` proves the name, where one was given. A rejection voids what was given before it.
    """

    plan_hash: str
    by: str
    until: str
    how: str
    reason: str = ""
    flow_run_id: str = ""
    through: str = ""
    code: str = ""
    about: str = ""
    is_void: bool = False


@dataclass(frozen=True)
class Rejection:
    """A person's no to a plan."""

    plan_hash: str
    by: str
    reason: str
    seq: int


@dataclass(frozen=True)
class Asked:
    """What persons are asked: consent to a plan, or to the way back.

    Attributes:
        key: names this question; an answer counts for it alone, and once.
        plan_hash: what consent is given to.
        flow_run_id: the run that asks.
        until: when that run stops waiting, in UTC; empty where it does not wait.
        needs: how many persons.
        of: who may consent; empty: anyone.
        proven: who of them must prove the name.
        confirm: what is to be typed to confirm; empty: nothing.
        why: what was found wanting.
        goes_back: it is about the way back.
        plan: the steps back, where it is; plans have events of their own.
        rule_needs: how many persons the rule wants, whoever they are; 0: an older release.
        requester_suffices: whether who asked for the recovery may be the only one.
        seq: its place in the journal.
    """

    key: str
    plan_hash: str
    flow_run_id: str
    until: str = ""
    needs: int = 1
    of: tuple[str, ...] = ()
    proven: tuple[str, ...] = ()
    confirm: str = ""
    why: str = ""
    goes_back: bool = False
    plan: dict[str, Any] = field(default_factory=dict)
    rule_needs: int = 0
    requester_suffices: bool = True
    seq: int = 0

    @property
    def is_over(self) -> bool:
        """Whether its run has stopped waiting."""
        return bool(self.until) and datetime.fromisoformat(self.until) <= now()

    def command(self, recovery_id: str) -> str:
        """How to consent from a terminal."""
        why = " --reason TEXT" if self.goes_back else ""
        return f"recover approve {recovery_id} --plan {self.plan_hash} --by NAME{why}"

    def order(self, recovery_id: str, *, is_overtaken: bool = False) -> str:
        """How the run that asks is ordered again, from a terminal.

        Args:
            recovery_id: which recovery it is about.
            is_overtaken: what was asked about is no more, so a reason may be wanted by now.
        """
        if not self.goes_back:
            return f"recover resume {recovery_id}"
        if self.until:  # at a terminal it would ask nobody
            return f"recover undo {recovery_id} --by NAME --worker"
        why = " --reason TEXT" if is_overtaken or self.plan.get("wants_reason") else ""
        return f"recover undo {recovery_id} --by NAME{why}"

    def as_plain(self) -> dict[str, Any]:
        """As it is journaled."""
        plain = {name: value for name, value in vars(self).items() if name != "seq"}
        return {**plain, "of": list(self.of), "proven": list(self.proven)}

    @classmethod
    def from_event(cls, event: Event, body: Mapping[str, Any]) -> "Asked":
        """Read it from the journal; what a release does not know of is left out."""
        known = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        for name in ("of", "proven"):
            known[name] = tuple(known.get(name) or ())
        return cls(**{"key": "", "plan_hash": "", "flow_run_id": "", **known, "seq": event.seq})


@dataclass
class Consents:
    """All of it for one recovery.

    `asked` is the latest question, `by_run` that of each run: one may wait while another goes on;
    `questions` are all of them.
    `settled` are the keys of questions that had their answer.
    """

    approvals: list[Approval] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    asked: Asked | None = None
    questions: list[Asked] = field(default_factory=list)
    by_run: dict[str, Asked] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def hear(self, event: Event, body: Mapping[str, Any]) -> None:
        """Take in one event."""
        if event.kind == Kind.ASKED:
            self.asked = Asked.from_event(event, body)
            self.by_run[self.asked.flow_run_id] = self.asked
            self.questions.append(self.asked)
            return
        if key := body.get("key"):
            self.settled.add(key)
        if event.kind == Kind.APPROVED:
            given = Approval(
                plan_hash=body.get("hash", ""),
                by=body.get("by", ""),
                until=body.get("until", ""),
                how=body.get("how", ""),
                reason=body.get("reason", ""),
                flow_run_id=body.get("flow_run_id", ""),
                through=body.get("through", ""),
                code=body.get("code", ""),
                about=body.get("about", ""),
            )
            asked = self.by_run.get(given.flow_run_id)
            if key and asked is not None and asked.key == key:  # answered after somebody's no
                given.is_void = self.rejection_of(asked) is not None
            self.approvals.append(given)
        elif event.kind == Kind.REJECTED:
            plan_hash = body.get("hash", "")
            said = Rejection(plan_hash, body.get("by", ""), body.get("reason", ""), event.seq)
            self.rejections.append(said)
            for given in self.approvals:
                given.is_void = given.is_void or given.plan_hash == plan_hash

    def void_all(self) -> None:
        """Let no consent that was given so far count any more."""
        for given in self.approvals:
            given.is_void = True

    def standing(self, plan_hash: str) -> list[Approval]:
        """The consents to this very plan that have not run out and were not voided."""
        return [
            given
            for given in self.approvals
            if given.plan_hash == plan_hash
            and not given.is_void
            and datetime.fromisoformat(given.until) > now()
        ]

    def open_question(self, flow_run_id: str = "") -> Asked | None:
        """What a run, or whichever asked last, has asked and had no answer to yet."""
        asked = self.by_run.get(flow_run_id) if flow_run_id else self.asked
        return None if asked is None or asked.key in self.settled else asked

    def waiting(self, plan_hash: str) -> list[Asked]:
        """Questions about this plan whose runs may be suspended until they are answered."""
        return [
            asked
            for asked in self.by_run.values()
            if asked.until and asked.plan_hash == plan_hash and asked.key not in self.settled
        ]

    def rejection_of(self, asked: Asked | None) -> Rejection | None:
        """The latest no that was said since this question was asked."""
        if asked is None:
            return None
        said = [one for one in self.rejections if one.seq > asked.seq]
        return said[-1] if said else None
