"""Reading what systemd says of a unit, and what is made of it."""

from dataclasses import dataclass, field

import pytest

from blocks.ssh.command import Answer
from recovery.errors import BadInput, NotVerified, Refused, UnreadableOutput
from tasks import services
from tasks.services import UnitState, parse_unit

# systemd 252, `systemctl show --no-pager -p … -- UNIT`.
RUNNING = """Id=redis-server.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
Result=success
MainPID=94
NRestarts=0
TriggeredBy=
"""
STOPPED = """Id=redis-server.service
LoadState=loaded
ActiveState=inactive
SubState=dead
UnitFileState=enabled
Result=success
MainPID=0
NRestarts=0
TriggeredBy=
"""
KILLED = (
    STOPPED.replace("=inactive", "=failed")
    .replace("=dead", "=failed")
    .replace("Result=success", "Result=signal")
)
ABSENT = """Id=nonesuch.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
"""
STARTED_BY_SOCKET = STOPPED.replace("TriggeredBy=", "TriggeredBy=redis.socket redis.timer")
UNHEARD_OF = RUNNING.replace("ActiveState=active", "ActiveState=dreaming")
SOCKET = """Id=ssh.socket
LoadState=loaded
ActiveState=active
SubState=listening
UnitFileState=disabled
Result=success
"""


@dataclass
class Scripted:
    """A host that prints these, one after the other, the last one for ever."""

    printed: list[str]
    user: str = "root"
    sent: list[list[str]] = field(default_factory=list)
    target: str = "db1"

    def command_line(self, argv, *, as_root=False):
        return " ".join((["sudo"] if as_root and self.user != "root" else []) + list(argv))

    def read(self, argv, *, within_seconds):
        text = self.printed.pop(0) if len(self.printed) > 1 else self.printed[0]
        return Answer(" ".join(argv), self.target, 0, text, "")

    def change(self, argv, *, within_seconds, as_root=False):
        self.sent.append(self.command_line(argv, as_root=as_root))
        return Answer(" ".join(argv), self.target, 0, "", "")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(services, "PAUSE_SECONDS", 0)


@pytest.mark.parametrize(
    ("printed", "state", "is_active", "is_at_rest"),
    [
        (RUNNING, UnitState.ACTIVE, True, False),
        (SOCKET, UnitState.ACTIVE, True, False),
        (STOPPED, UnitState.INACTIVE, False, True),
        (KILLED, UnitState.FAILED, False, True),
        (KILLED.replace("MainPID=0", "MainPID=94"), UnitState.FAILED, False, False),
        (RUNNING.replace("=active", "=activating"), UnitState.ACTIVATING, False, False),
        (RUNNING.replace("=active", "=deactivating"), UnitState.DEACTIVATING, False, False),
        (RUNNING.replace("=active", "=reloading"), UnitState.RELOADING, False, False),
        (ABSENT, UnitState.NOT_FOUND, False, False),
        (UNHEARD_OF, UnitState.UNKNOWN, False, False),
        # Its file is gone, but it still runs: it is there.
        (RUNNING.replace("=loaded", "=not-found"), UnitState.ACTIVE, True, False),
    ],
)
def test_each_state_is_told_apart(printed, state, is_active, is_at_rest):
    status = parse_unit("redis-server", printed)

    assert (status.state, status.is_active, status.is_at_rest) == (state, is_active, is_at_rest)


def test_all_fields_are_read():
    status = parse_unit("redis", KILLED.replace("TriggeredBy=", "TriggeredBy=a.socket b.timer"))

    assert status.unit == "redis-server.service"
    assert (status.result, status.main_pid, status.restarts) == ("signal", 0, 0)
    assert status.triggered_by == ("a.socket", "b.timer")
    assert str(status) == "redis-server.service failed (failed, result signal)"


@pytest.mark.parametrize("printed", ["", "\n", "Id=x\n", RUNNING.replace("=94", "=many")])
def test_what_cannot_be_read_is_not_inactive(printed):
    with pytest.raises(UnreadableOutput):
        parse_unit("x", printed)


