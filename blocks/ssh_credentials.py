"""Credentials for an SSH login, read from where a block says they lie on the worker."""

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paramiko

from blocks.ssh_connection import Credentials, NamedKey
from recovery.errors import BadInput
from recovery.secrecy.secret import Secret

OWN_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
KEY_TYPES = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True)
class CredentialReferences:
    """Where credentials lie; `is_own_implied`: where none is named, use the worker's own."""

    key_file: Path | None = None
    key_env: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    is_own_implied: bool = True


def gather(user: str, references: CredentialReferences) -> Credentials:
    """Read what the references lead to; the worker's own agent and keys only where none is named.

    Raises:
        BadInput: a reference leads nowhere, to a file open to others, or to no key.
    """
    keys: list[NamedKey] = []
    notes: list[str] = []
    if references.key_file is not None:
        keys.append(_key_from_file(references.key_file.expanduser()))
    if references.key_env is not None:
        text = Secret.from_env(references.key_env).reveal()
        keys.append(_read_key(f"environment variable {references.key_env}", text))
    password = secret_from(references.password_file, references.password_env)
    uses_own = references.is_own_implied and not keys and password is None
    for own in OWN_KEYS if uses_own else ():
        path = Path(own).expanduser()
        if path.exists():
            try:
                keys.append(_key_from_file(path))
            except BadInput as error:
                notes.append(f"{own}: not tried, {error.seen}")
    return Credentials(user, tuple(keys), uses_own, password, tuple(notes))


def secret_from(file: Path | None, variable: str | None) -> Secret | None:
    """Read a secret by its reference; `None` where there is no reference.

    Raises:
        BadInput: the reference leads nowhere, or to a file that is open to others.
    """
    if file is not None:
        return Secret.from_file(_existing(file.expanduser()))
    return Secret.from_env(variable) if variable is not None else None


def _existing(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadInput(
            str(path), error.strerror or str(error), "Put it there on the worker, or name another"
        ) from error
    if path.stat().st_uid == os.getuid() and stat.S_IMODE(mode) & 0o077:
        raise BadInput(
            str(path), f"open to others (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {path}"
        )
    return path


def _key_from_file(path: Path) -> NamedKey:
    return _read_key(str(path), _existing(path).read_text(encoding="utf-8", errors="replace"))


def _read_key(origin: str, text: str) -> NamedKey:
    for read in KEY_TYPES:
        parse: Callable[[io.StringIO], paramiko.PKey] = read.from_private_key
        try:
            return NamedKey(origin, parse(io.StringIO(text)))
        except paramiko.PasswordRequiredException as error:
            raise BadInput(
                origin,
                "a key protected by a passphrase",
                "Load it into the agent of the worker (ssh-add) and name no key, or name a key "
                "without one",
            ) from error
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise BadInput(
        origin, "no private key that can be read", "Name an Ed25519, ECDSA or RSA private key"
    )
