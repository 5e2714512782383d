"""Data sources as Grafana keeps them: found, compared, and written down without their secrets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blocks.grafana.answer import GrafanaNotFound
from blocks.grafana.api import GrafanaApi, in_path
from recovery.errors import UnreadableOutput
from recovery.secrecy.redaction import redacted_head
from recovery.secrecy.secret import Secret
from tasks.datasources.order import DatasourceOrder, Kind

LISTED = "/api/datasources"
UID_RELEASE = 9  # by uid from this release on, by number before
PLAIN = ("password", "basicAuthPassword")  # as releases up to 7 may keep them
# What Grafana tells and does not take, and what may be secret in the clear.
NOT_SENT = (
    "id", "orgId", "typeLogoUrl", "secureJsonFields", "readOnly", "accessControl", "apiVersion",
    "typeName", "secureJsonData", *PLAIN,
)  # fmt: skip

COMPARED = ("type", "url", "user", "basicAuth", "basicAuthUser", "isDefault")


@dataclass(frozen=True)
class Stored:
    """One data source as it is kept. `fields` holds no secret; `version` counts its changes."""

    number: int
    uid: str
    name: str
    version: int
    is_read_only: bool
    secrets: tuple[str, ...]
    fields: dict[str, Any]

    @property
    def is_default(self) -> bool:
        """Whether it is what panels without a data source ask."""
        return bool(self.fields.get("isDefault"))

    @property
    def kind(self) -> str:
        """Its type."""
        return str(self.fields.get("type", ""))

    def path(self, release: int) -> str:
        """Where it is changed."""
        return f"{LISTED}/uid/{in_path(self.uid)}" if is_by_uid(self.uid, release) else (
            f"{LISTED}/{self.number}"
        )  # fmt: skip


def is_by_uid(uid: str, release: int) -> bool:
    """Whether a release takes the uid of a data source in its paths."""
    return bool(uid) and release >= UID_RELEASE


def release_of(version: str) -> int:
    """The number before the first dot of `11.6.4`; 0 where there is none, which is the oldest."""
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


def read_stored(said: Any) -> Stored:
    """Read one data source from the API's answer.

    Raises:
        UnreadableOutput: it is none.
    """
    try:
        kept = {name: value for name, value in said.items() if name not in NOT_SENT}
        plain = [name for name in PLAIN if said.get(name)]
        encrypted = [
            name for name, is_set in (said.get("secureJsonFields") or {}).items() if is_set
        ]
        return Stored(
            int(said["id"]),
            str(said.get("uid") or ""),
            str(said["name"]),
            int(said.get("version") or 0),
            bool(said.get("readOnly")),
            tuple(sorted({*plain, *encrypted})),
            kept,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableOutput(f"GET {LISTED}", redacted_head(str(said), 500)) from error


def all_stored(grafana: GrafanaApi) -> list[Stored]:
    """Every data source of the organisation, as it is listed: without its secrets' names."""
    listed = grafana.get(LISTED)
    if not isinstance(listed, list):
        raise UnreadableOutput(f"GET {LISTED}", redacted_head(str(listed), 500))
    return [read_stored(one) for one in listed]


def stored_named(grafana: GrafanaApi, name: str) -> Stored | None:
    """The data source of this name, whole; `None` where there is none."""
    try:
        return read_stored(grafana.get(f"{LISTED}/name/{in_path(name)}"))
    except GrafanaNotFound:
        return None


def plain_secrets(grafana: GrafanaApi, name: str) -> dict[str, Secret]:
    """Passwords that a release up to 7 keeps in the clear, which any change would erase.

    One that is encrypted as well is left out: Grafana uses that one.
    """
    said = grafana.get(f"{LISTED}/name/{in_path(name)}")
    encrypted = said.get("secureJsonFields") or {}
    return {
        field: Secret(str(said[field]))
        for field in PLAIN
        if said.get(field) and not encrypted.get(field)
    }


def wanted_fields(order: DatasourceOrder, before: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the data source as they are to be; what is not spoken of stays."""
    wish = order.wish
    fields = {"access": "proxy", "basicAuth": False, "jsonData": {}, **before}
    fields |= {"name": wish.name, "type": _type_kept(before, wish.kind), "url": wish.url}
    fields["jsonData"] = dict(fields.get("jsonData") or {})
    if wish.is_default or "isDefault" not in fields:
        fields["isDefault"] = wish.is_default
    if wish.user and wish.kind.has_own_login:
        fields["user"] = wish.user
    elif wish.user:
        fields |= {"basicAuth": True, "basicAuthUser": wish.user}
    if wish.database:
        # Releases up to 8 read the one, later ones the other; each leaves the other alone.
        fields["database"] = wish.database
        if wish.kind is Kind.INFLUXDB:
            fields["jsonData"]["dbName"] = wish.database
    if not before and wish.kind is Kind.INFLUXDB:
        fields["jsonData"]["httpMode"] = "GET"
    return fields


def differing(order: DatasourceOrder, before: Mapping[str, Any]) -> list[str]:
    """What of a stored data source is not as it is to be, as `url: 'http://…' instead of '…'`.

    Whichever of the two places a database is named in counts, since releases move it.
    """
    wanted = wanted_fields(order, before)
    told = [
        f"{name}: {before.get(name)!r} instead of {wanted[name]!r}"
        for name in COMPARED
        if name in wanted and _plain(before.get(name)) != _plain(wanted[name])
    ]
    if order.wish.database:
        json_data = before.get("jsonData") or {}
        named = {str(json_data.get("dbName") or ""), str(before.get("database") or "")} - {""}
        if named != {order.wish.database}:
            seen = " and ".join(sorted(named)) or "none"
            told.append(f"database: {seen} instead of {order.wish.database}")
    return told


def is_as(fields: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two data sources are the same, apart from how often they were changed."""
    names = {*fields, *other} - {"version", "uid"}
    return all(_plain(fields.get(name)) == _plain(other.get(name)) for name in names)


def _plain(value: object) -> object:
    """What was never set and what is empty are the same to Grafana."""
    return value or ""


def _type_kept(before: Mapping[str, Any], kind: Kind) -> str:
    """Later releases call `postgres` `grafana-postgresql-datasource`: the same plugin."""
    stored = str(before.get("type", ""))
    is_alias = kind is Kind.POSTGRES and stored == "grafana-postgresql-datasource"
    return stored if is_alias else str(kind)
