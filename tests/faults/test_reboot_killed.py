"""Rebooting a host while the worker is killed: before, inside and after every step, and between."""

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import flaws_of, kill_points, sampled, shards, the_recovery
from tests.integration.reboot_recovery import LINES
from tests.lab.hosts import lab_hosts
from tests.lab.session import started_or_skipped

SHARDS = shards(6, in_a_sample=2)
POINTS = 2  # of each shard in an ordinary run; all of them with FAULTS=all
WITHIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("rebooted"))) as lab:
        yield lab.hosts[0]


@dataclass
class World:
    """A host, and the journal of whoever reboots it."""

    machine: object
    folder: Path

    module = "tests.integration.reboot_recovery"
    flow = "note-and-reboot"
    retry_delays = (0.2, 0.5)

    @property
    def parameters(self):
        return {"host": self.machine.url(), "within_seconds": WITHIN_SECONDS}

    @property
    def environment(self):
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_LEASE_SECONDS": "3",
        }

    def noted(self):
        return self.machine.run(f"cat {LINES}").split()


@pytest.fixture
def make_world(machine, tmp_path):
    worlds = []

    def make():
        machine.run(f"rm -f {LINES}")
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        worlds.append(World(machine, folder))
        return worlds[-1]

    return make


@pytest.mark.timeout(400)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_worker_killed_at_any_event_reboots_the_host_exactly_once(make_world, runs, shard):
    """Goal: no instant, and no state of the host, leads to a second reboot or to none.

    Method: kill -9 before or after an event of the journal, mostly while the host goes down, is
    down or comes up; resume at once in another process; count boots and lines at the host.
    """
    whole = runs.run(make_world(), break_glass="fault test")
    assert whole.answer["state"] == "recovered", whole.answer
    every = {*kill_points(whole.events), *((n, "after") for n in range(1, len(whole.events) + 1))}

    for point in sampled(sorted(every)[shard :: len(SHARDS)], POINTS, f"reboot{shard}"):
        world = make_world()
        before = world.machine.reboot_count
        killed = runs.run(world, kill=point, break_glass="fault test")
        at = (point, whole.events[point[0] - 1], killed.events[-1:])
        was_over = point[0] > len(killed.events)  # it looked fewer times whether the host is back
        assert killed.exit_code == -signal.SIGKILL or was_over, (at, killed)
        recovery_id = the_recovery(world)
        options = {"resume": recovery_id} if recovery_id else {}
        resumed = runs.run(world, break_glass="fault test", **options)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        assert world.machine.reboot_count == before + 1, at
        assert world.noted() == ["noted"], at
        assert flaws_of(world) == [], at
