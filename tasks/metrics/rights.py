"""What telegraf needs to be allowed on a cluster, what it is allowed beyond that, and who gives it.

The rights that are found in older instructions (`resources: ["*"]`) hand every Secret and the
kubelet's own API, and with that commands in any pod, to whoever takes over a metrics agent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from blocks.kube.path import Asked, path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from recovery.steps import decision
from tasks.metrics.order import RightsOrder
from tasks.metrics.telegraf_log import telegraf_errors
from tasks.workloads.target import selector_of

VERSION = "rbac.authorization.k8s.io/v1"
NAME = "telegraf-metrics"
LOOKS = ["get", "list", "watch"]
LISTED = ["nodes", "pods", "services", "endpoints", "namespaces", "persistentvolumes"]
RULES = [
    {"apiGroups": [""], "resources": LISTED, "verbs": LOOKS},
    {"apiGroups": [""], "resources": ["nodes/stats", "nodes/metrics"], "verbs": ["get"]},
]
NEEDED = (
    *(Asked(verb, "", resource) for resource in LISTED for verb in LOOKS),
    Asked("get", "", "nodes", "stats"),
    Asked("get", "", "nodes", "metrics"),
)
BEYOND = (
    Asked("get", "", "secrets"),
    Asked("list", "", "secrets"),
    Asked("get", "", "pods", "exec"),
    Asked("create", "", "pods", "exec"),
    Asked("get", "", "nodes", "proxy"),
)
BUILT_IN = ("kubernetes.io/bootstrapping", "rbac-defaults")


@dataclass(frozen=True)
class WideRole:
    """A ClusterRole that gives telegraf more than it needs, and its rules as they are."""

    name: str
    uid: str
    rules: list[dict[str, Any]]


@dataclass(frozen=True)
class RightsFound:
    """What telegraf may do, and who gives it that.

    Attributes:
        missing: what it needs and may not do.
        beyond: what it may do and does not need.
        role: the uid of our ClusterRole; empty where there is none.
        rules: its rules.
        binding: the uid of our binding; empty where there is none.
        subjects: whom it is bound to.
        wide: the roles that give more, and are telegraf's alone.
        told: those that are not, and what telegraf's own log says.
    """

    missing: list[str]
    beyond: list[str]
    role: str
    rules: list[dict[str, Any]]
    binding: str
    subjects: list[dict[str, Any]]
    wide: list[WideRole]
    told: list[str]


@decision
def rights_found(order: RightsOrder) -> RightsFound:
    """What telegraf may do on the cluster, by the API's own word.

    Raises:
        Refused: our account may not look, or could not give what is missing; says which rule would.
        ClusterForbidden, ClusterLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/grafana-metrics.md, step 3.
    """
    with order.cluster.session() as session:
        missing = _asked(session, order, NEEDED, is_allowed=False)
        beyond = _asked(session, order, BEYOND, is_allowed=True)
        role = session.find(role_path()) or {}
        binding = session.find(binding_path()) or {}
        wide, told = _wide(session, order) if beyond else ([], [])
        _refuse_foreign(order, binding)
        if missing or (order.is_narrowed and wide):
            _refuse_forbidden(session, order)
        told += telegraf_errors(session, order)
    return RightsFound(
        missing,
        beyond,
        str((role.get("metadata") or {}).get("uid", "")),
        role.get("rules") or [],
        str((binding.get("metadata") or {}).get("uid", "")),
        binding.get("subjects") or [],
        wide,
        told,
    )


def role_path(name: str = NAME) -> str:
    """Where the API has a ClusterRole."""
    return path_of(VERSION, "clusterroles", name)


def binding_path(name: str = NAME) -> str:
    """Where the API has a ClusterRoleBinding."""
    return path_of(VERSION, "clusterrolebindings", name)


def groups_of(order: RightsOrder) -> list[str]:
    """The groups that every service account of the namespace is in."""
    of_namespace = f"system:serviceaccounts:{order.namespace}"
    return ["system:serviceaccounts", of_namespace, "system:authenticated"]


def _asked(
    session: KubernetesSession, order: RightsOrder, asked: Iterable[Asked], *, is_allowed: bool
) -> list[str]:
    """Which of these each account may, or may not."""
    return [
        f"{account}: {one}"
        for account in order.accounts
        for one in asked
        if session.may(one, order.user_of(account), groups_of(order)) is is_allowed
    ]


def still_missing(session: KubernetesSession, order: RightsOrder) -> list[str]:
    """What telegraf needs and may not do now."""
    return _asked(session, order, NEEDED, is_allowed=False)


def still_beyond(session: KubernetesSession, order: RightsOrder) -> list[str]:
    """What telegraf may do now and does not need."""
    return _asked(session, order, BEYOND, is_allowed=True)


def gives_beyond(rules: Iterable[Mapping[str, Any]]) -> bool:
    """Whether rules give something of `BEYOND`."""
    for rule in rules:
        groups, verbs = set(rule.get("apiGroups") or []), set(rule.get("verbs") or [])
        resources = set(rule.get("resources") or [])
        for one in BEYOND:
            kinds = {one.kind_text, "*", f"*/{one.subresource}" if one.subresource else "*"}
            if groups & {"", "*"} and resources & kinds and verbs & {one.verb, "*"}:
                return True
    return False


def _wide(session: KubernetesSession, order: RightsOrder) -> tuple[list[WideRole], list[str]]:
    """The roles that give more than is needed: telegraf's alone, and those that others have too."""
    bindings = [
        *session.objects(path_of(VERSION, "clusterrolebindings")),
        *session.objects(path_of(VERSION, "rolebindings")),  # of all namespaces
    ]
    roles = {
        one["metadata"]["name"]: one for one in session.objects(path_of(VERSION, "clusterroles"))
    }
    users: dict[str, list[Mapping[str, Any]]] = {}
    for binding in bindings:
        if binding["roleRef"]["kind"] != "ClusterRole":
            continue
        for name in _with_sources(roles, str(binding["roleRef"]["name"])):
            users.setdefault(name, []).extend(_whom(order, binding))
    wide, told = [], []
    for name, role in sorted(roles.items()):
        is_ours = any(_is_telegraf(order, one) for one in users.get(name, []))
        is_source = "aggregationRule" not in role
        if not (is_ours and is_source and gives_beyond(role.get("rules") or [])):
            continue
        others = [one["name"] for one in users[name] if not _is_telegraf(order, one)]
        label, value = BUILT_IN
        if others or (role["metadata"].get("labels") or {}).get(label) == value:
            whom = ", ".join(sorted(set(others))) or "the cluster itself"
            told.append(f"ClusterRole {name} gives telegraf too much, and is also of {whom}")
        else:
            wide.append(WideRole(name, role["metadata"]["uid"], role["rules"]))
    return wide, told


