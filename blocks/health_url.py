"""What a service says of its own health over HTTP."""

import json
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx

from recovery.commands import reading
from recovery.errors import BadInput, Unreachable
from recovery.secrecy.redaction import redacted_head

SHAPE = "Write http://host:port, or the whole address of its health, as http://host:port/health"
BODY_BYTES_MAX = 100_000
WITHIN_SECONDS = 10.0


@dataclass(frozen=True)
class Health:
    """How a service answered. `told` is the start of what it said."""

    is_healthy: bool
    told: str


@dataclass(frozen=True)
class HealthUrl:
    """The address at which a service tells its health."""

    url: str

    @property
    def label(self) -> str:
        """The address."""
        return self.url

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `http://host:port/path`; without a path, it is `/health`.

        Raises:
            BadInput: it is no such URL, or holds a password.
        """
        try:
            parts = urlsplit(url.strip())
            _ = parts.port
        except ValueError:  # its text may hold a password with a slash in it
            raise BadInput("registry_url", "it has no valid port", SHAPE) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
            raise BadInput("registry_url", "it is no http URL", SHAPE)
        if parts.username is not None or parts.password is not None:
            raise BadInput("registry_url", "there is an account in it", "Health needs no log-in")
        path = parts.path if parts.path not in {"", "/"} else "/health"
        return cls(urlunsplit(parts._replace(path=path)))

    def ask(self) -> Health:
        """What it says now; whatever is no success is not healthy.

        Raises:
            Unreachable: nobody answered.
        """
        asked = f"GET {self.url}"
        with reading(asked, self.url) as call:
            try:
                with httpx.Client(timeout=WITHIN_SECONDS, trust_env=False) as client:
                    answer = client.get(self.url)
            except httpx.TransportError as error:
                raise Unreachable(self.url, asked, str(error) or type(error).__name__) from None
            text = answer.text[:BODY_BYTES_MAX]
            call.answer = f"{answer.status_code} {redacted_head(text, 1000)}"
        told = f"{answer.status_code} {redacted_head(text, 300)}"
        return Health(answer.is_success and says_healthy(text), told)


def says_healthy(body: str) -> bool:
    """Whether a body does not say otherwise.

    The registry answers 200 also when it is not well, and says so inside:
    `{"params": {"status": "SUCCESSFUL"}, "result": {"name": "registry", "healthy": true, …}}`
    """
    try:
        said: Any = json.loads(body)
    except ValueError:
        return True
    inner = said.get("result", said) if isinstance(said, dict) else said
    return not (isinstance(inner, dict) and inner.get("healthy") is False)
