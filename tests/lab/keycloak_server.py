"""A stand-in for Keycloak: realms, clients with secrets and their tokens, kept in memory.

Keycloak is a Java server that is not installable everywhere the tests run. This answers the few
requests that the project makes in the status and shape of the real one, also where that is odd: a
client whose representation is put back without `serviceAccountsEnabled` loses its service account.
`tests/integration/test_keycloak_contract.py` holds for both. Faults are set on it from outside.
"""

import base64
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.lab.ports import LOOPBACK
from tests.lab.processes import made_up_password

WITH_PREFIX, WITHOUT_PREFIX = "/auth", ""  # up to 16, and from 17 on
MASKED = "**********"
ADMIN = "admin"
SERVICE = "/service/ping"  # of a service of the platform that wants a token of this Keycloak


@dataclass(frozen=True)
class Reply:
    """An answer: status, and a body as JSON; `None` is none."""

    status: int
    body: Any = None


NO_RESOURCE = Reply(404, {"error": "HTTP 404 Not Found"})


@dataclass
class StandInKeycloak:
    """What the stand-in holds, and the faults it shows."""

    prefix: str = WITH_PREFIX
    port: int = 0
    password: str = field(default_factory=made_up_password)
    realms: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {"master": {}})
    # By realm and role; a role of a client is written uuid/role.
    role_users: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    role_groups: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # ids of groups
    role_holds: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # other roles
    group_members: dict[str, list[str]] = field(default_factory=dict)  # by id
    groups_below: dict[str, list[str]] = field(default_factory=dict)  # by id
    tokens: dict[str, str] = field(default_factory=dict)  # to whom each was given
    secrets_set: list[str] = field(default_factory=list)  # every one that a change brought
    requests: list[str] = field(default_factory=list)
    may_manage: bool = True  # the admin has manage-clients, else only view-clients
    wants_https: bool = False
    loses_answers: bool = False  # does the next change that is asked, then hangs up, once
    is_away: bool = False
    service_knows_nobody: bool = False  # the service behind it answers 401 to everybody

    @property
    def url(self) -> str:
        """Where it answers, with its prefix."""
        return f"http://{LOOPBACK}:{self.port}{self.prefix}"

    def answer(self, method: str, path: str, login: str, content: str) -> Reply:
        """Return what Keycloak answers to a request."""
        parts = urlsplit(path)
        if parts.path == SERVICE:
            is_known = login.removeprefix("Bearer ") in self.tokens
            return Reply(200 if is_known and not self.service_knows_nobody else 401, {})
        if not parts.path.startswith(f"{self.prefix}/") or self.is_away:
            return Reply(503, {}) if self.is_away else NO_RESOURCE
        names = [unquote(one) for one in parts.path.removeprefix(self.prefix).split("/")[1:]]
        if names[0] == "realms" and len(names) > 1:
            return self._of_realm(method, names, content)
        if names[:2] != ["admin", "realms"]:
            return NO_RESOURCE
        if self.tokens.get(login.removeprefix("Bearer ")) != ADMIN:
            return Reply(401, {"error": "HTTP 401 Unauthorized"})
        return self._administered(method, names[2:], parse_qs(parts.query), content)

    def _of_realm(self, method: str, names: list[str], content: str) -> Reply:
        realm = names[1]
        if realm not in self.realms:
            return Reply(404, {"error": "Realm does not exist"})
        if len(names) == 2:
            return Reply(200, {"realm": realm, "public_key": "MIIB", "tokens-not-before": 0})
        if method == "POST" and names[2:] == ["protocol", "openid-connect", "token"]:
            if self.wants_https:
                return _oauth_error(403, "invalid_request", "HTTPS required")
            given = {name: values[0] for name, values in parse_qs(content).items()}
            return self._token(realm, given)
        return NO_RESOURCE

    def _token(self, realm: str, given: dict[str, str]) -> Reply:
        if given.get("grant_type") == "password":
            is_admin = (given.get("username"), given.get("password")) == (ADMIN, self.password)
            if is_admin and realm == "master":
                return self._given(realm, ADMIN, 60)
            return _oauth_error(401, "invalid_grant", "Invalid user credentials")
        client = self.client(given.get("client_id", ""), realm)
        if client is None or given.get("client_secret") != client.get("secret"):
            is_old = self.prefix == WITH_PREFIX
            told = (
                "Invalid client secret"
                if is_old
                else "Invalid client or Invalid client credentials"
            )
            return _oauth_error(401, "unauthorized_client", told)
        if not client.get("serviceAccountsEnabled"):
            told = "Client not enabled to retrieve service account"
            return _oauth_error(401, "unauthorized_client", told)
        return self._given(realm, client["clientId"], 300)

    def _given(self, realm: str, who: str, seconds: int) -> Reply:
        now = int(time.time())
        claims = {"iss": f"{self.url}/realms/{realm}", "azp": who, "iat": now, "exp": now + seconds,
                  "jti": str(uuid.uuid4())}  # fmt: skip
        token = ".".join([_encoded({"alg": "RS256", "typ": "JWT"}), _encoded(claims), "c2ln"])
        self.tokens[token] = who
        return Reply(200, {"access_token": token, "expires_in": seconds, "token_type": "Bearer"})

    def _administered(
        self, method: str, names: list[str], query: dict[str, list[str]], content: str
    ) -> Reply:
        if method == "POST" and not names:
            self.realms[json.loads(content)["realm"]] = {}
            return Reply(201)
        if names[0] not in self.realms:
            return Reply(404, {"error": "Realm not found."})
        if method == "DELETE" and len(names) == 1:
            del self.realms[names[0]]
            return Reply(204)
        if method == "GET" and names[1:2] in ([], ["roles"], ["roles-by-id"], ["groups"]):
            return self._of_roles(names)
        if method == "GET" and names[1] == "clients" and names[3:4] == ["roles"]:
            return self._roles(names[0], f"{names[2]}/", names[4:])
        return self._of_clients(method, names, query, content)

    def _of_roles(self, names: list[str]) -> Reply:
        match names:
            case [realm]:
                return Reply(200, {"realm": realm})
            case [realm, "roles", *rest]:
                return self._roles(realm, "", rest)
            case [realm, "roles-by-id", key, "composites"] if (realm, key) in self.role_users:
                held = self.role_holds.get((realm, key), [])
                return Reply(200, [self._role(realm, one) for one in held])
            case [_, "groups", key, *rest]:
                return self._group(key, rest)
        return Reply(404, {"error": "Could not find role"})

    def _roles(self, realm: str, of: str, rest: list[str]) -> Reply:
        """The roles of the realm, or `of` a client."""
        keys = [
            key
            for its, key in self.role_users
            if its == realm and key.rpartition("/")[0] == of.rstrip("/")
        ]
        if not rest:
            return Reply(200, [self._role(realm, key) for key in keys])
        at = (realm, of + rest[0])
        match rest[1:]:
            case _ if at not in self.role_users:
                pass
            case []:
                return Reply(200, self._role(*at))
            case ["users"]:
                users = self.role_users[at]
                return Reply(200, [{"username": name, "enabled": True} for name in users])
            case ["groups"]:
                return Reply(200, [{"id": one} for one in self.role_groups.get(at, [])])
        return Reply(404, {"error": "Could not find role"})

    def _role(self, realm: str, key: str) -> dict[str, Any]:
        is_composite = (realm, key) in self.role_holds
        return {"id": key, "name": key.rpartition("/")[2], "composite": is_composite}

    def _group(self, key: str, rest: list[str]) -> Reply:
        below = [{"id": one} for one in self.groups_below.get(key, [])]
        is_later = not self.prefix  # they come on their own there
        match rest:
            case ["members"]:
                names = self.group_members.get(key, [])
                return Reply(200, [{"username": name, "enabled": True} for name in names])
            case ["children"] if is_later:
                return Reply(200, below)
            case []:
                told = {"subGroups": [], "subGroupCount": len(below)}
                return Reply(200, {"id": key, **(told if is_later else {"subGroups": below})})
        return Reply(404, {"error": "Could not find group"})

    def _of_clients(
        self, method: str, names: list[str], query: dict[str, list[str]], content: str
    ) -> Reply:
        clients = self.realms[names[0]]
        match method, names[1:]:
            case "GET", ["clients"]:
                wanted = query.get("clientId", [""])[0]
                found = [one for one in clients.values() if wanted in {"", one["clientId"]}]
                return Reply(200, [self._shown(one) for one in found])
            case "POST", ["clients"]:
                body = json.loads(content)
                key = str(uuid.uuid4())
                usual = {"enabled": True, "clientAuthenticatorType": "client-secret",
                         "secret": made_up_password(), "attributes": {}}  # fmt: skip
                clients[key] = {**usual, **body, "id": key}
                return Reply(201)
            case _, ["clients", key, *rest] if key in clients:
                return self._client(method, clients[key], rest, content)
        return Reply(404, {"error": "Could not find client"})

    def _client(self, method: str, client: dict[str, Any], rest: list[str], content: str) -> Reply:
        forbidden = Reply(403, {"error": "HTTP 403 Forbidden"})
        match method, rest:
            case "GET", []:
                return Reply(200, self._shown(client))
            case _ if not self.may_manage:
                return forbidden
            case "GET", ["client-secret"]:
                return Reply(200, {"type": "secret", "value": client.get("secret")})
            case "POST", ["client-secret"]:
                self._keep(client, {"secret": made_up_password()})
                return Reply(200, {"type": "secret", "value": client["secret"]})
            case "PUT", []:
                body = json.loads(content)
                self._keep(client, {"serviceAccountsEnabled": False, **body})
                return Reply(204)
        return NO_RESOURCE

    def _keep(self, client: dict[str, Any], body: dict[str, Any]) -> None:
        if "secret" in body and body["secret"] != client.get("secret"):
            self.secrets_set.append(body["secret"])
        client.update(body)

    def _shown(self, client: dict[str, Any]) -> dict[str, Any]:
        return client if self.may_manage else {**client, "secret": MASKED}

    def client(self, client_id: str, realm: str = "divoc") -> dict[str, Any] | None:
        """The client of this name, as it is kept; `None` where there is none."""
        found = self.realms.get(realm, {}).values()
        return next((one for one in found if one["clientId"] == client_id), None)


def _oauth_error(status: int, error: str, told: str) -> Reply:
    return Reply(status, {"error": error, "error_description": told})


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


@contextlib.contextmanager
def stand_in_keycloak(prefix: str = WITH_PREFIX) -> Iterator[StandInKeycloak]:
    """Run a stand-in Keycloak on a free loopback port until the end of the block."""
    keycloak = StandInKeycloak(prefix)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            keycloak.requests.append(f"{self.command} {self.path}")
            login = self.headers.get("Authorization", "")
            reply = keycloak.answer(self.command, self.path, login, content)
            if keycloak.loses_answers and self.command == "PUT":
                keycloak.loses_answers = False
                self.close_connection = True
                return
            body = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            if body:
                self.send_header("Content-Type", "application/json")
            if reply.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 (as the base class has them)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        server.daemon_threads = True
        keycloak.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield keycloak
        finally:
            server.shutdown()