def _whom(order: RightsOrder, binding: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Whom a binding gives its role; what telegraf is given in one namespace is left to it."""
    is_of_cluster = "namespace" not in binding["metadata"]
    return [
        one
        for one in binding.get("subjects") or []
        if is_of_cluster or not _is_telegraf(order, one)
    ]


def _with_sources(roles: Mapping[str, Mapping[str, Any]], name: str) -> list[str]:
    """A role, and those that it gets its rules from."""
    rule = (roles.get(name) or {}).get("aggregationRule") or {}
    selectors = [selector_of(one) for one in rule.get("clusterRoleSelectors") or []]
    wanted = [dict(part.partition("=")[::2] for part in one.split(",")) for one in selectors]
    sources = [
        other
        for other, role in roles.items()
        if any(
            labels.items() <= (role["metadata"].get("labels") or {}).items() for labels in wanted
        )
    ]
    return [name, *sources]


def _is_telegraf(order: RightsOrder, subject: Mapping[str, Any]) -> bool:
    return (
        subject.get("kind") == "ServiceAccount"
        and subject.get("namespace") == order.namespace
        and subject.get("name") in order.accounts
    )


def _refuse_foreign(order: RightsOrder, binding: Mapping[str, Any]) -> None:
    """Whom a binding leads to cannot be changed."""
    leads_to = (binding.get("roleRef") or {}).get("name", NAME)
    if leads_to != NAME:
        reason = f"ClusterRoleBinding {NAME} is there and leads to {leads_to}"
        raise Refused(order.label, reason, "Look at who made it, and delete or rename it")


def _refuse_forbidden(session: KubernetesSession, order: RightsOrder) -> None:
    """A right is given only by who has it, or may escalate: so does the way back of a narrowing."""
    group = VERSION.partition("/")[0]
    asked = [
        *(Asked(verb, group, kind) for verb in ("create", "patch", "delete")
          for kind in ("clusterroles", "clusterrolebindings")),
        *NEEDED,
        *([Asked("escalate", group, "clusterroles")] if order.is_narrowed else []),
    ]  # fmt: skip
    if missing := [one for one in asked if not session.may(one)]:
        told = ", ".join(map(str, missing))
        remedy = f"Let somebody who may, or have this granted:\n{missing[0].rule}\n"
        raise Refused(order.label, f"the account may not {told}", remedy)
