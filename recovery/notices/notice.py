"""What people are told about a recovery, wherever they are: an occasion, and what to do next."""

from dataclasses import dataclass
from enum import StrEnum

from prefect.utilities.urls import url_for

from recovery.secrecy.redaction import redact
from recovery.words import cut

TEXT_CHARS_MAX = 1500
SUBJECT_CHARS_MAX = 160


class Occasion(StrEnum):
    """Why somebody is told. `ALARM` is for what is about no single recovery."""

    APPROVAL_ASKED = "approval-asked"
    APPROVED = "approved"
    REJECTED = "rejected"
    BREAK_GLASS = "break-glass"
    RECOVERED = "recovered"
    UNDONE = "undone"
    REFUSED = "refused"
    FAILED = "failed"
    NEEDS_PERSON = "needs-person"
    LOST = "lost"
    ALARM = "alarm"


@dataclass(frozen=True)
class Notice:
    """What is told. Secrets are masked when it is written out.

    Attributes:
        occasion: why.
        text: what happened, in a sentence or two.
        flow: name of the recovery's flow, where it is about one.
        target: what is repaired.
        recovery_id: which recovery.
        next_command: what to type next.
        flow_run_id: the run of Prefect that shows it, for a link to the UI.
    """

    occasion: Occasion
    text: str
    flow: str = ""
    target: str = ""
    recovery_id: str = ""
    next_command: str = ""
    flow_run_id: str = ""

    @property
    def subject(self) -> str:
        """One line: the occasion, the recovery and its target."""
        about = self.flow or "recoveries"
        about += f" on {self.target}" if self.target else ""
        return cut(redact(f"[{str(self.occasion).replace('-', ' ')}] {about}"), SUBJECT_CHARS_MAX)

    @property
    def link(self) -> str:
        """Where the UI shows the run; empty where no server is known."""
        if not self.flow_run_id:
            return ""
        return url_for("flow-run", obj_id=self.flow_run_id) or ""

    @property
    def body(self) -> str:
        """The text, the id, what to type next, and the link."""
        lines = [cut(redact(self.text), TEXT_CHARS_MAX)]
        lines += [f"Recovery: {self.recovery_id}"] if self.recovery_id else []
        lines += [f"Next: {self.next_command}"] if self.next_command else []
        lines += [f"See: {self.link}"] if self.link else []
        return redact("\n".join(lines))

    def as_plain(self) -> dict[str, str]:
        """The notice as a webhook gets it."""
        plain = {
            "occasion": str(self.occasion),
            "subject": self.subject,
            "text": cut(redact(self.text), TEXT_CHARS_MAX),
            "flow": self.flow,
            "target": self.target,
            "recovery_id": self.recovery_id,
            "next": self.next_command,
            "link": self.link,
        }
        return {name: redact(value) for name, value in plain.items()}
