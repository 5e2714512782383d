"""Grafana's SQLite database brought here from another host, with its log, as plain files."""

from pathlib import Path

from blocks.ssh.host import SshHost
from recovery.errors import BadInput, Refused

ROUNDS_MAX = 5
COMPANIONS = ("-wal", "-journal")
SHA256_CHARACTERS = 64


def fetch_database(host: SshHost, path: str, directory: Path) -> Path:
    """Copy a database and its -wal or -journal from a host; return where the main file lies.

    The files are fetched until they are the same before and after. Nothing is opened or written on
    the host. Done twice, the second copy replaces the first.

    Raises:
        BadInput: there is no such file there, or it cannot be read.
        Refused: it kept changing, or this worker has no room.
        Unreachable: no answer; asking again may help.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    local = directory / Path(path).name
    with host.session():
        for _ in range(ROUNDS_MAX):
            before = _hashes(host, path)
            if path not in before:
                raise BadInput(
                    "source",
                    f"{host.target} has no file {path} that can be read",
                    "Name the grafana.db of the Grafana that is to be moved",
                )
            for suffix in ("", *COMPANIONS):
                Path(f"{local}{suffix}").unlink(missing_ok=True)
                if path + suffix in before:
                    host.fetch(path + suffix, Path(f"{local}{suffix}"))
            if _hashes(host, path) == before:
                return local
    raise Refused(
        host.target,
        f"{path} changed during each of {ROUNDS_MAX} copies",
        "Stop Grafana, then take the copy again",
    )


def _hashes(host: SshHost, path: str) -> dict[str, str]:
    """Hashes of the files that are there, by path; `sha256sum` exits 1 where one is missing."""
    names = [path + suffix for suffix in ("", *COMPANIONS)]
    answer = host.read(["sha256sum", "--", *names], within_seconds=600, accept=(0, 1))
    found = {}
    for line in answer.stdout.splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) == SHA256_CHARACTERS:
            found[name] = digest
    return found
