"""A Keycloak for tests: the stand-in, or a real one that a test run is pointed at.

    RECOVER_TEST_KEYCLOAK='http://admin@localhost:8080?password_file=/path' make test

A realm of the test's own is made on it, and removed at the end.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx

from tests.lab.keycloak_server import ADMIN, StandInKeycloak, stand_in_keycloak
from tests.lab.processes import write_secret

REAL_ONE = "RECOVER_TEST_KEYCLOAK"
REALM, CLIENT = "divoc", "admin-api"


@dataclass
class LabKeycloak:
    """What tests do with a Keycloak: make realms and clients there, and look at them."""

    url: str  # where it answers, with its prefix
    user: str
    password: str
    password_file: Path
    standin: StandInKeycloak | None = None

    @property
    def parameter(self) -> str:
        """The keycloak parameter of a recovery."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{quote(self.user)}@{rest}?password_file={self.password_file}"

    def make(self, realm: str = REALM, client_id: str = CLIENT, **client: object) -> None:
        """Make a realm with a client, which has a service account unless told otherwise."""
        self._asked("POST", "/admin/realms", {"realm": realm, "enabled": True})
        body = {"clientId": client_id, "protocol": "openid-connect", "publicClient": False,
                "serviceAccountsEnabled": True, "attributes": {"lab.owner": "divoc"}}  # fmt: skip
        self._asked("POST", f"/admin/realms/{realm}/clients", {**body, **client})

    def remove(self, realm: str = REALM) -> None:
        self._asked("DELETE", f"/admin/realms/{realm}")

    def client(self, realm: str = REALM, client_id: str = CLIENT) -> dict:
        return self._asked("GET", f"/admin/realms/{realm}/clients?clientId={client_id}")[0]

    def secret(self, realm: str = REALM, client_id: str = CLIENT) -> str:
        key = self.client(realm, client_id)["id"]
        return self._asked("GET", f"/admin/realms/{realm}/clients/{key}/client-secret")["value"]

    def gives_token(self, secret: str, realm: str = REALM, client_id: str = CLIENT) -> bool:
        """Whether a service that has this secret gets a token."""
        form = {"grant_type": "client_credentials", "client_id": client_id}
        path = f"/realms/{realm}/protocol/openid-connect/token"
        answer = httpx.post(self.url + path, data={**form, "client_secret": secret})
        return answer.status_code == httpx.codes.OK

    def _asked(self, method: str, path: str, body: object = None) -> object:
        form = {"grant_type": "password", "client_id": "admin-cli"}
        login = {**form, "username": self.user, "password": self.password}
        token = httpx.post(
            f"{self.url}/realms/master/protocol/openid-connect/token", data=login
        ).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        answer = httpx.request(method, self.url + path, content=content, headers=headers)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@contextlib.contextmanager
def lab_keycloak(directory: Path, prefix: str) -> Iterator[LabKeycloak]:
    """A stand-in of one of the two generations."""
    directory.mkdir(parents=True, exist_ok=True)
    with stand_in_keycloak(prefix) as standin:
        file = directory / "keycloak.password"
        write_secret(file, standin.password)
        yield LabKeycloak(standin.url, ADMIN, standin.password, file, standin)


def real_keycloak() -> LabKeycloak:
    """The real one that this run is pointed at."""
    parts = urlsplit(os.environ[REAL_ONE])
    file = Path(parse_qs(parts.query)["password_file"][0])
    place = f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
    return LabKeycloak(place, parts.username or ADMIN, file.read_text().strip(), file)
