"""Recovering a scheduler while its worker is killed: before, inside and after every step.

What counts is the host: the scheduler answers, and it was started once and no more.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import IS_WHOLE, JournaledWorld, flaws_of, survives_kills
from tests.integration.leader_runs import answers, freeze, starts, wait_until_well
from tests.lab.control_plane import control_planes
from tests.lab.hosts import LabHost
from tests.lab.session import started_or_skipped

POINTS = 1  # of an ordinary run; all of them with FAULTS=all
SCHEDULER = "kube-scheduler"


@dataclass
class World(JournaledWorld):
    """A scheduler that does not do its work, and the journal of whoever recovers it."""

    host: LabHost
    folder: Path
    is_frozen: bool = True  # else it holds an older kubeconfig, which is sooner seen

    module = "flows.leaders"
    flow = "recover-scheduler"

    def __post_init__(self):
        wait_until_well([self.host], SCHEDULER)
        self.starts = starts(self.host, SCHEDULER)
        if self.is_frozen:
            freeze(self.host, SCHEDULER)
        else:
            self.host.run("touch /etc/kubernetes/scheduler.conf")

    @property
    def parameters(self):
        return {"hosts": self.host.url(), "within_seconds": 90.0}

    def assert_started_once(self, at):
        assert answers(self.host, SCHEDULER), at
        assert starts(self.host, SCHEDULER) == self.starts + 1, at
        assert flaws_of(self) == [], at


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"))) as cluster:
        cluster.wait_until_ready()
        yield cluster.hosts[0]


@pytest.mark.timeout(3600 if IS_WHOLE else 600)
def test_a_worker_killed_at_any_event_restarts_the_scheduler_once(host, tmp_path, runs):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: freeze the scheduler (or age it), kill -9 the worker before and after an event of the
    journal, resume in another process, and count the starts of its container. With FAULTS=all, at
    every event of one recovery in turn, then singly where that one did not come to.
    """

    def make(name, *, is_frozen=True):
        folder = tmp_path / name
        folder.mkdir()
        return World(host, folder, is_frozen)

    survives_kills(
        runs,
        make,
        World.assert_started_once,
        at_most=POINTS,
        make_singly=partial(make, is_frozen=IS_WHOLE),
    )
