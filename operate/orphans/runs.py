"""The runs of the Prefect server, as far as the watch reads, corrects and starts them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectException, PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Crashed
from prefect.types import DateTime

from operate.orphans.attempts import Orphan
from operate.server import api_url
from recovery.errors import BadInput, Unreachable
from recovery.secrecy.redaction import redacted_head

ANSWERS_WITHIN_SECONDS = 5.0
IDS_AT_ONCE = 100
RUNS_AT_ONCE = 200  # the server gives no more
UNFINISHED_MAX = 2000
UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
TASK_UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
FINAL = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
NO_LONGER_THERE = "Deploy this release of the flow, then resume it by hand"


ORPHAN_KEY = re.compile(r"orphan:([0-9a-f]+):(\d+)")


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A flow run as the server shows it.

    Attributes:
        is_plan: whether it only looks, and hence writes no attempt.
        is_due: whether it was to have begun by now.
        seconds_by_server: how long it has been in its state, by the clocks of server and watch.
        resumes: the recovery and the lost attempt for which a watch has made it.
        since: when it came into its state, by the clock of the server.
    """

    run_id: str
    state_id: str
    state_type: StateType
    state_name: str
    message: str
    deployment_id: str
    is_plan: bool
    is_due: bool
    seconds_by_server: float
    resumes: tuple[str, int] | None = None
    since: datetime | None = None

    @property
    def is_begun(self) -> bool:
        """Whether a worker has it already."""
        return self.state_type not in {StateType.SCHEDULED, StateType.PENDING}

    @property
    def is_final(self) -> bool:
        """Whether it is shown as ended."""
        return self.state_type in FINAL

    @property
    def is_cancelled(self) -> bool:
        """Whether a person has cancelled it, or is about to have."""
        return self.state_type in {StateType.CANCELLED, StateType.CANCELLING}


