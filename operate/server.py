"""The Prefect server that PREFECT_API_URL names: whether it answers, and with which version."""

import os
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import httpx

from recovery.errors import Unreachable

# One that is not there is known soon; one that is busy is there all the same.
ANSWERS_WITHIN = httpx.Timeout(15.0, connect=3.0)
REMEDY = "Start it, or unset PREFECT_API_URL to run without it"


@dataclass(frozen=True)
class ServerAnswer:
    """What the server said of itself. `at` is its own clock, where it told the time."""

    version: str
    at: datetime | None


def api_url() -> str:
    """Return the address of the server's API, or nothing where none is configured."""
    return os.environ.get("PREFECT_API_URL", "").strip().rstrip("/")


def ask_server(url: str) -> ServerAnswer:
    """Ask the server for its version, with the credentials that Prefect's settings hold.

    Raises:
        Unreachable: it does not answer within seconds, or not as a Prefect server.
    """
    asked = "GET /admin/version"
    try:
        response = httpx.get(f"{url}/admin/version", timeout=ANSWERS_WITHIN, headers=_credentials())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        seen = str(error) or type(error).__name__
        raise Unreachable(f"the Prefect server {url}", asked, seen, REMEDY) from error
    if response.status_code != httpx.codes.OK:
        seen = f"HTTP {response.status_code} {response.reason_phrase}"
        raise Unreachable(f"the Prefect server {url}", asked, seen, REMEDY)
    try:
        version = str(response.json())
    except ValueError as error:
        raise Unreachable(
            f"the Prefect server {url}", asked, "something that is no version", REMEDY
        ) from error
    return ServerAnswer(version, _told_time(response))


def _credentials() -> dict[str, str]:
    from prefect.settings import get_current_settings  # noqa: PLC0415 (imports Prefect)

    api = get_current_settings().api
    if api.auth_string is not None:
        import base64  # noqa: PLC0415 (only where a server wants it)

        encoded = base64.b64encode(api.auth_string.get_secret_value().encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    if api.key is not None:
        return {"Authorization": f"Bearer {api.key.get_secret_value()}"}
    return {}


def _told_time(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
