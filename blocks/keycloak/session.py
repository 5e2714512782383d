"""What is asked of a Keycloak and changed in it, logged in once for each session.

Every call passes the gate by its text, which holds no secret: what is sent is filled in on the
wire, and of an answer only a short account is kept. Secrets and tokens that are read become known
to redaction.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, urlencode

import httpx

from blocks.keycloak.answer import (
    KeycloakNotFound,
    Said,
    TokenAnswer,
    TokenOutcome,
    claims_of,
    refuse_error,
    refuse_login,
    token_refused,
)
from blocks.kube.seen import is_telling
from recovery.commands import Call, changing, reading
from recovery.errors import AnswerLost, Unreachable, UnreadableOutput
from recovery.secrecy.secret import MASK, Secret

ANSWER_MAX_BYTES = 4 << 20
LISTED_MAX = 1000
PREFIX = "/auth"  # of WildFly, up to 16, and of a later one with http-relative-path=/auth
FORM, JSON_TYPE = "application/x-www-form-urlencoded", "application/json"


@dataclass(frozen=True)
class LoginForm:
    """Where an admin logs in, and what is sent there; it holds what is secret."""

    realm: str
    who: str
    fields: Mapping[str, Secret | str] = field(repr=False)


@dataclass(frozen=True)
class KeycloakClient:
    """A client of a realm, as far as its secret depends on it."""

    uuid: str
    client_id: str
    is_enabled: bool
    is_public: bool
    has_service_account: bool
    authenticator: str


class KeycloakSession:
    """An open way to one Keycloak. Made by `KeycloakApi.session`."""

    def __init__(self, client: httpx.Client, url: str, login: LoginForm, within: float) -> None:
        self._client, self.url, self._login, self._within = client, url, login, within
        self._base = ""
        self._token: Secret | None = None

    def __enter__(self) -> Self:
        """The session itself; it ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._client.close()

    # -- looks -----------------------------------------------------------------------------------

    def client_named(self, realm: str, client_id: str) -> KeycloakClient | None:
        """The client of this name; `None` where the realm has none.

        Raises:
            KeycloakNotFound: there is no such realm.
            KeycloakLoginRefused, KeycloakPermissionMissing, KeycloakHttpsRequired: see there.
            Unreachable: no answer in time.
        """
        query = urlencode({"clientId": client_id})
        found = self.read(f"/admin/realms/{in_path(realm)}/clients?{query}")
        if not isinstance(found, list):
            raise UnreadableOutput(f"GET /admin/realms/{realm}/clients", type(found).__name__)
        named = [one for one in found if one.get("clientId") == client_id]
        return _client(named[0]) if named else None

    def has_realm(self, realm: str) -> bool:
        """Whether there is such a realm. Others of the errors are those of `client_named`."""
        try:
            self.read(f"/admin/realms/{in_path(realm)}")
        except KeycloakNotFound:
            return False
        return True

    def secret_of(self, realm: str, uuid: str) -> Secret | None:
        """The secret of a client; `None` where it has none. Errors are those of `client_named`."""
        read = self.read(f"{_client_path(realm, uuid)}/client-secret")
        value = read.get("value") if isinstance(read, dict) else None
        return Secret(str(value)) if value else None

    def token_with(self, realm: str, client_id: str, secret: Secret) -> TokenAnswer:
        """Ask for a token as the client itself does; it is thrown away. See `bearer` for one.

        Raises:
            KeycloakNotFound: there is no such realm.
            KeycloakHttpsRequired, CommandFailed, Unreachable: it said neither yes nor no.
        """
        return self._client_token(realm, client_id, secret)[0]

    def bearer(self, realm: str, client_id: str, secret: Secret) -> Secret | None:
        """A token of the client; `None` where its secret is refused. Errors as of `token_with`."""
        return self._client_token(realm, client_id, secret)[1]

    def read(self, path: str) -> Any:
        """What Keycloak has at a path below its root. Errors are those of `client_named`."""
        command = f"GET {path}"
        self._admin()  # by the gate on its own
        with reading(command, self.url) as call:
            said = self._ask("GET", path, command)
            self._heard(call, said)
            return self._json(command, said)

    def listed(self, path: str) -> list[Any]:
        """The first of a list, 1000 at most. Errors are those of `client_named`."""
        found = self.read(f"{path}?{urlencode({'max': LISTED_MAX})}")
        if not isinstance(found, list):
            raise UnreadableOutput(f"GET {path}", type(found).__name__)
        return found

    # -- changes ---------------------------------------------------------------------------------

    def set_secret(self, realm: str, uuid: str, secret: Secret) -> None:
        """Give a client this secret; its text is `set_secret_text`.

        Sent is the whole representation as it was read right before, with the one field changed:
        Keycloak takes the service account or the authorization settings away from a client whose
        representation does not name them.

        Raises:
            AnswerLost: not known whether it was changed.
            KeycloakPermissionMissing, KeycloakNotFound, CommandFailed and the rest: see there.
        """
        command, path = set_secret_text(realm, uuid), _client_path(realm, uuid)
        self._admin()  # by the gate on its own
        with changing(command, self.url) as call:
            whole = self._json(f"GET {path}", self._ask("GET", path, f"GET {path}"))
            if not isinstance(whole, dict) or whole.get("id") != uuid:
                raise UnreadableOutput(f"GET {path}", "no representation of that client")
            body = json.dumps({**whole, "secret": secret.reveal()}).encode()
            self._heard(call, self._ask("PUT", path, command, body))

    # -- below the gate --------------------------------------------------------------------------

    def _client_token(
        self, realm: str, client_id: str, secret: Secret
    ) -> tuple[TokenAnswer, Secret | None]:
        path = _token_path(realm)
        command = f"POST {path} (a token for {client_id} with its secret)"
        form = {"grant_type": "client_credentials", "client_id": client_id}
        with reading(command, self.url) as call:
            sent = urlencode({**form, "client_secret": secret.reveal()}).encode()
            said = self._send("POST", path, command, sent, {"Content-Type": FORM})
            call.exit_code, call.answer = said.status, said.told
            if token_refused(said):
                return TokenAnswer(TokenOutcome.SECRET_REFUSED, f"{said.status} {said.told}"), None
            refuse_error(self.url, command, said)
            read = self._json(command, said)
            token = read.get("access_token") if isinstance(read, dict) else None
            if not isinstance(token, str):
                raise UnreadableOutput(command, said.told)
            given = Secret(token)
            good_for = f"good for {read.get('expires_in')} s"
            issuer = claims_of(token).get("iss")
            call.answer = f"a token, {good_for}" + (f", of {issuer}" if issuer else "")
            return TokenAnswer(TokenOutcome.GIVEN, call.answer), given

    def _heard(self, call: Call, said: Said) -> None:
        content = said.content
        count = f"{len(content)} found" if isinstance(content, list) else ""
        call.exit_code, call.answer = said.status, count or f"status {said.status}"

    def _ask(self, method: str, path: str, command: str, content: bytes | None = None) -> Said:
        """Ask as the admin, and refuse what is no success."""
        login = {"Authorization": f"Bearer {self._admin().reveal()}", "Content-Type": JSON_TYPE}
        said = self._send(method, path, command, content, login)
        refuse_error(self.url, command, said)
        return said

    def _admin(self) -> Secret:
        """The token of the worker's account, got once for the session."""
        if self._token is None:
            path = _token_path(self._login.realm)
            command = f"POST {path} (log in as {self._login.who})"
            with reading(command, self.url) as call:
                revealed = {
                    name: value.reveal() if isinstance(value, Secret) else value
                    for name, value in self._login.fields.items()
                }
                form = urlencode(revealed).encode()
                said = self._send("POST", path, command, form, {"Content-Type": FORM})
                call.exit_code, call.answer = said.status, said.told
                refuse_login(self.url, command, said)
                read = self._json(command, said)
                if not isinstance(read, dict) or not isinstance(read.get("access_token"), str):
                    raise UnreadableOutput(command, said.told)
                call.answer = "logged in"
                self._token = Secret(read["access_token"])
        return self._token

    def _root(self) -> str:
        """Where its paths begin: at the address that was given, or below or above its /auth."""
        if self._base:
            return self._base
        given = self.url.rstrip("/")
        other = given.removesuffix(PREFIX) if given.endswith(PREFIX) else given + PREFIX
        if not self._is_root(given) and not self._is_root(other, is_last=True):
            raise UnreadableOutput(f"GET {given}/realms", "an answer that is none of Keycloak")
        return self._base

    def _is_root(self, base: str, *, is_last: bool = False) -> bool:
        """Whether the realm of the log-in is told here, which needs no log-in."""
        url = f"{base}/realms/{in_path(self._login.realm)}"
        with reading(f"GET {url}", self.url) as call:
            said = self._exchange("GET", url, call.command, None, {})
            content = said.content
            is_it = isinstance(content, dict) and "realm" in content
            call.exit_code, call.answer = said.status, "the realm" if is_it else said.told
            if is_it:
                self._base = base
            elif is_last or said.status != httpx.codes.NOT_FOUND:
                refuse_error(self.url, call.command, said)
        return is_it

    def _send(
        self, method: str, path: str, command: str, content: bytes | None, headers: dict[str, str]
    ) -> Said:
        return self._exchange(method, self._root() + path, command, content, headers)

    def _exchange(
        self, method: str, url: str, command: str, content: bytes | None, headers: dict[str, str]
    ) -> Said:
        ends = time.monotonic() + self._within
        kind: type[Unreachable] = AnswerLost if method == "PUT" else Unreachable
        try:
            with self._client.stream(method, url, content=content, headers=headers) as answer:
                received = bytearray()
                for chunk in answer.iter_bytes():
                    received += chunk
                    if time.monotonic() > ends or len(received) > ANSWER_MAX_BYTES:
                        seen = f"the answer did not end ({len(received)} bytes came)"
                        raise kind(self.url, command, seen)
        except httpx.TransportError as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                kind = Unreachable
            is_slow = isinstance(error, httpx.TimeoutException)
            seen = f"silent for {self._within:g} s" if is_slow else str(error)
            raise kind(self.url, command, seen or type(error).__name__) from None
        return Said(answer.status_code, received.decode(errors="replace"))

    def _json(self, command: str, said: Said) -> Any:
        content = said.content
        if content is None:
            raise UnreadableOutput(command, said.told)
        for one in content if isinstance(content, list) else [content]:
            _learn(one)
        return content


def set_secret_text(realm: str, uuid: str) -> str:
    """What `KeycloakSession.set_secret` sends, as plans and evidence show it."""
    return f'PUT {_client_path(realm, uuid)} {{"secret":"{MASK}"}} (the rest as read)'


def _client(read: Mapping[str, Any]) -> KeycloakClient:
    return KeycloakClient(
        str(read["id"]),
        str(read["clientId"]),
        bool(read.get("enabled", True)),
        bool(read.get("publicClient") or read.get("bearerOnly")),
        bool(read.get("serviceAccountsEnabled")),
        str(read.get("clientAuthenticatorType") or "client-secret"),
    )


def _learn(read: Any) -> None:
    """Make what is secret in a representation known to redaction."""
    for name in ("secret", "registrationAccessToken"):
        value = read.get(name) if isinstance(read, dict) else None
        if isinstance(value, str) and is_telling(value):
            Secret(value)


def _token_path(realm: str) -> str:
    return f"/realms/{in_path(realm)}/protocol/openid-connect/token"


def _client_path(realm: str, uuid: str) -> str:
    return f"/admin/realms/{in_path(realm)}/clients/{in_path(uuid)}"


def in_path(part: str) -> str:
    """A name as part of a path."""
    return quote(part, safe="")
