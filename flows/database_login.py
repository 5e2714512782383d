"""Let a Keycloak log in to its database again, by correcting the side that is wrong."""

from dataclasses import dataclass
from typing import Literal

from blocks.kube.cluster import ClusterParameter
from blocks.postgres.server import PostgresParameter
from flows.config_values import change_value
from flows.workloads import restart_found
from recovery.declare import recovery
from tasks.database_login import finding, proof, role
from tasks.database_login.finding import LoginDue, LoginFound
from tasks.database_login.order import LoginOrder, LoginWishes, database_leased, login_order
from tasks.workloads import evidence, triage
from tasks.workloads.evidence import Captured
from tasks.workloads.target import workload_order, workload_target
from tasks.workloads.triage import Found


@dataclass(frozen=True)
class LoginRepaired:
    """What was found, what was done, what now holds, and how it stood before.

    Attributes:
        found: how the pods stood, how their login went, and what their log says.
        done: nothing, or which side was corrected.
        holds: how the workload stands, and whether the database takes its login.
        kept: the Secret that holds what was there before.
        before: logs and events of before.
    """

    found: str
    done: str
    holds: list[str]
    kept: str
    before: Captured


@recovery(
    runbook="docs/runbooks/keycloak-database-login.md",
    target=workload_target,
    parts=database_leased,
    answers=["KubePodCrashLooping"],
)
def repair_keycloak_database_login(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: ClusterParameter,
    workload: str = "keycloak",
    namespace: str = "",
    database: PostgresParameter = "",
    side: Literal["", "workload", "role"] = "",
    password_file: str = "",
    without_way_back: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    accept: list[str] | None = None,
    within_seconds: int = 600,
) -> LoginRepaired:
    """Find out whether the database refuses a Keycloak that does not start, and correct one side.

    Without a side it looks, tries the login, and names the cause.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        workload: Keycloak's, as keycloak-service, or with its kind, as statefulset/keycloak.
        namespace: Empty: the one of the block or the context.
        database: postgresql://USER@HOST/DB?password_file=… as the worker reaches it; for side=role
            an account that may change roles. Empty: the address that the pods have.
        side: Empty only looks; workload corrects what the pods have, role gives the database
            what they have.
        password_file: For side=workload: file of mode 0600 on the worker with the right password.
        without_way_back: For side=role: go ahead where the former password cannot be kept.
        accept: For side=workload: names of what is refused otherwise, as helm.
        within_seconds: How long the pods may take to come up.

    Runbook: docs/runbooks/keycloak-database-login.md, steps 1 to 8.
    """
    wishes = LoginWishes(database, side, password_file, tuple(accept or ()), without_way_back)
    named = workload_order(cluster, workload, namespace, within_seconds)
    order = login_order(named, cluster, wishes)
    found = triage.service_found(named, is_ordered=False)
    before = evidence.captured(named, found.workload)
    login = finding.login_found(order, found)
    seen = f"{found.seen}; {login.seen}"
    if login.due is LoginDue.NOTHING:
        return LoginRepaired(seen, "nothing", [str(found.state)], "", before)
    done, holds, kept = _corrected(order, found, login)
    taken = proof.login_is_taken(order, found)
    return LoginRepaired(seen, done, [*holds, taken], kept, before)


def _corrected(order: LoginOrder, found: Found, login: LoginFound) -> tuple[str, list[str], str]:
    """Correct the side that is due, and bring the pods up; return what was done, holds, is kept."""
    if login.due is LoginDue.VALUE:
        changed = change_value(order.setting(login.holder, login.key))
        return f"{login.key} of {login.holder}: {changed.done}", changed.holds or [], changed.kept
    kept, what = "", "the login was right already"
    if login.due is LoginDue.ROLE:
        kept = role.keep_verifier(order, login.user) if login.has_way_back else ""
        role.set_role_password(order, found, login.user, kept)
        what = f"the role {login.user} has the password of the pods"
    done, holds, _ = restart_found(order.workload, found)
    return f"{what}; {done}", [holds], kept
