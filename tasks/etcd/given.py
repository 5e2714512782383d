"""A snapshot that is given as a file on the worker: sent to where the new cluster begins."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import BadInput, Refused
from recovery.steps import act, decision, probe
from recovery.verdict import Verdict
from tasks.etcd.from_files import FILE, SUMS
from tasks.etcd.parts import Part
from tasks.etcd.snapshot import is_taken
from tasks.etcd.terms import Terms

BYTES_MAX = 1 << 30  # it is sent in one piece
PAGE_BYTES, HASH_BYTES = 512, 32
SEND_SECONDS = 1800.0
NO_HASH = "no-hash"


@dataclass(frozen=True)
class GivenFile:
    """A snapshot on the worker, as it was found."""

    path: str
    sha256: str
    size_bytes: int

    @property
    def has_hash(self) -> bool:
        """Whether etcd has appended its hash: a file copied from a data directory has none."""
        return self.size_bytes % PAGE_BYTES == HASH_BYTES


@decision
def given_file(path: str) -> GivenFile:
    """What lies there.

    Raises:
        BadInput: there is no such file, or it is too large to be sent.

    Runbook: docs/runbooks/etcd.md, step 4.
    """
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(
            "snapshot_file", f"{path} cannot be read: {error.strerror}", "Put it on the worker"
        ) from error
    if size > BYTES_MAX:
        raise BadInput(
            "snapshot_file",
            f"{path} has {size} bytes, and {BYTES_MAX} are sent at most",
            "Restore it by hand, as steps 6 to 9 of docs/runbooks/etcd.md say",
        )
    return GivenFile(path, sha256, size)


@probe
def refuse_unless_hash_is_there(file: GivenFile, terms: Terms) -> None:
    """Refuse a file of which nothing can tell whether it is whole.

    Raises:
        Refused: etcd has appended no hash, and nobody accepted that by name.

    Runbook: docs/runbooks/etcd.md, step 4.
    """
    if not file.has_hash and NO_HASH not in terms.accept:
        raise Refused(
            "this worker",
            f"{file.path} has no hash of etcd's at its end: it is a raw copy of a database, or was "
            "cut off",
            f"Take one by `etcdctl snapshot save`; to use this one, accept it by name: {NO_HASH}",
        )


def _sums(file: GivenFile) -> bytes:
    return f"{file.sha256}  {FILE}\n".encode()


def _folder(part: Part) -> list[str]:
    return ["install", "-d", "-m", "0700", part.copies]


def send_commands(part: Part, file: GivenFile) -> Iterable[str]:
    """What puts it there."""
    del file  # its content is no part of a command
    return [
        part.host.command_line(_folder(part), as_root=True),
        part.host.put_line(f"{part.copies}/{FILE}", as_root=True),
        part.host.put_line(f"{part.copies}/{SUMS}", as_root=True),
    ]


def is_sent(part: Part, file: GivenFile) -> Verdict:
    """Whether it lies there, byte by byte."""
    if is_taken(part) is not Verdict.DONE:
        return Verdict.NOT_DONE
    said = part.host.read(["cat", "--", f"{part.copies}/{SUMS}"], as_root=True).whole()
    return Verdict.of(said.split()[:1] == [file.sha256])


def refuse_if_changed(part: Part, file: GivenFile) -> None:
    """Refuse to send another file than the one that was looked at.

    Raises:
        Refused: it is another.
        BadInput: it is gone.
    """
    now = given_file.fn(file.path)
    if now != file:
        raise Refused(
            part.label,
            f"{file.path} has changed since this recovery began",
            "Begin a new one with the file that is meant",
        )


@act(
    commands=send_commands,
    done_when=is_sent,
    refuse_if=(refuse_if_changed,),
    lasts_until="put_in_place",
)
def send_snapshot(part: Part, file: GivenFile) -> None:
    """Put a copy of the given snapshot on the host; the file on the worker stays as it is.

    Done twice, the second replaces the first.

    Raises:
        Refused: the file has changed.
        CommandFailed: there is no room for it.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 4.
    """
    part.host.change(_folder(part), as_root=True)
    content = Path(file.path).read_bytes()
    path = f"{part.copies}/{FILE}"
    part.host.put(content, path, as_root=True, within_seconds=SEND_SECONDS)
    part.host.put(_sums(file), f"{part.copies}/{SUMS}", as_root=True)
