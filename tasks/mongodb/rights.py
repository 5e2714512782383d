"""What recoveries of MongoDB need to be allowed, asked of the API before anything is changed."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from blocks.kubernetes_path import Asked
from blocks.kubernetes_session import KubernetesSession
from recovery.errors import Refused
from tasks.workloads.target import Workload

RULES = (
    ("batch", "cronjobs", ("get", "list")),
    ("batch", "jobs", ("get", "list", "watch", "create")),
    ("", "pods", ("list", "watch")),
    ("", "pods/log", ("get",)),
    ("autoscaling", "horizontalpodautoscalers", ("list",)),
)
BACKUP_RULES = (("batch", "cronjobs", ("get", "list", "patch")), *RULES[1:4])
SECRET_RULES = (("", "secrets", ("get", "create", "patch", "delete")),)
Rule = tuple[str, str, tuple[str, ...]]
CLIENT_VERBS = ("get", "list", "watch", "patch")


def rules_for(clients: Iterable[Workload]) -> list[Rule]:
    """API group, resource and verbs of each rule of the Role."""
    kinds = sorted({client.kind.resource for client in clients})
    return [*(("apps", kind, CLIENT_VERBS) for kind in kinds), *RULES]


class Leased(Protocol):
    """What says which namespace is meant, and what a refusal names."""

    @property
    def label(self) -> str:
        """What is leased."""

    @property
    def namespace(self) -> str:
        """Where in the cluster."""


def refuse_missing_rights(session: KubernetesSession, order: Leased, rules: Iterable[Rule]) -> None:
    """Refuse where a later step would be forbidden; the remedy is the Role that grants it.

    Raises:
        Refused: something is not allowed.
    """
    missing = []
    for group, kind, verbs in rules:
        resource, _, sub = kind.partition("/")
        denied = [
            verb
            for verb in verbs
            if not session.may(Asked(verb, group, resource, sub, order.namespace))
        ]
        if denied:
            missing.append((group, kind, denied))
    if missing:
        told = "; ".join(f"{', '.join(verbs)} {kind}" for _, kind, verbs in missing)
        remedy = f"Have this granted and bound to it, then resume:\n{_role(order, missing)}\n"
        reason = f"the account may not {told} in namespace {order.namespace}"
        raise Refused(order.label, reason, remedy)


def _role(order: Leased, missing: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    rules = [
        f'- {{apiGroups: ["{group}"], resources: ["{kind}"], verbs: [{", ".join(verbs)}]}}'
        for group, kind, verbs in missing
    ]
    head = (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n"
        f"metadata: {{name: recover-mongodb, namespace: {order.namespace}}}\nrules:\n"
    )
    return head + "\n".join(rules)
