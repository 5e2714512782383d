"""What tells whether an installation was ever used: its database and its administrators."""

import json

from blocks.keycloak.answer import KeycloakNotFound
from blocks.keycloak.roles import users_with
from blocks.kube.exec import Command, Place, exec_text, run_in_pod
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused, UnreadableOutput
from recovery.secrecy.secret import Secret
from tasks.admin_key.order import NO_REALM, NO_ROLE, AdminKeyOrder
from tasks.workloads.target import WorkloadOrder

ASK_SECONDS = 120.0
# Of every database but MongoDB's own, how many documents each collection has, counted one by one.
COUNTS = (
    "const out = {}; const own = ['admin', 'config', 'local'];"
    "db.adminCommand({listDatabases: 1}).databases.map(d => d.name)"
    ".filter(n => !own.includes(n)).forEach(n => { const d = db.getSiblingDB(n);"
    "d.getCollectionInfos().filter(c => c.type !== 'view').map(c => c.name)"
    ".filter(c => !c.startsWith('system.'))"
    ".forEach(c => { out[n + '.' + c] = d.getCollection(c).countDocuments({}) }) });"
    "print(JSON.stringify(out))"
)
LOG_IN = (
    'IFS= read -r MONGO_PASSWORD; export MONGO_PASSWORD; exec mongosh --quiet --norc --eval "$1"'
)


def counts_of(session: KubernetesSession, order: AdminKeyOrder) -> dict[str, int]:
    """How many documents each collection has, asked in the first pod of each database, and added.

    Raises:
        Refused: such a pod is not there.
        CommandFailed, UnreadableOutput, Unreachable: the database did not say; as of `run_in_pod`.
    """
    counts: dict[str, int] = {}
    for one in order.databases:
        place = _first_pod(session, order, one)
        command = counting(order)
        printed = run_in_pod(session, place, command)
        for name, count in read_counts(exec_text(place, command), printed.stdout).items():
            counts[name] = counts.get(name, 0) + count
    return counts


def counting(order: AdminKeyOrder) -> Command:
    """The command that counts; a password comes by its input, and stands on no command line."""
    if not order.login.user:
        argv = ("mongosh", "--quiet", "--norc", "--eval", COUNTS)
        return Command(argv, within_seconds=ASK_SECONDS)
    user = json.dumps(order.login.user)
    script = f"db.getSiblingDB('admin').auth({user}, process.env.MONGO_PASSWORD); {COUNTS}"
    password = Secret.from_file(order.login.password_file)
    line = f"{password.reveal()}\n".encode()
    return Command(("sh", "-c", LOG_IN, "sh", script), stdin=line, within_seconds=ASK_SECONDS)


def read_counts(command: str, printed: str) -> dict[str, int]:
    """Read the last line that was printed: `{"vantiq.types":40}`.

    Raises:
        UnreadableOutput: it is none of that kind.
    """
    lines = [line for line in printed.splitlines() if line.strip()]
    try:
        read = json.loads(lines[-1]) if lines else None
    except ValueError:
        read = None
    if not isinstance(read, dict) or not all(type(value) is int for value in read.values()):
        raise UnreadableOutput(command, printed)
    return {str(name): value for name, value in read.items()}


def refuse_if_somebody_can_log_in(order: AdminKeyOrder) -> str:
    """Refuse where an administrator has an account: its password is reset instead.

    A realm or a role that is not there may be a mistyped one, and is accepted by name alone.

    Returns:
        What Keycloak says, in a line.

    Raises:
        Refused: there is one, or the realm or the role is not there.
        KeycloakLoginRefused, KeycloakPermissionMissing, Unreachable: nobody could tell.
    """
    with order.keycloak.session() as keycloak:
        if not keycloak.has_realm(order.realm):
            return _accepted(order, NO_REALM, f"Keycloak has no realm {order.realm}")
        try:
            users = users_with(keycloak, order.realm, order.role)
        except KeycloakNotFound:
            told = f"realm {order.realm} has no role {order.role}"
            return _accepted(order, NO_ROLE, told)
    if users:
        raise Refused(
            order.label,
            f"{', '.join(users[:5])} have the role {order.role} in realm {order.realm}",
            "Reset the password of one of them in Keycloak: nothing is lost by that",
        )
    return f"nobody has the role {order.role} in realm {order.realm}, which stays as it is"


def _accepted(order: AdminKeyOrder, name: str, told: str) -> str:
    if name in order.accept:
        return f"{told}, as was accepted"
    reason = f"{told}, and so cannot say whether somebody can log in"
    raise Refused(order.label, reason, f"Correct its name; if it was never made, accept {name}")


def _first_pod(session: KubernetesSession, order: AdminKeyOrder, one: WorkloadOrder) -> Place:
    pod = session.find(_pod_path(order, one))
    if pod is None:
        reason = f"there is no pod {one.name}-0 that could be asked whether {one.name} is empty"
        raise Refused(order.label, reason, "Get the database up first: what is not known is kept")
    meta = pod["metadata"]
    container = pod["spec"]["containers"][0]["name"]
    return Place(order.namespace, meta["name"], container, meta["uid"])


def _pod_path(order: AdminKeyOrder, one: WorkloadOrder) -> str:
    return path_of("v1", "pods", f"{one.name}-0", namespace=order.namespace)
