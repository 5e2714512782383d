"""One machine: systemd-nspawn that boots an overlay on the shared root file system.

Its own are systemd, files, journal, network devices, boot id, uptime and process ids. Its network
namespace is made at each boot and ends with it, so that a machine without power is silent.

It shares with this machine the kernel, its settings, modules and load, and the wall clock, which
it cannot set. A power cut loses what processes hold in memory, but no write: what was written and
never synced is there after it, as it would not be on a real machine.
"""

import contextlib
import itertools
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.host_backend import WITHIN_SECONDS, Bind, Plug
from tests.lab.host_cgroups import ControlGroups
from tests.lab.host_network import HubNetwork
from tests.lab.processes import GuardedProcess, LabError, Place, bare_environment, find_binary
from tests.lab.sshd import children_of

REBOOT_ASKED = "133"  # exit code of systemd-nspawn
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LANG": "C.UTF-8",
}

# Enough for files and accounts. A command among the files of a host that is off runs on no host
# but on this machine, whose clock, power and processes are out of its reach.
WHILE_OFF = ",".join(
    f"+{name}"
    for name in (
        *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "setfcap", "mknod"),
        *("kill", "setgid", "setuid", "setpcap", "sys_chroot"),
    )
)
UNPACK = ("tar", "-x", "-f-", "--directory=/", "--unlink-first", "--preserve-permissions")
MOUNT = r"""
set -e
mkdir "$2/up" "$2/work" "$2/root"
exec mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/up,workdir=$2/work" "$2/root"
"""
# Boots it, and again whenever it asks for that. Interfaces are made and addressed from outside, as
# a data centre's DHCP would.
BOOT = rf"""
directory=$1
shift
while :; do
    : > "$directory/net"
    unshare --net="$directory/net" true &&
        ip -batch "$directory/links" &&
        nsenter --net="$directory/net" ip -batch "$directory/addresses" || exit 99
    since=$(cut -d. -f1 /proc/uptime)
    setpriv --pdeathsig KILL \
        unshare --time --boottime=-$since --monotonic=-$since \
        --pid --mount-proc --fork --kill-child=SIGKILL "$@"
    code=$?
    ip -batch "$directory/unlinks"
    umount "$directory/net"
    echo "$code" >> "$directory/exits"
    [ "$code" = {REBOOT_ASKED} ] || exit "$code"
done
"""
UNPLUG = r"""
ip -force -batch "$1/unlinks" 2>/dev/null
umount "$1/net" 2>/dev/null
:
"""


