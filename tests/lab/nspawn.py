"""A real systemd with a real sshd, in a systemd-nspawn container on an overlay of one root.

The root file system is built once from this machine's own package sources and kept under `.lab/`.
The overlay is mounted in a mount namespace of the container alone, so that nothing is left mounted
however this process ends. The network is the machine's own: sshd listens on a free loopback port.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from blocks.ssh_host import SshHost
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import LabError, Server, ServerMissing, find_binary, scratch_directory
from tests.lab.sshd import make_key

PACKAGES = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo")
CACHE = Path(__file__).parents[2] / ".lab"
CGROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = ("systemd", "unified", "pids", "freezer")  # of a machine that is not on cgroup v2
USER = "ops"  # an account that is not root, and may run systemctl by sudo

OWN_CGROUPS = f"""
for hierarchy in {" ".join(HIERARCHIES)}; do
    [ -d {CGROUPS}/$hierarchy ] || continue
    mkdir -p {CGROUPS}/$hierarchy/$1
    echo $$ > {CGROUPS}/$hierarchy/$1/cgroup.procs
done
"""
START = r"""
mount -t overlay overlay -o "lowerdir=$2,upperdir=$3/up,workdir=$3/work" "$3/root"
shift 3
exec "$@"
"""


def missing() -> str:
    """Return what this machine lacks for such a host; empty when nothing."""
    if os.geteuid() != 0:
        return "systemd-nspawn needs root"
    for binary in ("systemd-nspawn", "mmdebstrap", "unshare", "ssh-keygen"):
        if shutil.which(binary) is None:
            return f"{binary} is not installed"
    if not sources():
        return "there are no apt package sources to build a root file system from"
    if not runs_systemd():
        try:
            Path(tempfile.mkdtemp(dir=CGROUPS / HIERARCHIES[0])).rmdir()
        except OSError as error:
            return f"control groups cannot be made: {error}"
    return ""


def runs_systemd() -> bool:
    """Whether systemd runs this machine too, and gives out its control groups."""
    return Path("/run/systemd/system").is_dir()


def sources() -> list[Path]:
    """Return the package sources of this machine."""
    folder = Path("/etc/apt")
    found = [*folder.glob("sources.list.d/*.sources"), *folder.glob("sources.list.d/*.list")]
    return [path for path in (folder / "sources.list", *found) if path.is_file()]


def root_file_system() -> Path:
    """Return the cached root file system, built first where it is missing (half a minute).

    Raises:
        LabError: it could not be built; shows the end of what was said.
    """
    recipe = hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:12]
    root = CACHE / f"root-{recipe}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            partial = root.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            built = subprocess.run(
                [
                    "mmdebstrap",
                    "--variant=minbase",
                    "--mode=root",
                    f"--include={','.join(PACKAGES)}",
                    "--dpkgopt=path-exclude=/usr/share/doc/*",
                    "",  # the suite is that of the sources
                    partial,
                    *sources(),
                ],
                check=False,
                capture_output=True,
                text=True,
            )
            if built.returncode != 0:
                raise LabError(f"mmdebstrap failed:\n{built.stderr[-2000:]}")
            partial.rename(root)
    return root


class NspawnHost(Server):
    """A host with systemd, sshd, root and an account that is not root."""

    name = "host"

    def __init__(self, directory: Path, scratch: Path, units: Mapping[str, str]) -> None:
        super().__init__(directory, scratch=scratch)
        self._upper = scratch
        self._machine = scratch.name.replace("_", "0")  # a machine name takes no underscore
        self.port = free_port()
        self.client_key = make_key(directory / "client_key")
        self.known_hosts = directory / "known_hosts"
        for name in ("up", "work", "root"):
            (scratch / name).mkdir()
        self._furnish(units)

    def _furnish(self, units: Mapping[str, str]) -> None:
        """Write what makes this host another than the cached root."""
        key = make_key(self.directory / "host_key")
        public = key.with_suffix(".pub").read_text()
        self.known_hosts.write_text(f"[{LOOPBACK}]:{self.port} {public}")
        authorized = self.client_key.with_suffix(".pub").read_text()
        files = {
            "etc/hostname": "lab\n",
            "etc/machine-id": os.urandom(16).hex() + "\n",
            "etc/ssh/lab_host_key": key.read_text(),
            "etc/ssh/lab_authorized_keys": authorized,
            "etc/ssh/sshd_config.d/lab.conf": f"Port {self.port}\nListenAddress {LOOPBACK}\n"
            "HostKey /etc/ssh/lab_host_key\nPermitRootLogin prohibit-password\n"
            "AuthorizedKeysFile /etc/ssh/lab_authorized_keys\nUseDNS no\n",
            f"etc/sudoers.d/{USER}": f"{USER} ALL=(root) NOPASSWD: /usr/bin/systemctl\n",
            f"usr/lib/sysusers.d/{USER}.conf": f'u {USER} 2000 "" /tmp /bin/sh\n',
            **{f"etc/systemd/system/{name}": text for name, text in units.items()},
        }
        for name, text in files.items():
            path = self._upper / "up" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for folder in (self._upper / "up", *(self._upper / "up").rglob("*/")):
            folder.chmod(0o755)
        (self._upper / "up/etc/ssh/lab_host_key").chmod(0o600)
        (self._upper / f"up/etc/sudoers.d/{USER}").chmod(0o440)

    def command(self) -> list[str]:
        start = "set -e\n" + ("" if runs_systemd() else OWN_CGROUPS) + START
        scope = ["systemd-run", "--quiet", "--scope", "-p", "Delegate=yes"]
        return [
            *(scope if runs_systemd() else []),
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", start, "start"),
            *(self._machine, str(root_file_system()), str(self._upper)),
            *(find_binary("systemd-nspawn"), "--quiet", "--boot", "--register=no", "--keep-unit"),
            *("-D", str(self._upper / "root"), "-M", self._machine),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no"),
            *("--console=read-only", "--kill-signal=SIGRTMIN+3"),
        ]

    def answers(self) -> object:
        return self.block().read(["true"], within_seconds=5).exit_code == 0

    def block(self, user: str = "root") -> SshHost:
        """Return the block that logs in to it."""
        return SshHost(
            address=LOOPBACK,
            port=self.port,
            user=user,
            key_file=self.client_key,
            known_hosts_file=self.known_hosts,
        )

    def close(self) -> None:
        """End it and take its control groups away."""
        super().close()
        for hierarchy in HIERARCHIES:
            top = CGROUPS / hierarchy / self._machine
            for folder in [*sorted(top.rglob("*/"), reverse=True), top]:
                with contextlib.suppress(OSError):
                    folder.rmdir()


@contextlib.contextmanager
def nspawn_host(directory: Path, units: Mapping[str, str] | None = None) -> Iterator[NspawnHost]:
    """Run a host with systemd until the end of the block.

    Args:
        directory: for keys and log; made where it is missing.
        units: unit files by name, put where systemd looks for them.

    Raises:
        ServerMissing: this machine cannot run one; says what it lacks.
        LabError: it did not start.
    """
    lacking = missing()
    if lacking:
        raise ServerMissing(lacking)
    directory.mkdir(parents=True, exist_ok=True)
    with scratch_directory("host") as scratch:
        scratch.chmod(0o755)
        host = NspawnHost(directory, scratch, units or {})
        try:
            host.start()
            yield host
        finally:
            host.close()
