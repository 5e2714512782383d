"""Winning back the quorum of an etcd of three: time by phase, beside the same commands by hand.

The script by hand asks nothing beforehand, keeps no journal and knows all names already: it is what
an operator types who has done it before. Both wait for the same things.
"""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

from bench.scenario import be_quiet
from flows import etcd as flows_etcd
from recovery.declare import RECOVERIES
from recovery.journal.opening import open_journal
from recovery.launch import launch
from recovery.run import Options
from recovery.stage import PlainStage
from tests.lab.etcd_hosts import DATA, FILE, EtcdLab, LabMember, etcd_lab
from tests.lab.processes import ServerMissing, wait_until

NAME = flows_etcd.recover_etcd_quorum.name
KEYS = 5000
PHASES = {
    "": "plan and consent",
    "loss_found": "look at every member",
    "refuse_unless_key_is_named": "look at every member",
    "take_snapshot": "snapshot",
    "copy_snapshot_off_host": "copy off the host",
    "prove_snapshot": "scratch restore",
    "refuse_if_older": "scratch restore",
    "stand_down": "others out of the way",
    "put_in_place": "survivor: stop, put in place, start",
    "start_survivor": "survivor: stop, put in place, start",
    "holds_what_was_seen": "survivor: stop, put in place, start",
    "let_in": "others join, one by one",
    "start_joining": "others join, one by one",
    "give_vote": "others join, one by one",
    "all_agree": "all agree",
}


def phases(recovery_id: str) -> Iterator[tuple[str, float]]:
    """Seconds of each phase, in the order in which they were begun."""
    journal = open_journal()
    try:
        events = journal.events(recovery_id)
    finally:
        journal.close()
    spent: dict[str, float] = {}
    for before, event in pairwise(events):
        name = PHASES.get(event.step.partition("[")[0], event.step)
        seconds = datetime.fromisoformat(event.at) - datetime.fromisoformat(before.at)
        spent[name] = spent.get(name, 0.0) + seconds.total_seconds()
    yield from spent.items()


def by_hand(lab: EtcdLab, folder: Path) -> Iterator[tuple[str, float]]:
    """Type the commands; seconds of each phase."""
    first, *others = lab.members

    def entry(member: LabMember) -> str:
        return f"{member.host.name}=https://{member.host.address}:2380"

    def save() -> None:
        first.ctl("snapshot", "save", "/root/snapshot.db")

    def copy() -> None:
        (folder / "snapshot.db").write_bytes(first.host.read_file("/root/snapshot.db"))

    def restore() -> None:
        first.host.run(
            f"etcdctl snapshot restore /root/snapshot.db --data-dir {DATA}.new "
            f"--name {first.host.name} --initial-cluster {entry(first)} "
            f"--initial-advertise-peer-urls https://{first.host.address}:2380 "
            f"--initial-cluster-token by-hand && chown -R etcd: {DATA}.new"
        )

    def place() -> None:
        first.host.run(f"systemctl stop etcd; mv {DATA} {DATA}.old; mv {DATA}.new {DATA}")
        first.host.run("systemctl start etcd")
        wait_until(first.is_healthy, "the survivor", within_seconds=60)

    def join() -> None:
        listed = entry(first)
        for member in others:
            listed = f"{listed},{entry(member)}"
            add = ("member", "add", member.host.name, "--learner")
            tell = f"https://{member.host.address}:2380"
            wait_until(
                lambda add=add, at=tell: first.ctl(*add, f"--peer-urls={at}"),
                "etcd to take it in",
                within_seconds=60,
            )
            member.host.run(
                f"sed -i 's|^ETCD_INITIAL_CLUSTER=.*|ETCD_INITIAL_CLUSTER={listed}|; "
                f"s|^ETCD_INITIAL_CLUSTER_STATE=.*|ETCD_INITIAL_CLUSTER_STATE=existing|' {FILE}; "
                f"rm -rf {DATA}; systemctl reset-failed etcd 2>/dev/null; systemctl start etcd"
            )
            lines = first.ctl("member", "list").splitlines()
            known = next(line.split(",")[0] for line in lines if tell in line)
            wait_until(lambda at=known: first.ctl("member", "promote", at), "a vote",
                       within_seconds=60)  # fmt: skip
            wait_until(member.is_healthy, "the member", within_seconds=60)

    steps: list[tuple[str, Callable[[], None]]] = [
        ("snapshot", save),
        ("copy off the host", copy),
        ("scratch restore", restore),
        ("survivor: stop, put in place, start", place),
        ("others join, one by one", join),
    ]
    for name, step in steps:
        started = time.monotonic()
        step()
        yield name, time.monotonic() - started


def lose_quorum(lab: EtcdLab) -> None:
    """Begin anew, write keys, and lose two members of three with their data."""
    lab.begin_anew()
    lab.members[0].fill(KEYS)
    for member in lab.members[1:]:
        member.lose_data()
    first = lab.members[0]
    wait_until(lambda: not first.status().get("leader"), "the loss", within_seconds=30)


def main() -> None:
    """Measure, and print what came of it."""
    be_quiet()
    declared = RECOVERIES[NAME]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        os.environ["RECOVER_JOURNAL"] = str(folder / "journal.sqlite")
        os.environ["RECOVER_WORK_DIR"] = str(folder / "work")
        key = folder / "key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        try:
            with etcd_lab(folder / "lab") as lab:
                lose_quorum(lab)
                given = {name: default for name, (_, default) in declared.parameters.items()}
                given |= {"hosts": lab.hosts(), "backup_key_file": str(key)}
                started = time.monotonic()
                options = Options(break_glass="benchmark")
                ended = launch(declared, given, options, PlainStage(), str(uuid4()))
                print(f"{NAME}: {ended.state}, {time.monotonic() - started:.1f} s")
                if ended.error:
                    raise SystemExit(str(ended.error))
                for name, seconds in phases(ended.recovery_id):
                    print(f"  {name:38} {seconds:6.2f} s")
                lose_quorum(lab)
                spent = list(by_hand(lab, folder))
                print(f"by hand: {sum(seconds for _, seconds in spent):.1f} s")
                for name, seconds in spent:
                    print(f"  {name:38} {seconds:6.2f} s")
        except ServerMissing as missing:
            print(f"left out: {missing}")


if __name__ == "__main__":
    sys.exit(main())
