"""Recovering a Redis while its worker is killed, its network is cut and its host goes down.

What counts is the host: every key is there, and Redis was restarted by us once at most, by its own
log. What the recovery says of itself comes second.
"""

import contextlib
import itertools
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.conftest import flaws_of, kill_points, sampled, shards, the_recovery
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.redis_hosts import (
    DATA,
    LOG,
    LabRedis,
    sentinel_trio,
    writer,
)
from tests.lab.session import started_or_skipped

KEYS = 500
SHARDS = shards(8, in_a_sample=1)
DISTURBED_SHARDS = shards(4, in_a_sample=1)
FAILOVER_SHARDS = shards(3, in_a_sample=1)
POINTS = 2  # of each shard in an ordinary run; all of them with FAULTS=all
AWAY_SECONDS = 3.0
TIMES_RESUMED = 3
CLEAN = f"""
systemctl stop redis-server; systemctl reset-failed
umount {DATA} 2>/dev/null
rm -rf {DATA}/* {LOG} /var/lib/recover/copies
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("redis"))) as lab:
        host = lab.hosts[0]
        host.run("systemctl enable redis-server")  # so that it comes back after a power cut
        LabRedis(host).configure("save 3600 1", "appendonly yes")
        yield lab


@dataclass
class World:
    """A filled Redis, and the journal of whoever recovers it."""

    redis: LabRedis
    folder: Path
    more: dict = field(default_factory=dict)
    lease_seconds: str = "3"

    module = "flows.redis_server"
    flow = "recover-redis"
    retry_delays = (0.2, 0.5, 1.0)

    def __post_init__(self):
        self.before = self.redis.contents()
        self.starts = self.redis.starts()

    @property
    def parameters(self):
        return self.redis.parameters(**self.more)

    @property
    def environment(self):
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_LEASE_SECONDS": self.lease_seconds,
        }

    def resume(self, runs):
        """Resume until it has recovered, a few times at most; return how the last one ended."""
        resumed = None
        for _ in range(TIMES_RESUMED):
            recovery_id = the_recovery(self)
            options = {"resume": recovery_id} if recovery_id else {}
            resumed = runs.run(self, **options)
            if resumed.answer.get("state") == "recovered":
                break
        return resumed

    def assert_whole(self, at, *, boots=0):
        self.redis.wait_until_answering()
        assert self.redis.contents() == self.before, at
        started = self.redis.starts() - self.starts - boots
        assert 0 <= started <= 1, (at, f"{started} restarts by us")
        assert self.redis.ours() == [], at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(lab, tmp_path):
    worlds = []

    def make(*, is_running=True, **more):
        host = lab.hosts[0]
        lab.heal()
        host.thaw()
        if not host.is_up:
            host.power_on()
        host.run(CLEAN)
        redis = LabRedis(host)
        redis.start()
        redis.fill(KEYS)
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        worlds.append(World(redis, folder, more))
        if not is_running:
            redis.stop()
        return worlds[-1]

    yield make
    lab.heal()
    lab.hosts[0].thaw()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("is_running", [True, False], ids=["restart", "start"])
def test_a_worker_killed_at_any_event_loses_no_key_and_restarts_once(
    make_world, runs, shard, is_running
):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal (hence before, inside and
    after every step and every command), resume in another process, and count at the host.
    """
    undisturbed = make_world(is_running=is_running, restart=is_running)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, POINTS, f"{is_running}{shard}"):
        world = make_world(is_running=is_running, restart=is_running)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[point[0] - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_whole(at)
        assert world.redis.starts() == world.starts + 1, at


def cut_network(lab):
    lab.cut(lab.hosts[0])
    threading.Timer(AWAY_SECONDS, lab.heal).start()
    return 0


def cut_power(lab):
    lab.hosts[0].power_cut()
    lab.hosts[0].power_on()
    return 1


def leave_without_power(lab):
    lab.hosts[0].power_cut()
    threading.Timer(AWAY_SECONDS, lab.hosts[0].power_on).start()
    return 1


def freeze(lab):
    lab.hosts[0].freeze()
    threading.Timer(AWAY_SECONDS, lab.hosts[0].thaw).start()
    return 0


def step_points(events):
    """Before, inside and after every step: its first event, each change in it, and its last."""
    points, last = [], ""
    for n, (kind, step, is_change, _) in enumerate(events, 1):
        is_edge = step != last or kind in {"intended", "done", "decided", "verified"}
        if step and (is_change or is_edge):
            points.append(n)
        last = step
    return points


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", DISTURBED_SHARDS)
@pytest.mark.parametrize("disturb", [cut_network, cut_power, leave_without_power, freeze])
def test_a_host_that_goes_away_at_any_step_loses_no_key(lab, make_world, runs, shard, disturb):
    """Goal: wherever the host or its network is lost, a resume ends with every key.

    Method: stop the worker at an event, cut the network, the power or freeze the host, let the
    worker go on into that, bring the host back some seconds later, resume, and count at the host.
    """
    whole = runs.run(make_world(restart=True))
    assert whole.answer["state"] == "recovered", whole.answer

    points = step_points(whole.events)[shard :: len(DISTURBED_SHARDS)]
    for n in sampled(points, 1, f"{disturb.__name__}{shard}"):
        world = make_world(restart=True)
        world.lease_seconds = "30"  # the worker stands still while the host boots
        boots = []
        disturbed = runs.run(
            world, kill=(n, "stop"), meanwhile=lambda seen=boots: seen.append(disturb(lab))
        )
        at = (n, whole.events[n - 1], disturbed.answer)
        wait_until(lambda: lab.hosts[0].run("true") == "", "the host", within_seconds=60)
        if disturbed.answer.get("state") != "recovered":
            resumed = world.resume(runs)
            assert resumed.answer["state"] == "recovered", (at, resumed.answer)

        world.assert_whole(at, boots=sum(boots))


@dataclass
class Failover:
    """A trio, a client that writes to its master, and who restarts that."""

    trio: object
    world: World
    confirmed: Path = Path()

    def run(self, runs, **options):
        with writer(self.trio.redis[0]) as self.confirmed:
            ended = runs.run(self.world, **options)
            return ended, self.world.resume(runs) if options else ended

    def assert_whole(self, at):
        trio, old = self.trio, self.trio.redis[0]
        new = next(one for one in trio.redis if one.host.address == trio.master())
        assert trio.roles().count("master") == 1, at
        written = old.host.read_file(str(self.confirmed)).decode().split()
        assert written, at
        assert [name for name in written if new.cli("EXISTS", name) != "1"] == [], at
        assert old.starts() == self.world.starts + 1, at
        assert flaws_of(self.world) == [], at


@pytest.fixture
def a_failover(tmp_path):
    numbers = itertools.count()

    @contextlib.contextmanager
    def make():  # one after the other: each is three hosts
        folder = tmp_path / str(next(numbers))
        with started_or_skipped(lab_hosts(folder / "lab", 3)) as lab:
            trio = sentinel_trio(lab)
            trio.redis[0].fill(KEYS)
            world = World(trio.redis[0], folder, {"restart": True}, lease_seconds="4")
            yield Failover(trio, world)

    return make


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", FAILOVER_SHARDS)
def test_a_worker_killed_in_a_failover_loses_no_confirmed_write(a_failover, runs, shard):
    """Goal: a failover that is cut off leaves one master, which has every write it confirmed.

    Method: kill -9 the worker when a change of the failover was made and is not noted yet, while a
    client writes to the old master; resume; look every confirmed write up at the new master.
    """
    with a_failover() as undisturbed:
        whole, _ = undisturbed.run(runs)
        assert whole.answer["state"] == "recovered", whole.answer
        undisturbed.assert_whole("undisturbed")
    points = [
        n
        for n, (kind, step, is_change, _) in enumerate(whole.events, 1)
        if step == "fail_over" and (is_change or kind in {"intended", "done"})
    ]

    for n in sampled(points[shard :: len(FAILOVER_SHARDS)], 1, f"failover {shard}"):
        with a_failover() as failover:
            killed, resumed = failover.run(runs, kill=(n, "before"))
            at = (n, whole.events[n - 1], killed.events[-1:])

            assert killed.exit_code == -9, at
            assert resumed.answer["state"] == "recovered", (at, resumed.answer)
            failover.assert_whole(at)
