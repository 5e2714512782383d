"""A question to a person as Markdown: for the form of a suspended run, and for its artifact."""

from datetime import datetime

from recovery.approval.question import Question
from recovery.evidence.report_markdown import code, fenced, inline
from recovery.secrecy.redaction import redact
from recovery.verdict import Danger
from recovery.way_back_plan import is_of_way_back, notes_on_way_back

FORM_CHARS_MAX = 12_000
LINE_CHARS_MAX = 1000


def question_markdown(question: Question, plan_chars_max: int = FORM_CHARS_MAX) -> str:
    """Why it is asked, what would be done, what was found, and who asks.

    What decides comes first: in a low window the form shows two lines without being scrolled, and
    nothing tells that there is more. Nothing that was found or typed acts as Markdown.
    """
    asked = question.asked
    persons = ", ".join(asked.of) or "anyone"
    name = "Way back" if asked.goes_back else "Plan"
    given = ", ".join(question.given) or "none"
    who = question.requested_by or "nobody known"
    artifact = code(f"approval-{asked.plan_hash}")
    what = f"{inline(question.flow)} on {code(question.target, LINE_CHARS_MAX)}"
    rows = [
        f"**{_acts(question)}**: scroll, or read all of it in *Artifacts*, {artifact}.",
        "",
        f"{what}: {inline(asked.why, LINE_CHARS_MAX)}.",
        "",
        _plan(question, plan_chars_max),
        "",
        "### Who asks",
        "",
        f"- {name} {code(asked.plan_hash)} of recovery {code(question.recovery_id)}",
        f"- Asked for by {inline(who)}",
        f"- Approvals: {asked.needs} of {inline(persons)}; given: {inline(given)}",
    ]
    if asked.until:
        until = datetime.fromisoformat(asked.until)
        rows.append(f"- It waits until {until:%Y-%m-%d %H:%M} UTC, then it can be resumed")
    rows += [f"- From a terminal: {code(question.command, LINE_CHARS_MAX)}", ""]
    return redact("\n".join(rows))


def _acts(question: Question) -> str:
    """How much would be done, and how much of it cannot be taken back."""
    acts = [one for one in question.planned["steps"] if one["kind"] == "act"]
    due = [one["danger"] for one in acts if not one["is_already_so"]]
    return f"Acts to be done: {len(due)}, {due.count(str(Danger.DESTRUCTIVE))} of them destructive"


def _plan(question: Question, chars_max: int) -> str:
    """The acts with all of their commands, what stays, what was found: pieces up to the limit."""
    pieces = ["### What it would do\n"]
    steps = question.planned["steps"]
    acts = [one for one in steps if one["kind"] == "act"]
    for step in (one for one in acts if not one["is_already_so"]):
        commands = "\n".join(step["commands"])
        shown = f"\n{fenced(commands, len(commands))}\n" if commands else ""
        # As code, since an account on a host would else be shown as somebody to write a mail to.
        about = f"on {code(step['target'])} ({step['danger']})"
        pieces.append(f"**{code(step['key'])}** {about}\n{shown}")
    done = [code(one["key"]) for one in acts if one["is_already_so"]]
    pieces += [f"Already so, nothing to do ({len(done)}): {', '.join(done)}\n"] if done else []
    notes = notes_on_way_back(question.planned) if is_of_way_back(question.planned) else []
    pieces += ["### What it would leave, and what it costs\n"] if notes else []
    pieces += [f"- {inline(note, LINE_CHARS_MAX)}" for note in notes]
    looks = [one for one in steps if one["kind"] not in {"act", "verify"}]
    pieces += ["### What was found\n"] if looks else []
    for look in looks:
        found = look.get("found") or "asked, nothing against it"
        pieces.append(f"- {inline(look['key'])}: {inline(found, LINE_CHARS_MAX)}")
    shown_pieces: list[str] = []
    for piece in pieces:
        chars_max -= len(piece)
        if chars_max < 0:
            more = len(pieces) - len(shown_pieces)
            shown_pieces.append(
                f"\n**{more} more steps are not shown here**: see the artifact of this run, or "
                f"{code(f'recover approve {question.recovery_id} --full')}"
            )
            break
        shown_pieces.append(piece)
    return "\n".join(shown_pieces)
