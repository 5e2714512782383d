"""Giving the role of a Keycloak the password that its pods have, and the former one back."""

from dataclasses import dataclass
from typing import Any

from blocks.kube import text
from blocks.kube.path import path_of
from blocks.postgres.answer import ConnectionAnswer
from blocks.postgres.server import PostgresServer
from blocks.postgres.session import password_text
from recovery.errors import CommandFailed, NotVerified, Refused
from recovery.secrecy.secret import Secret
from recovery.steps import act, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.database_login.generations import PodLogin
from tasks.database_login.order import LoginOrder
from tasks.database_login.reading import as_the_pod, pod_password, read_login
from tasks.settings.contents import in_base64, out_of_base64
from tasks.settings.keeping import BEFORE, KEPT_BY, kept_name
from tasks.workloads.rights import POD_RULES, Rule, refuse_missing, rules_to_restart
from tasks.workloads.target import Workload
from tasks.workloads.triage import Found

VERIFIER = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s"
IS_THERE = "SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = %s"
NOT_ALLOWED = "42501"
ROLE = "recover-database-login"
KEPT: tuple[Rule, ...] = (("", "secrets", ("get", "create")),)


@dataclass(frozen=True)
class Role:
    """The role as it was found: whether the way back to its former password can be kept."""

    has_way_back: bool = False


def role_found(order: LoginOrder, login: PodLogin, workload: Workload) -> Role:
    """Whether the role is there, and its former password can be kept.

    Raises:
        Refused: there is no such role, or no way back and nobody accepted that, or the pods could
            not be restarted afterwards.
        CommandFailed, Unreachable: the account of the worker is not let in.
    """
    with order.workload.cluster.session() as cluster:
        rules = [*KEPT, *rules_to_restart([workload]), *POD_RULES]
        refuse_missing(cluster, order.workload, ROLE, rules)
    with _server(order).connect() as session:
        if not session.value(IS_THERE, (login.user,)):
            remedy = "Create it with its rights, or correct the user that the pods have"
            raise Refused(order.label, f"the database has no role {login.user}", remedy)
        try:
            session.secret(VERIFIER, (login.user,))
        except CommandFailed as error:
            if error.code != NOT_ALLOWED:
                raise
            _refuse_final(order)
            return Role()
    return Role(has_way_back=True)


def keep_commands(order: LoginOrder, user: str) -> list[str]:
    """What keeps the former password."""
    return [text.create_text(_kept_path(order), _kept_body(order, user))]


def is_kept(order: LoginOrder) -> Verdict:
    """Whether this recovery has kept it."""
    return Verdict.of(_is_there(order, kept_name()))


@act(commands=keep_commands, done_when=is_kept, expected=kept_name, redo_stale=False)
def keep_verifier(order: LoginOrder, user: str) -> str:
    """Keep what the database has of the role's password in a Secret of this recovery.

    It is no password but what one is checked by. Done twice, the second does nothing.

    Raises:
        ClusterConflict: there is a Secret of this name.
        ClusterForbidden, CommandFailed, Unreachable: see there.

    Runbook: docs/runbooks/keycloak-database-login.md, step 5.
    """
    with order.workload.cluster.session() as session:
        session.create(_kept_path(order), _kept_body(order, user))
    return kept_name()


def is_let_in(order: LoginOrder, found: Found) -> Verdict:
    """Whether the database takes the login of the pods."""
    server, password = _of_the_pods(order, found)
    del password
    return Verdict.of(server.knock().answer is ConnectionAnswer.ACCEPTED)


def refuse_other_password(order: LoginOrder, user: str, kept: str) -> None:
    """Refuse to write over a password that somebody set since the former one was kept.

    Raises:
        Refused: the database has another one.
        NotVerified: the Secret that kept the former one is gone.
    """
    is_plan = not current_fence().epoch
    if not kept or (is_plan and not _is_there(order, kept)):
        return
    former = _former(order, user, kept)
    with _server(order).connect() as session:
        held = session.secret(VERIFIER, (user,))
    if held != former:
        raise Refused(
            order.label,
            f"somebody set the password of {user} since the former one was kept",
            "Ask who; begin a new recovery, which looks at that one first",
        )


