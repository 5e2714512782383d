"""Running repair-keycloak-database-login: a Keycloak whose pods log in to a real PostgreSQL.

They start as those of a Keycloak do: where the database takes what they are given, else they crash.
"""

import base64
import itertools
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

import flows.database_login  # noqa: F401 (declares the recovery)
from tests.integration.config_runs import Settings
from tests.lab.kubernetes_api import KubernetesApi, deployment
from tests.lab.kubernetes_node import CRASHES, READY, Image
from tests.lab.postgres import PostgresServer
from tests.lab.processes import wait_until

RIGHT, WRONG = "r1ght-0f-the-lab&42", "wr0ng-0f-the-lab&17"
REFUSED = (
    "09:41:07,312 ERROR [org.keycloak] Caused by: org.postgresql.util.PSQLException: FATAL: "
    'password authentication failed for user "{}"\n'
)
HOLDER = "keycloak-db"
NUMBERS = itertools.count(1)
NAME = "repair-keycloak-database-login"


@dataclass
class Keycloak:
    """A Keycloak on Kubernetes, its role and its database."""

    settings: Settings
    postgres: PostgresServer
    role: str
    folder: Path

    @property
    def api(self) -> KubernetesApi:
        return self.settings.api

    def deploy(self, in_pods, *, literal=False, log="", env=(), boots=None):
        """Let the pods have this password; they crash where the database refuses it."""
        namespace, image = self.settings.namespace, f"{self.settings.namespace}/keycloak:26"
        log = log or REFUSED.format(self.role)
        self.api.node.images[image] = Image(log=log, previous_log=log, boots=boots or self._boots)
        self.settings.secret(HOLDER, password=WRONG if literal else in_pods, username=self.role)
        reference = {"secretKeyRef": {"name": HOLDER, "key": "password"}}
        user = {"secretKeyRef": {"name": HOLDER, "key": "username"}}
        given = {"value": in_pods} if literal else {"valueFrom": reference}
        body = deployment("keycloak", image, replicas=1, deadline_seconds=4)
        url = f"jdbc:postgresql://{self.postgres.host}:{self.postgres.port}/{self.role}"
        variables = [
            {"name": "KC_DB", "value": "postgres"},
            {"name": "KC_DB_URL", "value": url},
            {"name": "KC_DB_USERNAME", "valueFrom": user},
            {"name": "KC_DB_PASSWORD", **given},
        ]
        body["spec"]["template"]["spec"]["containers"][0]["env"] = [*env] or variables
        self.api.apply(body, namespace)
        wait_until(self._has_started, "a pod of Keycloak to have started", within_seconds=30)
        return self

    def _has_started(self):
        pods = self.api.pods(self.settings.namespace, **{"k8s-app": "keycloak"})
        return pods and all((pod.get("status") or {}).get("containerStatuses") for pod in pods)

    def _boots(self, pod):
        entries = {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}
        entry = entries.get("KC_DB_PASSWORD") or entries["DB_PASSWORD"]
        password = entry.get("value") or self.password_in_pods()
        return READY if self.lets_in(password) else CRASHES

    def password_in_pods(self):
        found = self.settings.value("password", HOLDER, "secrets")
        return base64.b64decode(found).decode()

    def lets_in(self, password):
        """Whether the database takes the role with this password."""
        place = {"host": self.postgres.host, "port": self.postgres.port, "dbname": self.role}
        try:
            psycopg.connect(user=self.role, password=password, connect_timeout=5, **place).close()
        except psycopg.OperationalError:
            return False
        return True

    def is_up(self):
        self.api.wait_until_out(self.settings.namespace, "keycloak")
        return True

    def set_password(self, password):
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(self.role), sql.Literal(password)
        )
        self.postgres.execute(statement.as_string(None))

    @property
    def admin(self):
        """The account that may change roles."""
        place = f"{self.postgres.host}:{self.postgres.port}/{self.role}"
        return f"postgresql://lab@{place}?password_file={self.postgres.password_file}"

    def run(self, options=None, **parameters):
        given = {"workload": "keycloak", **parameters}
        return self.settings.run(NAME, options, **given)

    def undo(self, ended, **parameters):
        return self.settings.undo(ended, NAME, workload="keycloak", **parameters)


def keycloak_on(api, postgres, folder):
    role = f"keycloak{next(NUMBERS)}"
    postgres.create_database(role)
    login = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
        sql.Identifier(role), sql.Literal(RIGHT)
    )
    postgres.execute(login.as_string(None))
    return Keycloak(Settings(api, api.namespace("login"), folder), postgres, role, folder)
