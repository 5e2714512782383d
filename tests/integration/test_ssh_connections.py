"""Connections that are kept, shared, full, forwarded and left behind; and ways to log in."""

import contextlib
import multiprocessing
import os
import socket
import threading
import time

import pytest

from blocks.ssh import keeping as ssh_keeping
from blocks.ssh.connection import LoginRefused
from blocks.ssh.host import SshHost
from recovery.errors import AnswerLost, Refused, Unreachable
from tests.lab.hosts import lab_hosts
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import ServerMissing, wait_until, write_secret
from tests.lab.session import started_or_skipped
from tests.lab.ssh_attempt import attempt
from tests.lab.sshd import private_sshd, wait_for_connections


@contextlib.contextmanager
def running(directory, **options):
    try:
        with private_sshd(directory, options) as server:
            yield server
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def sshd(tmp_path):
    with running(tmp_path / "sshd", AllowTcpForwarding="yes") as server:
        yield server


@pytest.fixture
def echo():
    """A service of the host that answers in capitals; its port."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def serve(connection):
            with connection:
                while chunk := connection.recv(65536):
                    connection.sendall(chunk.upper())

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def at_once(count, work):
    """Run it in that many threads; return what each returned or raised."""
    results = [None] * count

    def run(number):
        try:
            results[number] = work(number)
        except Exception as error:  # noqa: BLE001 (told by the assertion)
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# -- kept -----------------------------------------------------------------------------------------


def test_between_the_steps_of_a_recovery_a_connection_is_kept_for_a_while(sshd, monkeypatch):
    monkeypatch.setattr(ssh_keeping, "LINGER_SECONDS", 1.0)
    monkeypatch.setattr(ssh_keeping, "SWEEP_SECONDS", 0.2)
    host = sshd.block()

    with attempt(1):
        first = host.read(["sh", "-c", "echo $PPID $SSH_CONNECTION"]).stdout.split()[1:]
    with attempt(1):
        again = host.read(["sh", "-c", "echo $PPID $SSH_CONNECTION"]).stdout.split()[1:]
        assert len(sshd.connections()) == 1

    assert first == again
    wait_for_connections(sshd, 0)


def test_equal_blocks_share_a_connection_and_others_do_not(sshd):
    host, same, other = sshd.block(), sshd.block(), sshd.block(connect_within_seconds=9)

    with host.session(), same.session(), other.session():
        host.read(["true"])
        same.read(["true"])
        assert len(sshd.connections()) == 1
        other.read(["true"])
        assert len(sshd.connections()) == 2

    wait_for_connections(sshd, 0)


def test_a_changed_block_does_not_use_the_connection_it_had(sshd):
    host = sshd.block()
    with host.session():
        host.read(["true"])
        host.port = free_port()

        with pytest.raises(Unreachable, match="refused"):
            host.read(["true"])


def test_a_child_of_a_fork_uses_no_connection_of_its_parent(sshd):
    """Goal: the threads that serve a connection are not there after a fork, and it is not ours.

    Method: fork inside of a session, use the host in the child, and go on in the parent.
    """
    host = sshd.block()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child():
        answers.put(host.read(["echo", "child"], within_seconds=20).stdout)

    with host.session():
        host.read(["true"])
        (kept,) = host.way().connections
        process = context.Process(target=child)
        process.start()
        assert answers.get() == "child\n"
        process.join()

        assert host.read(["echo", "parent"]).stdout == "parent\n"
        assert host.way().connections == [kept]


# -- full -----------------------------------------------------------------------------------------


def test_eight_commands_at_once_take_one_connection(sshd):
    host = sshd.block()
    with host.session():
        answers = at_once(8, lambda n: host.read(["sh", "-c", f"sleep 0.3; echo {n}"]).stdout)
        assert len(sshd.connections()) == 1

    assert answers == [f"{n}\n" for n in range(8)]


@pytest.mark.parametrize("most", ["1", "3"])
def test_where_a_connection_takes_fewer_sessions_more_are_opened(tmp_path, most):
    """Goal: MaxSessions, 10 where nobody set it, is a limit of sshd and not one of ours.

    Method: a server that takes fewer than are wanted at once, several times over.
    """
    with running(tmp_path / "sshd", MaxSessions=most) as sshd:
        host = sshd.block()
        with host.session():
            for _ in range(3):
                answers = at_once(
                    8, lambda n: host.read(["sh", "-c", f"sleep 0.2; echo {n}"]).stdout
                )
                assert answers == [f"{n}\n" for n in range(8)]


def test_commands_left_running_at_their_deadline_do_not_use_up_the_sessions(tmp_path):
    with running(tmp_path / "sshd", MaxSessions="2") as sshd:
        host = sshd.block()
        with host.session():
            for _ in range(5):
                with pytest.raises(Unreachable):
                    host.change(["sleep", "20"], within_seconds=0.3)

            assert host.read(["echo", "in"]).stdout == "in\n"


def test_a_server_that_takes_no_session_at_all_is_named(tmp_path):
    with (
        running(tmp_path / "sshd", MaxSessions="0") as sshd,
        pytest.raises(Unreachable, match="MaxSessions"),
    ):
        sshd.block().read(["true"])


@pytest.mark.timeout(240)  # the first run builds the root file system
def test_a_look_that_takes_too_long_is_ended_on_the_host_and_a_change_is_not(lab):
    machine = lab.hosts[0]
    host = machine.block("ops")

    for look, seconds in ((host.read, "61"), (host.change, "62")):
        with pytest.raises(AnswerLost):
            look(["sleep", seconds], within_seconds=1)

    left = machine.run("sleep 0.5; pgrep -a sleep")
    machine.run("pkill sleep")
    assert [line.split()[-1] for line in left.splitlines()] == ["62"]


# -- forwarded ------------------------------------------------------------------------------------


def ask(path, word):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(word)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


def test_many_connections_go_through_one_socket_and_end_with_it(sshd, echo):
    host = sshd.block()
    big = os.urandom(300_000).hex().encode()

    with host.forwarded(LOOPBACK, echo) as path:
        assert path.name == f".s.PGSQL.{echo}"
        assert path.parent.stat().st_mode & 0o777 == 0o700
        for _ in range(3):
            assert ask(path, b"hello") == b"HELLO"
        assert at_once(12, lambda n: ask(path, big + b"%d" % n)) == [
            big.upper() + b"%d" % n for n in range(12)
        ]
        with socket.socket(socket.AF_UNIX) as left_open:
            left_open.connect(str(path))
            left_open.sendall(b"a")
            assert left_open.recv(10) == b"A"
            still_open = left_open.dup()

    assert not path.parent.exists()
    with still_open:
        still_open.settimeout(5)
        assert still_open.recv(10) == b""
    wait_for_connections(sshd, 0)
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("ssh-forward")],
        "the threads to end",
        within_seconds=10,
    )


def test_an_address_where_nothing_listens_is_named_at_once(sshd):
    port = free_port()

    with (
        pytest.raises(Unreachable, match=f"connect to {LOOPBACK}:{port} through"),
        sshd.block().forwarded(LOOPBACK, port),
    ):
        raise AssertionError


def test_a_server_that_forbids_forwarding_is_named_with_its_setting(tmp_path, echo):
    with (
        running(tmp_path / "sshd") as sshd,
        pytest.raises(Refused, match="AllowTcpForwarding") as refused,
        sshd.block().forwarded(LOOPBACK, echo),
    ):
        raise AssertionError

    assert f"{LOOPBACK}:{echo}" in str(refused.value)


def test_a_service_that_goes_away_meanwhile_is_told_in_place_of_a_broken_pipe(sshd, tmp_path):
    service = socket.create_server((LOOPBACK, 0))
    port = service.getsockname()[1]

    def use():
        with sshd.block().forwarded(LOOPBACK, port) as path:
            first, _ = service.accept()
            with first:
                service.close()
                with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
                    one.connect(str(path))
                    two.connect(str(path))
                    two.settimeout(10)
                    if two.recv(10) == b"":
                        raise ConnectionResetError("it hung up")

    with pytest.raises(Unreachable, match=f"connect to {LOOPBACK}:{port}"):
        use()


# -- ways to log in -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("lab"))) as lab:
        yield lab


@pytest.mark.timeout(240)  # the first run builds the root file system
@pytest.mark.parametrize("way", ["PasswordAuthentication yes", "KbdInteractiveAuthentication yes"])
def test_a_password_is_taken_in_both_ways_that_servers_ask_for_it(lab, tmp_path, way):
    machine = lab.hosts[0]
    both = "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM yes\n"
    name = way.split()[0]
    settings = both.replace(f"{name} no", way)
    machine.write("etc/ssh/sshd_config.d/00-password.conf", settings)
    machine.run("systemctl restart ssh")
    wrong = tmp_path / "wrong"
    write_secret(wrong, "battery-staple-3")

    right = machine.block("asked", key_file=None, password_file=machine.keys.password_file)
    assert right.read(["id", "-un"]).stdout == "asked\n"
    started = time.monotonic()
    with pytest.raises(LoginRefused, match="password: Authentication failed") as refused:
        machine.block("asked", key_file=None, password_file=wrong).read(["true"])

    assert time.monotonic() - started < 15
    assert "battery-staple-3" not in str(refused.value)
    machine.run("rm /etc/ssh/sshd_config.d/00-password.conf; systemctl restart ssh")


def test_a_secret_block_of_the_team_resolves_on_the_worker(sshd, prefect_server, monkeypatch):
    """Goal: a team may keep keys with Prefect rather than in files of the worker.

    Method: save one, name it in the block, and log in with it; then name one that is not there.
    """
    from prefect.blocks.system import Secret  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        Secret(value=sshd.client_key.read_text()).save("ops-key", overwrite=True)

        host = sshd.block(key_file=None, key_block="ops-key")
        assert host.read(["echo", "in"]).stdout == "in\n"
        with pytest.raises(Exception, match="Secret block none-such"):
            sshd.block(key_file=None, key_block="none-such").read(["true"])
    assert "PRIVATE KEY" not in repr(host)
    assert "PRIVATE KEY" not in str(SshHost.model_dump(host))
