"""What a Kubernetes API answered instead of what was asked for, as errors that name the remedy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blocks.kube.path import STREAMS, Asked
from recovery.errors import AnswerLost, CommandFailed, Unreachable
from recovery.secrecy.redaction import redacted_head

MESSAGE_CHARS_MAX = 2000
WEBHOOK_CALL = "failed calling webhook"
WEBHOOK_DENIED = "admission webhook"
NOT_APPLIED = "the server rejected our request due to an error in our request"  # and no cause
NO_RETRY_SECONDS = 1.0
UNEXPLAINED = "is forbidden:"  # of a stream that may be got and not created (1.36.2)


class ClusterLoginRefused(CommandFailed):
    """401: the API does not know who asks. Fields as of CommandFailed."""


class ClusterForbidden(CommandFailed):
    """403: who asks may not. The remedy holds the Role that grants it. Fields as CommandFailed."""


class ClusterNotFound(CommandFailed):
    """404: there is no such object, or no such kind. Fields as of CommandFailed."""


class ClusterConflict(CommandFailed):
    """409: it is there already, or is no longer what it was. Fields as of CommandFailed."""


class ClusterRejected(CommandFailed):
    """422, 400, or a webhook: the object is not accepted. Fields as of CommandFailed."""


class EvictionBlocked(CommandFailed):
    """429 on an eviction: a PodDisruptionBudget keeps the pod. Fields as of CommandFailed."""


class ClusterGone(CommandFailed):
    """410: the version to go on from is too old; list again. Fields as of CommandFailed."""


@dataclass(frozen=True)
class Answer:
    """A status, and what came with it."""

    status: int
    text: str
    retry_after: str = ""


@dataclass(frozen=True)
class Question:
    """A request as errors tell of it.

    `who` names the credentials and what is known of them. `was_away` says that the API was not
    there a moment ago: one that has just started forbids everything until it has read its Roles.
    """

    label: str
    command: str
    asked: Asked | None
    is_change: bool
    who: str = ""
    was_away: bool = False


def refuse_bad_answer(question: Question, answer: Answer) -> None:
    """Raise what a status stands for; the ones below 300 stand for nothing bad.

    Raises:
        Unreachable: it cannot answer now; asking again may help.
        AnswerLost: it cannot say whether the change was made.
        ClusterLoginRefused, ClusterForbidden, ClusterNotFound, ClusterConflict, ClusterRejected,
            EvictionBlocked, ClusterGone: see there.
        CommandFailed: another status.
    """
    if answer.status < 300:  # noqa: PLR2004 (the first status that is none of success)
        return
    said = message_in(answer.text)
    label, command = question.label, question.command
    if answer.status == 429:  # noqa: PLR2004
        raise _too_many(question, answer, said)
    if WEBHOOK_CALL in said:
        remedy = (
            "Mend the webhook (its Service has no ready pod, or its certificate ran out), or have "
            "its owner set failurePolicy for the time being; then resume"
        )
        raise ClusterRejected(label, command, answer.status, said, remedy)
    if answer.status >= 500:  # noqa: PLR2004
        unanswered = AnswerLost if question.is_change else Unreachable
        raise unanswered(label, command, f"status {answer.status}: {said}")
    kind, remedy = REFUSALS.get(answer.status, (CommandFailed, ""))
    if answer.status == 401:  # noqa: PLR2004
        remedy = f"{question.who}. {remedy}" if question.who else remedy
    if answer.status == 403:  # noqa: PLR2004
        kind, remedy = _forbidden(question, said)
        if kind is ClusterForbidden and question.was_away:
            raise Unreachable(label, command, f"it was away a moment ago, and says: {said}")
    if answer.status == 422 and said == NOT_APPLIED:  # noqa: PLR2004 (a JSON patch did not fit)
        kind, remedy = ClusterConflict, CHANGED
    raise kind(label, command, answer.status, said, remedy)


def _forbidden(question: Question, said: str) -> tuple[type[CommandFailed], str]:
    """A right that is missing, or a policy that was asked after the rights."""
    is_right = "cannot" in said and WEBHOOK_DENIED not in said
    if question.asked is not None and question.asked.subresource in STREAMS:
        is_right = is_right or said.rstrip().endswith(UNEXPLAINED)
    if not is_right or question.asked is None:
        return (
            ClusterRejected,
            "Satisfy the policy or quota it names, or ask its owner, then resume",
        )
    return ClusterForbidden, (
        f"The account may not {question.asked}. Have this granted and bound to it, then "
        f"resume:\n{question.asked.rule}\n"
    )


def message_in(text: str) -> str:
    """The message of a Status object, with its causes; else the start of the text."""
    status = status_in(text)
    if not status:
        return redacted_head(text.strip(), MESSAGE_CHARS_MAX)
    details = status.get("details") or {}
    causes = [str(cause.get("message", "")) for cause in details.get("causes") or []]
    told = [str(status.get("message", "")), *(c for c in causes if c)]
    message = "; ".join(dict.fromkeys(part for part in told if part))
    return redacted_head(message, MESSAGE_CHARS_MAX)


def status_in(text: str) -> Mapping[str, Any]:
    """The Status object in an answer; empty where there is none."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) and read.get("kind") == "Status" else {}


def _too_many(question: Question, answer: Answer, said: str) -> Exception:
    causes = (status_in(answer.text).get("details") or {}).get("causes") or []
    is_budget = any(cause.get("reason") == "DisruptionBudget" for cause in causes)
    if is_budget or (question.asked is not None and question.asked.subresource == "eviction"):
        remedy = (
            "Bring the pods that the budget counts back first, or have its owner allow more "
            "disruptions; then resume"
        )
        return EvictionBlocked(question.label, question.command, 429, said, remedy)
    after = f", asks to wait {answer.retry_after} s" if answer.retry_after else ""
    return Unreachable(
        question.label,
        question.command,
        f"status 429{after}: {said}",
        "The API throttles: see who floods it (API Priority and Fairness), then resume",
    )


CHANGED = "Look at what changed and who did it, then resume; a new plan shows it as it is now"
RENEW = (
    "Renew the credentials the kubeconfig refers to on the worker (a token, a client certificate, "
    "the log-in of its exec plugin), then resume"
)
REFUSALS: dict[int, tuple[type[CommandFailed], str]] = {
    400: (ClusterRejected, "Correct what it names, then resume"),
    401: (
        ClusterLoginRefused,
        RENEW,
    ),
    403: (ClusterForbidden, "Have it granted, then resume"),
    404: (ClusterNotFound, "Correct the name, or find out who removed it"),
    405: (CommandFailed, "The API does not serve this verb: see its version"),
    409: (ClusterConflict, CHANGED),
    410: (ClusterGone, "List it again and go on from there"),
    413: (ClusterRejected, "The object is too large"),
    415: (ClusterRejected, "The kind does not take this form of a patch: use a merge patch"),
    422: (ClusterRejected, "Correct what it names, then resume"),
}
