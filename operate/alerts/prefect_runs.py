"""Flow runs on the Prefect server: started once per key, looked up, cancelled."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
)
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling

from operate.server import api_url
from recovery.errors import BadInput, Unreachable
from recovery.secrecy.redaction import redacted_head

SAYS_NO = (404, 409, 422)
AWAY = (401, 429, 502, 503, 504)  # said to everybody, whatever is asked
BUSY = 503  # a server on SQLite says so when two of its writers meet
BUSY_FOR_SECONDS = "0.1"  # Prefect's client would come back after 2, 4, 8 s


class Unanswered(Unreachable):
    """The server is there and cannot answer this one question. Fields as of Unreachable."""


@dataclass(frozen=True)
class Submission:
    """What is sent to start a run: nothing in it was taken from a label."""

    key: str
    flow: str
    deployment_id: str
    parameters: Mapping[str, Any]
    tags: Sequence[str]


@dataclass(frozen=True)
class Standing:
    """How far a run is. `type` is Prefect's, as in `RUNNING`; `name` is what the UI shows."""

    type: str
    name: str
    is_final: bool


GONE = Standing("", "Deleted", is_final=True)


class Runs(Protocol):
    """The runs, as far as alerts need them.

    Every method may raise Unreachable, and Unanswered where the server is there all the same.
    """

    def deployment_of(self, flow: str, wanted: str) -> str:
        """Return the id of the deployment by which a flow is started.

        Raises:
            BadInput: it has none of that name, or none to choose.
        """

    def find(self, key: str) -> str:
        """Return the id of the run that has this key; empty where there is none."""

    def start(self, submission: Submission) -> str:
        """Start a run, or find the one that has its key; return its id.

        Raises:
            BadInput: the server does not take it.
        """

    def standings(self, ids: Sequence[str]) -> dict[str, Standing]:
        """How far these runs are, by id; runs that are gone are left out."""

    def cancel(self, flow_run_id: str, why: str) -> Standing:
        """Cancel a run, and say there why; nothing happens where it has ended or is gone.

        Returns how far it is then: what has a process is cancelled once that has ended.
        """


class PrefectRuns:
    """See Runs. The client is made anew after the server was away."""

    def __init__(self) -> None:
        self._client: SyncPrefectClient | None = None
        self._deployments: dict[tuple[str, str], str] = {}

    def _asked(self) -> SyncPrefectClient:
        if self._client is None:
            try:
                hooks = {"event_hooks": {"response": [_come_back_soon]}}
                self._client = get_client(sync_client=True, httpx_settings=hooks)
                self._client.__enter__()
            except (httpx.HTTPError, RuntimeError) as error:
                self._client = None
                raise self._away("connecting", error) from error
        return self._client

    def _away(self, asked: str, error: Exception) -> Unreachable:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in AWAY:
            seen = f"HTTP {error.response.status_code}: {redacted_head(error.response.text, 300)}"
            remedy = "It is asked again; the log of the server may say why"
            return Unanswered(f"the Prefect server {api_url()}", asked, seen, remedy)
        self.close()
        remedy = "Start it; what was accepted is kept, and is submitted then"
        seen = str(error) or type(error).__name__
        return Unreachable(f"the Prefect server {api_url()}", asked, seen, remedy)

    def deployment_of(self, flow: str, wanted: str) -> str:
        """See Runs. What was found is remembered until the server says that it is gone."""
        if known := self._deployments.get((flow, wanted)):
            return known
        client = self._asked()
        try:
            named = {
                found.name: str(found.id)
                for found in client.read_deployments(
                    flow_filter=FlowFilter(name=FlowFilterName(any_=[flow]))
                )
            }
        except httpx.HTTPError as error:
            raise self._away("reading deployments", error) from error
        name = wanted or (flow if flow in named else next(iter(named), ""))
        if name not in named or (not wanted and len(named) != 1 and flow not in named):
            listed = ", ".join(sorted(named)) or "none"
            raise BadInput(
                "deployment",
                f"{flow} has no deployment {name or flow!r} on the server (there are: {listed})",
                "Register it (deployments/README.md), or name one in the route",
            )
        self._deployments[flow, wanted] = named[name]
        return named[name]

    def find(self, key: str) -> str:
        """See Runs."""
        client = self._asked()
        wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
        try:
            found = client.read_flow_runs(flow_run_filter=wanted, limit=1)
        except httpx.HTTPError as error:
            raise self._away("looking for a run", error) from error
        return str(found[0].id) if found else ""

    def start(self, submission: Submission) -> str:
        """See Runs."""
        client = self._asked()
        try:
            run = client.create_flow_run_from_deployment(
                UUID(submission.deployment_id),
                parameters=dict(submission.parameters),
                tags=submission.tags,
                idempotency_key=submission.key,
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in SAYS_NO:
                raise self._away("starting a run", error) from error
            self._deployments.clear()
            said = redacted_head(error.response.text, 300)
            raise BadInput(
                "deployment",
                f"the server does not take a run of {submission.flow}: {said}",
                "Deploy this release of the flow anew",
            ) from error
        except ObjectNotFound as error:
            self._deployments.clear()
            raise BadInput(
                "deployment", f"{submission.flow} is deployed no more", "Register it again"
            ) from error
        except httpx.HTTPError as error:
            raise self._away("starting a run", error) from error
        return str(run.id)

    def standings(self, ids: Sequence[str]) -> dict[str, Standing]:
        """See Runs."""
        client = self._asked()
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(_uuids(ids))))
        try:
            found = client.read_flow_runs(flow_run_filter=wanted, limit=200)
        except httpx.HTTPError as error:
            raise self._away("reading runs", error) from error
        return {str(run.id): _standing(run.state) for run in found}

    def cancel(self, flow_run_id: str, why: str) -> Standing:
        """See Runs. Where nothing runs, the server cancels at once and leaves the message out."""
        client = self._asked()
        try:
            cancelling: State[Any] = Cancelling(message=why)
            state = client.set_flow_run_state(UUID(flow_run_id), cancelling).state
            if state is not None and state.is_cancelled() and not state.message:
                client.set_flow_run_state(UUID(flow_run_id), Cancelled(message=why))
        except ObjectNotFound:
            return GONE
        except httpx.HTTPError as error:
            raise self._away("cancelling a run", error) from error
        if state is not None:
            return _standing(state)
        return self.standings([flow_run_id]).get(flow_run_id, GONE)  # the server left it as it was

    def close(self) -> None:
        """Close the client; the next question opens another one."""
        client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)


def _come_back_soon(response: httpx.Response) -> None:
    if response.status_code == BUSY:
        response.headers.setdefault("Retry-After", BUSY_FOR_SECONDS)


def _uuids(ids: Sequence[str]) -> Iterator[UUID]:
    """Leave out what is no id of a server, as of an attempt at a terminal."""
    for one in ids:
        with suppress(ValueError):
            yield UUID(one)


def _standing(state: State[Any] | None) -> Standing:
    if state is None:
        return Standing("PENDING", "Pending", is_final=False)
    return Standing(state.type.value, state.name or state.type.value, state.is_final())
