"""Renewing certificates while the worker is killed: before, inside and after every step.

What counts is what the ports of the hosts serve; what the recovery says of itself comes second.
"""

import os
import secrets
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recovery.journal.history import StepState, read_history
from tests.faults.conftest import (
    IS_WHOLE,
    flaws_of,
    kill_points,
    sampled,
    shards,
    strike_one_after_the_other,
    the_recovery,
    told_events,
)
from tests.integration.certificate_renewal import (
    CONFIGS,
    KEPT,
    LEAVES,
    assert_renewed,
    changed,
    files_of,
    processes,
    serials,
    sha256_of,
)
from tests.lab.control_plane import control_planes
from tests.lab.control_plane_design import EXPIRED_WITH_KUBELETS, EXPIRING
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

SHARDS = shards(8, in_a_sample=1)
POINTS = 1  # of each shard in an ordinary run; all of them with FAULTS=all
TIMEOUT_SECONDS = 7200 if IS_WHOLE else 1800
WAYS = {
    "expired": (EXPIRED_WITH_KUBELETS, {}),
    "regenerate": (EXPIRING, {"method": "regenerate"}),
    "reboot": (EXPIRING, {"reboot": True}),
}
ONCE = ("certs renew all", "restart-static-pod")  # sent once for each host and component


@dataclass
class World:
    """A control plane that is about to run out, and the journal of whoever renews it."""

    cluster: object
    folder: Path
    more: dict = field(default_factory=dict)

    module = "flows.certificates"
    flow = "renew-control-plane-certificates"
    retry_delays = (0.5, 1.0, 2.0)

    def __post_init__(self):
        self.hosts = self.cluster.hosts
        self.serials = {host.name: serials_there(host) for host in self.hosts}
        self.kept = {host.name: sha256_of(host, KEPT) for host in self.hosts}
        self.files = {host.name: files_of(host) for host in self.hosts}
        key = self.folder / "key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        self.parameters = {
            "hosts": " ".join(host.url() for host in self.hosts),
            "backup_key_file": str(key),
            "users": "ops",
            **self.more,
        }
        self.environment = {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(self.folder / "work"),
            "RECOVER_LEASE_SECONDS": "4",
        }

    def assert_renewed(self, at):
        for host in self.hosts:
            before = self.serials[host.name]
            assert_renewed(host, before, leaves=tuple(before))
            assert sha256_of(host, KEPT) == self.kept[host.name], at
            theirs = host.read_file("/home/ops/.kube/config")
            assert theirs == host.read_file("/etc/kubernetes/admin.conf"), at
        assert flaws_of(self) == [], at

    def assert_nothing_done_twice(self, recovery_id, at):
        """What was sent and answered is not sent again, however often it is resumed."""
        sent = Counter(
            (event.step, word)
            for event in told_events(self, recovery_id)
            for word in ONCE
            if event.kind == "command" and event.body["is_change"] and word in event.body["command"]
        )
        assert all(times == 1 for times in sent.values()), (at, sent)


def serials_there(host):
    present = host.run("ls /etc/kubernetes").split()
    return serials(host, [leaf for leaf in (*LEAVES, *CONFIGS) if leaf in {*LEAVES, *present}])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"))) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp3"), 3)) as cluster:
        yield cluster


@pytest.fixture
def make_world(tmp_path):
    made = []

    def make(cluster, age=EXPIRING, **more):
        if cluster.age is age:
            cluster.restore()
        else:
            cluster.become(age)
        if age is EXPIRING:
            cluster.wait_until_ready()
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(World(cluster, folder, more))
        return made[-1]

    return make


def kill_and_resume(runs, world, point, whole):
    """Kill a renewal at a point, resume it, and look at the cluster."""
    killed = runs.run(world, kill=point, break_glass="fault test")
    is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
    assert is_past or killed.exit_code == -signal.SIGKILL, (point, killed)
    recovery_id = the_recovery(world)
    options = {"resume": recovery_id} if recovery_id else {}
    resumed = killed if is_past else runs.run(world, break_glass="fault test", **options)

    at = (point, whole.events[point[0] - 1])
    assert resumed.answer["state"] == "recovered", (at, resumed.answer)
    world.assert_renewed(at)
    world.assert_nothing_done_twice(resumed.answer["id"], at)


