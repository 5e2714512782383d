"""Files over an SSH connection: copied by SFTP, proven equal by size and SHA-256."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

import paramiko

from blocks.ssh.command import Order, require_exit_code
from blocks.ssh.connection import Connection
from blocks.ssh.running import close_channel, closed_at, run_command
from recovery.errors import BadInput, CommandFailed, Refused, Unreachable, UnreadableOutput
from recovery.secrecy.secret import Secret

CHUNK_BYTES = 1 << 18
REQUESTS_IN_FLIGHT = 64
SHA256_DIGITS = 64
OWNER = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._-]*\$?(:[A-Za-z0-9_][A-Za-z0-9._-]*)?|:[A-Za-z0-9_.-]+"
)
SPARE_BYTES = 16 << 20  # left free on the worker, whatever is copied
# Its input begins with its hash: one cut short must not get the file's name. What it writes to
# begins with a dot, as kubelet and others take every other file in their folders at once.
SFTP_REMEDY = "Check that the user may read it and that sshd_config names the sftp subsystem"
SHELL_REMEDY = (
    "The shell of this account may refuse logins (nologin) or print something: give it a plain one"
)
PUT = (
    "set -euC; umask 077; dir=${1%/*}/; new=$dir.${1##*/}.recover; read -r hash; "
    '[ ! -L "$1" ] || { echo "$1 is a symbolic link" >&2; exit 1; }; rm -f -- "$new"; '
    'cat >"$new"; [ "$(sha256sum <"$new")" = "$hash  -" ] || '
    '{ echo "what came is not what was sent" >&2; exit 1; }; chmod "$2" -- "$new"; '
    'CHOWNsync "$new"; mv -fT -- "$new" "$1"; sync "$dir"'
)


@dataclass(frozen=True)
class Fetched:
    """A copy on this worker that equals what the host held."""

    path: Path
    size_bytes: int
    sha256: str


def parse_sha256sum(printed: str) -> str:
    r"""Read the hash from `sha256sum -- FILE` (coreutils 8 and 9, busybox).

    Prints `<64 hex digits>  <name>`, with a `\` in front where the name holds a backslash or a
    line break.
    """
    first = printed.removeprefix("\\").split(maxsplit=1)[:1]
    if not first or len(first[0]) != SHA256_DIGITS or set(first[0]) - set("0123456789abcdef"):
        raise UnreadableOutput("sha256sum", printed)
    return first[0]


def put_argv(path: str, mode: int, owner: str) -> list[str]:
    """The command that writes its input, made by `framed`, to a file: whole or not at all.

    Raises:
        BadInput: the path is not absolute or names no file, or the owner is none.
    """
    if not path.startswith("/") or path.endswith("/"):
        raise BadInput("path", f"{path!r} is no absolute path of a file", "Give it from / on")
    if owner and not OWNER.fullmatch(owner):
        raise BadInput("owner", f"{owner!r} is no owner", "Give user, user:group or :group")
    chown = 'chown "$3" -- "$new"; ' if owner else ""
    script = PUT.replace("CHOWN", chown)
    return ["sh", "-c", script, "put", path, f"{mode:04o}", *([owner] if owner else [])]


def framed(content: Secret | bytes) -> bytes:
    """What `put_argv` reads: a line with its SHA-256, then the content."""
    body = content.reveal().encode() if isinstance(content, Secret) else content
    return f"{hashlib.sha256(body).hexdigest()}\n".encode() + body


def copy_by_cat(
    connection: Connection, channel: paramiko.Channel, order: Order, partial: Path
) -> Fetched:
    """Write what a command prints to `partial` (mode 0600, synced to disk).

    Raises:
        CommandFailed: it said no.
        Refused: this worker has not the space.
        Unreachable: as of `run_command`.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(partial, flags, 0o600), "wb") as local:
            os.fchmod(local.fileno(), 0o600)
            require_exit_code(run_command(connection, channel, replace(order, sink=local)), (0,))
            local.flush()
            os.fsync(local.fileno())
    except OSError as error:
        raise Refused(
            "this worker", f"{partial} cannot be written: {error}", "Make room, then resume"
        ) from error
    return Fetched(partial, partial.stat().st_size, sha256_of(partial))


def copy_by_sftp(
    connection: Connection, channel: paramiko.Channel, order: Order, remote_path: str, partial: Path
) -> Fetched:
    """Copy a file of the host to `partial` (mode 0600, synced to disk); return what was written.

    Raises:
        Unreachable: no answer in time, or the connection was lost.
        CommandFailed: the host has no SFTP, or would not give the file.
        Refused: this worker has not the space.
    """
    with _spoken(connection, channel, order):
        sftp = _client(channel)
        with sftp.open(remote_path, "rb") as remote:
            size_bytes = _size_of(order, remote)
            refuse_unless_room(partial.parent, size_bytes)
            remote.prefetch(size_bytes, max_concurrent_requests=REQUESTS_IN_FLIGHT)
            _write(remote, partial)
    return Fetched(partial, partial.stat().st_size, sha256_of(partial))


def start_sftp(connection: Connection, channel: paramiko.Channel, order: Order) -> None:
    """Begin to speak SFTP, to find out whether the host does; errors are those of a copy."""
    with _spoken(connection, channel, order):
        _client(channel)


@contextlib.contextmanager
def _spoken(connection: Connection, channel: paramiko.Channel, order: Order) -> Iterator[None]:
    """Turn what paramiko raises meanwhile into our own errors; end it at the deadline."""
    target, asked, deadline = order.target, order.command, order.deadline
    try:
        with closed_at(deadline, channel):
            yield
    except _WriteFailed as error:
        raise Refused(
            "this worker", f"the copy cannot be written: {error}", "Make room, then resume"
        ) from error
    except (paramiko.SSHException, paramiko.SFTPError, OSError, EOFError) as error:
        if deadline.is_over:
            seen = f"not copied within {deadline}"
            raise Unreachable(target, asked, seen) from error
        if not connection.is_active():
            why = connection.lost_because
            raise Unreachable(target, asked, f"the connection was lost: {why}") from error
        seen, remedy = str(error) or "it ended without an answer", SFTP_REMEDY
        if isinstance(error, paramiko.SFTPError):
            seen, remedy = f"what came back is no SFTP ({error})", SHELL_REMEDY
        raise CommandFailed(target, asked, "none", seen, remedy) from error
    finally:
        close_channel(channel)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file on this worker, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_unless_room(folder: Path, size_bytes: int) -> None:
    """Refuse to fill the disk of this worker.

    Raises:
        Refused: the file would leave next to nothing free.
    """
    room = os.statvfs(folder)
    free_bytes = room.f_bavail * room.f_frsize
    if free_bytes < size_bytes + SPARE_BYTES:
        raise Refused(
            "this worker",
            f"{folder} has {free_bytes} bytes free, the file has {size_bytes}",
            "Free some space or name another folder, then resume",
        )


class _WriteFailed(Exception):
    """Writing on this worker failed; kept apart from what SFTP raises, which are OSErrors too."""


def _client(channel: paramiko.Channel) -> paramiko.SFTPClient:
    channel.invoke_subsystem("sftp")
    return paramiko.SFTPClient(channel)


def _size_of(order: Order, remote: paramiko.SFTPFile) -> int:
    status = remote.stat()
    if status.st_size is None or (status.st_mode is not None and not S_ISREG(status.st_mode)):
        raise CommandFailed(
            order.target,
            order.command,
            "none",
            "it is no regular file",
            "Name the file itself, then resume",
        )
    return status.st_size


def _write(remote: paramiko.SFTPFile, partial: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        descriptor = os.open(partial, flags, 0o600)
    except OSError as error:
        raise _WriteFailed(str(error)) from error
    with os.fdopen(descriptor, "wb") as local:
        os.fchmod(descriptor, 0o600)  # one left over by a killed worker may have another mode
        while chunk := remote.read(CHUNK_BYTES):
            try:
                local.write(chunk)
            except OSError as error:
                raise _WriteFailed(str(error)) from error
        local.flush()
        os.fsync(descriptor)
