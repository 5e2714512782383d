"""A member that systemd runs, told of its cluster by an environment file."""

from collections.abc import Mapping
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from tasks.etcd.data_home import MOVE_BACK
from tasks.etcd.settings import Found, Settings, unit_and_settings
from tasks.services import UnitState, unit_status

STOP_SECONDS = 150.0
SET_SECONDS = 60.0
RESTARTS_MAX = 3  # more of them, one after the other, is a crash loop
# Keeps comments, order, owner and mode; a name that is not there yet is written at the end.
SET = """# set these in the environment file; the former one is kept
set -eu
umask 077
file=$1 keep=$2
shift 2
mkdir -p "$(dirname "$keep")"
[ -e "$keep" ] || { cp -p "$file" "$keep.new"; sync -f "$keep.new"; mv "$keep.new" "$keep"; }
cp -p "$file" "$file.recover"
awk "
BEGIN { for (i = 2; i < ARGC; i++) { n = index(ARGV[i], \\"=\\"); name = substr(ARGV[i], 1, n - 1)
  order[i] = name; value[name] = ARGV[i]; ARGV[i] = \\"\\" } count = ARGC }
{ name = \\$0; sub(/^[ \\t]*(export )?/, \\"\\", name); sub(/=.*/, \\"\\", name) }
!(name in value) { print; next }
!(name in seen) { print value[name]; seen[name] = 1 }
END { for (i = 2; i < count; i++) if (!(order[i] in seen)) print value[order[i]] }
" "$keep" "$@" >"$file.recover"
sync -f "$file.recover"
mv "$file.recover" "$file"
sync -f "$file"
"""
GO_BACK = f"""# move the data of before back, with its settings, and start it
set -eu
data=$1 aside=$2 file=$3 keep=$4 unit=$5 had=$6
{MOVE_BACK}
if [ -e "$keep" ]; then
  cp -p "$keep" "$file.recover"
  sync -f "$file.recover"
  mv "$file.recover" "$file"
fi
systemctl reset-failed "$unit" 2>/dev/null || :
exec systemctl --no-ask-password start --no-block -- "$unit"
"""
IS_TOLD = 'file=$1; shift; for line; do grep -qxF -e "$line" "$file" || exit 1; done'
LOGGED = (
    'journalctl -u "$1" -n 60 -o cat --no-pager | '
    'grep -aE "panic|fatal|corrupt|crc|invalid|error:" | tail -n 2 | cut -c 1-300'
)


def unit_found(host: SshHost, unit: str) -> tuple[Found | None, str]:
    """A member that a unit runs, and what systemd says of it; `None` where there is no such unit.

    Errors are those of `unit_and_settings`.
    """
    status, settings = unit_and_settings(host, unit)
    if status.state is UnitState.NOT_FOUND:
        return None, str(status)
    is_starting = status.state is UnitState.ACTIVATING
    return Found(str(status), bool(status.main_pid), is_starting, settings), str(status)


def variables(wanted: Mapping[str, str]) -> list[str]:
    """Flags as lines of an environment file; `docker --env-file` keeps quotes."""
    return [f"ETCD_{name.upper().replace('-', '_')}={value}" for name, value in wanted.items()]


@dataclass(frozen=True)
class AsUnit:
    """A member run by a unit of systemd; see `Running`."""

    host: SshHost
    unit: str
    settings: Settings

    @property
    def log(self) -> str:
        """The command that shows what it says."""
        return f"`journalctl -u {self.unit}`"

    def _systemctl(self, *words: str) -> list[str]:
        return ["systemctl", "--no-ask-password", *words, "--", self.unit]

    def _line(self, argv: list[str]) -> str:
        return self.host.command_line(argv, as_root=True)

    def _change(self, argv: list[str], within_seconds: float = SET_SECONDS) -> None:
        self.host.change(argv, within_seconds=within_seconds, as_root=True)

    def _set_argv(self, wanted: Mapping[str, str], keep: str) -> list[str]:
        return ["sh", "-c", SET, "set", self.settings.file, keep, *variables(wanted)]

    def take_down_lines(self, wanted: Mapping[str, str], keep: str) -> list[str]:
        """What writes these into its environment file, and stops it."""
        return [self._line(self._set_argv(wanted, keep)), self._line(self._systemctl("stop"))]

    def take_down(self, wanted: Mapping[str, str], keep: str) -> None:
        """Set it up first: a boot in between would start it with what it was told before."""
        self._change(self._set_argv(wanted, keep))
        self.stop()

    def stop(self) -> None:
        """Stop its unit."""
        self._change(self._systemctl("stop"), STOP_SECONDS)

    def start_lines(self) -> list[str]:
        """What starts it; systemd's count of failures is reset first."""
        start = self._systemctl("start", "--no-block")
        return [self._line(self._systemctl("reset-failed")), self._line(start)]

    def start(self) -> None:
        """Start its unit, which counts as started only once it serves: that is waited for."""
        failed = ["systemctl", "is-failed", "--quiet", "--", self.unit]
        if not self.host.read(failed, accept=(0, 1)).exit_code:
            self._change(self._systemctl("reset-failed"))
        self._change(self._systemctl("start", "--no-block"))

    def go_back_argv(self, data: str, aside: str, keep: str, *, had_data: bool) -> list[str]:
        """What moves its data back, with its environment file, and starts it if it had any."""
        places = [data, aside, self.settings.file, keep, self.unit]
        return ["sh", "-c", GO_BACK, "go-back", *places, "yes" if had_data else "no"]

    def is_at_rest(self) -> bool:
        """Whether its unit is stopped and has no main process."""
        return unit_status(self.host, self.unit).is_at_rest

    def is_told(self, wanted: Mapping[str, str]) -> bool:
        """Whether its environment file has these lines."""
        argv = ["sh", "-c", IS_TOLD, "is-told", self.settings.file, *variables(wanted)]
        return self.host.read(argv, accept=(0, 1, 2), as_root=True).exit_code == 0

    def is_up(self) -> bool:
        """Whether its unit runs: with Debian and kubespray, only once etcd serves."""
        argv = ["systemctl", "is-active", "--quiet", "--", self.unit]
        return self.host.read(argv, accept=(0, 1, 2, 3, 4)).exit_code == 0

    def is_started(self) -> bool:
        """Whether its unit runs, or is about to."""
        argv = ["systemctl", "show", "-p", "ActiveState", "--value", "--", self.unit]
        state = self.host.read(argv).whole().strip()
        return state in {"active", "activating", "reloading"}

    def failure(self, *, is_queued: bool) -> str:
        """How its unit has failed, or fails again and again; a queued start waits for others."""
        status = unit_status(self.host, self.unit)
        is_waiting = is_queued and status.state is UnitState.INACTIVE
        if (not status.is_at_rest or is_waiting) and status.restarts < RESTARTS_MAX:
            return ""
        argv = ["sh", "-c", LOGGED, "logged", self.unit]
        logged = self.host.read(argv, as_root=True).stdout.strip()
        return f"{status}. {logged}"

    def enable_argv(self) -> list[str]:
        """What enables its unit."""
        return self._systemctl("enable")

    def disable_argv(self) -> list[str]:
        """What disables its unit."""
        return self._systemctl("disable")

    def is_enabled(self) -> bool:
        """Whether systemd starts its unit when the host boots."""
        argv = ["systemctl", "is-enabled", "--quiet", "--", self.unit]
        return self.host.read(argv, accept=(0, 1)).exit_code == 0
