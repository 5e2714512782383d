"""Credentials for an SSH login, read from where a block says they lie, on the worker."""

import hashlib
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from prefect.blocks.system import Secret as SecretBlock

from blocks.saved import saved_block
from blocks.ssh.login import Credentials, NamedKey
from recovery.errors import BadInput
from recovery.secrecy.secret import Secret

OWN_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
KEY_TYPES = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
READ_KEYS_MAX = 256


@dataclass(frozen=True)
class SecretReference:
    """Where a secret lies: a file or an environment variable of the worker, or a Secret block."""

    file: Path | None = None
    env: str | None = None
    block: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether it leads anywhere."""
        return self.file is not None or self.env is not None or self.block is not None

    @property
    def origin(self) -> str:
        """Its place, for errors."""
        if self.file is not None:
            return str(self.file.expanduser())
        return f"environment variable {self.env}" if self.env else f"Secret block {self.block}"

    def read(self) -> Secret | None:
        """The secret; `None` where there is no reference.

        Raises:
            BadInput: it leads nowhere, or to a file that is open to others.
        """
        if self.file is not None:
            return Secret.from_file(_existing(self.file.expanduser()))
        if self.env is not None:
            return Secret.from_env(self.env)
        return None if self.block is None else _from_block(self.block)


@dataclass(frozen=True)
class CredentialReferences:
    """Where credentials lie; `is_own_implied`: where none is named, use the worker's own."""

    key: SecretReference = field(default_factory=SecretReference)
    passphrase: SecretReference = field(default_factory=SecretReference)
    password: SecretReference = field(default_factory=SecretReference)
    is_own_implied: bool = True


def gather(user: str, references: CredentialReferences) -> Credentials:
    """Read what the references lead to; the worker's own agent and keys only where none is named.

    Raises:
        BadInput: a reference leads nowhere, to a file open to others, or to no key, or the
            passphrase does not open the key.
    """
    keys: list[NamedKey] = []
    notes: list[str] = []
    passphrase = references.passphrase.read()
    if references.key.is_given:
        keys.append(_key(references.key, passphrase))
    password = references.password.read()
    uses_own = references.is_own_implied and not keys and password is None
    for own in OWN_KEYS if uses_own else ():
        path = Path(own).expanduser()
        if path.exists():
            try:
                keys.append(_key(SecretReference(path), passphrase))
            except BadInput as error:
                notes.append(f"{own}: not tried, {error.seen}")
    return Credentials(user, tuple(keys), uses_own, password, tuple(notes))


def secret_from(file: Path | None, variable: str | None) -> Secret | None:
    """Read a secret by its reference; `None` where there is no reference.

    Raises:
        BadInput: the reference leads nowhere, or to a file that is open to others.
    """
    return SecretReference(file, variable).read()


def _from_block(name: str) -> Secret:
    value = saved_block(SecretBlock, name, f"Secret block {name}", "the name of one").get()
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"Secret block {name}", "it holds no text", "Put the secret there as text")
    return Secret(value)


def _existing(path: Path) -> Path:
    try:
        status = path.stat()
    except OSError as error:
        raise BadInput(
            str(path), error.strerror or str(error), "Put it there on the worker, or name another"
        ) from error
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise BadInput(str(path), f"open to others (mode {mode:04o})", f"chmod 600 {path}")
    return path


def _key(reference: SecretReference, passphrase: Secret | None) -> NamedKey:
    if reference.file is not None:  # read plainly: a public key or rubbish is not to be masked
        path = _existing(reference.file.expanduser())
        text = path.read_text(encoding="utf-8", errors="replace")
    else:
        secret = reference.read()
        text = secret.reveal() if secret is not None else ""
    return _read_key(reference.origin, text, passphrase)


def _read_key(origin: str, text: str, passphrase: Secret | None) -> NamedKey:
    """Read a private key; one that was read before is not unlocked again, which takes 0.1 s."""
    opened_by = "" if passphrase is None else passphrase.reveal()
    digest = hashlib.sha256(f"{text}\0{opened_by}".encode()).digest()
    known = _read.get(digest)
    if known is None:
        known = _parse(origin, text, opened_by or None)
        if len(_read) >= READ_KEYS_MAX:
            _read.clear()
        _read[digest] = known
    return NamedKey(origin, known)


def _parse(origin: str, text: str, passphrase: str | None) -> paramiko.PKey:
    is_locked = False
    for kind in KEY_TYPES:
        parse: Callable[..., paramiko.PKey] = kind.from_private_key
        try:
            return parse(io.StringIO(text), password=passphrase)
        except paramiko.PasswordRequiredException:
            is_locked = True
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    if is_locked:
        raise BadInput(
            origin,
            "a key protected by a passphrase",
            "Name its passphrase (passphrase_file, passphrase_env), or load it into the agent of "
            "the worker (ssh-add) and name no key",
        )
    if passphrase is not None and _is_locked(text):
        raise BadInput(
            origin,
            "the passphrase does not open this key",
            "Put the right one where passphrase_file, passphrase_env or passphrase_block names it",
        )
    raise BadInput(
        origin, "no private key that can be read", "Name an Ed25519, ECDSA or RSA private key"
    )


def _is_locked(text: str) -> bool:
    """Whether a passphrase protects it."""
    for kind in KEY_TYPES:
        try:
            kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            return True
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    return False


_read: dict[bytes, paramiko.PKey] = {}
