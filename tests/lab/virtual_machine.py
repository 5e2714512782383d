"""A virtual machine with a kernel, and hence a clock, of its own; and a source of time for it.

    with time_source(directory) as source, virtual_machine(directory) as machine:
        machine.run("date -s '+30 seconds'")

It is emulated (TCG): it boots in ten to twenty seconds, and a command over ssh takes up to half a
second. Nothing is written to its disk image; the network is the user's own, without rights.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from blocks.ssh.host import SshHost
from tests.lab.host_root import CACHE, sources
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import (
    GuardedProcess,
    LabError,
    Place,
    Server,
    ServerMissing,
    bare_environment,
    scratch_directory,
    tail_of,
)
from tests.lab.sshd import make_key

BINARIES = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "unshare", "ssh-keygen")
PACKAGES = (
    *("systemd-sysv", "udev", "kmod", "dbus", "openssh-server", "iproute2", "procps", "chrony"),
    "linux-image-cloud-amd64",
)
BUILD_WITHIN_SECONDS = 300
GATEWAY = "10.0.2.2"  # how the guest calls the loopback address of this machine
DISK_BYTES = 1_200_000_000
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "systemd-networkd-wait-online.service"),
)
FURNISH = rf"""
set -e
echo machine > "$1/etc/hostname"; : > "$1/etc/machine-id"
echo '/dev/nvme0n1 / ext4 rw,noatime 0 1' > "$1/etc/fstab"
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n[DHCPv4]\nUseNTP=no\n' \
    > "$1/etc/systemd/network/lab.network"
printf '%s\n' 'UseDNS no' 'HostKey /etc/ssh/ssh_host_ed25519_key' \
    > "$1/etc/ssh/sshd_config.d/lab.conf"
