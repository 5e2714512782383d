"""Synchronising clocks on real hosts with a real chronyd, which may only watch the shared clock.

What steps a clock for real is in `test_clocks_stepped.py`. Where a clock must be wrong here, the
host's `date` is one that is off: a stand-in for the clock, as the only thing that is measured.
"""

import contextlib

import pytest

import flows.clocks  # noqa: F401 (what is run)
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import CommandFailed, NotVerified, Refused
from recovery.fan_out import TargetsFailed
from recovery.journal.opening import open_journal
from recovery.plan import commands_by_key
from recovery.run import Options
from tasks.clocks import looking, mending
from tasks.clocks.daemons import DaemonKind, daemons_of
from tasks.clocks.judging import Due, Limits
from tasks.clocks.mending import DueClock
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system

CHRONY = "/etc/chrony/chrony.conf"
LIMITS = Limits(1.0, 5.0, may_step=True, step_back_max_seconds=5.0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Four hosts: the first serves the time to the others."""
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("clocks"), 4)) as lab:
        server, *clients = lab.hosts
        server.write(CHRONY, "local stratum 8\nallow all\n")
        server.run("systemctl restart chrony")
        for client in clients:
            client.write(CHRONY, f"server {server.address} iburst minpoll 0 maxpoll 1\n")
        yield lab


@pytest.fixture
def clients(lab):
    lab.heal()
    for client in lab.hosts[1:]:
        client.run(
            "rm -f /usr/local/bin/date /etc/systemd/system/etcd.service "
            "/etc/systemd/system/systemd-timesyncd.service; systemctl unmask -q chrony; "
            "systemctl daemon-reload; systemctl stop chrony etcd systemd-timesyncd; "
            "systemctl disable -q chrony || :"
        )
    return lab.hosts[1:]


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")


def run(clients, *, user="root", resume="", undo_by="", plan_only=False, **parameters):
    declared = RECOVERIES["synchronise-clocks"]
    defaults = {name: default for name, (_, default) in declared.parameters.items()}
    given = {
        **defaults,
        "hosts": " ".join(client.url(user) for client in clients),
        "within_seconds": 20.0,
        **parameters,
    }
    return run_plainly(
        declared,
        given,
        Options(
            resume=resume,
            undo_by=undo_by,
            plan_only=plan_only,
            break_glass="a test" if undo_by else "",
        ),
    )


def keep(client):
    """Let chronyd run, start at boot and follow its source."""
    client.run("systemctl enable -q --now chrony; chronyc -n burst 2/4")
    wait_until(lambda: "^*" in client.run("chronyc -n sources"), "a source", within_seconds=20)


def state(client):
    return client.run("systemctl is-active chrony; systemctl is-enabled chrony || :").split()


def be_off(client, seconds):
    client.write(
        "usr/local/bin/date", f'#!/bin/sh\nexec /bin/date -d "{seconds} seconds" "$@"\n', 0o755
    )


def clock_of(client, *, steps=False, unit="chrony.service"):
    host = client.block()
    due = Due(host.label, unit, str(DaemonKind.CHRONYD), steps=steps, has_etcd=False)
    return DueClock(host, due, LIMITS, 5.0)


@pytest.mark.parametrize("user", ["root", "ops"])
def test_a_daemon_that_was_stopped_runs_and_starts_at_boot_and_undo_stops_it_again(clients, user):
    keep(clients[0])

    ended = run(clients, user=user)

    assert ended.error is None
    assert ended.result.mended == [client.block(user).label for client in clients[1:]]
    assert ended.result.apart_seconds < 1
    for client in clients:
        assert state(client) == ["active", "enabled"]
        assert "^*" in client.run("chronyc -n sources")

    undone = run(clients, user=user, resume=ended.recovery_id, undo_by="tester")

    assert undone.error is None
    assert state(clients[0]) == ["active", "enabled"]  # it was so before
    assert [state(client) for client in clients[1:]] == [["inactive", "disabled"]] * 2


def test_clocks_that_are_kept_are_left_alone(clients):
    for client in clients:
        keep(client)
    before = [client.run("systemctl show -p MainPID,InvocationID chrony") for client in clients]

    planned = run(clients, plan_only=True).plan
    ended = run(clients)

    assert planned.is_empty
    assert ended.error is None
    assert ended.result.mended == []
    after = [client.run("systemctl show -p MainPID,InvocationID chrony") for client in clients]
    assert after == before


def test_the_plan_shows_what_is_sent_to_each_host(clients):
    planned = run(clients[:1], plan_only=True).plan

    label = clients[0].block().label
    commands = commands_by_key(planned.as_plain())
    assert commands[f"start_daemon[{label}]"] == [
        "systemctl --no-ask-password start -- chrony.service"
    ]
    assert commands[f"ask_sources[{label}]"] == ["chronyc online", "chronyc burst 4/8"]
    assert commands[f"step_clock[{label}]"] == []
    assert state(clients[0]) == ["inactive", "disabled"]


def test_a_host_without_a_daemon_ends_it_before_anything_is_done(clients):
    clients[1].run("systemctl mask chrony")

    ended = run(clients)

    assert isinstance(ended.error, Refused)
    assert "masked" in ended.error.reason
    assert state(clients[0]) == ["inactive", "disabled"]


def test_two_daemons_at_once_are_not_decided_between(clients):
    clients[0].write(  # a stand-in: the real one does not start in a container
        "etc/systemd/system/systemd-timesyncd.service",
        "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
    )
    clients[0].run("systemctl daemon-reload; systemctl start chrony systemd-timesyncd")

    ended = run(clients[:1])

    assert isinstance(ended.error, Refused)
    assert "chrony.service and systemd-timesyncd.service run at once" in ended.error.reason


def test_a_source_that_does_not_answer_is_named_and_the_resume_ends_it(lab, clients):
    """Goal: no answer from a source is told as that, and mending it is enough.

    Method: cut the host from its source, run, heal, resume; the others were done meanwhile.
    """
    server, first = lab.hosts[0], clients[0]
    lab.partition(server, first)

    given = {"max_fail": "1", "within_seconds": 6.0, "serial": ["1"]}
    ended = run(clients, **given)

    assert isinstance(ended.error, TargetsFailed)
    (said,) = ended.error.errors.values()
    assert isinstance(said, NotVerified)
    assert f"{server.address} (does not answer)" in said.seen
    assert [state(client) for client in clients[1:]] == [["active", "enabled"]] * 2

    lab.heal()
    resumed = run(clients, resume=ended.recovery_id, **given)
    assert resumed.error is None
    assert "^*" in first.run("chronyc -n sources")


def test_a_start_that_said_yes_and_started_nothing_is_no_success(clients):
    """Method: the condition of Debian's unit, which no container fulfils; systemctl ends with 0."""
    drop_in = "/etc/systemd/system/chrony.service.d/lab.conf"
    clients[0].run(f"mv {drop_in} /root/lab.conf; systemctl daemon-reload")
    try:
        ended = run(clients[:1])
    finally:
        clients[0].run(f"mv /root/lab.conf {drop_in}; systemctl daemon-reload")

    assert isinstance(ended.error, NotVerified)
    assert "start_daemon" in ended.error.expected


def test_hosts_with_etcd_come_last_and_one_by_one(clients):
    clients[0].run("systemctl start etcd")
    clients[2].run("systemctl start etcd")

    ended = run(clients, serial=["100%"])

    assert ended.error is None
    with contextlib.closing(open_journal()) as kept:
        events = kept.events(ended.recovery_id)
    told = [
        (str(each.kind), each.step.partition("[")[0], each.body.get("target")) for each in events
    ]
    first, plain, last = (client.block().label for client in clients)
    began = [target for kind, step, target in told if (kind, step) == ("intended", "start_daemon")]
    assert began == [plain, first, last]
    assert told.index(("verified", "wait_until_kept", first)) < told.index(
        ("intended", "start_daemon", last)
    )


def test_an_etcd_that_is_gone_afterwards_stops_it_there(clients):
    """Method: a unit of etcd that systemd stops when chronyd starts."""
    clients[0].write(
        "etc/systemd/system/etcd.service",
        "[Unit]\nConflicts=chrony.service\n"
        "[Service]\nExecStart=/usr/bin/etcd --data-dir=/run/etcd\n",
    )
    clients[0].run("systemctl daemon-reload; systemctl start etcd")
    wait_until(lambda: clients[0].run("pgrep -x etcd || :"), "etcd", within_seconds=20)

    ended = run(clients[:1])

    assert isinstance(ended.error, NotVerified)
    assert ended.error.expected == "etcd to go on running"


def test_a_worker_whose_own_clock_is_the_odd_one_is_told_so(clients):
    for client in clients:
        be_off(client, -40)

    ended = run(clients)

    assert isinstance(ended.error, Refused)
    assert ended.error.target == "this worker"
    assert "3 of 3 hosts" in ended.error.reason
    assert [state(client) for client in clients] == [["inactive", "disabled"]] * 3


def test_a_clock_that_would_go_back_is_left_alone_unless_that_is_accepted(clients):
    be_off(clients[0], 40)
    name = f"step-back:{clients[0].block().label}"

    refused = run(clients)
    accepted = run(clients, accept=[name], within_seconds=4.0)

    assert isinstance(refused.error, Refused)
    assert name in refused.error.remedy
    # Here nothing can set that clock, and it is told that nothing did.
    (said,) = accepted.error.errors.values()
    assert isinstance(said, CommandFailed)
    assert "500 Failure" in said.tail


def test_a_clock_that_begins_to_go_back_after_the_look_is_left_alone_too(clients):
    clock = clock_of(clients[0])
    be_off(clients[0], 40)

    with pytest.raises(Refused, match="would go back"):
        mending.refuse_going_back(clock)


def test_a_source_that_tells_another_time_is_not_stepped_to(clients):
    keep(clients[0])
    be_off(clients[0], -40)

    ended = run(clients)

    assert isinstance(ended.error, Refused)
    assert "follows its source faithfully" in ended.error.reason


def test_a_daemon_that_was_removed_meanwhile_is_named(clients):
    with pytest.raises(Refused, match=r"nonesuch\.service is gone"):
        mending.is_started(clock_of(clients[0], unit="nonesuch.service"))


def test_clocks_that_are_apart_at_the_end_are_named(clients):
    be_off(clients[1], 3)
    hosts = [client.block() for client in clients]

    with pytest.raises(NotVerified, match="within 1 s of each other") as apart:
        looking.clocks_agree(hosts, LIMITS)

    assert clients[1].address in apart.value.target


def test_a_chronyc_that_may_not_ask_is_no_daemon_without_sources(clients):
    keep(clients[0])
    clients[0].run("mv /usr/bin/chronyc /usr/bin/chronyc.real")
    clients[0].write("usr/bin/chronyc", "#!/bin/sh\necho 501 Not authorised\nexit 1\n", 0o755)
    try:
        with pytest.raises(CommandFailed, match="501"):
            mending.follows_a_source(clock_of(clients[0]))
    finally:
        clients[0].run("mv /usr/bin/chronyc.real /usr/bin/chronyc")


def test_every_daemon_of_a_real_host_is_seen_once(clients):
    keep(clients[0])

    (daemon,) = daemons_of(clients[0].block())

    assert (daemon.unit, daemon.is_active, daemon.starts_at_boot) == ("chrony.service", True, True)
