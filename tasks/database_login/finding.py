"""Whether a Keycloak's login is why it does not start, and which side is to be corrected."""

from dataclasses import dataclass
from enum import StrEnum

from blocks.kube.answer import ClusterForbidden, ClusterNotFound, ClusterRejected
from blocks.kube.session import KubernetesSession, LogOrder
from blocks.postgres.answer import ConnectionAnswer
from blocks.postgres.server import Knock
from recovery.errors import Refused
from recovery.steps import decision
from tasks.database_login.causes import CREDENTIALS, NOT_REACHED, cause_in, remedy_for
from tasks.database_login.generations import PodLogin
from tasks.database_login.order import LoginOrder, Side
from tasks.database_login.reading import as_the_pod, pod_password, read_login
from tasks.database_login.role import Role, role_found
from tasks.workloads.triage import Due, Found

PODS_MAX = 3
UNREACHED = {
    ConnectionAnswer.NAME_NOT_RESOLVED,
    ConnectionAnswer.REFUSED,
    ConnectionAnswer.TIMED_OUT,
    ConnectionAnswer.NO_ROUTE,
    ConnectionAnswer.SILENT,
}


class LoginDue(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    RESTART = "restart"  # the login was corrected, and the pods wait for their next start
    VALUE = "value"
    ROLE = "role"


@dataclass(frozen=True)
class LoginFound:
    """A login as it was found.

    Attributes:
        due: what is to be done.
        seen: how the login went, and what the log says.
        user: the role that logs in.
        holder: what holds the password, as `secret/keycloak`; empty: the pod template itself.
        key: which key of that.
        has_way_back: whether the role's former password can be kept.
    """

    due: LoginDue
    seen: str
    user: str
    holder: str
    key: str
    has_way_back: bool


@decision
def login_found(order: LoginOrder, found: Found) -> LoginFound:
    """How the login goes with the values of the pods, tried from the worker, and what is due.

    Raises:
        Refused: the cause is another, the database cannot be reached from the worker, no side was
            named, or what was named cannot help.
        BadInput: the right password cannot be read.
        ClusterForbidden, CommandFailed, Unreachable: see there.

    Runbook: docs/runbooks/keycloak-database-login.md, steps 2 to 4.
    """
    with order.workload.cluster.session() as session:
        login = read_login(session, order, found.workload)
        cause, line = _logged(session, found)
    knock = as_the_pod(order, login, pod_password(login)).knock()
    logged = f"; its log says: {line}" if line else ""
    seen = f"login as {login.user} to {login.host}: {knock.answer}{logged}"
    due, role = LoginDue.NOTHING, Role()
    if knock.answer is ConnectionAnswer.ACCEPTED:
        due = _due_of_working(order, found, cause, line)
    else:
        _refuse_other_cause(order, knock, logged)
        due, role = _due_by_side(order, found, login, seen)
    holder, key = (login.password.holder, login.password.key) if login.password else ("", "")
    return LoginFound(due, seen, login.user, holder, key, role.has_way_back)


def _logged(session: KubernetesSession, found: Found) -> tuple[str, str]:
    """What the logs of pods that are not ready say, that of the run before first."""
    for pod in [pod for pod in found.pods if not pod.is_ready][:PODS_MAX]:
        for container in pod.images:
            for is_previous in (True, False):
                order = LogOrder(container, is_previous)
                try:
                    log = session.logs(found.workload.namespace, pod.name, order)
                except (ClusterRejected, ClusterNotFound, ClusterForbidden):
                    continue
                if (told := cause_in(log))[0]:
                    return told
    return "", ""


def _due_of_working(order: LoginOrder, found: Found, cause: str, line: str) -> LoginDue:
    """What is due where the database takes the values that the pods would read now."""
    if found.due is Due.NOTHING:
        return LoginDue.NOTHING
    if cause in CREDENTIALS:
        return LoginDue.RESTART
    told = f"its log says: {line}" if line else "its log says nothing of the database"
    raise Refused(
        order.label,
        f"the database takes the login of the pods, so that is not why they fail; {told}",
        remedy_for(cause) if cause else "See the log in the report; restart-service may help",
    )


def _refuse_other_cause(order: LoginOrder, knock: Knock, logged: str) -> None:
    if knock.answer in UNREACHED:
        reason = f"the worker does not reach the database ({knock.answer}: {knock.text}){logged}"
        raise Refused(order.label, reason, NOT_REACHED)
    if knock.answer not in CREDENTIALS:
        reason = f"no password is the cause ({knock.answer}: {knock.text}){logged}"
        raise Refused(order.label, reason, remedy_for(knock.answer))


def _due_by_side(
    order: LoginOrder, found: Found, login: PodLogin, seen: str
) -> tuple[LoginDue, Role]:
    """What is due where the database refuses the pods, and that it will help."""
    if order.side is None:
        raise Refused(
            order.label,
            f"the database refuses the pods: {seen}",
            "Which side is right only a person knows: side=workload with password_file corrects "
            "what the pods have, side=role with database gives the role the password they have",
        )
    if order.side is Side.ROLE:
        return LoginDue.ROLE, role_found(order, login, found.workload)
    if login.password is not None and not login.password.holder:
        raise Refused(
            order.label,
            f"{login.named} stands in the pod template itself, where everybody can read it",
            "Move it into a Secret with the right value, or give the role this one by side=role",
        )
    knock = as_the_pod(order, login, order.password.read()).knock()
    if knock.answer is not ConnectionAnswer.ACCEPTED:
        raise Refused(
            order.label,
            f"the database refuses the password of the file as well ({knock.answer})",
            f"Correct the file, or the user {login.user} that the pods have",
        )
    return LoginDue.VALUE, Role()