systemctl --root="$1" --quiet enable systemd-networkd ssh
systemctl --root="$1" --quiet disable chrony
systemctl --root="$1" --quiet mask {" ".join(MASKED)}
"""
# Without no_timer_check a guest beside a busy job panics at boot.
KERNEL_LINE = (
    "root=/dev/nvme0n1 rw console=ttyS0 quiet rodata=off mitigations=off audit=0 "
    "no_timer_check panic=1"
)
MAKE_DISK = """set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/up,workdir=$2/work" "$2/root"
truncate -s "$3" "$2/disk"
mke2fs -q -t ext4 -d "$2/root" "$2/disk"
"""


def missing() -> str:
    """Return what this machine lacks; empty when nothing."""
    if os.geteuid() != 0:
        return "a virtual machine needs root to make its disk"
    for binary in BINARIES:
        if shutil.which(binary) is None:
            return f"{binary} is not installed"
    return "" if sources() else "there are no apt package sources to build a machine from"


def root_of_machine() -> Path:
    """Return the cached root file system, built first where it is missing (half a minute).

    Raises:
        ServerMissing: this machine lacks something.
        LabError: it could not be built; shows the end of what was said.
    """
    if lacking := missing():
        raise ServerMissing(lacking)
    CACHE.mkdir(exist_ok=True)
    root = CACHE / f"machine-{hashlib.sha256(repr((PACKAGES, FURNISH)).encode()).hexdigest()[:12]}"
    with (CACHE / "machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _build(root)
    return root


def _build(root: Path) -> None:
    partial, log = root.with_suffix(".partial"), CACHE / "machine.log"
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        *("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "locale", "doc")),
        "--dpkgopt=force-unsafe-io",
        "--aptopt=APT::Install-Recommends false",
        f"--customize-hook={FURNISH}",
        "",  # the suite is that of the sources
        str(partial),
        *map(str, sources()),
    ]
    process = GuardedProcess(command, bare_environment(), Place(log, CACHE, scratch=partial))
    try:
        code = process.wait(BUILD_WITHIN_SECONDS)
        if code != 0:
            raise LabError(f"mmdebstrap ended with {code}:\n{tail_of(log)}")
        partial.rename(root)
    finally:
        process.close()


class TimeSource(Server):
    """A real chronyd that serves this machine's time and sets nobody's clock."""

    name = "time-source"

    def __init__(self, directory: Path, root: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        self._root = root

    def command(self) -> list[str]:
        directives = (
            f"port {self.port}",
            f"bindaddress {LOOPBACK}",
            "allow",
            "local stratum 3",
            "cmdport 0",
            "bindcmdaddress /",
            f"pidfile /run/time-source-{self.port}.pid",
        )
        chronyd = ["chroot", str(self._root), "/usr/sbin/chronyd", "-x", "-d", "-F", "0"]
        return [*chronyd, "-u", "root", *directives]

    def answers(self) -> object:
        return "Disabled control of system clock" in self.log.read_text()


class VirtualMachine(Server):
    """A machine with systemd, sshd and chrony, which follows nothing until a test says so."""

    name = "machine"
    start_within_seconds = 300.0  # twenty where nothing else runs

    def __init__(self, directory: Path, scratch: Path, root: Path) -> None:
        super().__init__(directory, scratch=scratch)
        self._root, self._scratch = root, scratch
        self.port = free_port()
        self.client_key = make_key(directory / "machine_key")
        self.known_hosts = directory / "machine_known_hosts"
        self._make_disk()

    def _make_disk(self) -> None:
        for name in ("work", "root", "up/root/.ssh", "up/etc/ssh"):
            (self._scratch / name).mkdir(parents=True)
        key = make_key(self.directory / "machine_host_key")
        public = Path(f"{key}.pub").read_text()
        self.known_hosts.write_text(f"[{LOOPBACK}]:{self.port} {public}")
        up = self._scratch / "up"
        (up / "etc/ssh/ssh_host_ed25519_key").write_text(key.read_text())
        (up / "etc/ssh/ssh_host_ed25519_key").chmod(0o600)
        authorized = Path(f"{self.client_key}.pub").read_text()
        (up / "root/.ssh/authorized_keys").write_text(authorized)
        for folder in (up / "root", up / "root/.ssh"):
            folder.chmod(0o700)
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MAKE_DISK, "disk"]
        made = subprocess.run(
            [*argv, str(self._root), str(self._scratch), str(DISK_BYTES)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise LabError(f"the disk was not made: {made.stderr}")

    def command(self) -> list[str]:
        kernel = next((self._root / "boot").glob("vmlinuz-*"))
        network = f"user,id=n0,hostfwd=tcp:{LOOPBACK}:{self.port}-:22"
        disk = f"if=none,id=d0,file={self._scratch}/disk,format=raw,snapshot=on,cache=unsafe"
        return [
            *("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,tb-size=128"),
            *("-cpu", "qemu64", "-smp", "1", "-m", "256", "-nodefaults", "-no-user-config"),
            *("-display", "none", "-serial", "stdio", "-kernel", str(kernel)),
            *("-append", KERNEL_LINE),
            *("-drive", disk, "-device", "nvme,drive=d0,serial=d0"),
            *("-netdev", network, "-device", "virtio-net-pci,netdev=n0"),
            *("-device", "virtio-rng-pci"),
        ]

    def answers(self) -> object:
        return self.block().read(["true"], within_seconds=10).exit_code == 0

    def block(self) -> SshHost:
        """Return the block that logs in as root."""
        return SshHost.model_validate(
            {
                "address": LOOPBACK,
                "port": self.port,
                "user": "root",
                "key_file": self.client_key,
                "known_hosts_file": self.known_hosts,
            }
        )

    def url(self) -> str:
        """Return the URL of that block."""
        return (
            f"ssh://root@{LOOPBACK}:{self.port}?known_hosts={self.known_hosts}"
            f"&key_file={self.client_key}"
        )

    def run(self, text: str, within_seconds: float = 60) -> str:
        """Run a line of shell as root, over ssh, and return what it printed.

        Raises:
            CommandFailed: it failed.
        """
        return self.block().read(["sh", "-c", text], within_seconds=within_seconds).stdout


@contextlib.contextmanager
def time_source(directory: Path) -> Iterator[TimeSource]:
    """Serve the time of this machine until the end of the block.

    Raises:
        ServerMissing, LabError: as of `root_of_machine`.
    """
    source = TimeSource(directory, root_of_machine())
    try:
        source.start()
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def virtual_machine(directory: Path) -> Iterator[VirtualMachine]:
    """Run a machine until the end of the block.

    Raises:
        ServerMissing, LabError: as of `root_of_machine`, or it did not boot.
    """
    root = root_of_machine()
    with scratch_directory("machine") as scratch:
        machine = VirtualMachine(directory, scratch, root)
        try:
            machine.start()
            yield machine
        finally:
            machine.close()
