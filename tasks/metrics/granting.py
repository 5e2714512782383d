"""Giving telegraf the rights that it needs, and taking back what it does not."""

import time
from typing import Any

from blocks.kube import text
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Operation
from recovery.errors import NotVerified
from recovery.steps import act, undo, verify
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.jobs.template import RECOVERY_LABEL
from tasks.metrics.order import RightsOrder
from tasks.metrics.rights import (
    NAME,
    RULES,
    VERSION,
    RightsFound,
    WideRole,
    binding_path,
    role_path,
    still_beyond,
    still_missing,
)

PAUSE_SECONDS = 0.5
ROLES, BINDINGS = path_of(VERSION, "clusterroles"), path_of(VERSION, "clusterrolebindings")


def role_body() -> dict[str, Any]:
    """The ClusterRole as it is created."""
    return {"apiVersion": VERSION, "kind": "ClusterRole", "metadata": _metadata(), "rules": RULES}


def binding_body(order: RightsOrder) -> dict[str, Any]:
    """The ClusterRoleBinding as it is created."""
    group = VERSION.partition("/")[0]
    return {
        "apiVersion": VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": _metadata(),
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAME},
        "subjects": subjects_of(order),
    }


def subjects_of(order: RightsOrder) -> list[dict[str, Any]]:
    """The accounts, as a binding names them."""
    return [
        {"kind": "ServiceAccount", "name": name, "namespace": order.namespace}
        for name in order.accounts
    ]


def with_subjects(order: RightsOrder, found: RightsFound) -> list[dict[str, Any]]:
    """Whom the binding is to name: those it names, and the accounts."""
    return [*found.subjects, *(one for one in subjects_of(order) if one not in found.subjects)]


def with_rules(found: RightsFound) -> list[dict[str, Any]]:
    """What our ClusterRole is to give: what it gives, and what telegraf needs."""
    return [*found.rules, *(one for one in RULES if one not in found.rules)]


def replaced(uid: str, pointer: str, before: object, after: object) -> list[Operation]:
    """Put another value in the place of one that was looked at."""
    tested = [*text.tests(uid=uid), text.tested(pointer, before)]
    return [*tested, {"op": "replace", "path": pointer, "value": after}]


def is_role_given(order: RightsOrder) -> Verdict:
    """Whether our ClusterRole has our rules, beside whatever else it has."""
    with order.cluster.session() as session:
        rules = (session.find(role_path()) or {}).get("rules") or []
        return Verdict.of(all(one in rules for one in RULES))


def is_bound(order: RightsOrder) -> Verdict:
    """Whether our binding names every account."""
    with order.cluster.session() as session:
        read = session.find(binding_path()) or {}
        bound = read.get("subjects") or []
        return Verdict.of(all(one in bound for one in subjects_of(order)))


def is_narrowed(order: RightsOrder, wide: WideRole) -> Verdict:
    """Whether a role gives no more than ours does."""
    with order.cluster.session() as session:
        return Verdict.of(session.get(role_path(wide.name)).get("rules") == RULES)


def role_commands(found: RightsFound) -> list[str]:
    """What gives the role."""
    if not found.role:
        return [text.create_text(ROLES, role_body())]
    after = with_rules(found)
    return [text.patch_text(role_path(), replaced(found.role, "/rules", found.rules, after))]


def binding_commands(order: RightsOrder, found: RightsFound) -> list[str]:
    """What binds it."""
    if not found.binding:
        return [text.create_text(BINDINGS, binding_body(order))]
    after = with_subjects(order, found)
    return [
        text.patch_text(binding_path(), replaced(found.binding, "/subjects", found.subjects, after))
    ]


@undo
def role_taken_back(order: RightsOrder, found: RightsFound) -> None:
    """Delete the role that was created, or give the one that was there its rules again."""
    with order.cluster.session() as session:
        if not found.role:
            _delete_ours(session, role_path())
            return
        after = with_rules(found)
        if (session.find(role_path()) or {}).get("rules") == after != found.rules:
            back = replaced(found.role, "/rules", after, found.rules)
            session.patch(role_path(), back)


@undo
def binding_taken_back(order: RightsOrder, found: RightsFound) -> None:
    """Delete the binding that was created, or let the one that was there name whom it named."""
    with order.cluster.session() as session:
        if not found.binding:
            _delete_ours(session, binding_path())
            return
        after = with_subjects(order, found)
        if (session.find(binding_path()) or {}).get("subjects") == after != found.subjects:
            back = replaced(found.binding, "/subjects", after, found.subjects)
            session.patch(binding_path(), back)


