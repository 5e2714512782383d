"""How a data source stands, and every reason not to touch it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from blocks.grafana.answer import GrafanaNotFound, GrafanaPermissionMissing
from recovery.errors import BadInput, CommandFailed, Refused
from recovery.steps import decision, probe
from tasks.datasources.health import DatasourceHealth, HealthState, health_of
from tasks.datasources.order import Accepted, DatasourceOrder
from tasks.datasources.stored import Stored, all_stored, differing, release_of, stored_named

PERMISSIONS = "/api/access-control/user/permissions"
NEEDED = ("datasources:read", "datasources:create", "datasources:write")
PROVISIONED = "it is provisioned from a file of Grafana's, which no API changes"
CHANGE_THE_FILE = (
    "Change it in the provisioning ConfigMap or Secret (datasources.yaml), then restart Grafana or "
    "POST /api/admin/provisioning/datasources/reload"
)


@dataclass(frozen=True)
class DatasourceFound:
    """A data source as it was found; no secret is in it.

    Attributes:
        release: the number of Grafana's release.
        is_there: whether there is one of this name.
        number: by which Grafana knows it.
        uid: likewise.
        version: how often it was changed.
        before: its fields.
        secrets: which of its secrets were set.
        differs: what is not as it is to be.
        health: whether it answered.
        told: what was said of that.
        default_before: the name of another that panels without one ask, where that is to end.
        is_password_written: whether the given password is to be written.
    """

    release: int
    is_there: bool
    number: int
    uid: str
    version: int
    before: dict[str, Any]
    secrets: list[str]
    differs: list[str]
    health: HealthState
    told: str
    default_before: str
    is_password_written: bool

    @property
    def is_so(self) -> bool:
        """Whether there is nothing to do."""
        return self.is_there and not self.differs and self.health is not HealthState.FAILING

    @property
    def seen(self) -> str:
        """How it stood, in a line."""
        if not self.is_there:
            return "there is none of this name"
        differs = "; ".join(self.differs) or "as it is to be"
        return f"{differs}; health {self.health}: {self.told}"


@probe
def refuse_unless_ready(order: DatasourceOrder) -> None:
    """Refuse where Grafana could not keep a change, or would not let this account make one.

    Raises:
        Refused: its database fails, or a permission is missing; says which.
        GrafanaLoginRefused, GrafanaPermissionMissing, Unreachable: see there.

    Runbook: docs/runbooks/grafana-datasource.md, step 1.
    """
    health = order.grafana.health()
    if not health.is_database_ok:
        seen = f"its own database is {health.database}"
        raise Refused(order.grafana.target, seen, "Mend that first: no change would be kept")
    missing = _missing_permissions(order)
    if missing:
        raise Refused(
            order.grafana.target,
            f"the account lacks {', '.join(missing)}",
            "Give the service account the role Admin of this organisation, or these permissions",
        )


@decision
def datasource_found(order: DatasourceOrder) -> DatasourceFound:
    """The data source of this name, how it differs from what is wanted, and whether it answers.

    Raises:
        Refused: it is provisioned, is another than the uid says, works as it is, is of another
            type, its password would be lost, or its health cannot be told, and nobody accepted
            that by name.
        BadInput: a user is given whose password nobody knows.
        GrafanaLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/grafana-datasource.md, steps 2 to 4.
    """
    release = release_of(order.grafana.health().version)
    listed = all_stored(order.grafana)
    _refuse_other_uid(order, listed)
    default_before = _default_before(order, listed)
    stored = stored_named(order.grafana, order.wish.name)
    if stored is None:
        _refuse_unknown_password(order, secrets=())
        return _none_yet(order, release, default_before)
    health = health_of(order.grafana, stored, release)
    found = DatasourceFound(
        release,
        is_there=True,
        number=stored.number,
        uid=stored.uid,
        version=stored.version,
        before=stored.fields,
        secrets=list(stored.secrets),
        differs=differing(order, stored.fields),
        health=health.state,
        told=health.told,
        default_before=default_before,
        is_password_written=order.password.is_given,
    )
    if not found.is_so:
        _refuse_change(order, stored, found, health)
    return found


def _none_yet(order: DatasourceOrder, release: int, default_before: str) -> DatasourceFound:
    return DatasourceFound(
        release,
        is_there=False,
        number=0,
        uid=order.new_uid,
        version=0,
        before={},
        secrets=[],
        differs=[],
        health=HealthState.UNKNOWN,
        told="",
        default_before=default_before,
        is_password_written=order.password.is_given,
    )


def _missing_permissions(order: DatasourceOrder) -> list[str]:
    """Releases before 9 know roles alone; what these refuse shows when it is asked for."""
    try:
        granted = order.grafana.get(PERMISSIONS)
    except (GrafanaNotFound, GrafanaPermissionMissing):
        return []
    except CommandFailed as failed:
        if failed.code == 404:  # noqa: PLR2004 (an address that older releases do not have)
            return []
        raise
    return [one for one in NEEDED if one not in granted] if isinstance(granted, dict) else []


def _refuse_other_uid(order: DatasourceOrder, listed: list[Stored]) -> None:
    uid, name = order.wish.uid, order.wish.name
    if not uid:
        return
    other = next((one for one in listed if one.uid == uid and one.name != name), None)
    if other is not None:
        reason = f"uid {uid} is that of {other.name!r}"
        raise Refused(order.label, reason, f"Give name={other.name!r}, or another uid")
    named = next((one for one in listed if one.name == name and one.uid and one.uid != uid), None)
    if named is not None:
        reason = f"{name!r} has the uid {named.uid}, which dashboards refer to"
        raise Refused(order.label, reason, "Give that uid, or leave it out")


def _default_before(order: DatasourceOrder, listed: list[Stored]) -> str:
    """Which other data source stops being the default; Grafana sees to that by itself."""
    if not order.wish.is_default:
        return ""
    other = next((one for one in listed if one.is_default and one.name != order.wish.name), None)
    if other is None:
        return ""
    if other.is_read_only:
        raise Refused(
            order.label,
            f"{other.name!r} is the default and is provisioned: no API makes it that again",
            "Change the default in the provisioning files, and leave it out here",
        )
    return other.name


def _refuse_change(
    order: DatasourceOrder, stored: Stored, found: DatasourceFound, health: DatasourceHealth
) -> None:
    wish, accept = order.wish, order.accept
    if stored.is_read_only:
        raise Refused(order.label, PROVISIONED, CHANGE_THE_FILE)
    if any(one.startswith("type: ") for one in found.differs) and Accepted.OTHER_TYPE not in accept:
        raise Refused(
            order.label,
            f"it is a {stored.kind} data source, and {wish.kind} was asked for",
            f"Give another name, or accept={Accepted.OTHER_TYPE}: its dashboards then show nothing",
        )
    if health.state is HealthState.OK and Accepted.WORKS_NOW not in accept:
        raise Refused(
            order.label,
            f"Grafana reaches it as it is, and it would be changed: {'; '.join(found.differs)}",
            f"Look elsewhere for the cause; where the change is meant, accept={Accepted.WORKS_NOW}",
        )
    if health.state is HealthState.UNKNOWN and Accepted.HEALTH_UNKNOWN not in accept:
        remedy = f"Test it in Grafana by hand; accept={Accepted.HEALTH_UNKNOWN} changes it blindly"
        raise Refused(order.label, health.told, remedy)
    has_password = wish.kind.password_field in stored.secrets
    if not found.differs and not order.password.is_given:
        reason = f"it is as it is to be, and does not answer: {health.told}"
        raise Refused(order.label, reason, health.remedy)
    _refuse_unknown_password(order, stored.secrets)
    is_kept = order.former_password.is_given or Accepted.FORMER_PASSWORD in accept
    if order.password.is_given and has_password and not is_kept:
        raise Refused(
            order.label,
            "it has a password, which Grafana tells nobody, and undo could not put it back",
            f"Name it as former_password_file, or accept={Accepted.FORMER_PASSWORD} to lose it",
        )


def _refuse_unknown_password(order: DatasourceOrder, secrets: Collection[str]) -> None:
    is_known = order.wish.kind.password_field in secrets or order.password.is_given
    if order.wish.user and not is_known:
        seen = "a user is given, and no password is known"
        raise BadInput("password_file", seen, "Name the file that holds it")
