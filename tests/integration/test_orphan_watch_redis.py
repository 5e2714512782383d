"""A real recovery that loses its worker in mid-act, and goes on by itself on another one."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from operate.catalogue import recoveries
from operate.orphans.pace import Pace
from operate.orphans.watch import Watch
from recovery.run import recovery_id_of
from tests.lab.processes import wait_until
from tests.lab.redis_hosts import debian_redis
from tests.lab.watched_stage import WatchedStage, kill_with_child

AT_ONCE = Pace(back_off=(1.0, 1.0, 1.0), settle=3.0)
POOL = "redis"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def stage(prefect_server, tmp_path):
    stage = WatchedStage(prefect_server, tmp_path)
    with stage.stack:
        yield stage


def test_a_redis_whose_start_lost_its_worker_is_started_once_and_is_well(
    stage, lab_network, monkeypatch
):
    """Goal: nobody types anything, Redis is started once, and the journal is whole.

    Method: a start that takes seconds, so that worker and process are killed within it.
    """
    redis = debian_redis(lab_network(1).hosts[0])
    redis.fill(1000)
    before, starts = redis.contents(), redis.starts()
    redis.stop()
    redis.drop_in("ExecStartPre=/bin/sleep 5")
    monkeypatch.setenv("RECOVER_JOURNAL", str(stage.journal))
    monkeypatch.setenv("PREFECT_API_URL", stage.server.api_url)
    first = stage.worker(POOL)
    given = {"module": "flows.redis_server", **redis.parameters()}
    run_id = stage.start("recover-redis", POOL, **given)
    recovery_id = recovery_id_of(run_id)
    kill_with_child(first, stage.process_in(recovery_id, "start"))
    watch = Watch(recoveries(), AT_ONCE)
    stage.worker(POOL)

    def look():
        watch.look()
        return "recovered" in stage.attempts(recovery_id)

    with temporary_settings({PREFECT_API_URL: stage.server.api_url}):
        wait_until(look, "the recovery to go on by itself", within_seconds=150)
        watch.close()

    crashed = stage.state(run_id)
    assert crashed["type"] == "CRASHED"
    assert "It was in start, which is in doubt" in crashed["message"]
    assert stage.attempts(recovery_id) == ["lost", "recovered"]
    assert redis.contents() == before
    assert redis.starts() == starts + 1
    assert redis.ours() == []
