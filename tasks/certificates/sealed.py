"""Files encrypted with AES-256-GCM in chunks, so that they can be written as a stream arrives.

A file has a key of its own, derived from the worker's key and a salt. The nonce of a chunk is its
number and whether it is the last one, so that chunks can neither change places nor be cut off.
"""

import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from recovery.errors import BadInput, Refused
from recovery.secrecy.secret import Secret

MAGIC = b"RCVSEAL1"
SALT_BYTES = 32
KEY_ID_BYTES = 8
HEADER_BYTES = len(MAGIC) + KEY_ID_BYTES + SALT_BYTES
CHUNK_BYTES = 1 << 16
TAG_BYTES = 16
KEY = re.compile(r"[0-9a-fA-F]{64}")
MAKE_ONE = "(umask 077; openssl rand -hex 32 > {path})"


def load_key(path: Path) -> Secret:
    """Read a key: 64 hexadecimal digits in a file that nobody else may read.

    Raises:
        BadInput: there is no such file, or it holds something else.
        Refused: others may read it.
    """
    make = f"Make one with `{MAKE_ONE.format(path=path)}`, and keep a copy in another place"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        seen = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput("backup_key_file", f"{path} cannot be read: {seen}", make) from error
    if mode & 0o077:
        raise Refused(
            "this worker",
            f"others may read the backup key {path} (mode {mode:04o})",
            f"Take that away with `chmod 600 {path}`, and make a new key if it may have been seen",
        )
    if not KEY.fullmatch(text):
        raise BadInput("backup_key_file", f"{path} does not hold 64 hexadecimal digits", make)
    return Secret(text)


def key_id(key: Secret) -> str:
    """A name for a key that tells it from others and gives nothing of it away."""
    return _derived(key, b"", b"name of a backup key")[:KEY_ID_BYTES].hex()


class SealedWriter(io.RawIOBase):
    """Encrypts what is written to it. Only after `finish` is the file whole."""

    def __init__(self, file: BinaryIO, key: Secret) -> None:
        super().__init__()
        salt = secrets.token_bytes(SALT_BYTES)
        self._header = MAGIC + bytes.fromhex(key_id(key)) + salt
        self._cipher = AESGCM(_derived(key, salt, b"backup"))
        self._file, self._pending, self._chunks = file, bytearray(), 0
        self._plain = hashlib.sha256()
        file.write(self._header)

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]  # of bytes only
        """Take in some more."""
        self._plain.update(data)
        self._pending += data
        while len(self._pending) > CHUNK_BYTES:  # the last chunk is never empty-handed
            self._put(bytes(self._pending[:CHUNK_BYTES]), is_last=False)
            del self._pending[:CHUNK_BYTES]
        return len(data)

    def finish(self) -> str:
        """Write the last chunk; return the SHA-256 of what was encrypted."""
        self._put(bytes(self._pending), is_last=True)
        return self._plain.hexdigest()

    def _put(self, chunk: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._chunks, is_last=is_last)
        self._file.write(self._cipher.encrypt(nonce, chunk, self._header))
        self._chunks += 1


def opened(path: Path, key: Secret) -> Iterator[bytes]:
    """Decrypt a file, chunk by chunk; no chunk is given out that is not proven to be whole.

    Raises:
        Refused: it is damaged, cut short, or was encrypted with another key.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        own = bytes.fromhex(key_id(key))
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
            raise _damaged(path, "it is no encrypted backup")
        named = header[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES]
        if named != own:
            raise Refused(
                "this worker",
                f"{path} was encrypted with key {named.hex()}, the one given is {own.hex()}",
                "Bring the key that was used then",
            )
        cipher = AESGCM(_derived(key, header[-SALT_BYTES:], b"backup"))
        chunk, number = file.read(CHUNK_BYTES + TAG_BYTES), 0
        while True:
            following = file.read(CHUNK_BYTES + TAG_BYTES)
            try:
                yield cipher.decrypt(_nonce(number, is_last=not following), chunk, header)
            except InvalidTag as error:
                raise _damaged(path, f"chunk {number} is not what was written") from error
            if not following:
                return
            chunk, number = following, number + 1


def create_private(path: Path) -> BinaryIO:
    """Open a new file for writing that nobody else may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _damaged(path: Path, why: str) -> Refused:
    return Refused("this worker", f"{path}: {why}", "Use the archive on the host instead")


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _derived(key: Secret, salt: bytes, purpose: bytes) -> bytes:
    derive = HKDF(algorithm=SHA256(), length=32, salt=salt or None, info=b"recover: " + purpose)
    return derive.derive(bytes.fromhex(key.reveal()))
