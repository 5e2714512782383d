"""Bringing the server to the schedules that are wanted; those of others are left alone.

A schedule is ours by its slug. Applied twice, the second time changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from operate.schedules.wanted import WantedSchedule, default_file, wanted_schedules
from operate.server import api_url
from recovery.errors import BadInput, Unreachable
from recovery.secrecy.redaction import redacted_head

SLUG = "recover-schedule-"
PAGE = 200


@dataclass(frozen=True)
class AppliedSchedule:
    """What became of one schedule: created, changed, same or removed."""

    name: str
    recovery: str
    when: str
    is_active: bool
    change: str

    def as_plain(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class _Found:
    deployment: UUID
    recovery: str
    schedule: DeploymentSchedule


def apply_schedules(file: Path | None = None) -> list[AppliedSchedule]:
    """Create, change and remove schedules on the server until they are those of the file.

    Args:
        file: the schedules; `None`: those of `default_file`.

    Raises:
        BadInput: an entry is wrong, or the server does not have its deployment; nothing was done.
        Unreachable: no server is set, or it gave no answer.
    """
    wanted = wanted_schedules(file or default_file())
    with _server() as client:
        deployments = {entry.name: _deployment(client, entry) for entry in wanted}
        ours = {found.schedule.slug: found for found in _ours(client)}
        applied = []
        for entry in wanted:
            found = ours.pop(f"{SLUG}{entry.name}", None)
            applied.append(_apply(client, entry, deployments[entry.name], found))
        for slug, found in sorted(ours.items(), key=lambda item: str(item[0])):
            client.delete_deployment_schedule(found.deployment, found.schedule.id)
            name = str(slug).removeprefix(SLUG)
            applied.append(AppliedSchedule(name, found.recovery, "", False, "removed"))  # noqa: FBT003 (a field)
    return applied


def schedules_on_server() -> list[dict[str, Any]]:
    """The schedules of ours that the server has.

    Raises:
        Unreachable: no server is set, or it gave no answer.
    """
    with _server() as client:
        found = sorted(_ours(client), key=lambda each: str(each.schedule.slug))
    return [
        {
            "name": str(each.schedule.slug).removeprefix(SLUG),
            "recovery": each.recovery,
            "when": each.schedule.schedule.model_dump(mode="json", exclude_none=True),
            "is_active": each.schedule.active,
            "parameters": each.schedule.parameters,
        }
        for each in found
    ]


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """A client of the server; what it says no to, or does not answer, is told in our own words."""
    url = api_url()
    if not url:
        raise BadInput(
            "PREFECT_API_URL", "it is not set", "Set it to the server that is to run them"
        )
    try:
        # Prefect read its settings when it was imported, and would start a server of its own where
        # the address was set after that.
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            yield client
    except PrefectHTTPStatusError as error:
        raise BadInput(
            "schedules",
            f"the server does not take them: {redacted_head(error.response.text, 300)}",
            "Deploy this release of the flows anew, then apply them again",
        ) from error
    except httpx.HTTPError as error:
        seen, remedy = (
            str(error) or type(error).__name__,
            "Apply them again: what is done stays done",
        )
        raise Unreachable(f"the Prefect server {url}", "its schedules", seen, remedy) from error


def _deployment(client: SyncPrefectClient, entry: WantedSchedule) -> UUID:
    """The deployment of a recovery, which has its name.

    Raises:
        BadInput: the server has none.
    """
    name = entry.recovery.name
    found = [each for each in _deployments(client) if each.name == name]
    if not found:
        raise BadInput(
            f"line {entry.line} {entry.name}.recovery",
            f"the server {api_url()} has no deployment of {name}",
            "Register the deployments first: `recover up`, or prefect deploy as deployments/ says",
        )
    return found[0].id


def _deployments(client: SyncPrefectClient) -> Iterator[DeploymentResponse]:
    offset = 0
    while page := client.read_deployments(limit=PAGE, offset=offset):
        yield from page
        offset += len(page)
        if len(page) < PAGE:
            return


def _ours(client: SyncPrefectClient) -> Iterator[_Found]:
    for deployment in _deployments(client):
        for schedule in client.read_deployment_schedules(deployment.id):
            if (schedule.slug or "").startswith(SLUG):
                yield _Found(deployment.id, deployment.name, schedule)


def _apply(
    client: SyncPrefectClient, entry: WantedSchedule, deployment: UUID, found: _Found | None
) -> AppliedSchedule:
    change = "created"
    if found is not None and found.deployment != deployment:
        client.delete_deployment_schedule(found.deployment, found.schedule.id)
        found, change = None, "changed"
    if found is None:
        wanted = DeploymentScheduleCreate(
            schedule=entry.when,
            active=entry.is_active,
            parameters=dict(entry.parameters),
            slug=f"{SLUG}{entry.name}",
        )
        client.create_deployment_schedules(deployment, [wanted])
    elif _is_same(entry, found.schedule):
        change = "same"
    else:
        client.update_deployment_schedule(
            deployment,
            found.schedule.id,
            active=entry.is_active,
            schedule=entry.when,
            parameters=dict(entry.parameters),
        )
        change = "changed"
    return AppliedSchedule(entry.name, entry.recovery.name, entry.told, entry.is_active, change)


def _is_same(entry: WantedSchedule, schedule: DeploymentSchedule) -> bool:
    return (
        schedule.active == entry.is_active
        and schedule.parameters == dict(entry.parameters)
        and schedule.schedule.model_dump(mode="json") == entry.when.model_dump(mode="json")
    )
