"""The snapshot off the host: on the worker, encrypted as it arrives, and proven by opening it."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from recovery.errors import NotVerified, Refused
from recovery.journal.opening import journal_folder
from recovery.steps import act, probe
from recovery.walk import current_fence
from tasks.certificates import sealed
from tasks.certificates.off_host import BackupKey
from tasks.etcd.from_files import FILE, SUMS
from tasks.etcd.parts import Part

COPY_SECONDS = 3600.0


def kept_at(part: Part) -> Path:
    """Where this worker keeps the encrypted snapshot."""
    base = os.environ.get("RECOVER_WORK_DIR") or str(journal_folder() / "work")
    name = re.sub(r"[^A-Za-z0-9.@-]", "_", part.label)
    return Path(base) / current_fence().recovery_id / f"etcd-{name}.db.sealed"


def note_of(path: Path) -> Path:
    """The file that tells of it; written last, once it has been proven."""
    return path.with_suffix(".json")


@probe
def refuse_unless_key_is_named(key: BackupKey) -> None:
    """Refuse to go on where the snapshot could only lie off the host in the clear.

    Raises:
        Refused: no key is named, or others may read it.
        BadInput: the file holds no key.

    Runbook: docs/runbooks/etcd.md, step 3.
    """
    if not key.path:
        raise Refused(
            "this worker",
            "no key is named to encrypt the snapshot with, and it holds all that etcd does",
            f"Make one on the worker, `{sealed.MAKE_ONE.format(path='/etc/recover/backup.key')}`, "
            "keep a copy of it elsewhere, and give its path as backup_key_file; or say "
            "off_host_copy=false to have the snapshot on the host alone",
        )
    sealed.load_key(Path(key.path))


def copy_commands(part: Part, key: BackupKey) -> Iterable[str]:
    """What the copy reads and writes; the host is only read."""
    read = part.host.command_line(_read(part), as_root=True)
    return [f"{read} | encrypt with {key.path} > {kept_at(part).name}"]


def _read(part: Part) -> list[str]:
    return ["cat", "--", f"{part.copies}/{FILE}"]


def is_copied(part: Part) -> bool:
    """Whether the encrypted snapshot lies on this worker as it was proven."""
    path = kept_at(part)
    try:
        noted = json.loads(note_of(path).read_text())["sealed_sha256"]
        with path.open("rb") as file:
            return bool(noted == hashlib.file_digest(file, "sha256").hexdigest())
    except (OSError, ValueError, LookupError, TypeError):
        return False


@act(commands=copy_commands, done_when=is_copied, lasts_until="put_in_place")
def copy_snapshot_off_host(part: Part, key: BackupKey) -> None:
    """Copy the snapshot to the worker, encrypted, and prove it by decrypting and comparing it.

    Nothing is written in the clear, and nothing is changed on the host. Done twice, or on another
    worker, it is copied again from the host.

    Raises:
        BadInput: the key cannot be read.
        Refused: this worker has not the space, or others may read the key.
        NotVerified: what was written is not what the host holds.
        CommandFailed: the snapshot is not there.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 5.
    """
    secret = sealed.load_key(Path(key.path))
    path = kept_at(part)
    partial = path.with_suffix(".partial")
    with part.host.session():
        sums = part.host.read(["cat", "--", f"{part.copies}/{SUMS}"], as_root=True).whole()
        expected = sums.split()[0]
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with sealed.create_private(partial) as file:
                writer = sealed.SealedWriter(file, secret)
                sink = cast("BinaryIO", writer)
                part.host.read_into(_read(part), sink, within_seconds=COPY_SECONDS, as_root=True)
                writer.finish()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise Refused(
                "this worker", f"{partial} cannot be written: {error}", "Make room, then resume"
            ) from error
    opened = hashlib.sha256()
    for chunk in sealed.opened(partial, secret):
        opened.update(chunk)
    if opened.hexdigest() != expected:
        raise NotVerified(
            part.label,
            f"a copy of the snapshot with sha256 {expected}",
            f"sha256 {opened.hexdigest()}",
            "Nothing was changed on the host. Resume to copy it again",
        )
    with partial.open("rb") as file:
        sealed_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    partial.replace(path)
    noted = {"host": part.label, "sha256": expected, "sealed_sha256": sealed_sha256}
    with sealed.create_private(note_of(path)) as file:
        file.write(json.dumps({**noted, "key": sealed.key_id(secret)}, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
