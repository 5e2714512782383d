"""A member that the kubelet runs, told of its cluster by the flags in its manifest.

Its manifest is moved out of the kubelet's folder to stop it, and back to start it: any file that
is left in there, whatever it is called, is started. Outside it lies in a folder beside, the same
in every recovery, so that one that was left there is found and put back.
"""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import NotVerified, Refused
from tasks.etcd.data_home import MOVE_BACK
from tasks.etcd.manifest import OddManifestError, changed, parse_manifest
from tasks.etcd.settings import Settings
from tasks.etcd.tools import PROCESS

MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
PARKED = "/etc/kubernetes/recover-parked/etcd.yaml"
KUBELET = "kubelet.service"
START_BY_HAND = f"mv {PARKED} {MANIFEST}"
STOP_BY_HAND = f"mkdir -p {PARKED.rpartition('/')[0]} && mv {MANIFEST} {PARKED}"
# A kubelet looks at its folder every 20 s at the latest, and gives a pod 30 s to end.
STOP_SECONDS = 120.0
MOVE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
# A parked one that is there already is older: the kubelet runs the other.
PARK = """# move the manifest out of the folder of the kubelet; the former one is kept
set -eu
umask 077
file=$1 parked=$2 keep=$3
mkdir -p "$(dirname "$parked")"
if [ "$keep" ] && [ ! -e "$keep" ]; then
  from=$file
  [ -e "$from" ] || from=$parked
  mkdir -p "$(dirname "$keep")"
  cp -p "$from" "$keep.new"
  sync -f "$keep.new"
  mv "$keep.new" "$keep"
fi
[ -e "$file" ] || exit 0
mv --backup=numbered -T "$file" "$parked"
sync -f "$parked"
"""
# Into that folder by one rename: what is written there bit by bit is started half.
PUT_BACK = """# put the manifest back into the folder of the kubelet
set -eu
file=$1 parked=$2
[ -e "$file" ] || mv -T "$parked" "$file"
sync -f "$file"
"""
GO_BACK = f"""# move the data of before back, with its manifest, and have it started
set -eu
data=$1 aside=$2 file=$3 parked=$4 keep=$5 had=$6
{MOVE_BACK}
if [ -e "$keep" ]; then
  cp -p "$keep" "$parked.recover"
  sync -f "$parked.recover"
  mv -T "$parked.recover" "$parked"
fi
[ ! -e "$parked" ] || mv -T "$parked" "$file"
sync -f "$file"
"""
# While the sandbox of the pod is ready the kubelet has not heard of it yet, and starts it again.
# Without crictl, or where its runtime gives no answer, the process alone tells.
IS_AT_REST = rf"""{PROCESS}
[ ! -e "$1" ] && ! etcd_of "$2" >/dev/null || exit 1
ready=$(timeout 10 crictl pods --namespace kube-system --label component=etcd --state Ready -q \
  2>/dev/null)
[ -z "$ready" ]
"""
IS_UP = f'{PROCESS}\netcd_of "$1" >/dev/null'
IS_STARTED = f"""{PROCESS}
[ -e "$1" ] || exit 1
etcd_of "$2" >/dev/null || systemctl is-active --quiet {KUBELET} || exit 1
"""
# What it has logged since its manifest was put there and the kubelet came up; its process is looked
# for after that. One that has ended without a word of that kind was ended by its probe, as where
# there is no quorum for some minutes, and is started again.
HAS_FAILED = rf"""{PROCESS}
[ -e "$1" ] || exit 0
since=$(systemctl show -p ActiveEnterTimestamp --value {KUBELET})
log=$(find /var/log/pods/kube-system_etcd-*/etcd -name "*.log" -newermc "$1" \
  -newermt "${{since:-1970-01-01}}" ! -newermt "3 seconds ago" 2>/dev/null | tail -n 1)
[ "$log" ] && ! etcd_of "$2" >/dev/null || exit 0
why=$(grep -aE "panic|fatal|corrupt|crc|invalid" "$log" | tail -n 2 | cut -c 1-300)
[ -z "$why" ] || printf "its container has ended\n%s\n" "$why"
"""


def read_manifest(host: SshHost, path: str) -> str:
    """The text of a manifest on a host; the evidence has none of it.

    Raises:
        CommandFailed: there is none.
        Unreachable: no answer.
    """
    sink = io.BytesIO()
    host.read_into(["cat", "--", path], sink, within_seconds=MOVE_SECONDS, as_root=True)
    return sink.getvalue().decode(errors="replace")


