"""pg_dump and pg_restore of the worker; the password is never on their command line."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from blocks.local.program import memory_file, run_program
from blocks.postgres.server import PostgresServer
from blocks.ssh.host import SshHost
from recovery.errors import BadInput, CommandFailed, Unreachable, UnreadableOutput
from recovery.walk import current_fence

PACKAGED = Path("/usr/lib/postgresql")
VERSION = re.compile(r"\(PostgreSQL\) (?P<major>\d+)(?:\.(?P<minor>\d+))?")
NO_ANSWER = re.compile(
    r"could not connect|connection to server .* failed|server closed the connection|"
    r"terminating connection|could not translate host name"
)
SAID_NO = re.compile(r"FATAL: |does not exist|authentication failed|permission denied")


@dataclass(frozen=True)
class PostgresProgram:
    """One program of PostgreSQL on this worker, and the version it is of."""

    path: str
    version: str

    @property
    def name(self) -> str:
        """The name alone."""
        return Path(self.path).name

    @property
    def major(self) -> int:
        """The major version: it must not be lower than that of what it reads."""
        return int(self.version.partition(".")[0])


@lru_cache(maxsize=8)
def newest_program(name: str) -> PostgresProgram:
    """The newest of this name: where Debian keeps all versions, else on PATH.

    Raises:
        BadInput: none is installed on this worker.
        UnreadableOutput: it does not say its version.
    """
    places = [str(found) for found in PACKAGED.glob(f"*/bin/{name}")]
    if not places and (found := shutil.which(name)):
        places = [found]
    if not places:
        raise BadInput(
            name, "it is not installed on this worker", "Install the package postgresql-client"
        )
    return max((_asked(place) for place in places), key=lambda program: program.major)


def parse_version(printed: str) -> str:
    """Read what `pg_dump --version` prints, e.g. `pg_dump (PostgreSQL) 15.14 (Debian 15.14-0)`.

    Raises:
        UnreadableOutput: it is something else.
    """
    found = VERSION.search(printed)
    if found is None:
        raise UnreadableOutput("--version", printed)
    return ".".join(part for part in found.groups() if part)


def place_of(server: PostgresServer) -> tuple[str, ...]:
    """Where and as whom to connect, so that a command that is shown means this server."""
    user = f"--username={server.user}"
    if server.via:  # its socket is another one in each process
        return (user, "--no-password")
    return (f"--host={server.host}", f"--port={server.port}", user, "--no-password")


def shown(program: PostgresProgram, arguments: Iterable[str]) -> str:
    """The command as plans and evidence show it."""
    return shlex.join([program.name, *arguments])


def run_on_server(  # noqa: PLR0913, PLR0917 (what is run where, and its two ends)
    program: PostgresProgram,
    arguments: Iterable[str],
    server: PostgresServer,
    within_seconds: float,
    source: Iterable[bytes] | None = None,
    sink: Callable[[bytes], object] | None = None,
) -> None:
    """Run a program against a server to its end.

    Args:
        program: which.
        arguments: all but the password.
        server: where it connects, with its password.
        within_seconds: how long it may take.
        source: what it reads, piece by piece.
        sink: what takes what it writes, piece by piece.

    Raises:
        BadInput: the password cannot be read.
        Unreachable: the server gave no answer, or the program did not end in time.
        CommandFailed: it ended with another exit code than 0.
    """
    argv = [program.path, *arguments]
    command = shown(program, argv[1:])
    with _environment(server) as (environment, fds):
        try:
            ended = run_program(
                argv,
                within_seconds=within_seconds,
                environment=environment,
                pass_fds=fds,
                stdin=source,
                stdout=sink,
            )
        except TimeoutError:
            seen = f"it did not end within {within_seconds:g} s"
            raise Unreachable(server.label, command, seen) from None
    if ended.code == 0:
        return
    said = ended.errors.strip()
    if NO_ANSWER.search(said) and not SAID_NO.search(said):
        raise Unreachable(server.label, command, said)
    raise CommandFailed(server.label, command, ended.code, said)


@contextmanager
def _environment(server: PostgresServer) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """How libpq is told what must not, or cannot, stand on a command line."""
    fence = current_fence()
    environment = {
        "PGPORT": str(server.port),
        "PGSSLMODE": server.sslmode,
        "PGCONNECT_TIMEOUT": str(server.connect_within_seconds),
        "PGAPPNAME": f"recover {fence.recovery_id} {fence.epoch}",
        "LC_ALL": "C.UTF-8",
    }
    fds: tuple[int, ...] = ()
    with ExitStack() as resources:
        if server.tls_ca_file is not None:
            environment["PGSSLROOTCERT"] = str(server.tls_ca_file)
        if server.via:
            ssh = SshHost.from_url(server.via)
            socket = resources.enter_context(ssh.forwarded(server.host, server.port))
            environment["PGHOST"] = str(socket.parent)
        if (password := server.password()) is not None:
            line = f"*:*:*:*:{_in_password_file(password.reveal())}\n"
            file = resources.enter_context(memory_file(line.encode()))
            fds = (file.fileno(),)
            environment["PGPASSFILE"] = f"/proc/self/fd/{file.fileno()}"
        else:
            environment["PGPASSFILE"] = str(Path.home() / ".pgpass")
        yield environment, fds


def _in_password_file(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")


def _asked(path: str) -> PostgresProgram:
    printed = subprocess.run(  # noqa: S603 (a program of our own choice)
        [path, "--version"], capture_output=True, text=True, timeout=30, check=False
    ).stdout
    return PostgresProgram(path, parse_version(printed))
