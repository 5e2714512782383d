"""Commands detached on a real host: adopted, never duplicated, ended at their deadline."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from blocks.ssh import detached
from blocks.ssh.detached import DetachedCommand, DetachedState, UnitGone
from recovery.commands import current_gate
from recovery.errors import CommandFailed, NotVerified, Unreachable
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system

UNITS = "/run/recover/units"
COUNTED = "echo began >>/root/count; sleep 1; echo ended; echo ended >>/root/count"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("detached"))) as lab:
        yield lab


@pytest.fixture
def machine(lab):
    (machine,) = lab.hosts
    machine.run(
        "rm -rf /root/count; systemctl stop 'recover-*'; systemctl reset-failed; "
        f"rm -rf {UNITS}; mkdir -p /root"
    )
    return machine


@pytest.fixture
def host(machine):
    with machine.block().session() as root:
        yield root


def shell(text, *, name="job", within_seconds=30.0):
    return DetachedCommand(name, ("sh", "-c", text), within_seconds)


def counted(machine):
    return machine.run("cat /root/count 2>/dev/null || :").split()


def traces(machine):
    return machine.run(f"ls {UNITS} 2>/dev/null || :").split()


def has_ended(host, command):
    return lambda: detached.state(host, command) is not DetachedState.RUNNING


def test_a_command_runs_to_its_end_and_leaves_no_trace(machine, host):
    job = shell("echo to out; echo to err >&2")

    ended = detached.run(host, job)

    assert (ended.state, ended.exit_code) == (DetachedState.SUCCEEDED, 0)
    assert ended.output == "to out\nto err\n"
    assert detached.state(host, job) is DetachedState.NOT_FOUND
    assert traces(machine) == []
    assert machine.run("systemctl list-units --all --no-legend 'recover-*'") == ""


def test_arguments_reach_the_command_as_they_are(host):
    odd = ["$HOME", "${PATH}", "$$", "%n", "%%", "it's", '"', "\\n", "a\nb", "", "*", "ü", "@x@"]

    ended = detached.run(host, DetachedCommand("odd", ("printf", "<%s>", *odd), 30))

    assert ended.output == "".join(f"<{each}>" for each in odd)


@pytest.mark.parametrize("user", ["ops", "root"])
def test_it_runs_as_root_whoever_logs_in(machine, host, user):
    ended = detached.run(machine.block(user=user), shell("id -un; pwd; env | grep -c ^SSH_ || :"))

    assert ended.output == "root\n/\n0\n"


def test_it_stays_visible_until_it_is_settled_and_settling_twice_is_fine(machine, host):
    job = shell("echo done")
    detached.start(host, job)
    wait_until(has_ended(host, job), "the command to end", within_seconds=10)

    assert machine.run(f"systemctl is-active {job.unit}") == "active\n"
    assert detached.look(host, job).output == "done\n"
    assert machine.run(f"stat -c '%a %U' {UNITS}/{job.unit} {UNITS}").split("\n")[:2] == [
        "700 root",
        "700 root",
    ]

    detached.settle(host, job)
    detached.settle(host, job)
    assert detached.state(host, job) is DetachedState.NOT_FOUND


def test_a_running_command_is_not_settled_away(host):
    job = shell("sleep 20")
    detached.start(host, job)

    with pytest.raises(CommandFailed, match="still runs"):
        detached.settle(host, job)

    assert detached.state(host, job) is DetachedState.RUNNING


def test_starting_it_many_times_at_once_runs_it_once(machine, host):
    job = shell(COUNTED)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: detached.start(host, job), range(6)))

    assert detached.wait(host, job).output == "ended\n"
    assert counted(machine) == ["began", "ended"]


def test_a_lost_connection_neither_ends_nor_repeats_it(lab, machine):
    """Goal: the command does not notice that its worker cannot be reached.

    Method: cut the network while it runs, wait for its end at the host, join, go on waiting.
    """
    host = machine.block(connect_within_seconds=1)
    job = shell(COUNTED)

    with host.session(), ThreadPoolExecutor(1) as pool:
        detached.start(host, job)
        waiting = pool.submit(detached.wait, host, job)
        lab.cut(machine)
        wait_until(lambda: "ended" in counted(machine), "it to end", within_seconds=20)
        lab.join(machine)
        ended = waiting.result(timeout=60)

    assert ended.state is DetachedState.SUCCEEDED
    assert counted(machine) == ["began", "ended"]


def test_whoever_comes_later_adopts_it_with_all_of_its_output(machine, host):
    job = shell(f"echo first; {COUNTED}")
    detached.start(host, job)
    wait_until(lambda: "began" in counted(machine), "it to begin", within_seconds=10)

    later = machine.block()
    detached.start(later, job)
    assert detached.wait(later, job).output == "first\nended\n"
    detached.start(later, job)
    assert detached.wait(later, job).output == "first\nended\n"
    assert counted(machine) == ["began", "ended"]


class Ear:
    """A gate that keeps what is heard of commands that still run."""

    def __init__(self):
        self.lines = []

    def before(self, call):
        pass

    def after(self, call, error):
        pass

    def heard(self, call, line):
        self.lines.append(line)


def test_what_it_prints_is_heard_before_it_ends(machine, host):
    job = shell("echo half; sleep 2.5; echo more; while [ ! -e /root/go ]; do sleep 0.1; done")
    machine.run("rm -f /root/go")
    ear = Ear()
    token = current_gate.set(ear)

    try:
        with ThreadPoolExecutor(1) as pool:
            detached.start(host, job)
            waiting = pool.submit(copy_context().run, detached.wait, host, job)
            wait_until(lambda: "half" in ear.lines, "it to be heard", within_seconds=20)
            machine.run("touch /root/go")
            assert waiting.result(timeout=60).output == "half\nmore\n"
    finally:
        current_gate.reset(token)

    assert ear.lines.count("half") == 1


def test_one_that_fails_says_so_with_its_last_lines_and_begins_anew_the_next_time(machine, host):
    job = shell("echo first; echo no space left >&2; echo again >>/root/count; exit 3")

    with pytest.raises(CommandFailed, match="no space left") as failed:
        detached.run(host, job)
    with pytest.raises(CommandFailed, match="no space left"):
        detached.run(host, job)

    assert failed.value.code == 3
    assert counted(machine) == ["again", "again"]
    assert machine.run(f"cat {UNITS}/{job.unit}.1/output") == "first\nno space left\n"
    assert machine.run(f"cat {UNITS}/{job.unit}.2/exit_code") == "3\n"
    assert machine.run("systemctl list-units --failed --no-legend 'recover-*'") == ""


def test_a_failure_nobody_was_told_of_is_told_first(machine, host):
    """Goal: a worker killed while its command failed loses no failure.

    Method: let it fail unwatched, then run it as the next worker would, twice.
    """
    job = shell("echo again >>/root/count; [ -e /root/mended ]")
    machine.run("rm -f /root/mended")
    detached.start(host, job)
    wait_until(has_ended(host, job), "it to fail", within_seconds=10)
    machine.run("touch /root/mended")

    with pytest.raises(CommandFailed):
        detached.run(host, job)
    assert counted(machine) == ["again"]
    detached.run(host, job)
    assert counted(machine) == ["again", "again"]


def test_the_host_itself_ends_it_at_its_deadline_with_all_that_it_began(machine, host):
    job = shell("echo so far; sleep 321 & sleep 321", within_seconds=0.5)
    detached.start(host, job)
    wait_until(has_ended(host, job), "the deadline", within_seconds=20)

    with pytest.raises(CommandFailed, match=r"longer than 0\.5 s") as failed:
        detached.run(host, job)

    assert failed.value.code == 124
    assert failed.value.tail == "so far"
    assert machine.run("pgrep -fx 'sleep 321' || :") == ""


@pytest.fixture
def impatient(monkeypatch):
    """A worker that waits no longer than the command's own deadline."""
    monkeypatch.setattr(detached, "KILL_AFTER_SECONDS", 0)
    monkeypatch.setattr(detached, "SLACK_SECONDS", 0.0)
    monkeypatch.setattr(detached, "LOOK_SECONDS", 1)


