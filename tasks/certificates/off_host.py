"""The backup off the host: on the worker, encrypted while it arrives, and proven by opening it."""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from recovery.errors import NotVerified, Refused
from recovery.journal.opening import journal_folder
from recovery.secrecy.secret import Secret
from recovery.steps import act, probe
from recovery.walk import current_fence
from tasks.certificates import sealed
from tasks.certificates.backup import folder_of
from tasks.certificates.work import Job

WITHIN_SECONDS = 600.0


@dataclass(frozen=True)
class BackupKey:
    """The key of backups off the host, by reference: a file on the worker; empty where none is."""

    path: str

    @property
    def label(self) -> str:
        """The file."""
        return self.path


@dataclass(frozen=True)
class OffHostCopy:
    """Where this worker keeps the encrypted archive of one host."""

    host: str

    @property
    def path(self) -> Path:
        """The encrypted archive."""
        name = re.sub(r"[^A-Za-z0-9.@-]", "_", self.host)
        return _work_folder() / f"{name}.tgz.sealed"

    @property
    def note(self) -> Path:
        """The file that tells of it; written last, once it has been proven."""
        return self.path.with_suffix(".json")

    def is_kept(self) -> bool:
        """Whether it lies there as it was proven."""
        try:
            noted = json.loads(self.note.read_text())["sealed_sha256"]
            return bool(noted == _sha256_of(self.path))
        except (OSError, ValueError, LookupError, TypeError):
            return False


def _work_folder() -> Path:
    base = os.environ.get("RECOVER_WORK_DIR") or str(journal_folder() / "work")
    return Path(base) / current_fence().recovery_id


@probe
def refuse_unless_key_is_named(key: BackupKey) -> None:
    """Refuse to go on where the archive could only lie off the host in the clear.

    Raises:
        Refused: no key is named, or others may read it.
        BadInput: the file holds no key.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    if not key.path:
        raise Refused(
            "this worker",
            "no key is named to encrypt the backup with, and it holds the keys of the cluster",
            f"Make one on the worker, `{sealed.MAKE_ONE.format(path='/etc/recover/backup.key')}`, "
            "keep a copy of it elsewhere, and give its path as backup_key_file; or say "
            "off_host_backup=false to have the backup on the host alone",
        )
    sealed.load_key(Path(key.path))


def copy_commands(job: Job, key: BackupKey) -> Iterable[str]:
    """What the copy reads and writes; the host is only read."""
    read = job.host.command_line(["cat", "--", _archive()], as_root=True)
    return [f"{read} | encrypt with {key.path} > {OffHostCopy(job.label).path.name}"]


def _archive() -> str:
    return f"{folder_of()}/archive.tgz"


def is_copied(job: Job) -> bool:
    """Whether the encrypted archive lies on this worker as it was proven."""
    return OffHostCopy(job.label).is_kept()


@act(commands=copy_commands, done_when=is_copied, each=("job",))
def copy_off_host(job: Job, key: BackupKey) -> None:
    """Copy the backup to the worker, encrypted, and prove it by decrypting and comparing it.

    Nothing is written in the clear, and nothing is changed on the host. Done twice, or on another
    worker, it is copied again from the archive on the host.

    Raises:
        BadInput: the key cannot be read.
        Refused: this worker has not the space, or others may read the key.
        NotVerified: what was written is not what the host holds.
        CommandFailed: the archive is not there.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 4.
    """
    secret = sealed.load_key(Path(key.path))
    copy = OffHostCopy(job.label)
    partial = copy.path.with_suffix(".partial")
    with job.host.session():
        listed = job.host.read(["cat", "--", f"{folder_of()}/files.sha256"], as_root=True).whole()
        try:
            copy.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with sealed.create_private(partial) as file:
                writer = sealed.SealedWriter(file, secret)
                job.host.read_into(
                    ["cat", "--", _archive()],
                    cast("BinaryIO", writer),
                    within_seconds=WITHIN_SECONDS,
                    as_root=True,
                )
                sha256 = writer.finish()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise Refused(
                "this worker", f"{partial} cannot be written: {error}", "Make room, then resume"
            ) from error
    files = prove(partial, secret, listed, job.label)
    partial.replace(copy.path)
    noted = {
        "host": job.label,
        "archive_sha256": sha256,
        "sealed_sha256": _sha256_of(copy.path),
        "files": files,
        "listed": listed,
        "key": sealed.key_id(secret),
    }
    _write_durably(copy.note, json.dumps(noted, indent=1))


def prove(path: Path, key: Secret, listed: str, label: str) -> int:
    """Decrypt an archive, list it, and hold every file against its hash; return their number.

    Args:
        path: the encrypted archive.
        key: the key.
        listed: what `sha256sum` printed on the host.
        label: of the host.

    Raises:
        NotVerified: a file is missing, too many, or another one.
        Refused: it cannot be decrypted.
    """
    expected = parse_listed(listed)
    found = {
        name: hashlib.sha256(content).hexdigest() for name, content in files_in(path, key, label)
    }
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong or not expected:
        raise NotVerified(
            label,
            f"the encrypted archive to hold the {len(expected)} files of the host",
            f"{len(found)} files; other than there: {', '.join(wrong[:5]) or 'nothing was listed'}",
            "Nothing was changed on the host. Resume to copy it again",
        )
    return len(found)


def parse_listed(printed: str) -> dict[str, str]:
    """Read what `sha256sum` prints of many files: the hash of each, by its path.

        e3b0c442…b855  etc/kubernetes/pki/ca.crt

    A backslash before the hash says that the name is escaped; such names are not made by kubeadm.
    """
    found = {}
    for line in printed.splitlines():
        sha256, _, name = line.partition("  ")
        found[name] = sha256
    return found


def files_in(path: Path, key: Secret, label: str) -> Iterator[tuple[str, bytes]]:
    """The regular files of an encrypted archive, by name, in memory.

    Raises:
        NotVerified: it is no archive.
        Refused: it cannot be decrypted.
    """
    try:
        with tarfile.open(fileobj=_Chunks(sealed.opened(path, key)), mode="r|gz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name.removeprefix("./"), content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise NotVerified(
            label, "the encrypted archive to be one", str(error), "Resume to copy it again"
        ) from error


class _Chunks(io.RawIOBase):
    """What is decrypted, as a stream to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        end = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:end], self._rest[end:]
        return taken


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_durably(path: Path, text: str) -> None:
    partial = path.with_suffix(".new")
    with sealed.create_private(partial) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
