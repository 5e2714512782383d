"""The file on the worker with the new key: whole or not there, and never somebody else's."""

import os
from pathlib import Path

from recovery.errors import Refused
from recovery.secrecy.secret import Secret


def is_there(file: Path) -> bool:
    """Whether anything is; an empty file is what a worker that was killed left, and is nothing."""
    return file.is_symlink() or (file.exists() and (not file.is_file() or file.stat().st_size > 0))


def holds(file: Path, key: Secret) -> bool:
    """Whether the file has this key and nothing else."""
    if file.is_symlink() or not file.is_file():
        return False
    return file.read_bytes() == _content(key)


def beside(file: Path) -> Path:
    """Where the key is written first."""
    return file.with_name(f".{file.name}.part")


def put(label: str, file: Path, key: Secret) -> None:
    """Write the key beside the file, mode 0600, and give it the name once it is on the disk.

    Raises:
        Refused: something else has the name, or cannot be written beside it.
    """
    part = beside(file)
    try:
        part.unlink(missing_ok=True)  # of a worker that was killed
        if holds(file, key):
            return
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as written:
            written.write(_content(key))
            written.flush()
            os.fsync(written.fileno())
        if not is_there(file):
            file.unlink(missing_ok=True)
        os.link(part, file)
        part.unlink()
        _sync_folder(file.parent)
    except FileExistsError:
        part.unlink(missing_ok=True)
        reason = f"{file} is there, and does not have the key of the log"
        remedy = "Move it away, then resume; restart nothing: the key is in the log alone"
        raise Refused(label, reason, remedy) from None
    except OSError as error:
        reason = f"the key cannot be written to {file}: {error.strerror}"
        remedy = "Mend that, then resume; restart nothing: the key is in the log alone"
        raise Refused(label, reason, remedy) from None


def _content(key: Secret) -> bytes:
    return f"{key.reveal()}\n".encode()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
