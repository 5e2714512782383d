"""Restarting nginx-proxy while its worker is killed: before, inside and after every step.

What counts is the host: the API answers through the proxy, and it was started once and no more.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import IS_WHOLE, JournaledWorld, flaws_of, survives_kills
from tests.integration.proxy_runs import serves, starts, wait_until_serving
from tests.lab.api_proxy import put_proxy
from tests.lab.control_plane import control_planes
from tests.lab.hosts import LabHost
from tests.lab.session import started_or_skipped

POINTS = 1  # of an ordinary run; all of them with FAULTS=all


@dataclass
class World(JournaledWorld):
    """A proxy that is to be restarted, and the journal of whoever does."""

    host: LabHost
    folder: Path

    module = "flows.api_proxy"
    flow = "restart-nginx-proxy"

    def __post_init__(self):
        wait_until_serving([self.host])
        self.starts = starts(self.host)

    @property
    def parameters(self):
        return {"hosts": self.host.url(), "restart": True, "within_seconds": 90.0}

    def assert_started_once(self, at):
        assert serves(self.host), at
        assert starts(self.host) == self.starts + 1, at
        assert flaws_of(self) == [], at


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"))) as cluster:
        (host,) = cluster.hosts
        put_proxy(host, [host.address])
        yield host


@pytest.mark.timeout(3600 if IS_WHOLE else 600)
def test_a_worker_killed_at_any_event_restarts_the_proxy_once(host, tmp_path, runs):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and count the starts of the proxy's container. With FAULTS=all, at every event of one recovery
    in turn, then singly where that one did not come to.
    """

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        return World(host, folder)

    survives_kills(runs, make, World.assert_started_once, at_most=POINTS)
