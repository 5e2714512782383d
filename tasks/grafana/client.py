"""The command-line programs of MariaDB or MySQL; a password is never on their command line."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from blocks.local.program import memory_file, run_program
from blocks.mysql.server import MysqlServer
from recovery.errors import BadInput, CommandFailed, Unreachable
from tasks.grafana.mysql_in_pod import MysqlInPod

DUMP_PROGRAMS = ("mariadb-dump", "mysqldump")
CLIENT_PROGRAMS = ("mariadb", "mysql")
# ERROR 2002 (HY000): Can't connect · mariadb-dump: Got error: 2013: "Lost connection
NO_ANSWER = re.compile(r"(?:ERROR|error:?) (?:2002|2003|2005|2006|2013|2026|2055)\b")


@dataclass(frozen=True)
class Program:
    """One program as it will be called; `shown` is the command without the file of the password."""

    path: str
    arguments: tuple[str, ...]
    database: str

    @property
    def shown(self) -> str:
        """The command as plans and evidence show it."""
        return shlex.join([Path(self.path).name, *self.arguments, self.database])


def find_program(names: Sequence[str]) -> str:
    """The first of these programs on PATH.

    Raises:
        BadInput: none is installed.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    raise BadInput(
        names[0], "it is not installed on this worker",
        "Install the client programs (mariadb-client or mysql-client)",
    )  # fmt: skip


def dump_program(server: MysqlServer) -> Program:
    """How a database is dumped.

    Raises:
        BadInput: no such program is installed.
    """
    path = find_program(DUMP_PROGRAMS)
    arguments = [
        *place_of(server), "--single-transaction", "--quick", "--hex-blob", "--routines",
        "--triggers", "--no-tablespaces", "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
    ]  # fmt: skip
    if not is_of_mariadb(path):
        # Its defaults ask for tables and rights that other servers, and accounts, do not have.
        arguments += ["--set-gtid-purged=OFF", "--column-statistics=0"]
    return Program(path, tuple(arguments), server.database)


def place_of(server: MysqlServer) -> tuple[str, ...]:
    """Where and as whom to connect, so that a command that is shown means this server."""
    if isinstance(server, MysqlInPod):  # its socket is another one in each process
        return (f"--user={server.user}",)
    if server.unix_socket is not None:
        return (f"--socket={server.unix_socket}", f"--user={server.user}")
    host = ("--protocol=tcp", f"--host={server.host}", f"--port={server.port}")
    return (*host, f"--user={server.user}")


def load_program(server: MysqlServer, database: str) -> Program:
    """How a dump is loaded. There is no --force: the first error ends it.

    Raises:
        BadInput: no such program is installed.
    """
    arguments = (
        *place_of(server),
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
        "--binary-mode",
    )
    return Program(find_program(CLIENT_PROGRAMS), arguments, database)


def is_of_mariadb(path: str) -> bool:
    """Whether a program is MariaDB's: `mariadb-dump from 11.4.2-MariaDB, client 10.19 …`."""
    printed = subprocess.run(  # noqa: S603 - a program of our own choice
        [path, "--version"], capture_output=True, text=True, timeout=30, check=False
    ).stdout
    return "mariadb" in printed.lower()


@contextmanager
def options_file(server: MysqlServer) -> Iterator[int]:
    """Write where to connect and as whom into a file in memory; its descriptor."""
    secret = server.password()
    lines = ["[client]", f"user={quote_option(server.user)}"]
    if secret is not None:
        lines.append(f"password={quote_option(secret.reveal())}")
    if server.unix_socket is not None:
        lines.append(f"socket={quote_option(str(server.unix_socket))}")
    else:
        # By name, localhost would mean a socket that may belong to another server.
        lines += [f"host={quote_option(server.host)}", f"port={server.port}", "protocol=tcp"]
    if server.tls_ca_file is not None:
        # The two families spell it differently; each passes over the other's loose option.
        lines += [
            f"ssl-ca={quote_option(str(server.tls_ca_file))}",
            "loose-ssl-verify-server-cert", "loose-ssl-mode=VERIFY_IDENTITY",
        ]  # fmt: skip
    # In a group of its own: the dump programs do not know it.
    lines += ["[mysql]", f"connect-timeout={server.connect_within_seconds}"]
    with memory_file("\n".join([*lines, ""]).encode()) as file:
        yield file.fileno()


def quote_option(value: str) -> str:
    """A value as option files take it: blanks, quotes and # mean themselves inside the quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def run(
    program: Program,
    server: MysqlServer,
    *,
    within_seconds: float,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> None:
    """Run a program to its end.

    Raises:
        BadInput: the password cannot be read.
        Unreachable: the server gave no answer, or the program did not end in time.
        CommandFailed: it ended with another exit code than 0.
    """
    with options_file(server) as options:
        defaults = f"--defaults-extra-file=/proc/self/fd/{options}"
        try:
            ended = run_program(
                [program.path, defaults, *program.arguments, program.database],
                within_seconds=within_seconds,
                pass_fds=(options,),
                stdin=stdin,
                stdout=stdout,
            )
        except TimeoutError:
            raise Unreachable(
                server.label, program.shown, f"it did not end within {within_seconds:g} s"
            ) from None
    if ended.code == 0:
        return
    if NO_ANSWER.search(ended.errors):
        raise Unreachable(server.label, program.shown, ended.errors.strip())
    raise CommandFailed(server.label, program.shown, ended.code, ended.errors)