@undo
def role_widened(order: RightsOrder, wide: WideRole) -> None:
    """Give a role the rules it had, where it still has ours."""
    with order.cluster.session() as session:
        if session.get(role_path(wide.name)).get("rules") == RULES:
            session.patch(role_path(wide.name), replaced(wide.uid, "/rules", RULES, wide.rules))


@act(commands=role_commands, done_when=is_role_given, undo=role_taken_back, redo_stale=False)
def give_role(order: RightsOrder, found: RightsFound) -> None:
    """Create the ClusterRole with what telegraf needs and no more, or add that to the one there is.

    Nobody has it before it is bound. Done twice, the second does nothing.

    Raises:
        ClusterConflict: somebody changed it since it was looked at.
        ClusterForbidden: the account would give a right that it does not have itself.
        Unreachable: no answer.

    Runbook: docs/runbooks/grafana-metrics.md, step 3.
    """
    with order.cluster.session() as session:
        if not found.role:
            session.create(ROLES, role_body())
            return
        after = with_rules(found)
        session.patch(role_path(), replaced(found.role, "/rules", found.rules, after))


@act(commands=binding_commands, done_when=is_bound, undo=binding_taken_back, redo_stale=False)
def bind_role(order: RightsOrder, found: RightsFound) -> None:
    """Bind the ClusterRole to telegraf's accounts; other bindings are left as they are.

    Done twice, the second does nothing.

    Raises:
        ClusterConflict, ClusterForbidden, Unreachable: as of `give_role`.

    Runbook: docs/runbooks/grafana-metrics.md, step 3.
    """
    with order.cluster.session() as session:
        if not found.binding:
            session.create(BINDINGS, binding_body(order))
            return
        after = with_subjects(order, found)
        session.patch(binding_path(), replaced(found.binding, "/subjects", found.subjects, after))


@act(
    commands=lambda wide: [
        text.patch_text(role_path(wide.name), replaced(wide.uid, "/rules", wide.rules, RULES))
    ],
    done_when=is_narrowed,
    undo=role_widened,
    each=("wide",),
    redo_stale=False,
)
def narrow_role(order: RightsOrder, wide: WideRole) -> None:
    """Let a role that is telegraf's alone give no more than telegraf needs.

    Roles that gather their rules from it follow within seconds. Done twice, the second does
    nothing.

    Raises:
        ClusterConflict: somebody changed it since it was looked at.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/grafana-metrics.md, step 3.
    """
    with order.cluster.session() as session:
        session.patch(role_path(wide.name), replaced(wide.uid, "/rules", wide.rules, RULES))


@verify
def rights_hold(order: RightsOrder) -> str:
    """What telegraf may do, once it may do all that it needs, and no more where that was asked for.

    Raises:
        NotVerified: not in time; says what is missing, or still given.
        Unreachable: no answer.

    Runbook: docs/runbooks/grafana-metrics.md, step 3.
    """
    ends = time.monotonic() + order.within_seconds
    while True:
        with order.cluster.session() as session:
            missing = still_missing(session, order)
            beyond = still_beyond(session, order)
        if not missing and not (order.is_narrowed and beyond):
            return "it may do what it needs" + (f", and {', '.join(beyond)}" if beyond else "")
        if time.monotonic() > ends:
            raise NotVerified(
                order.label,
                "what telegraf needs, and no more" if order.is_narrowed else "what telegraf needs",
                f"missing: {', '.join(missing) or 'nothing'}; beyond: {', '.join(beyond)}",
                "See `kubectl get clusterrolebindings -o wide` for who else gives or denies it",
            )
        time.sleep(PAUSE_SECONDS)


def _metadata() -> dict[str, Any]:
    return {"name": NAME, "labels": {RECOVERY_LABEL: current_fence().recovery_id}}


def _delete_ours(session: KubernetesSession, path: str) -> None:
    """Delete what this recovery created; what has another's label stays."""
    read = session.find(path)
    labels = (read["metadata"].get("labels") or {}) if read else {}
    if read and labels.get(RECOVERY_LABEL) == current_fence().recovery_id:
        session.delete(path, read["metadata"]["uid"])
