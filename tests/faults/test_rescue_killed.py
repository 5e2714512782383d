"""Rescuing a self-hosted scheduler while its worker is killed: before, inside and after every step.

What counts is the API: the Deployment runs, and the pod that stood in is gone.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import IS_WHOLE, JournaledWorld, flaws_of, survives_kills
from tests.integration.rescue_runs import SelfHosted

POINTS = 2  # of an ordinary run; all of them with FAULTS=all


@dataclass
class World(JournaledWorld):
    """A scheduler whose own pods nobody places, and the journal of whoever rescues it."""

    hosted: SelfHosted
    folder: Path

    module = "flows.rescue"
    flow = "rescue-scheduler"

    @property
    def parameters(self):
        api, namespace = self.hosted.api, self.hosted.namespace
        return {
            "cluster": api.url_for(self.flow, namespace),
            "namespace": namespace,
            "node": "",
            "within_seconds": 60,
        }

    def assert_rescued(self, at):
        assert self.hosted.rescue is None, at
        assert self.hosted.available == 1, at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    with contextlib.ExitStack() as stack:

        def make(_name):
            namespace = kubernetes.namespace("rescued")
            folder = tmp_path / namespace
            folder.mkdir()
            hosted = stack.enter_context(SelfHosted(kubernetes, namespace))
            return World(hosted, folder)

        yield make


@pytest.mark.timeout(3600 if IS_WHOLE else 300)
def test_a_worker_killed_at_any_event_leaves_the_deployment_running_alone(make_world, runs):
    """Goal: no instruction is a point of no return, and no pod is left that stands in for nobody.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and look at the pods. With FAULTS=all, at every event of one recovery in turn, then singly where
    that one did not come to.
    """
    survives_kills(runs, make_world, World.assert_rescued, at_most=POINTS)
