"""The admin API of a Keycloak, as a block: where it is and where its credentials lie."""

import ssl
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
from prefect.blocks.core import Block
from pydantic import Field, ValidationError, field_validator, model_validator

from blocks.keycloak.session import KeycloakSession, LoginForm
from blocks.saved import saved_block
from blocks.ssh.credentials import secret_from
from recovery.errors import BadInput
from recovery.forms import Saved
from recovery.secrecy.secret import Secret

SHAPE = "Write https://USER@HOST:PORT/auth?password_file=/path/on/the/worker"
OPTIONS = (
    "password_file", "password_env", "client", "client_secret_file", "client_secret_env",
    "login_realm", "ca_file",
)  # fmt: skip
PATHS = ("password_file", "client_secret_file", "ca_file")


class KeycloakApi(Block):
    """A Keycloak and the references to what logs in to it; no secret is kept in the block itself.

    Either a user logs in, by default to the realm master through admin-cli, or a client with a
    service account. The address is that of any release: with and without /auth is found out.

    Example:
        ```python
        keycloak = KeycloakApi.from_url("https://admin@sso.lab/auth?password_file=/run/keys/sso")
        with keycloak.session() as session:
            print(session.client_named("divoc", "admin-api"))
        ```
    """

    _block_type_name: ClassVar[str | None] = "Keycloak API"
    _block_type_slug: ClassVar[str | None] = "keycloak-api"
    _description: ClassVar[str | None] = (
        "The admin API of a Keycloak. Holds references to credentials on the worker (files, "
        "environment variables), never the credentials."
    )

    url: str = Field(description="Where Keycloak answers, with or without its /auth.")
    user: str = Field(default="", description="Who logs in; empty: the client itself.")
    password_file: Path | None = None
    password_env: str | None = None
    client: str = Field(default="admin-cli", description="The client that is logged in through.")
    client_secret_file: Path | None = None
    client_secret_env: str | None = None
    login_realm: str = Field(default="master", description="The realm of that account.")
    ca_file: Path | None = Field(default=None, description="Its certificate authority, in PEM.")
    within_seconds: float = Field(default=20, gt=0, description="For one request and its answer.")

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
        passwords = [one for one in (self.password_file, self.password_env) if one is not None]
        secrets = [
            one for one in (self.client_secret_file, self.client_secret_env) if one is not None
        ]
        if len(passwords) > 1 or len(secrets) > 1:
            raise ValueError("name a file or an environment variable, not both")
        if bool(self.user) != bool(passwords):
            raise ValueError("a user and the reference to its password belong together")
        if not self.user and not secrets:
            raise ValueError("name a user with a password, or a client with its secret")
        return self

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `https://user@host/auth?password_file=…` or `https://host?client=…&client_secret_file=…`.

        Options: `password_file`, `password_env`, `client`, `client_secret_file`,
        `client_secret_env`, `login_realm`, `ca_file`.

        Raises:
            BadInput: a part is missing, malformed or unknown, or there is a password in it.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:  # its text may hold a password with a slash in it
            raise BadInput("Keycloak URL", "it has no valid port", SHAPE) from None
        if parts.password is not None:
            raise BadInput(
                "password", "there is one in the URL", "Name password_file=/path instead"
            )
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        place = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
        fields = {"url": place, "user": unquote(parts.username or "")}
        for name, value in parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True):
            if name not in OPTIONS or not value or name in fields:
                known = ", ".join(OPTIONS)
                seen = f"the option {name!r} is not known, empty or given twice"
                raise BadInput("Keycloak URL", seen, f"Known: {known}")
            if name in PATHS and not value.startswith("/"):
                raise BadInput(name, f"{value!r} is not an absolute path", "Start it with /")
            fields[name] = value
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(map(str, first["loc"])) or "Keycloak URL"
            raise BadInput(at, first["msg"].removeprefix("Value error, "), SHAPE) from None

    @classmethod
    def named(cls, given: str, field: str = "keycloak") -> Self:
        """Read a parameter: an http or https URL, or the name of a saved block of this kind.

        Raises:
            BadInput: the URL is malformed, or there is no such block.
        """
        if "://" not in given:
            return saved_block(cls, given, field, SHAPE.removeprefix("Write "))
        try:
            return cls.from_url(given)
        except BadInput as wrong:
            raise BadInput(f"{field} ({wrong.field})", wrong.seen, wrong.remedy) from None

    @property
    def label(self) -> str:
        """The Keycloak as it is named everywhere: no user, no secret."""
        return self.url

    def session(self) -> KeycloakSession:
        """Open a session; use it as a context manager. It logs in when it is first asked.

        Raises:
            BadInput: a credential or the authority cannot be read.
        """
        try:
            trusted = _trusted(str(self.ca_file) if self.ca_file else "")
        except OSError as error:
            remedy = "Name a file that holds the authority in PEM"
            raise BadInput(str(self.ca_file), str(error), remedy) from None
        login = self._login()
        client = httpx.Client(
            verify=trusted,
            timeout=self.within_seconds,
            trust_env=False,
            follow_redirects=False,  # a login sent elsewhere is a login given away
        )
        return KeycloakSession(client, self.url, login, self.within_seconds)

    def _login(self) -> LoginForm:
        secret = secret_from(self.client_secret_file, self.client_secret_env)
        fields: dict[str, Secret | str] = {"client_id": self.client}
        if secret is not None:
            fields["client_secret"] = secret
        if not self.user:
            fields["grant_type"] = "client_credentials"
            return LoginForm(self.login_realm, f"client {self.client}", fields)
        password = secret_from(self.password_file, self.password_env)
        fields |= {"grant_type": "password", "username": self.user, "password": password or ""}
        return LoginForm(self.login_realm, self.user, fields)


@cache  # to read all authorities of the system takes longer than most requests
def _trusted(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context()


KeycloakParameter = Annotated[str, Saved(KeycloakApi)]
