"""Files over an SSH connection: copied by SFTP, proven equal by size and SHA-256."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import paramiko

from blocks.ssh_command import close_channel, closed_at, open_channel
from blocks.ssh_connection import Deadline
from recovery.errors import CommandFailed, Refused, Unreachable, UnreadableOutput

CHUNK_BYTES = 1 << 18
REQUESTS_IN_FLIGHT = 64
SHA256_DIGITS = 64
SPARE_BYTES = 16 << 20  # left free on the worker, whatever is copied


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


def copy_by_sftp(
    transport: paramiko.Transport, target: str, remote_path: str, partial: Path, deadline: Deadline
) -> Fetched:
    """Copy a file of the host to `partial` (mode 0600, synced to disk); return what was written.

    Raises:
        Unreachable: no answer in time, or the connection was lost.
        CommandFailed: the host has no SFTP, or would not give the file.
        Refused: this worker has not the space.
    """
    asked = f"sftp get {remote_path}"
    channel = open_channel(transport, target, asked, deadline)
    try:
        with closed_at(deadline, channel):
            try:
                sftp = _start_sftp(channel)
                with sftp.open(remote_path, "rb") as remote:
                    size_bytes = _size_of(target, remote_path, remote)
                    refuse_unless_room(partial.parent, size_bytes)
                    remote.prefetch(size_bytes, max_concurrent_requests=REQUESTS_IN_FLIGHT)
                    _write(remote, partial)
            except _WriteFailed as error:
                raise Refused(
                    "this worker", f"{partial} cannot be written: {error}", "Make room, then resume"
                ) from error
            except (paramiko.SSHException, OSError, EOFError) as error:
                if deadline.is_over:
                    seen = f"not copied within {deadline.within_seconds:.3g} s"
                    raise Unreachable(target, asked, seen) from error
                if not transport.is_active() or isinstance(error, EOFError):
                    raise Unreachable(target, asked, "the connection was lost") from error
                raise CommandFailed(
                    target,
                    asked,
                    "none",
                    str(error) or type(error).__name__,
                    "Check that the user may read it and that sshd_config names the sftp subsystem",
                ) from error
    finally:
        close_channel(channel)
    return Fetched(partial, partial.stat().st_size, sha256_of(partial))


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


def _start_sftp(channel: paramiko.Channel) -> paramiko.SFTPClient:
    channel.invoke_subsystem("sftp")
    return paramiko.SFTPClient(channel)


def _size_of(target: str, remote_path: str, remote: paramiko.SFTPFile) -> int:
    status = remote.stat()
    if status.st_size is None or (status.st_mode is not None and not S_ISREG(status.st_mode)):
        raise CommandFailed(
            target,
            f"sftp get {remote_path}",
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
