"""The names a move of Grafana is started with, turned into what they name."""

import atexit
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit, urlunsplit

from blocks.mysql.server import MysqlServer
from blocks.saved import saved_block
from blocks.ssh.host import SshHost, path_in_url
from recovery.errors import BadInput
from recovery.journal.opening import journal_folder
from recovery.walk import current_fence
from tasks.grafana.pods import SCHEME, GrafanaPods
from tasks.grafana.remote_source import fetch_database
from tasks.grafana.source import COMPANIONS, SourceCopy, take_copy
from tasks.kept_files import sha256_of

UNIT_SCHEME = "systemd+ssh"
MYSQL_SHAPE = "a mysql:// URL, mysql://user@host:port/db?password_file=PATH"


@dataclass(frozen=True)
class SourceFile:
    """Where the SQLite database of Grafana lies: on the worker, `ssh://host/path`, `pod:/path`."""

    url: str
    workload: str = ""
    pods: GrafanaPods | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """The file by name, without the options that say how to log in."""
        return f"{self.workload} {self.url}".strip().partition("?")[0]

    @property
    def path(self) -> str:
        """The path in its pod."""
        return self.url.removeprefix(SCHEME)

    @property
    def is_remote(self) -> bool:
        """Whether it lies elsewhere than on the worker."""
        return self.url.startswith(("ssh://", SCHEME))

    def copy_to(self, directory: Path, accepted: Sequence[str]) -> SourceCopy:
        """Take a copy that is at rest; see `tasks.grafana.source.take_copy` for its errors."""
        if self.url.startswith("ssh://"):
            fetched = fetch_database(SshHost.from_url(self.url), path_in_url(self.url), directory)
            return take_copy(fetched, directory / "at-rest", accepted)
        if self.pods is not None:
            fetched = self.pods.fetch_database(self.path, directory)
            return take_copy(fetched, directory / "at-rest", accepted)
        return take_copy(Path(self.url), directory, accepted)

    def signature(self) -> tuple[int, ...]:
        """What changes when a local file or its log is written to; empty for a remote one."""
        if self.is_remote:
            return ()
        found: list[int] = []
        for suffix in ("", *COMPANIONS):
            with suppress(OSError):
                about = Path(f"{self.url}{suffix}").stat()
                found += [len(suffix), about.st_ino, about.st_size, about.st_mtime_ns]
        return tuple(found)

    def is_at_rest_as(self, copy: SourceCopy) -> bool:
        """Whether it is a local file without a log, the same as when it was copied."""
        if self.is_remote or copy.companions:
            return False
        logs = [Path(f"{self.url}{suffix}") for suffix in COMPANIONS]
        return not any(log.exists() for log in logs) and (
            sha256_of(Path(self.url)) == copy.original_sha256
        )


@dataclass(frozen=True)
class SystemdUnit:
    """The unit that runs Grafana, on a host reached by SSH."""

    host: SshHost
    unit: str

    @property
    def label(self) -> str:
        """Host and unit."""
        return f"{self.host.target} {self.unit}"


@dataclass(frozen=True)
class WorkFolder:
    """Where this recovery keeps copies and dumps: on the worker, apart from what it changes."""

    path: Path

    @property
    def label(self) -> str:
        """The path."""
        return str(self.path)


def source_file(source: str, pods: GrafanaPods | None = None) -> SourceFile:
    """Read the parameter `source`.

    Raises:
        BadInput: it is empty, a URL of another kind than ssh, or in a pod of no cluster.
    """
    if source.startswith(SCHEME):
        path = Path(source.removeprefix(SCHEME))
        if pods is None or not path.is_absolute() or not path.name:
            remedy = (
                "Give cluster, and the path in the container, as pod:/var/lib/grafana/grafana.db"
            )
            raise BadInput("source", f"{source!r} leads into no pod", remedy)
        return SourceFile(source, pods.label, pods)
    if not source.strip():
        raise BadInput("source", "it is empty", "Give the path of grafana.db or ssh://host/path")
    if source.startswith("ssh://"):
        path_in_url(source)
        SshHost.from_url(source)
    elif "://" in source:
        raise BadInput(
            "source",
            f"{source.split('://', 1)[0]}:// is not supported",
            "Give the path of grafana.db or ssh://host/path",
        )
    elif not Path(source).is_absolute():
        raise BadInput(
            "source",
            f"{source!r} is a relative path, and a worker stands in another folder",
            "Give the absolute path",
        )
    return SourceFile(source)


def mysql_target(target: str) -> MysqlServer:
    """Read the parameter `target`: a `mysql://` URL, or the name of a saved MySQL database block.

    Raises:
        BadInput: the URL is malformed, or there is no such block.
    """
    if "://" in target:
        try:
            return MysqlServer.from_url(target)
        except BadInput as wrong:
            raise BadInput(f"target ({wrong.field})", wrong.seen, wrong.remedy) from None
    return saved_block(MysqlServer, target, "target", MYSQL_SHAPE)


def systemd_unit(grafana: str) -> SystemdUnit | None:
    """Read the parameter `grafana`: empty, or `systemd+ssh://user@host/unit?options`.

    Raises:
        BadInput: it is something else.
    """
    if not grafana:
        return None
    parts = urlsplit(grafana)
    if parts.scheme != UNIT_SCHEME:
        raise BadInput(
            "grafana",
            f"{grafana.partition('?')[0]!r} does not say how Grafana is stopped and started",
            f"Give {UNIT_SCHEME}://user@host/grafana-server.service, or leave it empty where "
            "Grafana is stopped already",
        )
    url = urlunsplit(parts._replace(scheme="ssh"))
    return SystemdUnit(SshHost.from_url(url), path_in_url(url).strip("/"))


def work_folder() -> WorkFolder:
    """The folder of the recovery that is running: `RECOVER_WORK_DIR`, else beside the journal."""
    base = os.environ.get("RECOVER_WORK_DIR") or str(journal_folder() / "work")
    return WorkFolder(Path(base) / current_fence().recovery_id)


def scratch_copy(source: SourceFile, accepted: tuple[str, ...]) -> SourceCopy:
    """Take a copy only to look at, or give the one this recovery took of the very same file."""
    return _scratch_copy(source, accepted, current_fence().recovery_id, source.signature())


def fresh_scratch_copy(source: SourceFile, accepted: tuple[str, ...]) -> SourceCopy:
    """Take a copy only to look at; it goes with the process, or with the next one that looks."""
    base = work_folder().path.parent / "looks"
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in base.iterdir():
        if not Path("/proc", left.name.partition(".")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    mine = Path(mkdtemp(prefix=f"{os.getpid()}.", dir=base))
    atexit.register(shutil.rmtree, mine, ignore_errors=True)
    return source.copy_to(mine, accepted)


@lru_cache(maxsize=2)
def _scratch_copy(
    source: SourceFile, accepted: tuple[str, ...], recovery_id: str, signature: tuple[int, ...]
) -> SourceCopy:
    del recovery_id, signature  # what makes one look another than the last
    return fresh_scratch_copy(source, accepted)