def kill_at_every_event(runs, world, whole):
    """Kill one renewal at each event that it comes to; return the points it did not come to."""

    def run(strikes):
        recovery_id = the_recovery(world)
        resume = {"resume": recovery_id} if recovery_id else {}
        return runs.run(world, strikes=strikes, break_glass="fault test", **resume)

    rest = strike_one_after_the_other(run, kill_points(whole.events), whole.events)
    world.assert_renewed("at every event")
    world.assert_nothing_done_twice(the_recovery(world), "at every event")
    return rest


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_renewal_killed_at_any_event_ends_with_every_certificate_new(
    one, make_world, runs, shard
):
    """Goal: no instruction of a renewal is a point of no return, and none is done twice.

    Method: kill the worker before and after an event of the journal (hence before, inside and after
    every step and every command), resume, and look at what the host serves. The shards divide the
    events among them.
    """
    undisturbed = make_world(one)
    whole = runs.run(undisturbed, break_glass="fault test")
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_renewed("undisturbed")

    for point in sampled(kill_points(whole.events)[shard :: len(SHARDS)], POINTS, f"{shard}"):
        kill_and_resume(runs, make_world(one), point, whole)


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("way", WAYS if IS_WHOLE else ["reboot"])
def test_every_way_to_renew_survives_a_kill_at_any_event(one, make_world, runs, way):
    """Goal: what was expired, is regenerated, or is rebooted survives what a plain renewal does.

    With FAULTS=all, at every event of one recovery in turn, then singly at those of the steps that
    a plain renewal does not have, where that one did not come to them.
    """
    age, more = WAYS[way]
    world = make_world(one, age, **more)
    whole = runs.run(world, break_glass="fault test")
    assert whole.answer["state"] == "recovered", whole.answer
    points = kill_points(whole.events)
    if IS_WHOLE:
        plain = runs.run(make_world(one), break_glass="fault test")
        known = {step for _, step, _, _ in plain.events}
        rest = kill_at_every_event(runs, make_world(one, age, **more), whole)
        points = [point for point in rest if whole.events[point[0] - 1][1] not in known]

    for point in sampled(points, 1, way):
        world = make_world(one, age, **more)
        reboots = world.hosts[0].reboot_count
        kill_and_resume(runs, world, point, whole)
        assert world.hosts[0].reboot_count - reboots == int("reboot" in more), point


@pytest.mark.skipif(not IS_WHOLE, reason="one of the whole campaign: FAULTS=all")
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_three_hosts_survive_a_kill_at_any_event(three, make_world, runs):
    """Goal: a worker killed between two hosts leaves neither of them behind.

    At every event of one recovery in turn, then singly after those acts that this did not come to:
    what is within an act concerns one host alone.
    """
    whole = runs.run(make_world(three), break_glass="fault test")
    assert whole.answer["state"] == "recovered", whole.answer
    rest = kill_at_every_event(runs, make_world(three), whole)

    for point in (p for p in rest if p[1] == "after" and whole.events[p[0] - 1][0] == "done"):
        kill_and_resume(runs, make_world(three), point, whole)


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_an_undo_killed_at_any_event_ends_with_what_was_there(one, make_world, runs):
    """Goal: the way back survives what the way there survives.

    Method: renew, begin to undo, kill before or after an event, undo again, and compare every file
    and what is served with what was there before.
    """
    back = {"undo_by": "fault test", "break_glass": "test"}
    first = make_world(one)
    renewed = runs.run(first, break_glass="fault test")
    whole = runs.run(first, resume=renewed.answer["id"], **back)
    assert whole.answer["state"] == "undone", whole.answer
    assert_put_back(first, "undisturbed")

    points = kill_points(whole.events)
    if IS_WHOLE:
        world = make_world(one)
        recovery_id = runs.run(world, break_glass="fault test").answer["id"]
        points = strike_one_after_the_other(
            lambda strikes: runs.run(world, strikes=strikes, resume=recovery_id, **back),
            points,
            whole.events,
            ends=("undone",),
        )
        assert_put_back(world, "at every event")

    for point in sampled(points, 1, "undo"):
        world = make_world(one)
        renewed = runs.run(world, break_glass="fault test")
        killed = runs.run(world, kill=point, resume=renewed.answer["id"], **back)
        is_past = killed.exit_code == 0  # as above
        assert is_past or killed.exit_code == -signal.SIGKILL, (point, killed)
        again = killed if is_past else runs.run(world, resume=renewed.answer["id"], **back)

        at = (point, whole.events[point[0] - 1])
        assert again.answer["state"] == "undone", (at, again.answer)
        assert_put_back(world, at)
        history = read_history(told_events(world, renewed.answer["id"]))
        acts = {step.state for key, step in history.steps.items() if key.startswith("renew[")}
        assert acts == {StepState.UNDONE}, at


def assert_put_back(world, at):
    for host in world.hosts:
        assert changed(world.files[host.name], files_of(host)) == set(), at
    world.cluster.wait_until_ready()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("word", ONCE if IS_WHOLE else ONCE[1:])
def test_a_paused_worker_that_wakes_up_changes_nothing_more(one, make_world, runs, word):
    """Goal: who was away longer than the lease does not undo what another has done since.

    Method: stop a worker (SIGSTOP) when a command was sent and is not noted yet, let another one
    recover the cluster, wake the first one up, and compare files and processes before and after.
    """
    whole = runs.run(make_world(one), break_glass="fault test")
    n = next(n for n, event in enumerate(whole.events, 1) if event[2] and word in event[3])
    world = make_world(one)
    paused = runs.run(world, kill=(n, "stop"), break_glass="fault test")
    assert paused.stopped, paused
    recovered = runs.run(world, resume=the_recovery(world), break_glass="fault test")
    assert recovered.answer["state"] == "recovered", recovered.answer
    (host,) = world.hosts
    files, running = files_of(host), processes(host)

    os.kill(paused.stopped, signal.SIGCONT)
    wait_until(lambda: is_gone(paused.stopped), "the paused worker to leave", within_seconds=60)

    assert changed(files, files_of(host)) == set()
    assert processes(host) == running
    world.assert_renewed("woken up")


def is_gone(pid):
    about = Path(f"/proc/{pid}/stat")
    return not about.exists() or about.read_text().rpartition(")")[2].split()[0] == "Z"
