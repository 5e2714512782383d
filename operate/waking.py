"""Waking a run that is suspended with a question: what *Resume* in the Prefect UI does."""

import time
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import PrefectException

from operate.server import api_url
from recovery.approval.question import Decision
from recovery.journal.consents import Asked

WITHIN_SECONDS = 30.0
LOOKS_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Woken:
    """Whether the run goes on: `why_not` is empty where it does."""

    why_not: str = ""
    next: str = ""


def wake(asked: Asked, by: str) -> Woken:
    """Have the run that asked look into the journal again.

    A run that is only about to be suspended is waited for.
    """
    run = f"flow run {asked.flow_run_id}"
    by_hand = f"press Resume on {run} in the Prefect UI, with the decision {Decision.LOOK_AGAIN}"
    if not api_url():
        return Woken("PREFECT_API_URL is not set, so the run is not woken", by_hand)
    try:
        with get_client(sync_client=True) as client:
            state = _suspended(client, UUID(asked.flow_run_id))
            if state is None or state.state_details.pause_key != asked.key:
                return Woken(f"{run} waits no longer")
            answer = {
                "plan_hash": asked.plan_hash,
                "decision": str(Decision.LOOK_AGAIN),
                "approver": by,
                "confirm": "",
            }
            response = client.resume_flow_run(UUID(asked.flow_run_id), run_input=answer)
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        seen = " ".join(str(error).split())[:200] or type(error).__name__
        return Woken(f"{run} is not woken, the Prefect server {api_url()} says: {seen}", by_hand)
    if response.status is not SetStateStatus.ACCEPT:
        why = getattr(response.details, "reason", "") or "no reason"
        return Woken(f"{run} is not woken: {why}")
    return Woken()


def _suspended(client: SyncPrefectClient, run_id: UUID) -> State[object] | None:
    """The state in which it waits; `None` where it has ended, or does not come to wait."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while True:
        state = client.read_flow_run(run_id).state
        if state is not None and state.is_paused():
            return state
        if state is None or state.is_final() or time.monotonic() > deadline:
            return None
        time.sleep(LOOKS_EVERY_SECONDS)
