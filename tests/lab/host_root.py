"""The root file system that the hosts of the lab share, built once and kept under `.lab/`.

It is built by mmdebstrap from this machine's own package sources. Every service in it but sshd is
disabled until a test starts it.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import (
    GuardedProcess,
    LabError,
    Place,
    ServerMissing,
    bare_environment,
    made_up_password,
    tail_of,
    write_secret,
)

CACHE = Path(__file__).parents[2] / ".lab"
BUILD_WITHIN_SECONDS = 600  # a machine at work on five things takes minutes
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo"),
    *("iproute2", "iputils-ping", "procps", "util-linux", "nftables", "ca-certificates"),
    *("openssl", "python3", "python3-cryptography", "python3-yaml", "chrony"),
    *("redis-server", "redis-sentinel", "redis-tools"),
    *("postgresql", "patroni", "etcd-server", "etcd-client"),
)
LEFT_OUT = (
    *("share/doc", "share/man", "share/locale", "share/info", "share/lintian", "share/i18n"),
    # Postgres compiles nothing at run time then, which needs no 150 MB of compiler.
    *("lib/postgresql/*/lib/llvmjit*", "lib/postgresql/*/lib/bitcode", "lib/llvm-*"),
    *("lib/*/libLLVM*", "lib/*/libz3*"),
)
OPS_ID, ASKED_ID = 2000, 2001  # accounts, and groups of the same name
DISABLED = (
    *("redis-server", "redis-sentinel", "postgresql", "patroni", "etcd", "chrony", "nftables"),
    *("e2scrub_reap", "systemd-timesyncd"),
)
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "console-getty.service", "systemd-networkd-wait-online.service"),
)

# Run by mmdebstrap on this machine once the packages are in; $1 is the new root.
FURNISH = rf"""
set -e
chroot "$1" useradd --uid {OPS_ID} --create-home --shell /bin/bash ops
chroot "$1" useradd --uid {ASKED_ID} --create-home --shell /bin/bash asked
printf 'asked:%s\n' "$LAB_PASSWORD" | chroot "$1" chpasswd
echo 'ops ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/ops"
echo 'asked ALL=(ALL) ALL' > "$1/etc/sudoers.d/asked"
chmod 440 "$1/etc/sudoers.d/ops" "$1/etc/sudoers.d/asked"
printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'PermitRootLogin prohibit-password' \
    'PasswordAuthentication no' 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/lab_keys' \
    'UseDNS no' 'MaxStartups 200' > "$1/etc/ssh/sshd_config.d/lab.conf"
# A host must not set the clock that it shares with this machine; chronyd then only watches it.
echo 'DAEMON_OPTS="-F 1 -x"' > "$1/etc/default/chrony"
mkdir "$1/etc/systemd/system/chrony.service.d"
printf '[Unit]\nConditionCapability=\n' > "$1/etc/systemd/system/chrony.service.d/lab.conf"
rm -f "$1"/etc/ssh/ssh_host_*
rm -f "$1"/etc/resolv.conf "$1"/var/cache/apt/*.bin
rm -rf "$1"/var/log/journal "$1"/var/lib/apt/lists/*
mkdir -p "$1/var/log/journal"
: > "$1/etc/machine-id"
: > "$1/etc/fstab"
for unit in {" ".join(DISABLED)}; do
    systemctl --root="$1" --quiet disable "$unit" 2>/dev/null || :
done
systemctl --root="$1" --quiet mask {" ".join(MASKED)}
"""


def sources() -> list[Path]:
    """Return the package sources of this machine."""
    folder = Path("/etc/apt")
    found = [*folder.glob("sources.list.d/*.sources"), *folder.glob("sources.list.d/*.list")]
    return [path for path in (folder / "sources.list", *found) if path.is_file()]


@dataclass(frozen=True)
class RootFileSystem:
    """What every host starts from."""

    folder: Path
    password: str  # of the account `asked`

    @property
    def files(self) -> Path:
        """The root of it: a folder, or an archive where this process is not root."""
        return self.folder / ("files" if os.geteuid() == 0 else "files.tar")


def build_command(target: Path) -> list[str]:
    """Return the command that builds a root file system there.

    As root it mounts /proc, /sys and parts of /dev below the target: in a mount namespace of its
    own, so that none of them is left for whoever clears up after a build that was killed.
    """
    mode, apart = ("root", ["unshare", "--mount"]) if os.geteuid() == 0 else ("unshare", [])
    return [
        *apart,
        *("mmdebstrap", "--variant=apt", f"--mode={mode}", f"--include={','.join(PACKAGES)}"),
        *(f"--dpkgopt=path-exclude=/usr/{path}{end}" for path in LEFT_OUT for end in ("", "/*")),
        "--dpkgopt=force-unsafe-io",
        "--aptopt=APT::Install-Recommends false",
        f"--customize-hook={FURNISH}",
        "",  # the suite is that of the sources
        str(target),
        *map(str, sources()),
    ]


def root_file_system() -> RootFileSystem:
    """Return the cached root file system, built first where it is missing (half a minute).

    Raises:
        ServerMissing: this machine has no package sources.
        LabError: it could not be built; shows the end of what was said.
    """
    recipe = repr((PACKAGES, LEFT_OUT, FURNISH))
    folder = CACHE / f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}-{os.geteuid()}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build(folder)
    return RootFileSystem(folder, (folder / "password").read_text())


def build(folder: Path) -> None:
    """Build it beside its place and put it there only once it is whole."""
    if not sources():
        raise ServerMissing("there are no apt package sources to build a root file system from")
    for left in CACHE.glob("partial-*"):  # of a build that was killed together with its guardian
        shutil.rmtree(left, ignore_errors=True)
    partial = RootFileSystem(
        Path(tempfile.mkdtemp(prefix="partial-", dir=CACHE)), made_up_password()
    )
    partial.folder.chmod(0o755)
    write_secret(partial.folder / "password", partial.password)
    log = CACHE / "root.log"
    log.unlink(missing_ok=True)
    process = GuardedProcess(
        build_command(partial.files),
        bare_environment(LAB_PASSWORD=partial.password),
        Place(log, CACHE, scratch=partial.folder),
    )
    try:
        code = process.wait(BUILD_WITHIN_SECONDS)
        if code != 0:
            raise LabError(f"mmdebstrap ended with {code}:\n{tail_of(log)}")
        partial.folder.rename(folder)
    finally:
        process.close()
        shutil.rmtree(partial.folder, ignore_errors=True)
