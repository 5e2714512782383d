"""Files that a recovery keeps on its worker: private from their first byte, whole or not there."""

import hashlib
import os
from pathlib import Path
from typing import IO


def open_private(path: Path) -> IO[bytes]:
    """Make a new file that only its owner can read from its first byte on."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, text: str) -> None:
    """Write a file whole or not at all, on disk when this returns; mode 0600."""
    draft = path.with_name(path.name + ".partial")
    draft.unlink(missing_ok=True)
    with open_private(draft) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
