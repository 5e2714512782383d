"""Handing a recovery to a worker through a deployment, and following it to its end."""

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError

from operate.following import Follower
from operate.orders import Order, Place, given_options
from operate.outcomes import ended_of
from operate.progress import Progress
from operate.server import api_url
from recovery.errors import BadInput, NeedsPerson, Unreachable
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.run import Ended, recovery_id_of
from recovery.secrecy.redaction import redacted_head
from recovery.values import to_plain

POLLS_EVERY_SECONDS = 0.5
LOST_AFTER_LOOKS = 6
UNANSWERED_LOOKS_MAX = 60


class WorkerLost(Unreachable):
    """The process that ran the attempt is gone: it has not ended, and its lease ran out."""


@dataclass
class _Watched:
    """A run on a worker. `idle_looks` counts looks in a row that found nobody at work."""

    client: SyncPrefectClient
    journal: Journal
    follower: Follower
    progress: Progress
    run_id: UUID
    recovery_id: str
    idle_looks: int = 0
    told: str = ""

    def until_end(self) -> State[Any]:
        """Follow it until its last state.

        Raises:
            WorkerLost: its process is gone.
            NeedsPerson: it waits for an answer in the UI.
            Unreachable: the server does not answer any more.
        """
        unanswered = 0
        while True:
            try:
                state = self.client.read_flow_run(self.run_id).state
                unanswered = 0
            except httpx.HTTPError as error:
                unanswered += 1
                if unanswered > UNANSWERED_LOOKS_MAX:
                    raise _unreachable(error) from error
                state = None
            self.follower.look()
            if state is not None:
                if state.is_final():
                    return state
                self._tell(state)
            self._refuse_if_lost()
            time.sleep(POLLS_EVERY_SECONDS)

    def _tell(self, state: State[Any]) -> None:
        name = state.name or str(state.type)
        if name == self.told:
            return
        self.told = name
        self.progress.doing(f"flow run {self.run_id}: {name}")
        if state.is_paused():
            raise NeedsPerson(
                f"flow run {self.run_id}",
                "it waits for consent to its plan",
                f"Answer in the Prefect UI, or see `recover approve {self.recovery_id}`",
            )
        if not state.is_running():
            self.progress.note(f"flow run {self.run_id} is {name.lower()}: waiting for a worker")

    def _refuse_if_lost(self) -> None:
        history = read_history(self.journal.events(self.recovery_id))
        attempt = history.attempts[-1] if history and history.attempts else None
        is_ours = attempt is not None and attempt.flow_run_id == str(self.run_id)
        if history is None or attempt is None or attempt.ended_as or not is_ours:
            self.idle_looks = 0
            return
        self.idle_looks = self.idle_looks + 1 if self.journal.holder(history.target) is None else 0
        if self.idle_looks >= LOST_AFTER_LOOKS:
            raise WorkerLost(
                attempt.worker,
                f"attempt {attempt.n} of recovery {self.recovery_id}",
                "it has not ended, and its lease on the target ran out",
                "Its process is gone; what is done stays done. Resume it",
            )


def run_on_worker(order: Order, place: Place, progress: Progress) -> Ended:
    """Submit an order to a deployment and follow it to its end.

    Raises:
        BadInput: there is no such deployment, or it takes other parameters.
        Unreachable: the server does not answer.
    """
    parameters = {name: to_plain(value) for name, value in order.parameters.items()}
    journal = open_journal()
    try:
        with get_client(sync_client=True) as client, progress.shown("submitting"):
            run_id = _submit(client, order, place, parameters)
            is_new = order.options.fork or not order.options.resume
            recovery_id = recovery_id_of(str(run_id)) if is_new else order.options.resume
            progress.recovery_id = recovery_id
            progress.note(f"flow run {run_id} submitted: {api_url().removesuffix('/api')}")
            follower = Follower(journal, progress, order.after_seq)
            watched = _Watched(client, journal, follower, progress, run_id, recovery_id)
            state = watched.until_end()
            follower.look()
            if not journal.head(recovery_id)[0]:
                progress.note(
                    f"recovery {recovery_id} is not in the journal {journal.url}: the worker "
                    "writes another one; set RECOVER_JOURNAL to the same for both",
                    "yellow",
                )
    except KeyboardInterrupt:
        progress.note("the run goes on on its worker; only its following was stopped", "yellow")
        raise
    except httpx.HTTPError as error:
        raise _unreachable(error) from error
    finally:
        journal.close()
    return ended_of(state, recovery_id, str(run_id))


def _submit(
    client: SyncPrefectClient, order: Order, place: Place, parameters: dict[str, Any]
) -> UUID:
    deployment_id, name = _deployment(client, order.recovery.name, place)
    try:
        run = client.create_flow_run_from_deployment(
            deployment_id,
            parameters={**parameters, **given_options(order.options)},
            idempotency_key=f"recover:{uuid4()}",  # the client asks again where no answer came
        )
    except PrefectHTTPStatusError as error:
        if error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _unreachable(error, "taking the run") from error
        raise BadInput(
            "--deployment",
            f"{name} does not take this run: {redacted_head(error.response.text, 300)}",
            "Deploy this release of the flow anew",
        ) from error
    return run.id


def _deployment(client: SyncPrefectClient, recovery: str, place: Place) -> tuple[UUID, str]:
    """Find the deployment that was named, or the recovery's only one."""
    known = {
        f"{recovery}/{found.name}": found.id
        for found in client.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[recovery]))
        )
    }
    listed = ", ".join(sorted(known)) or "none: register one with `prefect deploy`"
    wanted = place.deployment
    if wanted:
        wanted = wanted if "/" in wanted else f"{recovery}/{wanted}"
        if wanted not in known:
            raise BadInput(
                "--deployment",
                f"{recovery} has no deployment {wanted!r}",
                f"Its deployments: {listed}",
            )
    elif len(known) != 1:
        raise BadInput(
            "--worker",
            f"{recovery} has {len(known)} deployments",
            f"Name one with --deployment; there are: {listed}",
        )
    else:
        (wanted,) = known
    return known[wanted], wanted


def _unreachable(error: httpx.HTTPError, asked: str = "following the run") -> Unreachable:
    return Unreachable(
        f"the Prefect server {api_url()}",
        asked,
        str(error) or type(error).__name__,
        "Start it; `recover status` tells from the journal how far the run is",
    )
