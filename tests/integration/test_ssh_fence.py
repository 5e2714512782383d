"""The fence at a host: what an attempt that lost its lease can no longer do there."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from blocks.ssh import fence as ssh_fence
from recovery.errors import AnswerLost, CommandFailed, Fenced, Unreachable
from tests.lab.processes import ServerMissing, wait_until
from tests.lab.ssh_attempt import attempt
from tests.lab.sshd import private_sshd

FORKED = multiprocessing.get_context("fork")


@pytest.fixture
def sshd(tmp_path):
    try:
        with private_sshd(tmp_path / "sshd") as server:
            yield server
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def host(sshd):
    return sshd.block()


@pytest.fixture
def world(tmp_path):
    """A file of the host that changes are appended to."""
    return tmp_path / "world"


def say(host, world, word, **options):
    return host.change(["sh", "-c", 'echo "$1" >>"$0"', str(world), word], **options)


def said(world):
    return world.read_text().split() if world.exists() else []


def fence_files(sshd, where="lasting"):
    folder = sshd.directory / "fence" / where
    return sorted(path for path in folder.iterdir() if path.suffix == "")


@contextlib.contextmanager
def another_worker(work, *arguments):
    """Run a function in a process of its own, as another worker; yield the process and a queue."""
    answers = FORKED.SimpleQueue()
    worker = FORKED.Process(target=work, args=(answers, *arguments), daemon=True)
    worker.start()
    try:
        yield worker, answers
    finally:
        worker.kill()
        worker.join()


def test_a_change_and_its_text_are_as_without_a_fence(host, world):
    with attempt(1) as gate:
        answer = host.change(["sh", "-c", 'cat; echo err >&2; exit "$1"', "sh", "7"], accept=(7,))
        say(host, world, "a b'$HOME")

    assert (answer.stdout, answer.stderr, answer.exit_code) == ("", "err\n", 7)
    assert said(world) == ["a", "b'$HOME"]
    assert [call.command for call in gate.sent] == [
        host.command_line(["sh", "-c", 'cat; echo err >&2; exit "$1"', "sh", "7"]),
        host.command_line(["sh", "-c", 'echo "$1" >>"$0"', str(world), "a b'$HOME"]),
    ]
    assert gate.errors == []


def test_outside_of_a_recovery_nothing_is_left_on_the_host(sshd, host, world):
    say(host, world, "plain")

    assert said(world) == ["plain"]
    assert not (sshd.directory / "fence").exists()


def test_an_older_epoch_does_nothing_more_once_a_newer_one_has_come(host, world):
    with attempt(1):
        say(host, world, "first")
    with attempt(2, recovery="newer"):
        host.read(["true"])

    with attempt(1) as gate, pytest.raises(Fenced, match="epoch 2 of recovery newer"):
        say(host, world, "older")

    assert said(world) == ["first"]
    assert "Fenced" in gate.errors[0]


def test_an_older_epoch_that_never_was_on_the_host_may_not_even_look(sshd, world):
    with attempt(2):
        say(sshd.block(), world, "newer")

    late = sshd.block(
        output_max_bytes=5000, keepalive_seconds=9
    )  # another way, which knows nothing
    with attempt(1), pytest.raises(Fenced):
        late.read(["true"])
    with attempt(1), pytest.raises(Fenced):
        say(late, world, "older")

    assert said(world) == ["newer"]


def test_a_worker_stopped_between_gate_and_host_does_nothing_when_it_wakes_up(host, world):
    """Goal: what the lease cannot catch, a pause after its last check, the host does.

    Method: stop a worker at the moment its command has passed the gate, let a newer attempt act,
    and let the worker go on.
    """

    def older(answers):
        with attempt(1) as gate:
            host.read(["true"])
            gate.before = lambda _: os.kill(os.getpid(), signal.SIGSTOP)
            try:
                say(host, world, "older")
            except Fenced as fenced:
                answers.put(str(fenced))
            else:
                answers.put("it was not fenced")

    with another_worker(older) as (worker, answers):
        wait_until(
            lambda: Path(f"/proc/{worker.pid}/stat").read_text().split()[2] == "T",
            "the worker to be stopped",
            within_seconds=20,
        )
        with attempt(2):
            say(host, world, "newer")
        os.kill(worker.pid, signal.SIGCONT)
        told = answers.get()

    assert "lost the lease on db (epoch 1)" in told
    assert said(world) == ["newer"]


def test_a_newer_attempt_waits_for_what_an_older_one_left_running(host, world, tmp_path):
    """Goal: nothing of a newer attempt, not even a look, overlaps a command of an older one.

    Method: kill the older worker while its command runs on the host, and have the newer one look.
    """
    go = tmp_path / "go"
    slow = 'echo begin >>"$0"; until [ -e "$1" ]; do sleep 0.05; done; echo end >>"$0"'

    def older(answers):
        with attempt(1):
            host.change(["sh", "-c", slow, str(world), str(go)])

    with another_worker(older) as (worker, _):
        wait_until(lambda: said(world) == ["begin"], "the command to run", within_seconds=20)
        worker.kill()
    seen = []

    def newer():
        with attempt(2):
            seen.append(host.read(["cat", str(world)]).stdout.split())

    looking = threading.Thread(target=newer)
    looking.start()
    looking.join(1.0)
    assert seen == []
    go.touch()
    looking.join(10)

    assert seen == [["begin", "end"]]


def test_waiting_for_an_older_command_ends_with_its_name(host, world, monkeypatch):
    monkeypatch.setattr(ssh_fence, "DRAIN_SECONDS", 0.6)

    def older(answers):
        with attempt(1):
            host.change(["sh", "-c", 'echo begin >>"$0"; sleep 60', str(world)])

    with another_worker(older) as (worker, _):
        wait_until(lambda: said(world) == ["begin"], "the command to run", within_seconds=20)
        worker.kill()
        with attempt(2), pytest.raises(Unreachable) as waited:
            say(host, world, "newer")

    assert "still running there: sh -c" in str(waited.value)
    assert "sleep 60" in str(waited.value)
    assert waited.value.is_retried
    assert said(world) == ["begin"]
    pid = int(str(waited.value).partition("(process ")[2].partition(")")[0])
    os.kill(pid, signal.SIGKILL)  # as the remedy says; what it runs holds nothing
    with attempt(2):
        say(host, world, "newer")
    assert said(world) == ["begin", "newer"]


def test_after_an_answer_was_lost_the_same_attempt_waits_too(host, world, tmp_path):
    go = tmp_path / "go"
    slow = 'until [ -e "$1" ]; do sleep 0.05; done; echo slow >>"$0"'

    with attempt(1):
        with pytest.raises(AnswerLost):
            host.change(["sh", "-c", slow, str(world), str(go)], within_seconds=1)
        threading.Timer(0.5, go.touch).start()
        seen = host.read(["cat", str(world)]).stdout

    assert seen == "slow\n"


def test_what_a_command_leaves_running_holds_nobody_up(host, world):
    with attempt(1):
        say_and_leave = 'sleep 30 >/dev/null 2>&1 </dev/null & echo "$1" >>"$0"'
        host.change(["sh", "-c", say_and_leave, str(world), "daemon"])
    started = time.monotonic()
    with attempt(2):
        say(host, world, "newer")

    assert said(world) == ["daemon", "newer"]
    assert time.monotonic() - started < 5


def test_two_targets_on_one_host_do_not_disturb_each_other(host, world):
    with attempt(7, target="redis"):
        say(host, world, "redis7")
    with attempt(2, target="postgres"):
        say(host, world, "postgres2")
    with attempt(7, target="redis"):
        say(host, world, "redis7")
    with attempt(8, target="redis"):
        say(host, world, "redis8")
    with attempt(2, target="postgres"):
        say(host, world, "postgres2")
    with attempt(7, target="redis"), pytest.raises(Fenced):
        say(host, world, "redis7")

    assert said(world) == ["redis7", "postgres2", "redis7", "redis8", "postgres2"]


def test_a_host_leased_by_name_and_by_address_is_fenced_under_both(sshd, world):
    """Goal: who knows the host by another name is fenced all the same.

    Method: act by name, act later by address alone, and let the first attempt go on.
    """
    by_name = sshd.block(address="localhost", host_key=sshd.host_fingerprint)
    by_address = sshd.block()
    name, address = by_name.place, by_address.place
    assert {name, address} <= set(by_name.places)
    with attempt(5, target="a", parts={name: 5, address: 1}) as gate:
        say(by_name, world, "it's first")
    with attempt(2, recovery="newer", target="b", parts={address: 2}):
        say(by_address, world, "newer")

    with attempt(5, target="a", parts={name: 5, address: 1}), pytest.raises(Fenced, match="newer"):
        say(by_name, world, "late")

    assert said(world) == ["it's", "first", "newer"]
    assert len(fence_files(sshd)) == 2
    assert [call.command for call in gate.sent] == [
        by_name.command_line(["sh", "-c", 'echo "$1" >>"$0"', str(world), "it's first"])
    ]


def test_of_two_journals_the_one_that_came_last_goes_on(host, world):
    with attempt(9, recovery="aaaa", journal="laptop"):
        say(host, world, "laptop9")
    with attempt(1, recovery="bbbb", journal="server"):
        say(host, world, "server1")
    with attempt(9, recovery="aaaa", journal="laptop"), pytest.raises(Fenced, match="bbbb"):
        say(host, world, "laptop9")
    with attempt(10, recovery="aaaa", journal="laptop"):
        say(host, world, "laptop10")
    with attempt(1, recovery="bbbb", journal="server"), pytest.raises(Fenced, match="aaaa"):
        say(host, world, "server1")

    assert said(world) == ["laptop9", "server1", "laptop10"]


@pytest.mark.parametrize("content", ["", "12", "1 2 0123abcd j1", "x 1 a j .\n", "1 99 a j x\n"])
def test_a_damaged_fence_lets_no_change_pass_and_says_what_to_do(sshd, host, world, content):
    with attempt(1):
        say(host, world, "first")
    (file,) = fence_files(sshd)
    file.write_text(content)

    with attempt(1), pytest.raises(CommandFailed, match="is damaged") as running:
        say(host, world, "same attempt")
    with attempt(2), pytest.raises(CommandFailed, match=f"remove {file}") as resumed:
        say(host, world, "next attempt")
    with attempt(2):
        assert host.read(["echo", "looks"]).stdout == "looks\n"

    assert said(world) == ["first"]
    assert not running.value.is_retried
    assert not resumed.value.is_retried
    for leftover in (file, Path(f"{file}.lock")):
        leftover.unlink()
    with attempt(2):
        say(host, world, "mended")
    assert said(world) == ["first", "mended"]


def test_a_fence_that_was_lost_is_made_again_before_the_command_runs(sshd, host, world):
    with attempt(1):
        say(host, world, "first")
        (file,) = fence_files(sshd)
        for leftover in (file, Path(f"{file}.lock")):
            leftover.unlink()

        say(host, world, "second")

    assert said(world) == ["first", "second"]
    assert fence_files(sshd) == [file]


@pytest.mark.parametrize("spoil", ["link", "writable"])
def test_a_folder_that_others_may_have_a_hand_in_is_not_trusted(sshd, host, world, tmp_path, spoil):
    lasting = sshd.directory / "fence" / "lasting"
    lasting.parent.mkdir()
    if spoil == "link":
        (tmp_path / "elsewhere").mkdir()
        lasting.symlink_to(tmp_path / "elsewhere")
    else:
        lasting.mkdir()
        lasting.chmod(0o777)

    with attempt(1), pytest.raises(CommandFailed, match="not this account's alone"):
        say(host, world, "change")

    assert said(world) == []


def test_a_host_without_flock_is_named_and_looks_go_on(tmp_path, world):
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("sh", "id", "mkdir", "ls", "sync", "mv", "rm", "echo", "cat"):
        (bare / name).symlink_to(f"/bin/{name}")
    with private_sshd(tmp_path / "sshd") as sshd:
        sshd.options["SetEnv"] = f"SHLVL=1 PATH={bare} RECOVER_FENCE_DIR={tmp_path}/fence"
        sshd.restart()
        host = sshd.block()

        with attempt(1), pytest.raises(CommandFailed, match="has no flock"):
            say(host, world, "change")
        with attempt(1):
            assert host.read(["echo", "looks"]).stdout == "looks\n"

    assert said(world) == []


def test_a_fence_costs_a_look_nothing_after_the_first_and_a_change_no_round_trip(tmp_path):
    with private_sshd(tmp_path / "sshd", {"LogLevel": "VERBOSE"}) as sshd:
        host = sshd.block()

        def sessions():
            return sshd.log.read_text().count("Starting session: command")

        with attempt(1), host.session():
            counts = []
            for ask in (host.read, host.read, host.read, host.change, host.change):
                ask(["true"])
                counts.append(sessions())

    assert counts == [2, 3, 4, 5, 6]


def test_threads_that_come_at_once_tell_the_host_once(sshd, host, world):
    def act(number):
        with attempt(1):
            say(host, world, f"n{number}")

    with host.session():
        threads = [threading.Thread(target=act, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(said(world)) == [f"n{number}" for number in range(8)]
    (file,) = fence_files(sshd)
    assert file.read_text() == "1 1 0123abcd j1 .\n"
