"""What a recovery needs to be allowed, asked of the API before anything is changed."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from blocks.kube.path import Asked
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from tasks.workloads.target import Workload

Rule = tuple[str, str, tuple[str, ...]]
RESTART_VERBS = ("get", "list", "watch", "patch")
POD_RULES: tuple[Rule, ...] = (("", "pods", ("list", "watch")),)


class Placed(Protocol):
    """An order for something in a namespace."""

    @property
    def label(self) -> str:
        """Its target."""

    @property
    def namespace(self) -> str:
        """Where it is."""


def rules_to_restart(workloads: Iterable[Workload]) -> list[Rule]:
    """API group, resource and verbs of each rule that lets these be restarted and waited for."""
    kinds = sorted({one.kind.resource for one in workloads})
    return [("apps", kind, RESTART_VERBS) for kind in kinds]


def refuse_missing(
    session: KubernetesSession, order: Placed, role: str, rules: Iterable[Rule]
) -> None:
    """Refuse where a later step would be forbidden; the remedy is the Role that grants it.

    Args:
        session: an open session.
        order: where it is needed.
        role: the name of the Role in the remedy.
        rules: what is needed.

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
        granted = _role(order.namespace, role, missing)
        remedy = f"Have this granted and bound to it, then resume:\n{granted}\n"
        reason = f"the account may not {told} in namespace {order.namespace}"
        raise Refused(order.label, reason, remedy)


def _role(namespace: str, role: str, missing: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    rules = [
        f'- {{apiGroups: ["{group}"], resources: ["{kind}"], verbs: [{", ".join(verbs)}]}}'
        for group, kind, verbs in missing
    ]
    head = (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n"
        f"metadata: {{name: {role}, namespace: {namespace}}}\nrules:\n"
    )
    return head + "\n".join(rules)
