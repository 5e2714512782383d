"""Copying files into and out of a container, each compared by its SHA-256 on both sides.

It needs `sh`, `head`, `cat`, `mv` and `sha256sum` in the container, and no `tar`.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from blocks.kube.exec import Command, Place, exec_text, run_in_pod
from blocks.kube.session import KubernetesSession
from recovery.errors import BadInput, NotVerified, UnreadableOutput

COPY_SECONDS = 600.0
FILE_BYTES_MAX = 4 << 30
SHA256_CHARS = 64
# The length ends the input, since older APIs cannot say that it ended. What is there already stays
# until the copy is whole.
TAKE_IN = (
    'set -e; part="$1.part"; umask 077; head -c "$2" > "$part"; '
    'sum=$(sha256sum < "$part"); sum=${sum%% *}; '
    '[ "$sum" = "$3" ] || { rm -f "$part"; echo "it arrived with SHA-256 $sum" >&2; exit 65; }; '
    'mv -f "$part" "$1"'
)
GIVE_OUT = 'sha256sum < "$1" >&2 && cat "$1"'
HASH = 'sha256sum < "$1"'


@dataclass(frozen=True)
class Copied:
    """A file that is the same on both sides."""

    path: str
    size_bytes: int
    sha256: str


def hash_of(path: Path) -> Copied:
    """Size and SHA-256 of a file of the worker.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256")
        return Copied(str(path), path.stat().st_size, digest.hexdigest())
    except OSError as error:
        raise BadInput(
            str(path), error.strerror or str(error), "Name a file of the worker"
        ) from None


def hash_in_pod(session: KubernetesSession, place: Place, path: str) -> str:
    """The SHA-256 of a file in a container; errors are those of `run_in_pod`."""
    command = Command(("sh", "-c", HASH, "sh", path), within_seconds=COPY_SECONDS)
    return _sum_in(exec_text(place, command), run_in_pod(session, place, command).stdout)


def copy_in_text(place: Place, source: Path, target: str) -> str:
    """What `copy_in` sends: it names size and hash, so that a plan is bound to the contents."""
    command = Command(_take_in(hash_of(source), target), stdin=b"", is_change=True)
    return exec_text(place, command)


def copy_in(session: KubernetesSession, place: Place, source: Path, target: str) -> Copied:
    """Copy a file of the worker into a container, whole or not at all; readable by its user alone.

    Done twice, it writes the same once more.

    Raises:
        BadInput: the file cannot be read.
        CommandFailed: it arrived otherwise, or cannot be written there; says why.
        Others as of `run_in_pod`.
    """
    found = hash_of(source)
    with source.open("rb") as content:
        command = Command(
            _take_in(found, target), stdin=content, is_change=True, within_seconds=COPY_SECONDS
        )
        run_in_pod(session, place, command)
    return Copied(target, found.size_bytes, found.sha256)


def copy_out(
    session: KubernetesSession,
    place: Place,
    source: str,
    target: Path,
    *,
    bytes_max: int = FILE_BYTES_MAX,
) -> Copied:
    """Copy a file out of a container to the worker, whole or not at all, mode 0600.

    Raises:
        NotVerified: it changed while it was copied.
        UnreadableOutput: it is larger than it may be.
        Others as of `run_in_pod`.
    """
    digest, size = hashlib.sha256(), 0
    folder = target.parent
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{target.name}.")  # which is of mode 0600
    try:
        with os.fdopen(handle, "wb") as written:

            def keep(piece: bytes) -> None:
                nonlocal size
                size += len(piece)
                if size > bytes_max:
                    raise UnreadableOutput(f"cat {source}", f"more than {bytes_max} bytes")
                digest.update(piece)
                written.write(piece)

            argv = ("sh", "-c", GIVE_OUT, "sh", source)
            command = Command(argv, sink=keep, within_seconds=COPY_SECONDS)
            printed = run_in_pod(session, place, command)
            written.flush()
            os.fsync(written.fileno())
        told = _sum_in(exec_text(place, command), printed.stderr)
        if told != digest.hexdigest():
            raise NotVerified(
                session.label,
                f"{source} of {place} with SHA-256 {told}",
                f"{size} bytes with {digest.hexdigest()}",
                "Somebody writes to it: copy a file that is finished",
            )
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
    return Copied(str(target), size, digest.hexdigest())


def _take_in(found: Copied, target: str) -> tuple[str, ...]:
    return ("sh", "-c", TAKE_IN, "sh", target, str(found.size_bytes), found.sha256)


def _sum_in(command: str, printed: str) -> str:
    """Read what sha256sum prints of its input: `e3b0c44298fc...  -`."""
    found = printed.split()[:1]
    if not found or len(found[0]) != SHA256_CHARS:
        raise UnreadableOutput(command, printed)
    return found[0]
