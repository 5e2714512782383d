"""Where a stack runs on this machine: its folder, its addresses, its settings."""

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import BadInput
from recovery.journal.opening import default_journal_path, journal_folder

LOOPBACK = "127.0.0.1"
PORT = 4200  # Prefect's own
ALERTS_PORT = 9095
PROJECT = Path(__file__).resolve().parents[2]
FOREIGN = (  # settings that lead to another server, or into another home
    "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_API_", "PREFECT_CLIENT_",
    "PREFECT_UI_API_URL", "PREFECT_UI_URL", "PREFECT_SERVER_API_", "PREFECT_SERVER_DATABASE_",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One stack on this machine.

    Attributes:
        home: folder of its own: the server's database, logs, and where it says that it runs.
        port: of the server and its UI, on the loopback address.
        deployments: the file that names the deployments; that of the work pools lies beside it.
        alerts_port: of the alert receiver, on the loopback address.
    """

    home: Path
    port: int
    deployments: Path
    alerts_port: int = ALERTS_PORT

    @property
    def ui_url(self) -> str:
        """Address of the UI."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.ui_url}/api"

    @property
    def pools_file(self) -> Path:
        """The file that names the work pools."""
        return self.deployments.with_name("work-pools.yaml")

    @property
    def alerts_url(self) -> str:
        """Address of the alert receiver."""
        return f"http://{LOOPBACK}:{self.alerts_port}"

    @property
    def alerts_token(self) -> Path:
        """The file with the token that who posts an alert must have."""
        return self.home / "alerts-token"

    @property
    def logs(self) -> Path:
        """Folder of the logs, one file a process."""
        return self.home / "logs"

    @property
    def journal(self) -> str:
        """The journal that the workers write: a path or a URL, as RECOVER_JOURNAL names it."""
        given = os.environ.get("RECOVER_JOURNAL", "")
        if "://" in given and not given.startswith("sqlite://"):
            return given
        path = Path(given.removeprefix("sqlite://")) if given else default_journal_path()
        return str(path.expanduser().absolute())

    def environment(self) -> dict[str, str]:
        """Return the environment of every process of the stack.

        It is that of the caller, who may have settings of his own, but for those which lead to
        another server.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {**_DEFAULTS, **kept, **self._own()}

    def _own(self) -> Mapping[str, str]:
        programs = str(Path(sys.executable).parent)
        return {
            # A deployment's command is looked up here: `python` is to be the one with the project.
            "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
            "TMPDIR": str(self.home / "tmp"),  # a worker keeps files there, of one account alone
            "RECOVER_JOURNAL": self.journal,
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
                f"sqlite+aiosqlite:///{self.home / 'prefect' / 'prefect.db'}"
            ),
            "PREFECT_UI_STATIC_DIRECTORY": str(self.home / "ui"),
            # Prefect lets pages of every site call the API, which runs code on the workers.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{self.ui_url},http://localhost:{self.port}",
        }

    def prepare(self) -> None:
        """Make the folders, and the token of who posts alerts.

        Raises:
            BadInput: they cannot be made, or a file of deployments is missing.
        """
        for file in (self.deployments, self.pools_file):
            if not file.is_file():
                raise BadInput(
                    "--deployments",
                    f"there is no {file}",
                    "Name deployments/prefect.yaml of a clone; work-pools.yaml lies beside it",
                )
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("logs", "prefect", "tmp"):
                (self.home / name).mkdir(mode=0o700, exist_ok=True)
            if not self.alerts_token.exists():
                with open(self.alerts_token, "x", opener=_for_us_alone, encoding="ascii") as token:
                    token.write(secrets.token_urlsafe(32))
        except OSError as error:
            raise BadInput(
                "--home", f"{error.filename}: {error.strerror}", "Name a folder that can be written"
            ) from error


_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",  # else the end of a log is missing when it is wanted
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # SQLite has one writer at a time; on a busy machine the others are to wait, not to fail.
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "1",  # a run begins after two seconds instead of seven
}


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def default_home() -> Path:
    """The folder of this account's stack: beside its journal, where that is a file."""
    return journal_folder() / "up"


def default_deployments() -> Path:
    """The deployments of this release."""
    return PROJECT / "deployments" / "prefect.yaml"
