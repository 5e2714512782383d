"""Real servers as private child processes that cannot be left behind."""

import contextlib
import os
import pwd
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab import guardian

GUARDIAN = Path(__file__).with_name("guardian.py")
NAMES_PASSED_ON = ("PATH", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "TMPDIR")


class LabError(Exception):
    """Something in the lab did not start, stop or answer; carries what was last seen."""


class ServerMissing(LabError):
    """The binary of a server is not installed on this machine."""


def find_binary(name: str, *folders: Path) -> str:
    """Return the path of an installed server binary, looked for in these folders and on PATH.

    Raises:
        ServerMissing: it is in none of them.
    """
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerMissing(f"{name} is not installed")
    return found


def bare_environment(**extra: str) -> dict[str, str]:
    """Return a whole environment for a server: a few harmless names of ours, and these."""
    kept = {name: os.environ[name] for name in NAMES_PASSED_ON if name in os.environ}
    return {**kept, **extra}


def wait_until(
    look: Callable[[], object],
    what: str,
    *,
    within_seconds: float,
    log: Path | None = None,
    still_worth_it: Callable[[], bool] = lambda: True,
) -> object:
    """Look again and again until something true is seen, and return that.

    Args:
        look: returns what it sees; false, or an error other than an assertion, is "not yet".
        what: what is waited for, for the message.
        within_seconds: the deadline.
        log: a file whose tail goes into the message.
        still_worth_it: false when waiting on is pointless, as once the process has ended.

    Raises:
        LabError: it was not seen in time; says what was seen last.
    """
    deadline = time.monotonic() + within_seconds
    pause = 0.005
    seen: object = "nothing yet"
    while True:
        try:
            seen = look()
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure to look is "not yet"; the last is shown
            seen = repr(error)
        else:
            if seen:
                return seen
        hopeless = not still_worth_it()
        if hopeless or time.monotonic() > deadline:
            why = "the process has ended" if hopeless else f"not within {within_seconds:g} s"
            tail = f"\nThe end of {log}:\n{tail_of(log)}" if log else ""
            raise LabError(f"Waited for {what}: {why}. Seen last: {seen!r}.{tail}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def tail_of(log: Path, lines: int = 25) -> str:
    """Return the last lines of a log, or a remark where there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or "(empty)"
    except OSError as error:
        return f"({error})"


def service_user(name: str) -> str:
    """Return the account a server must drop to: this one for root, none for anybody else."""
    if os.geteuid() != 0:
        return ""
    try:
        pwd.getpwnam(name)
    except KeyError as error:
        raise ServerMissing(f"there is no account {name}") from error
    return name


def made_up_password() -> str:
    """Return a password that a careless URL, quote, format or option file would spoil."""
    return secrets.token_hex(8) + " '\"\\%#@:/?&$x"


def account_ids(user: str) -> tuple[int, int]:
    """Return the ids of the account that the server runs as."""
    if not user:
        return os.geteuid(), os.getegid()
    account = pwd.getpwnam(user)
    return account.pw_uid, account.pw_gid


def write_secret(path: Path, value: str) -> None:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(value)


@contextlib.contextmanager
def scratch_directory(name: str, user: str = "") -> Iterator[Path]:
    """Make a short-named directory that the service account can reach, removed at the end.

    A test's own directory will not do for a server that drops root: pytest's parents of it are
    closed to others, and the path of a socket must stay below 108 bytes.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"lab-{name}-"))
    try:
        if user:
            os.chown(directory, *account_ids(user))
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Place:
    """Where a server keeps itself: log, working directory, account, and what goes with it."""

    log: Path
    directory: Path
    user: str = ""  # empty: the present one
    scratch: Path | None = None  # removed by the guardian should this process be killed
    groups: tuple[Path, ...] = ()  # control groups, emptied and removed by the guardian


