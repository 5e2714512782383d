"""Run one server and let nothing of it outlive whoever asked for it.

Started by `processes.py` as a script, with only the standard library and no site packages, as

    guardian.py LOG USER SCRATCH GROUPS COMMAND...

A parent-death signal alone is not enough: it follows the *thread* that started the child, it is
forgotten when the child changes its user, and it reaches no grandchildren. So this process, which
has one thread, adopts every orphan below it (child subreaper), and when its standard input ends or
its parent changes it kills all of them, and whatever else is in the control groups it was given
(colons between them), and removes those and the scratch directory. Its own death reaches the
server by the parent-death signal.
"""

import contextlib
import ctypes
import os
import pwd
import select
import shutil
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
REMOVALS = 200
REMOVAL_PAUSE_SECONDS = 0.05
ON_LINUX = sys.platform == "linux"


def prctl(option: int, argument: int) -> None:
    if ON_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def become(user: str) -> None:
    """Drop to this user for good; an empty name keeps the present one."""
    if user:
        account = pwd.getpwnam(user)
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)


def run_server(log: str, user: str, command: list[str]) -> None:
    """Turn this fork into the server, in a process group of its own."""
    guardian = os.getppid()
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    become(user)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which would clear it
    if os.getppid() != guardian:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def children() -> list[int]:
    """Return the direct children of this process, adopted ones too."""
    if not ON_LINUX:
        return []
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (process / "stat").read_bytes().rpartition(b")")[2].split()[1]
                if int(parent) == os.getpid():
                    found.append(int(process.name))
    return found


def kill_all(server: int) -> None:
    """Kill the server's group and every child there is, until none is left."""
    while True:
        with contextlib.suppress(OSError):
            os.killpg(server, signal.SIGKILL)
        for pid in children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def kill_groups(groups: list[Path]) -> None:
    """Kill whatever is in these control groups, frozen or not, and in those below them."""
    for group in groups:
        for top, _, files in os.walk(group):
            if "cgroup.procs" not in files:
                continue
            with contextlib.suppress(OSError):
                for line in Path(top, "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)
            for name, thawed in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
                if name in files:  # of those frozen, v1 kills none
                    with contextlib.suppress(OSError):
                        Path(top, name).write_text(thawed)


def remove(groups: list[Path], scratch: str) -> None:
    """Take the groups and the directory away, again and again while something dies in them."""
    for _ in range(REMOVALS):
        for group in groups:
            for top, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(top).rmdir()
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        left = [group for group in groups if group.exists()]
        if not left and not (scratch and Path(scratch).exists()):
            return
        kill_groups(left)
        time.sleep(REMOVAL_PAUSE_SECONDS)


def report(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())


def reap(server: int) -> None:
    """Collect whoever has ended; tell the exit of the server itself."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == server:
            report(f"exited {os.waitstatus_to_exitcode(status)}")


def main(log: str, user: str, scratch: str, groups: str, *command: str) -> None:
    parent = os.getppid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    server = os.fork()
    if server == 0:
        try:
            run_server(log, user, list(command))
        except OSError as error:
            os.write(2, f"{command[0]}: {error}\n".encode())
        finally:
            os._exit(127)
    report(f"started {server}")

    told = b""
    while os.getppid() == parent:  # a second net: a fork of the parent may hold our input open
        ready, _, _ = select.select([0, ended], [], [], 1.0)
        if ended in ready:
            os.read(ended, 4096)
            reap(server)
        if 0 in ready:
            received = os.read(0, 4096)
            if not received:
                break
            told += received

    held = [Path(group) for group in groups.split(os.pathsep) if group]
    kill_groups(held)
    kill_all(server)
    remove(held, "" if told == b"keep\n" else scratch)


if __name__ == "__main__":
    main(*sys.argv[1:])
