"""Fifty hosts, five commands each, beside the tools that do nothing but that; and one command.

The hosts are fifty loopback addresses of one sshd with a light shell, so that what is measured is
the client. Ours runs as a recovery: a changing command is fenced at the host, and each of its acts
is in the journal before and after; a reading one leaves evidence. Ours and the peers take turns.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from bench.scenario import be_quiet
from recovery.launch import launch
from recovery.run import Options, Recovery
from recovery.stage import PlainStage
from recovery.steps import act, probe
from recovery.verdict import Danger
from tests.lab.sshd import private_sshd

HOSTS, COMMANDS, ROUNDS = 50, 5, 3
WARM = 200
PEERS = ("asyncssh", "parallel-ssh", "fabric", "pyinfra", "ansible raw", "ansible command")
PEER = Path(__file__).with_name("ssh_peer.py")


@probe(each=("host",))
def look(host, n: int) -> str:
    return host.read(["echo", str(n)]).stdout


@act(
    commands=lambda host, n: [host.command_line(["echo", str(n)])],
    without_probe="an echo leaves nothing behind",
    redo_in_doubt=True,
    each=("host", "n"),
)
def say(host, n: int) -> None:
    host.change(["echo", str(n)])


def recovery_of(hosts, step) -> Recovery:
    """The commands as steps over all hosts, on kept connections."""
    target = uuid4().hex  # the hosts remember the epochs of a target; each run has a new journal

    def fn() -> int:
        return sum(len(step.over(hosts, n)) for n in range(COMMANDS))

    return Recovery(
        name="fifty-hosts",
        fn=fn,
        runbook="bench",
        answers=(),
        danger=Danger.CHANGE,
        target_of=lambda: target,
        parameters={},
    )


def ours(hosts, step, folder: Path) -> float:
    """Seconds of the whole run: lease, connections, commands, journal."""
    os.environ["RECOVER_JOURNAL"] = str(folder / f"{uuid4().hex}.sqlite")
    started = time.monotonic()
    ended = launch(recovery_of(hosts, step), {}, Options(), PlainStage(), str(uuid4()))
    seconds = time.monotonic() - started
    if ended.result != HOSTS * COMMANDS:
        raise SystemExit(f"ours ended with {ended.error or ended.result}")
    return seconds


def theirs(peer: str, spec: Path) -> float | None:
    """Seconds by a peer; none where it is not installed or does not answer all."""
    python = os.environ.get("PEERS_PYTHON")
    if python is None:
        return None
    done = subprocess.run([python, PEER, peer, spec], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"  {peer}: {done.stderr.strip().splitlines()[-1:]}")
        return None
    told = json.loads(done.stdout.splitlines()[-1])
    if told["answers"] < HOSTS * COMMANDS:
        print(f"  {peer}: only {told['answers']} answers")
        return None
    return float(told["seconds"])


def one_warm_command(host) -> float:
    """Median seconds of one command on a connection that is open."""
    with host.session():
        host.read(["true"])
        taken = []
        for _ in range(WARM):
            started = time.monotonic()
            host.read(["true"])
            taken.append(time.monotonic() - started)
    return statistics.median(taken)


def main() -> None:
    """Measure, and print what came of it."""
    be_quiet()
    addresses = [f"127.0.2.{n}" for n in range(1, HOSTS + 1)]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        with private_sshd(
            folder / "sshd",
            {"ListenAddress": "0.0.0.0"},  # noqa: S104
            addresses,
        ) as server:
            key = server.known_hosts.read_text().split(" ", 1)[1]
            known = folder / "known_hosts"
            known.write_text("".join(f"[{a}]:{server.port} {key}" for a in addresses))
            hosts = [server.block(address=a, known_hosts_file=known) for a in addresses]
            spec = folder / "spec.json"
            spec.write_text(
                json.dumps(
                    {
                        "hosts": addresses,
                        "port": server.port,
                        "user": server.user,
                        "key": str(server.client_key),
                        "known_hosts": str(known),
                        "commands": [f"echo {n}" for n in range(COMMANDS)],
                    }
                )
            )
            rows: dict[str, list[float]] = {}
            for _ in range(ROUNDS):
                for name, step in (("ours, acts", say), ("ours, looks", look)):
                    rows.setdefault(name, []).append(ours(hosts, step, folder))
                for peer in PEERS:
                    seconds = theirs(peer, spec)
                    if seconds is not None:
                        rows.setdefault(peer, []).append(seconds)
            beside = rows.get("asyncssh")
            for name, seconds in rows.items():
                ratio = ""
                if beside and len(beside) == len(seconds):
                    pairs = [a / b for a, b in zip(seconds, beside, strict=True)]
                    ratio = f"  {statistics.median(pairs):.2f} x asyncssh"
                print(f"{name:16} {statistics.median(seconds):7.2f} s{ratio}")
            print(f"one command on a warm connection: {1000 * one_warm_command(hosts[0]):.2f} ms")


if __name__ == "__main__":
    sys.exit(main())