@undo
def role_password_put_back(order: LoginOrder, found: Found, user: str, kept: str) -> None:
    """Give the role its former password, if it still has that of the pods."""
    if not kept:
        raise NotVerified(
            order.label,
            f"the former password of {user}",
            "it could not be kept",
            "Set it by hand from where it is kept",
        )
    former = _former(order, user, kept)
    with _server(order).connect() as session:
        if session.secret(VERIFIER, (user,)) == former:
            return
        if is_let_in(order, found) is not Verdict.DONE:
            raise NotVerified(
                order.label,
                f"the password of the pods at {user}, to put the former one in its place",
                "another one",
                "Somebody set it since: ask who",
            )
        session.set_password(user, former, is_verifier=True)


@act(
    commands=lambda user: [password_text(user)],
    done_when=is_let_in,
    refuse_if=[refuse_other_password],
    undo=role_password_put_back,
    redo_stale=False,
)
def set_role_password(order: LoginOrder, found: Found, user: str, kept: str) -> None:
    """Give the role the password that the pods have; all else of it is left as it is.

    Whoever else logs in as this role is refused from here on. The server is sent what a password
    is checked by, so that the password is in none of its logs. Done twice, it is the same.

    Raises:
        Refused: somebody has set another one meanwhile.
        NotVerified: what was kept of the former one is gone.
        CommandFailed: the account of the worker may not.
        Unreachable: no answer; it is tried whether the pods are let in before it is sent again.

    Runbook: docs/runbooks/keycloak-database-login.md, step 6.
    """
    del kept  # for the guard and the way back
    _, password = _of_the_pods(order, found)
    with _server(order).connect() as session:
        session.set_password(user, password)


def _of_the_pods(order: LoginOrder, found: Found) -> tuple[PostgresServer, Secret | str]:
    with order.workload.cluster.session() as session:
        login = read_login(session, order, found.workload)
    password = pod_password(login)
    return as_the_pod(order, login, password), password


def _server(order: LoginOrder) -> PostgresServer:
    if order.server is None:
        raise TypeError("the order names no database")  # refused when it was read
    return order.server


def _refuse_final(order: LoginOrder) -> None:
    if not order.is_final:
        raise Refused(
            order.label,
            "the account of the worker may not read what the role's password is checked by, so "
            "that there is no way back",
            "Name a superuser, or set without_way_back",
        )


def _kept_path(order: LoginOrder, name: str = "") -> str:
    return path_of("v1", "secrets", name, namespace=order.workload.namespace)


def _is_there(order: LoginOrder, kept: str) -> bool:
    with order.workload.cluster.session() as session:
        return session.find(_kept_path(order, kept)) is not None


def _former(order: LoginOrder, user: str, kept: str) -> Secret | None:
    """What the database had of the role's password; `None` where the role had none.

    Raises:
        NotVerified: the Secret that kept it is gone.
    """
    with order.workload.cluster.session() as session:
        read = session.find(_kept_path(order, kept))
    if read is None:
        raise NotVerified(
            order.label,
            f"the former password of {user} in secret/{kept}",
            "the Secret that kept it is gone",
            "Set the password by hand from where passwords are issued",
        )
    data = read.get("data") or {}
    return out_of_base64(str(data[BEFORE])) if BEFORE in data else None


def _kept_body(order: LoginOrder, user: str) -> dict[str, Any]:
    with _server(order).connect() as session:
        former = session.secret(VERIFIER, (user,))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": kept_name(),
            "labels": {KEPT_BY: current_fence().recovery_id},
            "annotations": {f"{KEPT_BY}-for": f"role/{user}"},
        },
        "immutable": True,
        "data": {} if former is None else {BEFORE: in_base64(former)},
    }
