"""A registry's server that is no longer as it was found: resumed, or met by another recovery."""

from contextlib import contextmanager

import pytest

from recovery.declare import run_plainly
from recovery.errors import Refused, TargetTaken, Unreachable
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.run import Options
from tasks.postgres_server.process import OTHER_PROCESS, bound
from tasks.registry_database import forcing, restarting
from tasks.registry_database.causes import Cause, Finding, Reason
from tests.integration.registry_runs import (
    FORCE,
    cluster_of,
    has_decided,
    hung,
    in_background,
    recover,
    recovering_from_a_crash,
    resume,
    shutting_down,
    starting_order,
)
from tests.integration.registry_runs import (
    _quick as _quick,  # noqa: PLC0414 (the fixtures)
)
from tests.integration.registry_runs import (
    prepared as prepared,  # noqa: PLC0414
)
from tests.integration.registry_runs import (
    running as running,  # noqa: PLC0414
)
from tests.integration.registry_runs import (
    stopped as stopped,  # noqa: PLC0414
)
from tests.lab.processes import wait_until
from tests.lab.registry_host import UNIT

pytestmark = pytest.mark.timeout(240)  # the first use of the lab builds its root file system
STARTUP = "pgrep -f 'postgres: 15/main: [s]tartup'"


def sent_by(ended):
    """What a recovery changed on the host."""
    return [
        event.body["command"]
        for event in open_journal().events(ended.recovery_id)
        if event.kind == "command" and event.body.get("is_change")
    ]


def refused_while_hung(registry):
    """Find a server that hangs, and be refused its restart by an open transaction."""
    with registry.transaction(), hung(registry):
        ended = recover(registry)
    assert isinstance(ended.error, Refused), ended
    assert "idle in transaction" in str(ended.error)
    calm_down(registry)
    return ended


def calm_down(registry):
    registry.psql("SELECT pg_reload_conf()")
    wait_until(registry.answers, "the trouble to pass by itself", within_seconds=30)


@contextmanager
def recovering_from_a_lost_backend(registry):
    """Be in the middle of the recovery that the death of a backend makes the server begin."""
    with registry.connect() as connection:
        connection.execute("CREATE TABLE big AS SELECT n, repeat('x', 500) FROM "
                           "generate_series(1, 200000) AS n")  # fmt: skip
        registry.stop_redo(f"kill -9 {connection.info.backend_pid}")
    assert registry.run("ps -o stat= -C postgres").count("T") == 1
    yield
    registry.run(f"kill -CONT $({STARTUP}) 2>/dev/null || true")


def test_a_server_that_answers_again_is_not_restarted_by_a_resume(running):
    ended = refused_while_hung(running)
    server, starts = running.postmaster(), running.starts()

    resumed = resume(running, ended)

    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert resumed.result.cause == "hung"
    assert "without a restart" in resumed.result.done
    assert (running.postmaster(), running.starts()) == (server, starts)
    assert sent_by(ended) == []


def test_a_server_that_recovers_from_a_lost_backend_is_not_restarted_by_a_resume(running):
    ended = refused_while_hung(running)
    server, starts = running.postmaster(), running.starts()
    with recovering_from_a_lost_backend(running):
        resumed = resume(running, ended)

        assert isinstance(resumed.error, Refused), resumed
        assert "no restart mends what is found now, " in str(resumed.error)
        assert "Start a new recovery" in str(resumed.error)
    wait_until(running.answers, "the redo to end", within_seconds=60)

    again = resume(running, ended)

    assert again.state is RecoveryState.RECOVERED, again.error
    assert (running.postmaster(), running.starts()) == (server, starts)
    assert sent_by(ended) == []
    assert running.log().count("redo starts") == 1


def test_a_server_that_is_starting_by_then_is_not_said_to_shut_down(running, monkeypatch):
    """Method: cut the first attempt off before it knows the process, then let the server crash."""
    asked = restarting.ask_inside

    def cut(*_args):
        raise Unreachable("db1", "ask", "the network was cut")

    with hung(running):
        monkeypatch.setattr(restarting, "ask_inside", cut)
        monkeypatch.setenv("RECOVER_PATIENCE_SECONDS", "1")
        ended = recover(running)
        assert isinstance(ended.error, Unreachable), ended
    monkeypatch.setattr(restarting, "ask_inside", asked)
    calm_down(running)
    with recovering_from_a_crash(running):
        server, starts = running.postmaster(), running.starts()
        resumed = resume(running, ended)

        assert isinstance(resumed.error, Refused), resumed
        assert "no restart mends what is found now, " in str(resumed.error)
        assert "shut down" not in str(resumed.error).replace("shut down at", "")
    wait_until(running.answers, "the redo to end", within_seconds=60)

    assert resume(running, ended).state is RecoveryState.RECOVERED
    assert (running.postmaster(), running.starts()) == (server, starts)
    assert sent_by(ended) == []