def test_one_that_outlives_its_deadline_is_told_as_still_running(machine, host, impatient):
    job = shell("trap '' TERM; echo so far; while :; do sleep 0.1; done", within_seconds=1)
    detached.start(host, job)

    with pytest.raises(NotVerified, match="still running; it printed: so far"):
        detached.wait(host, job)

    machine.run(f"systemctl kill -s KILL {job.unit}")


def test_a_host_that_never_answers_again_is_unreachable(lab, machine, impatient):
    host = machine.block(connect_within_seconds=1)
    job = shell("sleep 60", within_seconds=2)
    detached.start(host, job)
    lab.cut(machine)
    try:
        with pytest.raises(Unreachable):
            detached.wait(host, job)
    finally:
        lab.join(machine)


def test_one_ended_by_a_signal_is_no_success(machine, host):
    job = shell("echo so far; sleep 60")
    detached.start(host, job)
    wait_until(lambda: detached.look(host, job).output, "it to begin", within_seconds=10)
    machine.run(f"systemctl kill -s KILL {job.unit}")
    wait_until(has_ended(host, job), "it to end", within_seconds=10)

    with pytest.raises(CommandFailed, match="so far") as failed:
        detached.run(host, job)

    assert failed.value.code == "none, signal"


def test_one_that_was_stopped_from_outside_is_unknown_and_begins_anew_when_asked(machine, host):
    job = shell(COUNTED.replace("sleep 1", "sleep 3"))
    detached.start(host, job)
    wait_until(lambda: "began" in counted(machine), "it to begin", within_seconds=10)
    machine.run(f"systemctl stop {job.unit}")

    assert detached.state(host, job) is DetachedState.UNKNOWN
    with pytest.raises(UnitGone, match="ended from outside"):
        detached.wait(host, job)
    detached.run(host, job)

    assert counted(machine) == ["began", "began", "ended"]
    assert traces(machine) == [f"{job.unit}.1"]


