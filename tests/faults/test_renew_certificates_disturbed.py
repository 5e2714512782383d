"""Renewing certificates while the host, its power or its network is lost; with and without reboot.

What counts is what the ports serve and how often the host booted. What the recovery says of itself
comes second.
"""

import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.conftest import (
    IS_WHOLE,
    flaws_of,
    sampled,
    strike_one_after_the_other,
    the_recovery,
)
from tests.lab.control_plane import control_planes
from tests.lab.served import PORTS, serial_of, served_by
from tests.lab.session import started_or_skipped

AWAY_SECONDS = 4.0
TIMES_RESUMED = 4
DAYS_LEFT_MIN = 300
WAYS = {"pods": False, "reboot": True}
POINTS = 1  # of each disturbance in an ordinary run; all of them with FAULTS=all
FILES = {
    "apiserver": "/etc/kubernetes/pki/apiserver.crt",
    "etcd-server": "/etc/kubernetes/pki/etcd/server.crt",
    "etcd-peer": "/etc/kubernetes/pki/etcd/peer.crt",
    "kubelet-serving": "/var/lib/kubelet/pki/kubelet.crt",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with started_or_skipped(control_planes(folder, 1)) as cluster:
        yield cluster


@dataclass
class World:
    """A control plane that is about to run out, and the journal of whoever renews it."""

    cluster: object
    folder: Path
    reboot: bool

    module = "flows.certificates"
    flow = "renew-control-plane-certificates"
    retry_delays = (0.5, 1.0, 2.0)

    def __post_init__(self):
        self.host = self.cluster.hosts[0]
        self.boots = self.host.reboot_count

    @property
    def parameters(self):
        key = self.folder / "key"
        if not key.exists():
            key.write_text(secrets.token_hex(32))
            key.chmod(0o600)
        return {"hosts": self.host.url(), "backup_key_file": str(key), "reboot": self.reboot}

    @property
    def environment(self):
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(self.folder / "work"),
            "RECOVER_LEASE_SECONDS": "30",  # it may stand still until the host is back
        }

    def run(self, runs, **given):
        """Run it, or resume it where it has begun."""
        recovery_id = the_recovery(self)
        resume = {"resume": recovery_id} if recovery_id else {}
        return runs.run(self, break_glass="fault test", **resume, **given)

    def resume(self, runs):
        """Resume until it has recovered, a few times at most; return how the last one ended."""
        resumed = None
        for _ in range(TIMES_RESUMED):
            resumed = self.run(runs)
            if resumed.answer.get("state") == "recovered":
                break
        return resumed

    def assert_renewed(self, at, *, was_cut=False):
        serves = served_by([self.host.address])
        for name in PORTS:
            shown = serves[self.host.address, name]
            assert shown is not None, (at, name)
            assert shown.serial == serial_of(self.host.read_file(FILES[name])), (at, name)
            assert shown.days_left > DAYS_LEFT_MIN, (at, name)
        rebooted = self.host.reboot_count - self.boots
        is_booted_by_the_cut = was_cut and self.reboot and rebooted == 0  # a boot is a boot
        assert rebooted == int(self.reboot) or is_booted_by_the_cut, at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(cluster, tmp_path):
    worlds = []

    def make(*, reboot):
        cluster.restore()
        cluster.wait_until_ready()
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        worlds.append(World(cluster, folder, reboot))
        return worlds[-1]

    return make


def cut_network(cluster):
    cluster.lab.cut(cluster.hosts[0])
    return cluster.lab.heal


def cut_power(cluster):
    cluster.hosts[0].power_cut()
    return cluster.hosts[0].power_on


def freeze(cluster):
    cluster.hosts[0].freeze()
    return cluster.hosts[0].thaw


def step_points(events):
    """Before, inside and after every step: its first event, each change in it, and its last.

    A step that sends nothing is no instant of its own: the host may go away before the next one.
    """
    sending = {step for kind, step, _, _ in events if kind == "command"}
    points, last = [], ""
    for n, (kind, step, is_change, _) in enumerate(events, 1):
        is_edge = step != last or kind in {"intended", "done", "decided", "verified"}
        if step in sending and (is_change or is_edge):
            points.append(n)
        last = step
    return points


@dataclass
class Disturbance:
    """A host that goes away for some seconds whenever a worker stands still."""

    cluster: object
    disturb: object
    healing: list = field(default_factory=list)

    def begin(self):
        self.end()
        timer = threading.Timer(AWAY_SECONDS, self.disturb(self.cluster))
        timer.start()
        self.healing.append(timer)

    def end(self):
        """Wait until the host is back, if it was away."""
        if self.healing:
            self.healing.pop().join()
            self.cluster.hosts[0].wait_until_up(60)


EVERY_WAY = [(disturb, way) for disturb in (cut_network, cut_power, freeze) for way in WAYS]
IN_A_SAMPLE = [(cut_network, "pods"), (cut_power, "reboot")]


@pytest.mark.timeout(14_400 if IS_WHOLE else 900)
@pytest.mark.parametrize(("disturb", "way"), EVERY_WAY if IS_WHOLE else IN_A_SAMPLE)
def test_a_host_that_goes_away_at_any_step_ends_with_new_certificates(
    cluster, make_world, runs, disturb, way
):
    """Goal: wherever the host or its network is lost, a resume ends with all that is served new.

    Method: stop the worker at an event, cut the network or the power or freeze the host, let the
    worker go on into that, bring the host back some seconds later, resume, and ask the ports. With
    FAULTS=all, first at every event of one recovery in turn, then singly at those this did not
    come to.
    """
    reboot = WAYS[way]
    was_cut = disturb is cut_power
    disturbance = Disturbance(cluster, disturb)
    undisturbed = make_world(reboot=reboot)
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_renewed("undisturbed")
    points = [(n, "stop") for n in step_points(whole.events)]
    points = sampled(points, POINTS, f"{disturb.__name__}{reboot}")
    if IS_WHOLE:
        world = make_world(reboot=reboot)

        def run(**given):
            try:
                return world.run(runs, meanwhile=disturbance.begin, **given)
            finally:
                disturbance.end()

        points = strike_one_after_the_other(run, points, whole.events)
        cluster.wait_until_ready()
        world.assert_renewed("one after the other", was_cut=was_cut)

    for point in points:
        world = make_world(reboot=reboot)
        disturbed = world.run(runs, kill=point, meanwhile=disturbance.begin)
        at = (point, whole.events[point[0] - 1], disturbed.answer)
        disturbance.end()
        if disturbed.answer.get("state") != "recovered":
            resumed = world.resume(runs)
            assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        cluster.wait_until_ready()  # it went away behind the last look of the recovery

        world.assert_renewed(at, was_cut=was_cut)
