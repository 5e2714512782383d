"""What a Keycloak logs in with, read from its pod template and what that refers to."""

import base64
from collections.abc import Mapping

from blocks.kube.path import path_of
from blocks.kube.seen import is_telling
from blocks.kube.session import KubernetesSession
from blocks.postgres.server import SSL_MODES, PostgresServer
from recovery.errors import Refused
from recovery.secrecy.secret import Secret
from tasks.database_login.environment import Contents, variables_of
from tasks.database_login.generations import EVERY_NAME, PodLogin, pod_login
from tasks.database_login.order import LoginOrder
from tasks.settings.contents import Content
from tasks.settings.order import ObjectKind
from tasks.workloads.target import Workload

POSTGRES = {"", "postgres", "postgresql"}


def read_login(session: KubernetesSession, order: LoginOrder, workload: Workload) -> PodLogin:
    """What the workload's pods log in with when they start next.

    Raises:
        Refused: no container is told a PostgreSQL database and a password by variables.
        ClusterForbidden, Unreachable: as of `KubernetesSession.get`.
    """
    known: dict[tuple[ObjectKind, str], Contents] = {}

    def read(kind: ObjectKind, name: str) -> Contents:
        if (kind, name) not in known:
            path = path_of("v1", kind.resource, name, namespace=order.workload.namespace)
            known[kind, name] = _contents(kind, session.find(path) or {})
        return known[kind, name]

    template = session.get(workload.path)["spec"]["template"]["spec"]
    for container in template.get("containers") or []:
        login = pod_login(variables_of(container, EVERY_NAME, read))
        if login is not None:
            _refuse_unreadable(order, workload, login)
            return login
    raise Refused(
        order.label,
        f"no container of {workload} has KC_DB_PASSWORD, KC_DB_USERNAME, DB_PASSWORD or DB_USER",
        "Name the workload of Keycloak; one that is configured by a file is repaired by hand",
    )


def as_the_pod(order: LoginOrder, login: PodLogin, password: Secret | str) -> PostgresServer:
    """The database as the pod's account, by the address that the worker reaches it by."""
    if order.server is not None:
        return order.server.for_account(login.user, password, login.database)
    server = PostgresServer(
        host=login.host,
        port=login.port,
        user=login.user,
        database=login.database,
        sslmode=login.sslmode if login.sslmode in SSL_MODES else "prefer",
    )
    return server.for_account(login.user, password, login.database)


def pod_password(login: PodLogin) -> Secret | str:
    """The password; one that everybody sees in the name of the user is no secret."""
    value = login.password.text if login.password else ""
    if value in {login.user, login.database, login.host} or not is_telling(value):
        return value
    return Secret(value)


def _refuse_unreadable(order: LoginOrder, workload: Workload, login: PodLogin) -> None:
    if login.vendor.lower() not in POSTGRES:
        remedy = "This recovery knows PostgreSQL alone"
        raise Refused(order.label, f"{workload} is on {login.vendor}", remedy)
    if login.password is None:
        where = "it is read from a file" if login.has_file else "there is none"
        raise Refused(
            order.label,
            f"{workload} has no {login.named} that could be tried: {where}",
            "See the object and the key that it refers to; set-config-value adds a missing key",
        )


def _contents(kind: ObjectKind, read: Mapping[str, object]) -> Contents:
    """What an object holds; the secrets in it became known as it was read, names did not."""
    data = read.get("data")
    contents: dict[str, Content] = {}
    for key, value in (data if isinstance(data, Mapping) else {}).items():
        is_secret = kind is ObjectKind.SECRET
        text = str(value)
        contents[key] = base64.b64decode(text).decode(errors="replace") if is_secret else text
    return contents
