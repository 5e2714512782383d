"""What going back would do and what it would leave, and the hash that consent to it is given to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from recovery.plan import Plan
from recovery.values import fingerprint


class Why(StrEnum):
    """Why an act stays as it is when a recovery goes back."""

    NO_WAY_BACK = "no-way-back"
    NOT_COME_TO = "not-come-to"
    KEPT_DOWN = "kept-down"
    STOOD_ON = "stood-on"
    TAKEN_OVER = "taken-over"


@dataclass(frozen=True)
class ActLeft:
    """An act whose effect is, or may be, still there when a recovery has gone back.

    `done_by` is the recovery that did it, where that is another one.
    """

    key: str
    target: str
    state: str
    why: Why
    done_by: str = ""

    def as_plain(self) -> dict[str, str]:
        """The act as `recover undo ID --plan --json` prints it."""
        return {
            "key": self.key,
            "target": self.target,
            "state": self.state,
            "why": str(self.why),
            "done_by": self.done_by,
        }


@dataclass(kw_only=True)
class WayBackPlan(Plan):
    """A plan of the way back: its steps are those back, in the order they are walked.

    Attributes:
        recovery_id: which recovery goes back.
        acts: each act that was begun, in that order: its key, and its step back with the very
            arguments, or why it stays. The same however many are undone already.
        as_of: how the last attempt forward ended, which flows have changed the target since, and
            which recoveries have gone back on it.
        stays: acts that are not taken back, those begun last first.
        undone: keys of the acts that are undone already, those begun last first.
        cut_short: why the walk did not come to all of them, where a target failed on it.
        wants_reason: why going back asks for a reason (`--reason`), if it does.

    The hash is made of `acts` and `as_of`: consent is to what was shown, and to no state after it.
    """

    recovery_id: str
    acts: list[list[str]] = field(default_factory=list)
    as_of: list[Any] = field(default_factory=list)
    stays: list[ActLeft] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    cut_short: str = ""
    wants_reason: list[str] = field(default_factory=list)

    @property
    def hash(self) -> str:
        """The hash that the question to a person is about: see `acts` and `as_of`."""
        return fingerprint([self.flow, self.target, "way back", self.acts, self.as_of])[:16]

    @property
    def title(self) -> str:
        """What it is a plan of."""
        return f"Way back {self.hash} of recovery {self.recovery_id}: {self.flow} on {self.target}"

    @property
    def notes(self) -> list[str]:
        """What stays, what was undone before, and what going back asks for."""
        return notes_on_way_back(self.as_plain())

    def as_plain(self) -> dict[str, Any]:
        """The plan as `recover undo ID --plan --json` prints it."""
        return {
            **super().as_plain(),
            "recovery": self.recovery_id,
            "stays": [act.as_plain() for act in self.stays],
            "undone": self.undone,
            "cut_short": self.cut_short,
            "wants_reason": self.wants_reason,
        }


def is_of_way_back(plan: Mapping[str, Any]) -> bool:
    """Whether a plan as it is printed is one of the way back."""
    return "stays" in plan


def notes_on_way_back(plan: Mapping[str, Any]) -> list[str]:
    """What there is to know of a way back beside its steps, in sentences.

    Args:
        plan: the plan as it is printed.
    """
    recovery_id, cut_short = plan["recovery"], plan["cut_short"]
    whys = {
        Why.NO_WAY_BACK: "no way back",
        Why.NOT_COME_TO: "the flow does not come there on the way back"
        + (f" ({cut_short})" if cut_short else ""),
        Why.KEPT_DOWN: "left down, since what was changed behind it stays",
        Why.STOOD_ON: "not taken back, since what this release cannot take back may stand on it",
        Why.TAKEN_OVER: "taken over from recovery ",
    }
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for act in plan["stays"]:
        about = (act["target"], act["state"], act["why"], act.get("done_by", ""))
        alike.setdefault(about, []).append(act["key"])
    notes = [
        f"stays: {', '.join(keys)} on {target} ({state}): {whys[Why(why)]}{done_by}"
        for (target, state, why, done_by), keys in alike.items()
    ]
    if {act["why"] for act in plan["stays"]} & {Why.NOT_COME_TO, Why.KEPT_DOWN, Why.STOOD_ON}:
        notes.append(
            "so going back will not end as undone, and a person is needed: take the rest back by "
            f"hand from `recover report {recovery_id}`, last first"
        )
    others = dict.fromkeys(one[3] for one in alike if one[2] == Why.TAKEN_OVER)
    notes += [
        f"so going back will not end as undone: `recover undo {done_by} --by NAME --reason TEXT` "
        "is to follow, and takes back what was taken over"
        for done_by in others
    ]
    if plan["undone"]:
        notes.append(f"undone already: {', '.join(plan['undone'])}")
    asked = "it wants a reason (--reason TEXT)"
    return [*notes, *(f"{asked}: {why}" for why in plan["wants_reason"])]
