"""The HTTP API of a Grafana, as a block: where it is and where its credentials lie."""

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote, unquote, urlsplit

import httpx
from prefect.blocks.core import Block
from pydantic import Field, ValidationError, field_validator, model_validator

from blocks.grafana.answer import GrafanaAnswer, GrafanaLoginRefused, learn_secrets
from blocks.ssh.connection import AnswerLost
from blocks.ssh.credentials import secret_from
from recovery.commands import changing, reading
from recovery.errors import BadInput, CommandFailed, Unreachable, UnreadableOutput
from recovery.secrecy.secret import Secret

ANSWER_MAX_BYTES = 64 << 20  # a dashboard of half a megabyte is known; this is far above
REDIRECTS = range(300, 400)
URL_OPTIONS = (
    "token_file",
    "token_env",
    "password_file",
    "password_env",
    "ca_file",
    "org_id",
)


@dataclass(frozen=True)
class GrafanaHealth:
    """What Grafana says of itself without a login."""

    version: str
    database: str

    @property
    def is_database_ok(self) -> bool:
        """Whether it reaches its database."""
        return self.database == "ok"


@dataclass(frozen=True)
class GrafanaOrganisation:
    """The organisation that the credentials act in."""

    org_id: int
    name: str


class GrafanaApi(Block):
    """A Grafana and the references to what logs in to it; no secret is kept in the block itself.

    A service-account token is preferred (an API key up to Grafana 9): basic authentication is
    switched off where a proxy signs people in.

    Example:
        ```python
        grafana = GrafanaApi(url="https://grafana.lab", token_file="/run/keys/grafana")
        print(grafana.health().version)
        ```
    """

    _block_type_name: ClassVar[str | None] = "Grafana API"
    _block_type_slug: ClassVar[str | None] = "grafana-api"
    _description: ClassVar[str | None] = (
        "The HTTP API of a Grafana. Holds references to credentials on the worker (files, "
        "environment variables), never the credentials."
    )

    url: str = Field(description="Where Grafana answers, with its sub-path if it has one.")
    user: str = Field(default="", description="For basic authentication only.")
    token_file: Path | None = Field(default=None, description="A service-account token.")
    token_env: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    org_id: int | None = Field(default=None, description="None: the one of the credentials.")
    ca_file: Path | None = Field(default=None, description="Its certificate authority, in PEM.")
    within_seconds: float = Field(default=30, gt=0, description="For one request and its answer.")

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("it is no http or https URL")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("it holds more than scheme, host, port and path")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        is_basic = self.password_file is not None or self.password_env is not None
        if is_basic == (self.token_file is not None or self.token_env is not None):
            raise ValueError(
                "name either a token or a user with a password, by file or environment"
            )
        if is_basic and not self.user:
            raise ValueError("name the user that the password is for")
        return self

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `https://grafana:3000/path?token_file=…` or `http://user@host?password_file=…`.

        Options: `token_file`, `token_env`, `password_file`, `password_env`, `ca_file`, `org_id`.

        Raises:
            BadInput: it is no such URL; says which part is wrong.
        """
        usage = (
            "Write it as https://host:port/path?token_file=… or http://user@host?password_file=…"
        )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # its text may hold a password with a slash in it
            raise BadInput("Grafana URL", "it has no valid port", usage) from None
        if parts.password is not None:
            raise BadInput(
                "Grafana URL", "it holds a password", "Name a file with ?password_file=… instead"
            )
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        place = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
        fields = {"url": place, "user": unquote(parts.username or "")}
        for option in filter(None, parts.query.split("&")):
            name, _, value = option.partition("=")
            if name not in URL_OPTIONS or not value:
                known = ", ".join(URL_OPTIONS)
                raise BadInput(
                    "Grafana URL", f"unknown or empty option {name!r}", f"Known: {known}"
                )
            fields[name] = unquote(value)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            at = ", ".join(str(part) for part in ("Grafana URL", *first["loc"]))
            raise BadInput(at, first["msg"], usage) from error

    @property
    def target(self) -> str:
        """The name of this Grafana in messages and evidence."""
        return self.url

    def health(self) -> GrafanaHealth:
        """What it says of itself and its database; needs no login.

        Raises:
            Unreachable: no answer, or none within the time.
            UnreadableOutput: something else than a Grafana answered.
        """
        # 503 is an answer here: Grafana runs, its database does not.
        said = self.get("/api/health", accept=(200, 503), is_anonymous=True)
        if not isinstance(said, dict) or not isinstance(said.get("database"), str):
            raise UnreadableOutput(f"GET {self.url}/api/health", json.dumps(said))
        return GrafanaHealth(str(said.get("version", "")), said["database"])

    def organisation(self) -> GrafanaOrganisation:
        """The organisation the credentials act in; proof that the login works.

        Raises:
            GrafanaLoginRefused: the credentials are wrong, or something in front asks for others.
            Unreachable: as of `health`.
        """
        said = self.get("/api/org")
        try:
            return GrafanaOrganisation(int(said["id"]), str(said["name"]))
        except (TypeError, KeyError, ValueError) as error:
            raise UnreadableOutput(f"GET {self.url}/api/org", json.dumps(said)) from error

    def get(
        self, path: str, *, accept: tuple[int, ...] = (200,), is_anonymous: bool = False
    ) -> Any:
        """Return what the API answers to a GET, read from JSON.

        Raises:
            Unreachable: no answer, a gateway's, or none within the time; asking again may help.
            GrafanaLoginRefused: 401, or a redirect or page of a login.
            GrafanaPermissionMissing: 403.
            GrafanaNotFound: 404.
            CommandFailed: another status.
            UnreadableOutput: it was no JSON.
        """
        command = f"GET {self.url}{path}"
        answer = self.answer(path, is_anonymous=is_anonymous)
        return answer.read_as_asked(self.target, command, accept)

    def answer(self, path: str, *, is_anonymous: bool = False) -> GrafanaAnswer:
        """Return what the API answers to a GET, whatever its status.

        Raises:
            Unreachable: no answer, or none within the time.
            GrafanaLoginRefused: a redirect or page of a login.
        """
        with reading(f"GET {self.url}{path}", self.target) as call:
            answer = self._ask("GET", path, None, is_anonymous=is_anonymous)
            call.answer, call.exit_code = answer.text, answer.status
            return answer

    def ask_by_post(self, path: str, body: Mapping[str, Any], *, note: str) -> GrafanaAnswer:
        """Return what the API answers to a question that is too long for a GET; it changes nothing.

        Errors are those of `answer`.
        """
        content, command = self._sent("POST", path, body, note)
        with reading(command, self.target) as call:
            answer = self._ask("POST", path, content, is_anonymous=False)
            call.answer, call.exit_code = answer.text, answer.status
            return answer

    def post(self, path: str, body: Mapping[str, Any], *, note: str) -> Any:
        """Send a change and return what the API answers, read from JSON; see `send`."""
        return self.send("POST", path, body, note=note)

    def post_command(self, path: str, body: Mapping[str, Any], *, note: str) -> str:
        """What `post` will send, as the plan and the evidence show it."""
        return self.command("POST", path, body, note=note)

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, note: str = ""
    ) -> Any:
        """Send a change and return what the API answers, read from JSON.

        Args:
            method: POST, PUT or DELETE.
            path: below the URL of the block.
            body: sent as JSON; a `Secret` in it is written out on the wire alone.
            note: what the body holds, for the plan and the evidence, which then show its hash;
                without a note they show the body itself.

        Raises:
            GrafanaConflict: 409 or 412.
            AnswerLost: it was sent, and no answer came: it may have taken effect.
            Unreachable and the rest: as of `get`.
        """
        content, command = self._sent(method, path, body, note)
        with changing(command, self.target) as call:
            answer = self._ask(method, path, content, is_anonymous=False)
            call.answer, call.exit_code = answer.text, answer.status
            return answer.read_as_asked(self.target, command, (200,))

    def command(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, note: str = ""
    ) -> str:
        """What `send` will send, as the plan and the evidence show it."""
        return self._sent(method, path, body, note)[1]

    def _sent(
        self, method: str, path: str, body: Mapping[str, Any] | None, note: str
    ) -> tuple[bytes | None, str]:
        command = f"{method} {self.url}{path}"
        if body is None:
            return None, command
        shown = json.dumps(body, ensure_ascii=False, allow_nan=False, default=str)
        content = json.dumps(body, ensure_ascii=False, allow_nan=False, default=_revealed).encode()
        if not note:
            return content, f"{command} {shown}"
        # The hash of what is shown, not of what is sent: that of a secret helps to guess it.
        return content, f"{command} ({note}, sha256 {sha256(shown.encode()).hexdigest()})"

    def _ask(
        self, method: str, path: str, content: bytes | None, *, is_anonymous: bool
    ) -> GrafanaAnswer:
        command = f"{method} {self.url}{path}"
        ends = time.monotonic() + self.within_seconds
        try:
            with (
                self._client(is_anonymous=is_anonymous) as client,
                client.stream(method, self.url + path, content=content) as answer,
            ):
                received = bytearray()
                for chunk in answer.iter_bytes():  # httpx limits the wait for each, not the sum
                    received += chunk
                    if time.monotonic() > ends or len(received) > ANSWER_MAX_BYTES:
                        kind = Unreachable if method == "GET" else AnswerLost
                        raise kind(
                            self.target,
                            command,
                            f"the answer did not end ({len(received)} bytes came)",
                        )
        except httpx.TransportError as error:
            is_slow = isinstance(error, httpx.TimeoutException)
            seen = f"silent for {self.within_seconds:g} s" if is_slow else str(error)
            has_left = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            kind = AnswerLost if method != "GET" and has_left else Unreachable
            raise kind(self.target, command, seen or type(error).__name__) from error
        self._refuse_login_page(command, answer)
        text = received.decode(errors="replace")
        learn_secrets(text)
        return GrafanaAnswer(answer.status_code, text)

    def _client(self, *, is_anonymous: bool) -> httpx.Client:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        headers["X-Grafana-NoCache"] = "true"  # else a data source is for 5 s what it was
        if self.org_id is not None:
            headers["X-Grafana-Org-Id"] = str(self.org_id)
        login: httpx.BasicAuth | None = None
        token = secret_from(self.token_file, self.token_env)
        password = secret_from(self.password_file, self.password_env)
        if not is_anonymous and token is not None:
            headers["Authorization"] = f"Bearer {token.reveal().strip()}"
        elif not is_anonymous and password is not None:
            login = httpx.BasicAuth(self.user, password.reveal())
        # Without TLS there is nothing to verify, and to load what is trusted takes a while.
        verify: bool | ssl.SSLContext = self.url.startswith("https:")
        if self.ca_file is not None:
            verify = httpx.create_ssl_context(str(self.ca_file))
        return httpx.Client(
            headers=headers,
            auth=login,
            verify=verify,
            timeout=self.within_seconds,
            follow_redirects=False,  # a login sent elsewhere is a login given away
        )

    def _refuse_login_page(self, command: str, answer: httpx.Response) -> None:
        """Tell a sign-in in front of Grafana from Grafana itself, which answers in JSON."""
        moved_to = answer.headers.get("location", "")
        is_page = "text/html" in answer.headers.get("content-type", "")
        is_moved = answer.status_code in REDIRECTS
        is_login = any(word in moved_to.lower() for word in ("login", "sign", "auth"))
        if is_moved and not is_login:
            raise CommandFailed(
                self.target,
                command,
                answer.status_code,
                f"it points to {moved_to.partition('?')[0] or 'nowhere'}",
                "Give the URL that answers by itself (https? a sub-path?)",
            )
        if is_moved or (is_page and answer.status_code == httpx.codes.OK):
            raise GrafanaLoginRefused(
                self.target,
                command,
                answer.status_code,
                f"a login page answered: {moved_to.partition('?')[0] or 'at this address'}",
                "A sign-in (auth.proxy, OAuth) stands in front: give an address behind it, or let "
                "requests with a service-account token pass",
            )


def _revealed(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{type(value).__name__} has no place in a request")


def in_path(part: str) -> str:
    """A uid as part of a path."""
    return quote(part, safe="")
