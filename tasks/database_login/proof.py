"""Whether the database takes the login of a Keycloak's pods."""

from blocks.postgres.answer import ConnectionAnswer
from recovery.errors import NotVerified
from recovery.steps import verify
from tasks.database_login.order import LoginOrder
from tasks.database_login.reading import as_the_pod, pod_password, read_login
from tasks.workloads.triage import Found


@verify
def login_is_taken(order: LoginOrder, found: Found) -> str:
    """How the database answers to the values that the pods read now.

    Raises:
        NotVerified: it refuses them.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/keycloak-database-login.md, step 8.
    """
    with order.workload.cluster.session() as session:
        login = read_login(session, order, found.workload)
    knock = as_the_pod(order, login, pod_password(login)).knock()
    if knock.answer is not ConnectionAnswer.ACCEPTED:
        raise NotVerified(
            order.label,
            f"that the database takes {login.user} with the password of the pods",
            f"{knock.answer}: {knock.text}",
            "Somebody changed the one or the other since: begin a new recovery",
        )
    return f"the database takes {login.user} with the password of the pods"