class Runs:
    """What is asked of the server in one look. See `Server`."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def of(self, run_ids: Iterable[str]) -> dict[str, SeenRun]:
        """Return those of these runs that the server has, by id."""
        wanted = sorted(set(run_ids))
        found = {}
        for start in range(0, len(wanted), IDS_AT_ONCE):
            ids = [UUID(run_id) for run_id in wanted[start : start + IDS_AT_ONCE]]
            chosen = FlowRunFilter(id=FlowRunFilterId(any_=ids))
            for run in self._client.read_flow_runs(flow_run_filter=chosen, limit=len(ids)):
                found[str(run.id)] = _seen(run)
        return found

    def unfinished(self, flows: Iterable[str]) -> list[SeenRun]:
        """Return runs of these flows that were to have begun and have not ended, oldest first.

        A schedule makes its runs far ahead: they would crowd out those on which somebody waits.
        """
        states = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
        now = DateTime.now(UTC)  # of the class that the filter names
        due = FlowRunFilterExpectedStartTime(before_=now)
        found: dict[UUID, FlowRun] = {}
        for start in range(0, UNFINISHED_MAX, RUNS_AT_ONCE):
            runs = self._client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=sorted(flows))),
                flow_run_filter=FlowRunFilter(state=states, expected_start_time=due),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=RUNS_AT_ONCE,
                offset=start,
            )
            found |= {run.id: run for run in runs}
            if len(runs) < RUNS_AT_ONCE:
                break
        return [_seen(run) for run in found.values()]

    def show(self, run_id: str, state: State[None]) -> None:
        """Show a run as it is, whatever the server holds it for."""
        self._client.set_flow_run_state(UUID(run_id), state, force=True)

    def crash_tasks(self, crashed: Iterable[SeenRun], why: str) -> list[str]:
        """Show what these runs had begun before they crashed, and not ended, as crashed, too.

        The server itself keeps a task run as it is that has ended meanwhile. Returns their names.
        """
        since = {run.run_id: run.since for run in crashed if run.since is not None}
        left = [task for task in self._unfinished_tasks(since) if _began_before(task, since)]
        for task in left:
            self._client.set_task_run_state(task.id, Crashed(message=why))
        return [task.name for task in left]

    def _unfinished_tasks(self, run_ids: Iterable[str]) -> list[TaskRun]:
        states = TaskRunFilterState(type=TaskRunFilterStateType(any_=TASK_UNFINISHED))
        wanted = sorted(run_ids)
        found: dict[UUID, TaskRun] = {}
        for start in range(0, len(wanted), IDS_AT_ONCE):
            ids = [UUID(run_id) for run_id in wanted[start : start + IDS_AT_ONCE]]
            chosen = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=ids), state=states)
            for offset in range(0, UNFINISHED_MAX, RUNS_AT_ONCE):
                tasks = self._client.read_task_runs(
                    task_run_filter=chosen, limit=RUNS_AT_ONCE, offset=offset
                )
                found |= {task.id: task for task in tasks}
                if len(tasks) < RUNS_AT_ONCE:
                    break
        return list(found.values())

    def resume(self, orphan: Orphan, deployment_id: str) -> SeenRun:
        """Start a run that resumes an orphan, once for each orphan, however often it is asked.

        The server itself sees to that, by the key: two watches get one run.

        Raises:
            BadInput: the deployment is gone, or no longer takes these parameters.
        """
        try:
            run = self._client.create_flow_run_from_deployment(
                UUID(deployment_id),
                parameters={**orphan.parameters, "resume": orphan.recovery_id},
                idempotency_key=f"orphan:{orphan.recovery_id}:{orphan.n}",
                tags=["orphan-watch"],
            )
        except ObjectNotFound as error:
            raise BadInput("deployment", f"{deployment_id} is gone", NO_LONGER_THERE) from error
        except PrefectHTTPStatusError as error:
            if error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            seen = (
                f"{deployment_id} does not take the run: {redacted_head(error.response.text, 300)}"
            )
            raise BadInput("deployment", seen, NO_LONGER_THERE) from error
        return _seen(run)


class Server:
    """The Prefect server, asked over one connection for as long as it answers."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._client: SyncPrefectClient | None = None

    @contextmanager
    def asked(self) -> Iterator[Runs]:
        """Ask the server, which must answer soon: the watch has a journal to look at.

        Raises:
            Unreachable: it does not answer, or not in time.
        """
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):
                yield Runs(self._opened())
        except (httpx.HTTPError, PrefectException) as error:
            self.close()
            seen = str(error) or type(error).__name__
            asked = "which runs there are"
            raise Unreachable(f"the Prefect server {api_url()}", asked, seen) from error

    def close(self) -> None:
        """Close the connection; it is opened anew when it is asked again."""
        self._client = None
        self._open.close()

    def _opened(self) -> SyncPrefectClient:
        if self._client is None:
            client = get_client({"timeout": ANSWERS_WITHIN_SECONDS}, sync_client=True)
            self._client = self._open.enter_context(client)
        return self._client


def _began_before(task: TaskRun, moments: Mapping[str, datetime]) -> bool:
    """Whether a task run began before the moment that is given for its flow run."""
    began = task.start_time or task.expected_start_time or task.created
    return began is not None and began < moments[str(task.flow_run_id)]


def _seen(run: FlowRun) -> SeenRun:
    state, now = run.state, datetime.now(UTC)
    made_for = ORPHAN_KEY.fullmatch(run.idempotency_key or "")
    due = state.state_details.scheduled_time if state else None
    return SeenRun(
        run_id=str(run.id),
        state_id=str(state.id) if state else "",
        state_type=state.type if state else StateType.SCHEDULED,
        state_name=(state.name if state else "") or "Scheduled",
        message=(state.message if state else "") or "",
        deployment_id=str(run.deployment_id or ""),
        is_plan=bool(run.parameters.get("plan_only")),
        is_due=due is None or due <= now,
        seconds_by_server=(now - max(state.timestamp, due or state.timestamp)).total_seconds()
        if state
        else 0.0,
        resumes=(made_for[1], int(made_for[2])) if made_for else None,
        since=state.timestamp if state else None,
    )
