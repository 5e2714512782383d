"""One machine: a container whose process 1 is systemd, of the shared root file system.

It differs from an nspawn machine in this: while it is off, its files can be read and written, but
no command can be run among them; and frozen, it takes no command from outside either.
"""

import contextlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.docker_network import LABEL, DockerNetwork
from tests.lab.host_backend import WITHIN_SECONDS, Bind, Plug, run_tool
from tests.lab.host_identity import File, tar_of
from tests.lab.processes import GuardedProcess, LabError, Place, bare_environment

REBOOT_ASKED = "129"  # the kernel ends the container's process 1 by SIGHUP
INIT = "/lab-init"
# Docker shows files of its own where the host has its name and its peers.
INIT_SCRIPT = r"""#!/bin/sh
set -e
umount /etc/hosts /etc/hostname /etc/resolv.conf
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || mount -o remount,rw /sys/fs/cgroup
cat /proc/sys/kernel/random/uuid > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
since=$(cut -d. -f1 /proc/uptime)
exec unshare --time --boottime=-$since --monotonic=-$since \
    setpriv --bounding-set=-sys_time --inh-caps=-sys_time /lib/systemd/systemd
"""
# The clock of this machine is the clock of every container. Making a time namespace takes the
# capability to set it, so the calls that do are refused to everything in the container.
CLOCK_CALLS = ("clock_settime", "clock_settime64", "settimeofday", "stime", "adjtimex")
SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {
            "names": [*CLOCK_CALLS, "clock_adjtime", "clock_adjtime64"],
            "action": "SCMP_ACT_ERRNO",
        }
    ],
}
# Boots it, and again whenever it asks for that.
BOOT = rf"""
while :; do
    docker start --attach "$1"
    code=$?
    echo "$code" >> "$2"
    [ "$code" = {REBOOT_ASKED} ] || exit "$code"
done
"""
CAPABILITIES = (
    *("AUDIT_CONTROL", "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER"),
    *("FSETID", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MKNOD", "NET_ADMIN"),
    *("NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_NICE", "SYS_PTRACE", "SYS_RESOURCE"),
    *("SYS_TIME", "SYS_TTY_CONFIG"),
)
SYS_RESOURCE = 24
INSIDE = ("docker", "exec", "--interactive", "--workdir=/", "--env=LANG=C.UTF-8")
IN_ITS_TIME = ("nsenter", "--target=1", "--time", "--")
UNPACK = ("tar", "-x", "-f-", "--directory=/", "--unlink-first", "--preserve-permissions")


class DockerMachine:
    """A machine that can be switched on and off; it starts switched off."""

    def __init__(
        self,
        name: str,
        network: DockerNetwork,
        log: Path,
        plugs: Sequence[Plug],
        binds: Iterable[Bind],
    ) -> None:
        self.name = name
        self.log = log
        self.network = network
        self._container = f"{network.name}-{name}"
        self._exits = network.scratch / f"{name}.exits"
        self._plugs = tuple(plugs)
        self._binds = tuple(binds)
        self._is_plugged_in = True
        self._process: GuardedProcess | None = None

    def assemble(self, image: str, cgroup_version: int) -> None:
        """Create the container."""
        profile = self.network.scratch / "seccomp.json"
        profile.write_text(json.dumps(SECCOMP))
        first, *others = self._plugs
        groups = {
            1: ["--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro"],
            2: ["--cgroupns=private"],
        }[cgroup_version]
        run_tool(
            [
                *("docker", "create", "--tty", "--name", self._container, "--hostname", self.name),
                *("--label", f"{LABEL}={self.network.name}", "--env", "container=docker"),
                *("--network", self.network.bridge(first.bridge), "--ip", str(first.address.ip)),
                *("--cap-drop=ALL", *given(), "--security-opt", f"seccomp={profile}"),
                *("--security-opt", "apparmor=unconfined", *groups),
                *("--tmpfs=/run", "--tmpfs=/run/lock"),
                *(
                    f"--volume={bind.outside}:{bind.inside}{':ro' if bind.read_only else ''}"
                    for bind in self._binds
                ),
                *(image, INIT),
            ]
        )
        for plug in others:
            self._plug_in(plug)
        self.unpack(tar_of({INIT: File(INIT_SCRIPT, 0o755)}))

    def _plug_in(self, plug: Plug) -> None:
        way = [self.network.bridge(plug.bridge), self._container]
        run_tool(["docker", "network", "connect", "--ip", str(plug.address.ip), *way])

    def power_on(self) -> None:
        """Switch it on; nothing when it is on."""
        if self.is_on:
            return
        self.close()
        if not self._is_plugged_in:
            for plug in self._plugs:
                self._plug_in(plug)
            self._is_plugged_in = True
        docker = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
        self._process = GuardedProcess(
            ["sh", "-c", BOOT, "boot", self._container, str(self._exits)],
            bare_environment(**docker),
            Place(self.log, Path("/")),
        )

    def power_cut(self) -> None:
        """Take its power away: it says nothing more to anybody, and does nothing more."""
        if self._is_plugged_in:
            for plug in self._plugs:
                way = [self.network.bridge(plug.bridge), self._container]
                run_tool(["docker", "network", "disconnect", "--force", *way])
            self._is_plugged_in = False
        self.close()

    def close(self) -> None:
        """End all its processes."""
        if self._process is None:
            return
        for verb in ("unpause", "kill"):  # a paused container cannot be killed
            with contextlib.suppress(LabError):
                run_tool(["docker", verb, self._container])
        self._process.close()
        self._process = None

    @property
    def is_on(self) -> bool:
        """Whether it has power: from `power_on` until it is cut or powers itself off."""
        return self._process is not None and self._process.is_running

    @property
    def is_up(self) -> bool:
        """Whether a systemd runs in it; it need not be done with booting."""
        if not self.is_on:
            return False
        looked = ["docker", "inspect", "--format", "{{.State.Running}}", self._container]
        return run_tool(looked).strip() == "true"

    @property
    def reboot_count(self) -> int:
        """How often it has rebooted of itself."""
        with contextlib.suppress(FileNotFoundError):
            return self._exits.read_text().split().count(REBOOT_ASKED)
        return 0

    def freeze(self) -> None:
        """Stop everything that runs in it; the kernel, being this machine's, goes on."""
        run_tool(["docker", "pause", self._container])

    def thaw(self) -> None:
        """Let it go on; nothing when it is off."""
        if self.is_on:
            run_tool(["docker", "unpause", self._container])

    def run(
        self, argv: list[str], given: bytes, within_seconds: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command of root's in the running system.

        Raises:
            LabError: it is off, or on its way up or down, or the command took longer.
        """
        if not self.is_up:
            raise LabError(f"{self.name} is off, or on its way up or down: it runs nothing")
        try:
            return subprocess.run(
                [*INSIDE, self._container, *IN_ITS_TIME, *argv],
                input=given,
                capture_output=True,
                check=False,
                timeout=within_seconds,
            )
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{self.name}: {argv} took over {within_seconds:g} s") from late

    def unpack(self, archive: bytes) -> None:
        """Put the files of a tar archive into it, on or off.

        Raises:
            LabError: they could not be; says why.
        """
        if self.is_on:
            self._answered(self.run([*UNPACK], archive, WITHIN_SECONDS))
        else:
            self._answered(self._copied("-", f"{self._container}:/", archive))

    def read_file(self, path: str) -> bytes:
        """Return the content of a file, on or off.

        Raises:
            LabError: it could not be read; says why.
        """
        if self.is_on:
            return self._answered(self.run(["cat", "--", path], b"", WITHIN_SECONDS))
        archive = self._answered(self._copied(f"{self._container}:{path}", "-", b""))
        with tarfile.open(fileobj=io.BytesIO(archive)) as members:
            (member,) = members.getmembers()
            content = members.extractfile(member)
            if content is None:
                raise LabError(f"{self.name}: {path} is no file")
            return content.read()

    def _copied(self, source: str, target: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["docker", "cp", source, target],
            input=given,
            capture_output=True,
            check=False,
            timeout=WITHIN_SECONDS,
        )

    def _answered(self, done: subprocess.CompletedProcess[bytes]) -> bytes:
        if done.returncode != 0:
            raise LabError(f"{self.name}: {done.args}: {done.stderr.decode(errors='replace')}")
        return done.stdout


def given() -> list[str]:
    """The capabilities that it is given: those of nspawn's that this machine has got itself."""
    status = Path("/proc/self/status").read_text()
    (bounding,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapBnd")]
    has_resource = int(bounding, 16) >> SYS_RESOURCE & 1
    return [f"--cap-add={name}" for name in CAPABILITIES if name != "SYS_RESOURCE" or has_resource]
