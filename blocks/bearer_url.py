"""How a service answers somebody who brings a token."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import httpx

from recovery.commands import reading
from recovery.errors import BadInput, Unreachable
from recovery.secrecy.secret import Secret

SHAPE = "Write the whole address of something that wants a token, as http://host:port/path"
WITHIN_SECONDS = 20.0


@dataclass(frozen=True)
class BearerUrl:
    """An address of a service that answers 401 to whom it does not know. It is only read."""

    url: str

    @property
    def label(self) -> str:
        """The address."""
        return self.url

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read the address.

        Raises:
            BadInput: it is no such URL, or holds a password.
        """
        try:
            parts = urlsplit(url.strip())
            _ = parts.port
        except ValueError:  # its text may hold a password with a slash in it
            raise BadInput("service_url", "it has no valid port", SHAPE) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
            raise BadInput("service_url", "it is no http URL", SHAPE)
        if parts.username is not None or parts.password is not None:
            raise BadInput("service_url", "there is an account in it", "The token is the log-in")
        return cls(url.strip())

    def status_for(self, token: Secret) -> int:
        """The status of the answer to a GET with this token.

        Raises:
            Unreachable: nobody answered, or a gateway did for the service.
        """
        asked = f"GET {self.url} (with a token)"
        with reading(asked, self.url) as call:
            try:
                with httpx.Client(timeout=WITHIN_SECONDS, trust_env=False) as client:
                    headers = {"Authorization": f"Bearer {token.reveal()}"}
                    answer = client.get(self.url, headers=headers)
            except httpx.TransportError as error:
                raise Unreachable(self.url, asked, str(error) or type(error).__name__) from None
            call.exit_code, call.answer = answer.status_code, f"status {answer.status_code}"
            if answer.status_code in {502, 503, 504}:
                raise Unreachable(self.url, asked, f"status {answer.status_code}")
        return answer.status_code
