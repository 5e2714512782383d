"""What makes a host of the lab itself and lets people in: keys, and the files it starts with."""

import io
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import write_secret
from tests.lab.sshd import make_key


class Keys:
    """What logs in to the hosts of one lab: a client key, the known host keys, a password."""

    def __init__(self, directory: Path, password: str) -> None:
        self._directory = directory
        self.client_key = make_key(directory / "client_key")
        self.authorized = public_of(self.client_key)
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.touch()
        self.password = password
        self.password_file = directory / "password"
        write_secret(self.password_file, self.password)

    def host_key(self, name: str, address: str) -> Path:
        """Make the key of a host, and let it be known."""
        key = make_key(self._directory / f"host_key-{name}")
        with self.known_hosts.open("a") as known:
            known.write(f"{address} {public_of(key)}")
        return key


def public_of(key: Path) -> str:
    return Path(f"{key}.pub").read_text()


@dataclass(frozen=True)
class File:
    """A file of root's that is put into a host."""

    content: str | bytes
    mode: int = 0o644


def tar_of(files: Mapping[str, File]) -> bytes:
    """Return an archive of files by their paths."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, file in files.items():
            text = file.content
            body = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode, member.mtime = len(body), file.mode, int(time.time())
            archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()
