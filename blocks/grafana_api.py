"""The HTTP API of a Grafana, as a block: where it is and where its credentials lie."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote, unquote, urlsplit

import httpx
from prefect.blocks.core import Block
from pydantic import Field, ValidationError, field_validator, model_validator

from blocks.ssh_connection import AnswerLost
from blocks.ssh_credentials import secret_from
from recovery.commands import changing, reading
from recovery.errors import BadInput, CommandFailed, Unreachable, UnreadableOutput

ANSWER_MAX_BYTES = 64 << 20  # a dashboard of half a megabyte is known; this is far above
SHOWN_CHARACTERS = 500
GONE_FOR_NOW = {429, 502, 503, 504}
REDIRECTS = range(300, 400)
URL_OPTIONS = (
    "token_file",
    "token_env",
    "password_file",
    "password_env",
    "ca_file",
    "org_id",
)


class GrafanaLoginRefused(CommandFailed):
    """Grafana, or a sign-in in front of it, let the credentials not in. Fields as CommandFailed."""


class GrafanaPermissionMissing(CommandFailed):
    """The account may not do this. Fields as of CommandFailed."""


class GrafanaConflict(CommandFailed):
    """Something of this uid, name or version is there already. Fields as of CommandFailed."""


class GrafanaNotFound(CommandFailed):
    """Nothing of this uid is there. Fields as of CommandFailed."""


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
        except ValueError as error:
            raise BadInput("Grafana URL", str(error), usage) from error
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
        with reading(command, self.target) as call:
            status, text = self._ask("GET", path, None, is_anonymous=is_anonymous)
            call.answer, call.exit_code = text, status
            return self._read(command, status, text, accept)

    def post(self, path: str, body: Mapping[str, Any], *, note: str) -> Any:
        """Send a change and return what the API answers, read from JSON.

        Args:
            path: below the URL of the block.
            body: sent as JSON; the plan shows its hash.
            note: what the body holds, for the plan and the evidence.

        Raises:
            GrafanaConflict: 409 or 412.
            AnswerLost: it was sent, and no answer came: it may have taken effect.
            Unreachable and the rest: as of `get`.
        """
        content, command = self._posted(path, body, note)
        with changing(command, self.target) as call:
            status, text = self._ask("POST", path, content, is_anonymous=False)
            call.answer, call.exit_code = text, status
            return self._read(command, status, text, (200,))

    def post_command(self, path: str, body: Mapping[str, Any], *, note: str) -> str:
        """What `post` will send, as the plan and the evidence show it."""
        return self._posted(path, body, note)[1]

    def _posted(self, path: str, body: Mapping[str, Any], note: str) -> tuple[bytes, str]:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        digest = hashlib.sha256(content).hexdigest()
        return content, f"POST {self.url}{path} ({note}, sha256 {digest})"

    def _ask(
        self, method: str, path: str, content: bytes | None, *, is_anonymous: bool
    ) -> tuple[int, str]:
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
            kind = AnswerLost if method == "POST" and has_left else Unreachable
            raise kind(self.target, command, seen or type(error).__name__) from error
        text = received.decode(errors="replace")
        self._refuse_login_page(command, answer)
        return answer.status_code, text

    def _client(self, *, is_anonymous: bool) -> httpx.Client:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self.org_id is not None:
            headers["X-Grafana-Org-Id"] = str(self.org_id)
        login: httpx.BasicAuth | None = None
        token = secret_from(self.token_file, self.token_env)
        password = secret_from(self.password_file, self.password_env)
        if not is_anonymous and token is not None:
            headers["Authorization"] = f"Bearer {token.reveal().strip()}"
        elif not is_anonymous and password is not None:
            login = httpx.BasicAuth(self.user, password.reveal())
        verify = True if self.ca_file is None else httpx.create_ssl_context(str(self.ca_file))
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

    def _read(self, command: str, status: int, text: str, accept: tuple[int, ...]) -> Any:
        if status in GONE_FOR_NOW and status not in accept:
            raise Unreachable(self.target, command, f"status {status}: {said_in(text)}")
        if status not in accept:
            kind, remedy = REFUSALS.get(status, (CommandFailed, ""))
            if status == httpx.codes.NOT_FOUND and is_about_a_thing(text):
                kind = GrafanaNotFound
            raise kind(self.target, command, status, said_in(text), remedy)
        try:
            return json.loads(text)
        except ValueError as error:
            raise UnreadableOutput(command, text) from error


REFUSALS: dict[int, tuple[type[CommandFailed], str]] = {
    400: (CommandFailed, "Correct what it names, then resume"),
    401: (
        GrafanaLoginRefused,
        "Give a token that is valid in this organisation; basic authentication may be switched off",
    ),
    403: (
        GrafanaPermissionMissing,
        "Give the service account the role Editor, or the permission it names, then resume",
    ),
    404: (CommandFailed, "Check the URL, and its sub-path: this may not be a Grafana at all"),
    409: (GrafanaConflict, "Look at what is there, then choose another uid or title"),
    412: (
        GrafanaConflict,
        "Look at what is there; order overwriting only if the file is to win, then resume",
    ),
    500: (CommandFailed, "Read the log of Grafana: it is often its database; then resume"),
}


def said_in(text: str) -> str:
    """The message and status in an error answer of Grafana, else the start of the text."""
    try:
        said = json.loads(text)
        parts = [str(said[name]) for name in ("status", "message") if said.get(name)]
    except (ValueError, AttributeError):
        return text.strip()[:SHOWN_CHARACTERS]
    return ": ".join(parts)[:SHOWN_CHARACTERS] or text.strip()[:SHOWN_CHARACTERS]


def is_about_a_thing(text: str) -> bool:
    """Whether a 404 says that a dashboard or folder is missing, rather than the whole address.

    Grafana 11 says `Dashboard not found` and `folder not found`, and `Not found` to an address it
    does not know; a proxy in front says something else.
    """
    said = said_in(text).lower()
    return "not found" in said and any(thing in said for thing in ("dashboard", "folder"))


def in_path(part: str) -> str:
    """A uid as part of a path."""
    return quote(part, safe="")