def test_after_a_boot_there_is_no_trace_of_it(lab, machine):
    host = machine.block()
    job = shell("echo done")
    detached.start(host, job)
    machine.power_cut()
    machine.power_on()

    assert detached.state(host, job) is DetachedState.NOT_FOUND
    with pytest.raises(UnitGone, match="may have booted"):
        detached.wait(host, job)


def test_a_flood_of_output_is_bounded_at_the_host_and_keeps_its_head_and_tail(machine, host):
    job = shell("echo head; yes 'some line' | head -n 300000; echo tail")
    detached.start(host, job)
    ended = detached.wait(host, job)

    assert ended.output.startswith("head\n")
    assert ended.output.endswith("tail\n")
    assert "left out" in ended.output
    assert int(machine.run(f"du -sk {UNITS}/{job.unit}").split()[0]) < 300


def test_no_half_of_a_line_is_told_while_it_comes_nor_beside_what_is_left_out(machine, host):
    """Goal: each answer is masked by itself, so that none may hold a part of a secret."""
    machine.run("rm -f /root/go")
    text = "while [ ! -e /root/go ]; do sleep 0.1; done; echo ter2; sleep 600"
    slow = shell(f"printf 'password=Zq9-hun'; {text}", name="slow")
    detached.start(host, slow)
    wait_until(
        lambda: "hun" in machine.run(f"cat {UNITS}/{slow.unit}/output"),
        "the first half",
        within_seconds=20,
    )
    assert detached.look(host, slow).output == ""
    machine.run("touch /root/go")
    wait_until(
        lambda: detached.look(host, slow).output == "password=Zq9-hunter2\n",
        "the whole line",
        within_seconds=20,
    )
    machine.run(f"systemctl stop {slow.unit}")

    line = "password=Zq9-hunter2"
    flood = detached.run(host, shell(f"yes {line} 2>&- | head -n 30000; printf 'no end'"))

    assert set(flood.output.splitlines()) == {line, "[… some left out …]", "no end"}


def test_output_longer_than_one_look_is_read_whole(machine):
    host = machine.block(output_max_bytes=4000)

    ended = detached.run(host, shell("seq 1 5000"))

    assert ended.output == "".join(f"{n}\n" for n in range(1, 5001))


def test_what_it_leaves_in_the_background_neither_holds_it_up_nor_outlives_it(machine, host):
    ended = detached.run(host, shell("echo x; sleep 4321 & exit 0"))

    assert ended.output == "x\n"
    assert machine.run("pgrep -fx 'sleep 4321' || :") == ""


def test_another_recovery_that_runs_the_same_is_not_run_beside(machine, host):
    """Goal: a fork made while the first one's command still runs does not run it twice."""
    other = "recover-0123456789ab-job.service"
    machine.run(f"systemd-run --unit={other} sleep 60")

    with pytest.raises(CommandFailed, match=other):
        detached.start(host, shell(COUNTED))

    assert counted(machine) == []


def test_another_command_under_the_same_name_is_not_taken_for_this_one(host):
    detached.start(host, shell("echo one"))

    with pytest.raises(CommandFailed, match="another command"):
        detached.start(host, shell("echo two"))


def test_a_host_without_a_running_systemd_is_not_one_without_the_command(machine):
    machine.run("mv /usr/bin/systemctl /usr/bin/systemctl.away")
    try:
        with pytest.raises(CommandFailed, match="systemctl"):
            detached.state(machine.block(), shell("true"))
        with pytest.raises(CommandFailed, match="systemctl"):
            detached.run(machine.block(), shell("true"))
    finally:
        machine.run("mv /usr/bin/systemctl.away /usr/bin/systemctl")