@dataclass(frozen=True)
class AsStaticPod:
    """A member run by the kubelet; see `Running`."""

    host: SshHost
    settings: Settings
    unit: str = KUBELET

    @property
    def log(self) -> str:
        """Where what it says lies, also of a container that is gone."""
        return "/var/log/pods/kube-system_etcd-*/etcd and `journalctl -u kubelet`"

    def _line(self, argv: list[str]) -> str:
        return self.host.command_line(argv, as_root=True)

    def _change(self, argv: list[str]) -> None:
        self.host.change(argv, within_seconds=MOVE_SECONDS, as_root=True)

    def _is(self, script: str, *words: str) -> bool:
        argv = ["sh", "-c", script, "look", *words]
        return self.host.read(argv, accept=(0, 1), as_root=True).exit_code == 0

    @staticmethod
    def _park_argv(keep: str) -> list[str]:
        return ["sh", "-c", PARK, "park", MANIFEST, PARKED, keep]

    def take_down_lines(self, wanted: Mapping[str, str], keep: str) -> list[str]:
        """What moves its manifest away, and writes it there with other flags."""
        flags = " ".join(f"--{name}={value}" for name, value in wanted.items())
        return [
            self._line(self._park_argv(keep)),
            f"# {PARKED}, all else as it is, with: {flags}",
            self.host.put_line(PARKED, as_root=True),
        ]

    def take_down(self, wanted: Mapping[str, str], keep: str) -> None:
        """Stop it first: where its manifest lies then, no boot starts it.

        Raises:
            Refused: its manifest has become one that cannot be changed here.
        """
        self._stop(keep)
        text = read_manifest(self.host, PARKED)
        try:
            after = changed(text, wanted)
        except OddManifestError as error:
            raise Refused(
                self.host.target,
                f"its manifest cannot be changed: {error}",
                f"It is stopped. Write into {PARKED} what the plan says, then resume",
            ) from error
        if after != text:
            self.host.put(after.encode(), PARKED, as_root=True)

    def stop(self) -> None:
        """Move its manifest away, and wait until its container is gone."""
        self._stop("")

    def _stop(self, keep: str) -> None:
        self._change(self._park_argv(keep))
        ends = time.monotonic() + STOP_SECONDS
        while not self.is_at_rest():
            if time.monotonic() > ends:
                raise NotVerified(
                    self.host.target,
                    f"the kubelet to end its etcd within {STOP_SECONDS:g} s",
                    "that it runs",
                    "See `systemctl status kubelet` there, and whether another file in its folder "
                    "of manifests describes etcd; then resume",
                )
            time.sleep(PAUSE_SECONDS)

    def _start_argvs(self) -> tuple[list[str], list[str]]:
        return (
            ["sh", "-c", PUT_BACK, "put-back", MANIFEST, PARKED],
            ["systemctl", "--no-ask-password", "start", "--no-block", "--", KUBELET],
        )

    def start_lines(self) -> list[str]:
        """What puts its manifest back; a kubelet that is down is started, too."""
        return [self._line(argv) for argv in self._start_argvs()]

    def start(self) -> None:
        """Put its manifest back, and leave the rest to the kubelet."""
        for argv in self._start_argvs():
            self._change(argv)

    def go_back_argv(self, data: str, aside: str, keep: str, *, had_data: bool) -> list[str]:
        """What moves its data back, with its manifest, and has it started if it had any."""
        places = [data, aside, MANIFEST, PARKED, keep]
        return ["sh", "-c", GO_BACK, "go-back", *places, "yes" if had_data else "no"]

    def is_at_rest(self) -> bool:
        """Whether its manifest is away, its process gone, and its pod ended."""
        return self._is(IS_AT_REST, MANIFEST, self.settings.data)

    def is_told(self, wanted: Mapping[str, str]) -> bool:
        """Whether the manifest that would be started has these flags."""
        argv = ["test", "-e", MANIFEST]
        is_placed = self.host.read(argv, accept=(0, 1), as_root=True).exit_code == 0
        try:
            pod = parse_manifest(read_manifest(self.host, MANIFEST if is_placed else PARKED))
        except OddManifestError:
            return False
        return all(pod.flags.get(name) == value for name, value in wanted.items())

    def is_up(self) -> bool:
        """Whether etcd runs."""
        return self._is(IS_UP, self.settings.data)

    def is_started(self) -> bool:
        """Whether its manifest is in place, and it runs or a kubelet is there to start it."""
        return self._is(IS_STARTED, MANIFEST, self.settings.data)

    def failure(self, *, is_queued: bool) -> str:
        """What it logged where its container has ended since its manifest was put back."""
        del is_queued  # a kubelet waits for nothing
        argv = ["sh", "-c", HAS_FAILED, "has-failed", MANIFEST, self.settings.data]
        said = self.host.read(argv, as_root=True, accept=(0, 1)).stdout.split("\n")
        return ". ".join(line.strip() for line in said if line.strip())

    def enable_argv(self) -> list[str]:
        """What puts its manifest where a kubelet that boots finds it."""
        return self._start_argvs()[0]

    def disable_argv(self) -> list[str]:
        """What moves its manifest away."""
        return self._park_argv("")

    def is_enabled(self) -> bool:
        """Whether its manifest is where a kubelet that boots finds it."""
        return self._is('[ -e "$1" ]', MANIFEST)