class NspawnMachine:
    """A machine that can be switched on and off; it starts switched off."""

    def __init__(
        self,
        name: str,
        network: HubNetwork,
        log: Path,
        plugs: Sequence[Plug],
        binds: Iterable[Bind],
    ) -> None:
        self.name = name
        self.log = log
        self.network = network
        self._directory = network.scratch / name
        self._plugs = tuple(plugs)
        self._binds = [
            f"--bind{'-ro' if bind.read_only else ''}={bind.outside}:{bind.inside}"
            for bind in binds
        ]
        self._numbers = itertools.count(1)
        self._groups: ControlGroups | None = None
        self._process: GuardedProcess | None = None

    def assemble(self, root: Path) -> None:
        """Mount its file system over the shared one, and lay out its cables."""
        self._directory.mkdir()
        self.network.run(["sh", "-c", MOUNT, "mount", str(root), str(self._directory)])
        links, addresses, unlinks = [], ["link set lo up"], []
        for plug in self._plugs:
            peer = f"peer name {plug.interface} address {plug.hardware_address}"
            links += [
                f"link add {plug.end} type veth {peer} netns {self._directory}/net",
                f"link set {plug.end} addrgenmode none",
                f"link set {plug.end} master {plug.bridge} up",
            ]
            addresses += [
                f"link set {plug.interface} addrgenmode none",
                f"addr add {plug.address} dev {plug.interface}",
                f"link set {plug.interface} up",
            ]
            unlinks += [f"link delete {plug.end}"]
        for file, lines in (("links", links), ("addresses", addresses), ("unlinks", unlinks)):
            (self._directory / file).write_text("\n".join(lines) + "\n")

    def power_on(self) -> None:
        """Switch it on; nothing when it is on."""
        if self.is_on:
            return
        self._pull_out()
        self._groups = ControlGroups(f"{self.network.name}-{self.name}-{next(self._numbers)}")
        command = [
            *self._groups.entered,
            *self.network.entered,
            *("sh", "-c", BOOT, "boot", str(self._directory)),
            *(find_binary("systemd-nspawn"), "--quiet", "--boot", "--register=no", "--keep-unit"),
            *("-D", str(self._directory / "root"), "-M", self._groups.name),
            *("--hostname", self.name, "--capability=CAP_NET_ADMIN"),
            f"--network-namespace-path={self._directory}/net",
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no"),
            *("--console=read-only", "--kill-signal=SIGRTMIN+3", *self._binds),
        ]
        place = Place(self.log, Path("/"), groups=tuple(self._groups.folders))
        self._process = GuardedProcess(command, bare_environment(), place)

    def power_cut(self) -> None:
        """Take its power away: it says nothing more to anybody, and does nothing more."""
        downs = [f"link set {plug.end} down" for plug in self._plugs]
        with contextlib.suppress(LabError):  # it has no links while it boots or is off
            self.network.run(["ip", "-force", "-batch", "-"], "\n".join(downs))
        self._pull_out()

    def _pull_out(self) -> None:
        self.close()
        self.network.run(["sh", "-c", UNPLUG, "unplug", str(self._directory)])

    def close(self) -> None:
        """End all its processes."""
        if self._process is not None:
            self._process.close()
            self._process = None
            self._groups = None

    @property
    def is_on(self) -> bool:
        """Whether it has power: from `power_on` until it is cut or powers itself off."""
        return self._process is not None and self._process.is_running

    @property
    def is_up(self) -> bool:
        """Whether a systemd runs in it; it need not be done with booting."""
        return self._init() is not None

    @property
    def reboot_count(self) -> int:
        """How often it has rebooted of itself."""
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / "exits").read_text().split().count(REBOOT_ASKED)
        return 0

    def freeze(self) -> None:
        """Stop everything that runs in it; the kernel, being this machine's, goes on."""
        if self._groups is None:
            raise LabError(f"{self.name} is off: there is nothing to freeze")
        self._groups.freeze()

    def thaw(self) -> None:
        """Let it go on; nothing when it is off."""
        if self._groups is not None:
            self._groups.thaw()

    def run(
        self, argv: list[str], given: bytes, within_seconds: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command of root's in the running system; among its files while it is off.

        Raises:
            LabError: it is on its way up or down, or the command took longer.
        """
        try:
            return subprocess.run(
                [*self._entered(), *argv],
                input=given,
                capture_output=True,
                check=False,
                timeout=within_seconds,
                env=ENVIRONMENT,
                cwd="/",
                umask=0o022,
            )
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{self.name}: {argv} took over {within_seconds:g} s") from late

    def unpack(self, archive: bytes) -> None:
        """Put the files of a tar archive into it, on or off; errors are those of `run`."""
        self._answered([*UNPACK], archive)

    def read_file(self, path: str) -> bytes:
        """Return the content of a file, on or off; errors are those of `run`."""
        return self._answered(["cat", "--", path])

    def _answered(self, argv: list[str], given: bytes = b"") -> bytes:
        done = self.run(argv, given, WITHIN_SECONDS)
        if done.returncode != 0:
            raise LabError(f"{self.name}: {argv}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def _entered(self) -> list[str]:
        """The start of a command inside, which may do there no more than the host itself may."""
        if not self.is_on:
            apart = ["unshare", "--pid", "--fork", "--kill-child", "chroot"]
            bounded = ["setpriv", f"--bounding-set=-all,{WHILE_OFF}", "--"]
            return [*self.network.entered, *apart, str(self._directory / "root"), *bounded]
        init = self._init()
        if init is None:
            raise LabError(f"{self.name} is on its way up or down: it runs no systemd")
        bounded = ["setpriv", f"--bounding-set={bounding_set(init)}", "--"]
        return ["nsenter", "--target", str(init), "--all", *bounded]

    def _init(self) -> int | None:
        """The process that is 1 inside; `None` while there is none."""
        if self._process is None or not self.is_on:
            return None
        generation = [self._process.pid]
        while generation:
            generation = [child for pid in generation for child in children_of(pid)]
            for pid in generation:
                if is_init(pid):
                    return pid
        return None


def status_of(pid: int) -> dict[str, list[str]]:
    """Return what the kernel tells of a process; nothing where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def is_init(pid: int) -> bool:
    """Whether it is a systemd that is process 1 of its own."""
    status = status_of(pid)
    return bool(status) and status["Name"] == ["systemd"] and status["NSpid"][-1] == "1"


def bounding_set(pid: int) -> str:
    """Return what a process may ever be allowed, as setpriv takes it.

    Raises:
        LabError: it has ended.
    """
    status = status_of(pid)
    if not status:
        raise LabError(f"process {pid} has ended")
    mask = int(status["CapBnd"][0], 16)
    kept = [f"+cap_{number}" for number in range(mask.bit_length()) if mask >> number & 1]
    return ",".join(["-all", *kept])
