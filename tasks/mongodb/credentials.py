"""The credentials a backup reaches its store with: a file here, a Secret in the cluster."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from blocks.kube import text
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object
from recovery.errors import BadInput, Refused
from recovery.secrecy.secret import Secret
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.jobs.template import NAMES_OF_SECRETS, RECOVERY_LABEL
from tasks.mongodb.backup_order import BackupOrder

# The file as the installation's deployment has it: export AZURE_STORAGE_ACCOUNT=vantiqbackup
LINE = re.compile(r"export (?P<name>[A-Z][A-Z0-9_]*)=(?P<value>\S+)")
AZURE = {"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"}


class SecretFound(StrEnum):
    """How the Secret was found."""

    NOT_MEANT = "not-meant"  # no file was given
    ABSENT = "absent"
    WITHOUT_KEY = "without-key"
    SAME = "same"


@dataclass(frozen=True)
class Credentials:
    """Where credentials are put, and how that was found; the recovery marks what it creates."""

    found: SecretFound
    namespace: str
    name: str
    key: str
    recovery: str

    @property
    def secrets_path(self) -> str:
        """Where it is created."""
        return path_of("v1", "secrets", namespace=self.namespace)

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"{self.secrets_path}/{self.name}"


def read_credentials(order: BackupOrder) -> str:
    """The content of the file, base64 as a Secret has it; what is in it becomes known as secret.

    Raises:
        BadInput: it cannot be read, or is no list of `export NAME=value`.
    """
    content = Secret.from_file(order.credentials_file).reveal()
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        meant = LINE.fullmatch(line)
        if meant is None or meant["value"].startswith("<"):
            raise BadInput(
                "credentials_file",
                f"line {number} of {order.credentials_file} is no `export NAME=value`",
                "Write one a line, without blanks around = and with the values filled in",
            )
        if NAMES_OF_SECRETS.search(meant["name"]):
            Secret(meant["value"])
    names = {line.partition("=")[0].removeprefix("export ") for line in lines}
    if names & AZURE and not names >= AZURE:
        missing = ", ".join(sorted(AZURE - names))
        raise BadInput("credentials_file", f"it lacks {missing}", "Azure needs account and key")
    encoded = base64.b64encode("".join(f"{line}\n" for line in lines).encode()).decode()
    return Secret(encoded).reveal()


def look_at_secret(session: KubernetesSession, order: BackupOrder, recovery_id: str) -> Credentials:
    """How the Secret stands against the file.

    Raises:
        Refused: it holds other credentials.
        BadInput: as of `read_credentials`.
    """
    credentials = Credentials(
        SecretFound.NOT_MEANT, order.namespace, order.secret, order.key, recovery_id
    )
    if not order.credentials_file:
        return credentials
    wanted = read_credentials(order)
    read = session.find(credentials.path)
    held = None if read is None else (read.get("data") or {}).get(order.key)
    if held is not None and held != wanted:
        raise Refused(
            order.label,
            f"Secret {order.secret} holds other credentials than {order.credentials_file}",
            "Which of the two is right only a person knows. Leave credentials_file empty to use "
            "those that are there, or remove that key from the Secret to use the file",
        )
    found = SecretFound.SAME if held else SecretFound.WITHOUT_KEY
    return Credentials(
        SecretFound.ABSENT if read is None else found,
        order.namespace, order.secret, order.key, recovery_id,
    )  # fmt: skip


def put_commands(order: BackupOrder, credentials: Credentials) -> Iterable[str]:
    """What puts them there."""
    body = _body(order, credentials)
    if credentials.found is SecretFound.ABSENT:
        return [text.create_text(credentials.secrets_path, body)]
    return [text.merge_text(credentials.path, {"data": body["data"]})]


def are_put(order: BackupOrder, credentials: Credentials) -> Verdict:
    """Whether the Secret holds what the file has."""
    with order.cluster.session() as session:
        read = session.find(credentials.path)
    held = None if read is None else (read.get("data") or {}).get(credentials.key)
    return Verdict.of(held == read_credentials(order))


@undo
def credentials_taken_back(order: BackupOrder, credentials: Credentials) -> None:
    """Remove the Secret that was created, or the key that was added."""
    with order.cluster.session() as session:
        read = session.find(credentials.path)
        if read is None or credentials.key not in (read.get("data") or {}):
            return
        labels = read["metadata"].get("labels") or {}
        if labels.get(RECOVERY_LABEL) == credentials.recovery:
            session.delete(credentials.path, read["metadata"]["uid"])
        elif credentials.found is SecretFound.WITHOUT_KEY:
            session.merge(credentials.path, {"data": {credentials.key: None}})


@act(commands=put_commands, done_when=are_put, undo=credentials_taken_back)
def put_credentials(order: BackupOrder, credentials: Credentials) -> None:
    """Put the credentials of the file into the Secret; other keys of it stay as they are.

    Done twice, it finds them there.

    Raises:
        BadInput: the file is not what it was.
        ClusterConflict, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/mongodb-backup.md, step 2.
    """
    body = _body(order, credentials)
    with order.cluster.session() as session:
        if credentials.found is SecretFound.ABSENT:
            session.create(credentials.secrets_path, body)
        else:
            session.merge(credentials.path, {"data": body["data"]})


def _body(order: BackupOrder, credentials: Credentials) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": credentials.name,
            "namespace": credentials.namespace,
            "labels": {RECOVERY_LABEL: credentials.recovery},
        },
        "type": "Opaque",
        "data": {credentials.key: read_credentials(order)},
    }