@pytest.mark.parametrize("unit", ["", "-H", "graf*", "a b", "a;b", "a?"])
def test_what_is_no_name_of_one_unit_is_refused(unit):
    with pytest.raises(BadInput, match="is no name of a unit"):
        services.unit_status(Scripted([RUNNING]), unit)


def test_a_name_without_suffix_is_a_service():
    assert services.checked_name("postgresql@15-main") == "postgresql@15-main.service"
    assert services.checked_name("ssh.socket") == "ssh.socket"


def test_an_unknown_unit_is_named_and_nothing_is_sent():
    host = Scripted([ABSENT])

    with pytest.raises(Refused, match=r"it has no unit nonesuch\.service"):
        services.stop_unit(host, "nonesuch")

    assert host.sent == []
    assert services.unit_state(host, "nonesuch") is UnitState.NOT_FOUND


@pytest.mark.parametrize("printed", [ABSENT, UNHEARD_OF])
@pytest.mark.parametrize("ask", [services.is_active, services.is_inactive])
def test_absent_and_unknown_are_neither_active_nor_stopped(printed, ask):
    with pytest.raises(Refused):
        ask(Scripted([printed]), "x")


def test_the_predicates_say_yes_and_no():
    assert services.is_active(Scripted([RUNNING]), "redis-server")
    assert not services.is_active(Scripted([STOPPED]), "redis-server")
    assert services.is_inactive(Scripted([STOPPED]), "redis-server")
    assert not services.is_inactive(Scripted([RUNNING]), "redis-server")


def test_root_acts_itself_and_others_through_sudo_and_the_plan_shows_the_same():
    root, ops = Scripted([RUNNING]), Scripted([RUNNING], user="ops")

    services.stop_unit(root, "redis-server")
    services.start_unit(ops, "redis-server")

    assert root.sent == ["systemctl --no-ask-password stop -- redis-server.service"]
    assert ops.sent == ["sudo systemctl --no-ask-password start -- redis-server.service"]
    assert ops.sent == [services.line_to(ops, "start", "redis-server")]


def test_active_counts_only_once_it_stays_the_same_process():
    crashing = [RUNNING.replace("=94", f"={pid}") for pid in range(1, 30)]

    status = services.wait_until_active(
        Scripted([*crashing, RUNNING]), "redis-server", within_seconds=5, steady_seconds=0.01
    )

    assert status.main_pid == 94


def test_a_unit_that_crashes_again_and_again_is_not_verified():
    class Crashing(Scripted):
        pid = 0

        def read(self, argv, *, within_seconds):
            self.pid += 1
            return Answer("", "db1", 0, RUNNING.replace("=94", f"={self.pid}"), "")

    with pytest.raises(NotVerified, match="journalctl"):
        services.wait_until_active(
            Crashing([]), "redis-server", within_seconds=0.05, steady_seconds=1
        )


def test_waiting_for_a_failed_unit_to_become_active_ends_at_once():
    with pytest.raises(NotVerified, match="result signal"):
        services.wait_until_active(Scripted([KILLED]), "redis-server", within_seconds=30)


def test_a_unit_that_stops_is_waited_for():
    leaving = RUNNING.replace("=active", "=deactivating")

    status = services.wait_until_inactive(
        Scripted([leaving, leaving, STOPPED]), "redis-server", within_seconds=5
    )

    assert status.state is UnitState.INACTIVE


def test_a_unit_that_does_not_stop_names_what_starts_it_again():
    running = STARTED_BY_SOCKET.replace("=inactive", "=active")

    with pytest.raises(NotVerified, match=r"started again by redis\.socket, redis\.timer"):
        services.wait_until_inactive(Scripted([running]), "redis-server", within_seconds=0)


def test_waiting_for_an_unknown_unit_is_refused():
    with pytest.raises(Refused):
        services.wait_until_inactive(Scripted([ABSENT]), "nonesuch", within_seconds=5)
