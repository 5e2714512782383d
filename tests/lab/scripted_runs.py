"""Runs on a Prefect server that only the test knows: as the real ones, and away when told so."""

from dataclasses import dataclass, field
from uuid import uuid4

from operate.alerts.prefect_runs import Standing, Submission
from recovery.errors import BadInput, Unreachable

CANCELLING = Standing("CANCELLING", "Cancelling", is_final=False)
CANCELLED = Standing("CANCELLED", "Cancelled", is_final=True)


@dataclass
class ScriptedRuns:
    """See operate.alerts.prefect_runs.Runs."""

    started: dict[str, Submission] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    ended: dict[str, Standing] = field(default_factory=dict)
    cancelled: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    is_away: bool = False
    loses_answers: bool = False
    deployments: set[str] = field(default_factory=lambda: {"recover-redis", "end-frozen-redis"})

    def _ask(self) -> None:
        if self.is_away:
            raise Unreachable("the Prefect server", "anything", "connection refused")

    def deployment_of(self, flow: str, wanted: str) -> str:
        self._ask()
        if flow not in self.deployments or wanted not in {"", flow}:
            raise BadInput("deployment", f"{flow} has no deployment {wanted!r}", "Register it")
        return f"deployment-of-{flow}"

    def find(self, key: str) -> str:
        self._ask()
        return self.ids.get(key, "")

    def start(self, submission: Submission) -> str:
        self._ask()
        self.started.setdefault(submission.key, submission)
        run_id = self.ids.setdefault(submission.key, str(uuid4()))
        if self.loses_answers:
            raise Unreachable("the Prefect server", "starting a run", "connection reset")
        return run_id

    def standings(self, ids):
        self._ask()
        known = set(self.ids.values())
        running = Standing("RUNNING", "Running", is_final=False)
        return {one: self.ended.get(one, running) for one in ids if one in known}

    def cancel(self, flow_run_id: str, why: str) -> Standing:
        self._ask()
        self.cancelled[flow_run_id] = why
        is_held = flow_run_id in self.held  # by a process, which the server has ended first
        self.ended[flow_run_id] = CANCELLING if is_held else CANCELLED
        return self.ended[flow_run_id]

    def ask_person(self, run_id: str) -> None:
        """Let a run wait for an answer."""
        self.ended[run_id] = Standing("PAUSED", "Suspended", is_final=False)

    def retry(self, run_id: str) -> None:
        """Let a run that has ended go on, as a person does."""
        del self.ended[run_id]

    def end(self, run_id: str, name: str) -> None:
        """Let a run end in a state of this name."""
        self.ended[run_id] = Standing("COMPLETED", name, is_final=True)
