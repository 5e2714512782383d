"""Writing a data source, and putting back what was there before."""

from collections.abc import Mapping
from typing import Any

from blocks.grafana.api import in_path
from recovery.errors import NotVerified, Refused
from recovery.secrecy.secret import Secret
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.datasources.finding import DatasourceFound
from tasks.datasources.order import DatasourceOrder
from tasks.datasources.stored import (
    LISTED,
    Stored,
    differing,
    is_as,
    is_by_uid,
    plain_secrets,
    stored_named,
    wanted_fields,
)

FIRST_VERSION = 1  # of a data source that was created and never changed


def new_request(order: DatasourceOrder, found: DatasourceFound) -> tuple[str, str, dict[str, Any]]:
    """What creates or changes the data source: method, path and body.

    The version that was looked at goes along, so that Grafana refuses it where somebody changed
    the data source since. Secrets that are not spoken of stay as they are.
    """
    fields = wanted_fields(order, found.before)
    plain = plain_secrets(order.grafana, order.wish.name) if found.is_there else {}
    body = _with_secrets(fields, {**plain, **_given(order, order.password.read())})
    if not found.is_there:
        return "POST", LISTED, {**body, "uid": found.uid}
    return "PUT", _path(found), {**body, "version": found.version}


def set_commands(order: DatasourceOrder, found: DatasourceFound) -> list[str]:
    """What writes it; the password shows as its mask."""
    method, path, body = new_request(order, found)
    return [order.grafana.command(method, path, body)]


def is_set(order: DatasourceOrder, found: DatasourceFound) -> Verdict:
    """Whether the data source is as it is to be.

    Whether a password was written shows in nothing but that the data source was changed once.
    """
    stored = stored_named(order.grafana, order.wish.name)
    if stored is None or differing(order, stored.fields):
        return Verdict.NOT_DONE
    if found.is_there and found.is_password_written and not found.differs:
        return Verdict.of(stored.version == found.version + 1)
    return Verdict.DONE


@undo
def datasource_put_back(order: DatasourceOrder, found: DatasourceFound) -> None:
    """Put the former data source back, or delete the one that was created.

    A former password is put back where it was given; else the new one stays. Refused where it was
    written to since, as with another password.
    """
    stored = stored_named(order.grafana, order.wish.name)
    if found.is_there:
        _put_former_back(order, found, stored)
    elif stored is not None:
        _refuse_changed(order, stored, FIRST_VERSION)
        by_uid = is_by_uid(stored.uid, found.release)
        place = f"uid/{in_path(stored.uid)}" if by_uid else f"name/{in_path(stored.name)}"
        order.grafana.send("DELETE", f"{LISTED}/{place}")
    if found.default_before:
        _make_default_again(order, found)


@act(commands=set_commands, done_when=is_set, undo=datasource_put_back, redo_stale=False)
def set_datasource(order: DatasourceOrder, found: DatasourceFound) -> None:
    """Create the data source, or change the one of this name; no other field of it is touched.

    Where it becomes the default, Grafana itself takes that from the one that was. Done twice, the
    second is refused by Grafana: the name is taken, or the version has gone on.

    Raises:
        GrafanaConflict: somebody changed or created it since it was looked at.
        GrafanaPermissionMissing, CommandFailed: Grafana said no.
        AnswerLost: it may have been written; its probe tells.

    Runbook: docs/runbooks/grafana-datasource.md, step 5.
    """
    method, path, body = new_request(order, found)
    order.grafana.send(method, path, body)


def _put_former_back(order: DatasourceOrder, found: DatasourceFound, stored: Stored | None) -> None:
    if stored is None:
        raise NotVerified(
            order.label,
            "a data source of this name",
            "none",
            "Somebody removed it since; create it by hand from the report",
        )
    is_untouched = stored.version == found.version
    if is_untouched or (is_as(stored.fields, found.before) and found.differs):
        return
    if stored.version == found.version + 2 and is_as(stored.fields, found.before):
        return  # this way back was walked before
    _refuse_changed(order, stored, found.version + 1)
    plain = plain_secrets(order.grafana, stored.name)
    body = _with_secrets(found.before, {**plain, **_given(order, order.former_password.read())})
    order.grafana.send("PUT", _path(found), {**body, "version": stored.version})


def _refuse_changed(order: DatasourceOrder, stored: Stored, version: int) -> None:
    """Refuse where it is not as this recovery left it: what else was written shows in no field.

    Grafana counts every change, also that of a password, and tells how many; 0 is not told.
    """
    told = differing(order, stored.fields)
    if stored.version not in {0, version}:
        told.append(f"version: {stored.version} instead of {version}")
    if told:
        raise Refused(
            order.label,
            f"somebody changed it since: {'; '.join(told)}",
            "Look at it in Grafana, and change it back by hand from the report",
        )


def _make_default_again(order: DatasourceOrder, found: DatasourceFound) -> None:
    other = stored_named(order.grafana, found.default_before)
    if other is None or other.is_default:
        return
    fields = {**other.fields, "isDefault": True, "version": other.version}
    body = _with_secrets(fields, plain_secrets(order.grafana, other.name))
    order.grafana.send("PUT", other.path(found.release), body)


def _path(found: DatasourceFound) -> str:
    by_uid = is_by_uid(found.uid, found.release)
    return f"{LISTED}/uid/{in_path(found.uid)}" if by_uid else f"{LISTED}/{found.number}"


def _given(order: DatasourceOrder, secret: Secret | None) -> dict[str, Secret]:
    return {} if secret is None else {order.wish.kind.password_field: secret}


def _with_secrets(fields: Mapping[str, Any], secrets: Mapping[str, Secret]) -> dict[str, Any]:
    return {**fields, "secureJsonData": dict(secrets)} if secrets else dict(fields)
