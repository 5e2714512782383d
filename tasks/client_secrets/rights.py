"""What the account of the worker must be allowed in the cluster before Keycloak is touched."""

from recovery.steps import probe
from tasks.settings.finding import ConfigFound
from tasks.settings.order import ConfigOrder
from tasks.workloads.rights import POD_RULES, Rule, refuse_missing, rules_to_restart

ROLE = "recover-client-secrets"
KEPT: tuple[Rule, ...] = (("", "secrets", ("get", "create")),)


@probe
def refuse_missing_rights(setting: ConfigOrder, found: ConfigFound) -> None:
    """Refuse where Keycloak would get a secret that the services cannot be given.

    Raises:
        Refused: the account may not keep the secrets, write the setting or restart a service.
        Unreachable: no answer.

    Runbook: docs/runbooks/admin-api-secret.md, step 3.
    """
    written: Rule = ("", setting.kind.resource, ("get", "patch"))
    restarted = rules_to_restart(one.workload for one in found.consumers)
    with setting.cluster.session() as session:
        refuse_missing(session, setting, ROLE, [*KEPT, written, *restarted, *POD_RULES])
