"""What a Grafana answers: the errors it stands for, and the secrets that old releases let out."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from recovery.errors import CommandFailed, Unreachable, UnreadableOutput
from recovery.secrecy.redaction import redacted_head
from recovery.secrecy.secret import Secret

SHOWN_CHARACTERS = 500
GONE_FOR_NOW = {429, 502, 503, 504}
# Up to Grafana 7, whoever may list data sources reads these.
SECRET_FIELDS = ("password", "basicAuthPassword")
SECRET_CHARACTERS_MIN = 4  # shorter ones are part of too many words to be masked
THINGS = ("dashboard", "folder", "data source", "datasource")


class GrafanaLoginRefused(CommandFailed):
    """Grafana, or a sign-in in front of it, let the credentials not in. Fields as CommandFailed."""


class GrafanaPermissionMissing(CommandFailed):
    """The account may not do this. Fields as of CommandFailed."""


class GrafanaConflict(CommandFailed):
    """Something of this uid, name or version is there already. Fields as of CommandFailed."""


class GrafanaNotFound(CommandFailed):
    """Nothing of this uid is there. Fields as of CommandFailed."""


@dataclass(frozen=True)
class GrafanaAnswer:
    """One answer, whatever its status."""

    status: int
    text: str

    @property
    def said(self) -> str:
        """Its message, in a line."""
        return said_in(self.text)

    def read(self) -> Any:
        """What it says as JSON; `None` where it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def read_as_asked(self, target: str, command: str, accept: tuple[int, ...]) -> Any:
        """What it says as JSON, if its status is one of these.

        Raises:
            Unreachable: a gateway's answer; asking again may help.
            CommandFailed: another status, each kind under its own name.
            UnreadableOutput: it was no JSON.
        """
        status, text = self.status, self.text
        if status in GONE_FOR_NOW and status not in accept:
            raise Unreachable(target, command, f"status {status}: {said_in(text)}")
        if status not in accept:
            kind, remedy = REFUSALS.get(status, (CommandFailed, ""))
            if status == httpx.codes.NOT_FOUND and is_about_a_thing(text):
                kind = GrafanaNotFound
            raise kind(target, command, status, said_in(text), remedy)
        try:
            return json.loads(text)
        except ValueError as error:
            raise UnreadableOutput(command, text) from error


def learn_secrets(text: str) -> None:
    """Make known to redaction what stands in an answer in the clear, before anybody keeps it."""
    if any(f'"{name}"' in text for name in SECRET_FIELDS):
        try:
            _learn(json.loads(text))
        except ValueError:
            return


def _learn(said: object) -> None:
    if isinstance(said, dict):
        for name, value in said.items():
            is_secret = name in SECRET_FIELDS and isinstance(value, str)
            if is_secret and len(value) >= SECRET_CHARACTERS_MIN:
                Secret(value)
            else:
                _learn(value)
    elif isinstance(said, list):
        for one in said:
            _learn(one)


REFUSALS: dict[int, tuple[type[CommandFailed], str]] = {
    400: (CommandFailed, "Correct what it names, then resume"),
    401: (
        GrafanaLoginRefused,
        "Give a token that is valid in this organisation; basic authentication may be switched off",
    ),
    403: (
        GrafanaPermissionMissing,
        "Give the account the role Editor (Admin for data sources), or what it names, then resume",
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
        parts = []
    return redacted_head(": ".join(parts) or text.strip(), SHOWN_CHARACTERS)


def is_about_a_thing(text: str) -> bool:
    """Whether a 404 says that a dashboard or the like is missing, rather than the whole address.

    Grafana 11 says `Dashboard not found`, `folder not found` and `Data source not found`, and
    `Not found` to an address it does not know; a proxy in front says something else.
    """
    said = said_in(text).lower()
    return "not found" in said and any(thing in said for thing in THINGS)
