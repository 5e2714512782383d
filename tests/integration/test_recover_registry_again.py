"""A registry's server that is no longer as it was found: resumed, or met by another recovery."""

from contextlib import contextmanager

import pytest

from recovery.errors import Refused
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from tests.integration.test_recover_registry_database import (
    _quick as _quick,  # noqa: PLC0414 (the fixtures)
)
from tests.integration.test_recover_registry_database import (
    hung,
    in_background,
    recover,
    recovering_from_a_crash,
    resume,
)
from tests.integration.test_recover_registry_database import (
    prepared as prepared,  # noqa: PLC0414
)
from tests.integration.test_recover_registry_database import (
    running as running,  # noqa: PLC0414
)
from tests.integration.test_recover_registry_database import (
    stopped as stopped,  # noqa: PLC0414
)
from tests.lab.processes import wait_until

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
    registry.psql("SELECT pg_reload_conf()")
    wait_until(registry.answers, "the trouble to pass by itself", within_seconds=30)
    return ended


@contextmanager
def recovering_from_a_lost_backend(registry):
    """Be in the middle of the recovery that the death of a backend makes the server begin."""
    with registry.connect() as connection:
        connection.execute("CREATE TABLE big AS SELECT n, repeat('x', 500) FROM "
                           "generate_series(1, 200000) AS n")  # fmt: skip
        registry.run(
            f"kill -9 {connection.info.backend_pid};"
            f"for n in $(seq 20000); do pid=$({STARTUP}) && break; done; kill -STOP $pid"
        )
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


def test_a_server_that_somebody_starts_anew_meanwhile_is_waited_for(running):
    ended = refused_while_hung(running)
    with recovering_from_a_crash(running):
        server, starts = running.postmaster(), running.starts()
        with in_background(running, {"resume": ended.recovery_id}) as told:
            wait_until(
                lambda: any(e.kind == "done" for e in open_journal().events(ended.recovery_id)),
                "it to see that another process runs",
                within_seconds=30,
            )
            running.run(f"kill -CONT $({STARTUP})")

    assert told.ended.state is RecoveryState.RECOVERED, told.ended.error
    assert (running.postmaster(), running.starts()) == (server, starts)
    assert sent_by(ended) == []