def test_another_database_of_a_server_that_is_being_recovered_is_refused(running):
    with recovering_from_a_crash(running), in_background(running) as told:
        wait_until(has_decided, "the first to find the cause", within_seconds=30)

        other = recover(running, database=running.url(database="postgres"))

        assert isinstance(other.error, TargetTaken), other
        running.run(f"kill -CONT $({STARTUP})")

    assert told.ended.state is RecoveryState.RECOVERED, told.ended.error


# -- orders that come late -----------------------------------------------------------------------


def test_a_restart_that_comes_late_finds_another_process_and_does_nothing(running):
    order = starting_order(running)
    found = Finding.of(Reason(Cause.HUNG, "so it was"), cluster_of(running))
    before = restarting.standing.fn(order, found)
    running.run(f"systemctl restart {UNIT}")
    wait_until(running.answers, "the restart of somebody else", within_seconds=30)
    server = running.postmaster()

    late = order.host.change(
        bound(found.cluster, before.identity, restarting.systemctl("restart", UNIT)),
        accept=(0, OTHER_PROCESS),
        as_root=True,
    )

    assert late.exit_code == OTHER_PROCESS
    assert running.run("systemctl list-jobs --no-legend").strip() == ""
    assert running.postmaster() == server


def test_a_server_is_told_from_another_one_by_boot_number_and_start(running):
    order = starting_order(running)
    found = Finding.of(Reason(Cause.HUNG, "so it was"), cluster_of(running))
    boot, pid, began = restarting.standing.fn(order, found).identity.split("/")

    def code(identity):
        argv = bound(found.cluster, identity, ["true"])
        return order.host.read(argv, accept=(0, OTHER_PROCESS), as_root=True).exit_code

    assert code(f"{boot}/{pid}/{began}") == 0
    others = (f"{boot}/{pid}/{int(began) + 1}", f"{boot}/1/{began}", f"{'0' * 36}/{pid}/{began}")
    assert [code(other) for other in others] == [OTHER_PROCESS] * 3
    running.run(f"systemctl stop {UNIT}")
    assert code(f"{boot}/{pid}/{began}") == 0


# -- the last resort -----------------------------------------------------------------------------


def forced(registry):
    """Force the shutdown, with consent where a plan is made."""
    given = {"database": registry.url(), "host": registry.ssh_url(), "unit": ""}
    planned = run_plainly(FORCE, given, Options(plan_only=True))
    if planned.plan is None:
        return planned
    return run_plainly(FORCE, given, Options(approve=planned.plan.hash, approved_by="test"))


def test_a_server_that_works_is_not_forced_down(running):
    server = running.postmaster()

    ended = forced(running)

    assert isinstance(ended.error, Refused), ended
    assert "the server is not shutting down: it takes connections" in str(ended.error)
    assert running.postmaster() == server


def test_a_server_that_recovers_from_a_crash_is_not_forced_down(running):
    with recovering_from_a_crash(running):
        server = running.postmaster()

        ended = forced(running)

        assert isinstance(ended.error, Refused), ended
        assert "on its way up" in str(ended.error)
        assert running.postmaster() == server
    assert running.log().count("redo starts") <= 1


def test_a_server_that_hangs_is_not_forced_down_before_a_fast_shutdown_was_tried(running):
    server = running.postmaster()
    with hung(running):
        ended = forced(running)

    assert isinstance(ended.error, Refused), ended
    assert "restarts one that hangs by a fast shutdown" in str(ended.error)
    assert running.postmaster() == server


def test_a_server_that_was_started_again_is_not_forced_down_by_a_late_consent(running):
    order = starting_order(running)
    with shutting_down(running) as backend:
        doomed = forcing.server_to_end.fn(order)
        forcing.refuse_unless_shutting_down(order, doomed)
        running.run(f"kill -CONT {backend}")
    wait_until(lambda: not running.pids(), "it to be gone", within_seconds=30)
    running.start()

    with pytest.raises(Refused, match="not shutting down"):
        forcing.refuse_unless_shutting_down(order, doomed)
    assert forcing.is_ended(order, doomed)
