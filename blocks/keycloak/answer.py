"""What a Keycloak answers to, told apart by what the operator must do about it.

Its admin API answers errors as `{"error": "…"}` or `{"errorMessage": "…"}`, its token endpoint as
`{"error": "unauthorized_client", "error_description": "Invalid client secret"}`; the words differ
from release to release, the codes hardly do.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from recovery.errors import CommandFailed, Unreachable
from recovery.secrecy.redaction import redacted_head

SHOWN_CHARACTERS = 300
GONE_FOR_NOW = {429, 502, 503, 504}
CLIENT_REFUSED = {"invalid_client", "unauthorized_client"}
HTTPS_REQUIRED = "https required"


class KeycloakLoginRefused(CommandFailed):
    """Keycloak let the credentials of the worker not in. Fields as of CommandFailed."""


class KeycloakPermissionMissing(CommandFailed):
    """The account of the worker may not do this. Fields as of CommandFailed."""


class KeycloakNotFound(CommandFailed):
    """There is no such realm or client, or nothing of Keycloak. Fields as of CommandFailed."""


class KeycloakHttpsRequired(CommandFailed):
    """The realm takes no plain HTTP from this address. Fields as of CommandFailed."""


class TokenOutcome(StrEnum):
    """How a call for a token with a client's own secret ended."""

    GIVEN = "given"
    SECRET_REFUSED = "secret-refused"  # noqa: S105 (no password)


@dataclass(frozen=True)
class TokenAnswer:
    """How a call for a token ended. `told` says what Keycloak said, or for how long it is good."""

    outcome: TokenOutcome
    told: str

    @property
    def is_given(self) -> bool:
        """Whether there was one."""
        return self.outcome is TokenOutcome.GIVEN


@dataclass(frozen=True)
class Said:
    """An answer as it came."""

    status: int
    text: str

    @property
    def content(self) -> Any:
        """Read from JSON; `None` where it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    @property
    def error(self) -> str:
        """The code in an error answer; empty where it has none."""
        content = self.content
        return str(content.get("error", "")) if isinstance(content, dict) else ""

    @property
    def told(self) -> str:
        """What an error answer says, in a line; nothing of an answer that is none is shown."""
        content = self.content
        if not isinstance(content, dict):
            return redacted_head(self.text.strip(), SHOWN_CHARACTERS) or "it said nothing"
        names = ("error", "error_description", "errorMessage")
        parts = [str(content[name]) for name in names if content.get(name)]
        said = redacted_head(": ".join(parts), SHOWN_CHARACTERS)
        return said or f"JSON with {', '.join(sorted(content))}"


def refuse_error(target: str, command: str, said: Said) -> None:
    """Raise what an error answer means.

    Raises:
        Unreachable: a gateway answered, or it asks to be asked later.
        KeycloakLoginRefused, KeycloakPermissionMissing, KeycloakNotFound, KeycloakHttpsRequired,
            CommandFailed: see there.
    """
    if said.status in GONE_FOR_NOW:
        raise Unreachable(target, command, f"status {said.status}: {said.told}")
    if said.status < 300:  # noqa: PLR2004 (the first status that is none of success)
        return
    kind, remedy = REFUSALS.get(said.status, (CommandFailed, "Correct what it names, then resume"))
    if HTTPS_REQUIRED in said.told.lower():
        kind, remedy = KeycloakHttpsRequired, HTTPS_REMEDY
    raise kind(target, command, said.status, said.told, remedy)


def refuse_login(target: str, command: str, said: Said) -> None:
    """Raise what an error answer to the log-in of the worker means.

    Raises:
        KeycloakLoginRefused: the account, its password or the client that logs in is wrong.
        KeycloakHttpsRequired, Unreachable and the rest: as of `refuse_error`.
    """
    is_https = HTTPS_REQUIRED in said.told.lower()
    if said.status in {400, 401, 403} and not is_https:
        raise KeycloakLoginRefused(target, command, said.status, said.told, LOGIN_REMEDY)
    refuse_error(target, command, said)


def token_refused(said: Said) -> bool:
    """Whether an answer says that the client's secret is not the right one.

    Status and code were 400 or 401, `unauthorized_client` up to 23 and `invalid_client` in some
    later releases; the description is "Invalid client secret", or "… client credentials".
    """
    return said.status in {400, 401} and said.error in CLIENT_REFUSED


def claims_of(token: str) -> Mapping[str, Any]:
    """What a JSON web token says; nothing of it is verified, and of what is none it is empty."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 (header, payload, signature)
        return {}
    try:
        read = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


ROLE_REMEDY = (
    "Give the account the role manage-clients of the client realm-management in this realm (of "
    "REALM-realm, for an account of master), then resume"
)
HTTPS_REMEDY = (
    "The realm wants HTTPS from this address (sslRequired): give its https address, or run the "
    "worker where Keycloak sees a private one"
)
LOGIN_REMEDY = (
    "Correct the account or its reference on the worker. A password in the Secret of Keycloak's "
    "pod counts only for an empty database, and too many tries lock an account for a while"
)
REFUSALS: dict[int, tuple[type[CommandFailed], str]] = {
    401: (KeycloakLoginRefused, LOGIN_REMEDY),
    403: (KeycloakPermissionMissing, ROLE_REMEDY),
    404: (KeycloakNotFound, "Check the realm, and the address with or without /auth"),
    500: (CommandFailed, "Read the log of Keycloak: it is often its database; then resume"),
}
