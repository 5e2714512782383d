"""What recoveries of MongoDB need to be allowed, asked of the API before anything is changed."""

from collections.abc import Iterable

from blocks.kube.session import KubernetesSession
from tasks.mongodb.order import MongoOrder
from tasks.workloads.rights import Rule, refuse_missing, rules_to_restart
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
ROLE = "recover-mongodb"


def rules_for(clients: Iterable[Workload]) -> list[Rule]:
    """API group, resource and verbs of each rule of the Role."""
    return [*rules_to_restart(clients), *RULES]


def refuse_missing_rights(
    session: KubernetesSession, order: MongoOrder, rules: Iterable[Rule]
) -> None:
    """Refuse where a later step would be forbidden; errors are those of `refuse_missing`."""
    refuse_missing(session, order, ROLE, rules)