class GuardedProcess:
    """A child process under a guardian, so that it and all it starts end with this process."""

    def __init__(self, command: list[str], environment: Mapping[str, str], place: Place) -> None:
        self.log = place.log
        self._groups = place.groups
        self._returncode: int | None = None
        self._told = b""
        watching = [sys.executable, "-I", "-S", str(GUARDIAN), str(place.log.absolute())]
        files = [str(place.scratch or ""), os.pathsep.join(map(str, place.groups))]
        self._guardian = subprocess.Popen(  # its arguments are our own
            [*watching, place.user, *files, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd=place.directory,
            start_new_session=True,  # an interrupt at the terminal is for the tests
        )
        self.pid = self._read_pid(within_seconds=20)

    def _read_pid(self, within_seconds: float) -> int:
        deadline = time.monotonic() + within_seconds
        while b"\n" not in self._told:
            if not self._listen(deadline - time.monotonic()):
                self._guardian.kill()
                raise LabError(f"The guardian of {self._guardian.args!r} did not start it")
        first, _, self._told = self._told.partition(b"\n")
        return int(first.removeprefix(b"started "))

    def _listen(self, within_seconds: float) -> bool:
        pipe = self._guardian.stdout
        if pipe is None or not select.select([pipe], [], [], max(within_seconds, 0))[0]:
            return False
        received = os.read(pipe.fileno(), 4096)
        self._told += received
        return bool(received)

    def poll(self, within_seconds: float = 0) -> int | None:
        """Return the exit code, negative for a signal; `None` while it runs."""
        if self._returncode is None:
            if b"\n" not in self._told:  # its end may have come along with its beginning
                self._listen(within_seconds)
            told = self._told.strip()
            if told.startswith(b"exited "):
                self._returncode = int(told.removeprefix(b"exited "))
        return self._returncode

    @property
    def is_running(self) -> bool:
        """Whether the process itself has not ended; says nothing of what it started."""
        return self.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, not to what it started."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, within_seconds: float) -> int:
        """Wait for the exit and return its code.

        Raises:
            LabError: it still runs.
        """
        code = self.poll(within_seconds)
        if code is None:
            raise LabError(
                f"Process {self.pid} still runs after {within_seconds:g} s.\n{tail_of(self.log)}"
            )
        return code

    def close(self, within_seconds: float = 20) -> None:
        """Kill the process and everything it left behind, and wait for their end."""
        if self._guardian.stdin and not self._guardian.stdin.closed:
            with contextlib.suppress(OSError):
                self._guardian.stdin.write(b"keep\n")
                self._guardian.stdin.flush()
            with contextlib.suppress(OSError):
                self._guardian.stdin.close()
            if self._guardian.wait(within_seconds) != 0:  # it was killed, and has not done its work
                guardian.kill_groups(list(self._groups))
                guardian.remove(list(self._groups), "")
            if self._guardian.stdout:
                self.poll()
                self._guardian.stdout.close()
            if self._returncode is None:
                self._returncode = -signal.SIGKILL


class Server:
    """A real server that can be started, stopped, restarted and killed, always in one place."""

    name = "server"
    start_within_seconds = 30.0
    stop_within_seconds = 20.0
    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, *, user: str = "", scratch: Path | None = None) -> None:
        self.directory = directory
        self.log = directory / f"{self.name}.log"
        self._place = Place(self.log, scratch or directory, user, scratch)
        self._runs: list[GuardedProcess] = []

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the whole environment for a process of, or next to, this server."""
        return bare_environment()

    def answers(self) -> object:
        """Return something true once the server does its work, not merely listens."""
        raise NotImplementedError

    @property
    def process(self) -> GuardedProcess:
        """The running, or else the last, process."""
        if not self._runs:
            raise LabError(f"{self.name} was never started")
        return self._runs[-1]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return bool(self._runs) and self.process.is_running

    def start(self) -> None:
        """Start it where it was before, and wait until it answers; nothing when it runs.

        Raises:
            LabError: it ended, or did not answer in time; shows the end of its log.
        """
        if self.is_running:
            return
        process = GuardedProcess(self.command(), self.environment(), self._place)
        self._runs.append(process)
        wait_until(
            self.answers,
            f"{self.name} to answer",
            within_seconds=self.start_within_seconds,
            log=self.log,
            still_worth_it=lambda: process.is_running,
        )

    def stop(self) -> None:
        """Ask it to end, as an operator would, and wait for it; nothing when it does not run."""
        if self.is_running:
            self.process.send_signal(self.stop_signal)
            self.process.wait(self.stop_within_seconds)

    def kill(self) -> None:
        """Kill -9 the server process alone; what it had started lives on until the end."""
        if self.is_running:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(self.stop_within_seconds)

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it and whatever any of its runs left behind."""
        for process in self._runs:
            process.close()
        self._runs.clear()
