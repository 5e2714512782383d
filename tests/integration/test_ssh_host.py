"""The SSH host block against a real OpenSSH server."""

import hashlib
import os
import signal
import socket
import threading
import time

import pytest

from blocks.ssh import keeping as ssh_keeping
from blocks.ssh.connection import AnswerLost, HostKeyRefused, LoginRefused
from blocks.ssh.host import SshHost
from recovery.commands import Call, current_gate
from recovery.errors import CommandFailed, NotVerified, Unreachable, UnreadableOutput
from recovery.secrecy.secret import Secret
from tests.lab.ports import free_port
from tests.lab.processes import ServerMissing, wait_until
from tests.lab.sshd import make_key, private_sshd, silent_server, wait_for_connections


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    try:
        with private_sshd(tmp_path_factory.mktemp("sshd")) as server:
            yield server
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def host(sshd):
    return sshd.block()


class Recorder:
    """A gate that keeps the calls."""

    def __init__(self):
        self.calls = []

    def before(self, call: Call) -> None:
        self.calls.append(call)

    def heard(self, call: Call, line: str) -> None:
        pass

    def after(self, call: Call, error: BaseException | None) -> None:
        pass


@pytest.fixture
def gate(monkeypatch):
    monkeypatch.setattr(ssh_keeping, "LINGER_SECONDS", 0)  # others here count connections
    recorder = Recorder()
    token = current_gate.set(recorder)
    yield recorder
    current_gate.reset(token)


def seconds_until_error(error, run):
    started = time.monotonic()
    with pytest.raises(error) as raised:
        run()
    return time.monotonic() - started, raised.value


def test_arguments_arrive_as_they_are_and_no_shell_reads_them(host):
    awkward = ["a b", "$HOME", "`id`", "'", '"', "*", ";", "é\n", ""]

    answer = host.read(["printf", "%s|", *awkward])

    assert answer.stdout == "|".join(awkward) + "|"
    assert answer.exit_code == 0


def test_streams_and_exit_code_are_told_apart(host):
    answer = host.read(["sh", "-c", "echo out; echo err >&2; exit 3"], accept=(0, 3))

    assert (answer.stdout, answer.stderr, answer.exit_code) == ("out\n", "err\n", 3)


def test_a_command_that_says_no_fails_with_its_last_lines(host):
    with pytest.raises(CommandFailed, match=r"exit code 4\): because"):
        host.read(["sh", "-c", "echo because >&2; exit 4"])


def test_a_secret_reaches_the_command_by_its_input_and_shows_nowhere(host, gate):
    secret = "hunter2" * 20_000

    answer = host.change(["sha256sum"], stdin=Secret(secret))

    assert answer.stdout.split()[0] == hashlib.sha256(secret.encode()).hexdigest()
    assert "hunter2" not in repr(gate.calls)


def test_a_command_that_does_not_read_its_input_ends_all_the_same(host):
    assert host.change(["true"], stdin=Secret("x" * 5_000_000), within_seconds=20).exit_code == 0


def test_reads_and_changes_pass_the_gate_as_such(host, gate):
    host.read(["echo", "a b"])
    host.change(["true"])

    seen = [(c.command, c.is_change, c.answer, c.exit_code) for c in gate.calls]
    assert seen == [("echo 'a b'", False, "a b\n", 0), ("true", True, "", 0)]


def test_a_gate_that_says_no_keeps_the_command_from_the_host(host, gate, tmp_path):
    def refuse(call):
        raise PermissionError

    gate.before = refuse

    with pytest.raises(PermissionError):
        host.change(["touch", str(tmp_path / "touched")])
    assert not (tmp_path / "touched").exists()


def test_a_session_keeps_one_connection(sshd, host):
    wait_for_connections(sshd, 0)

    with host.session():
        first = host.read(["sh", "-c", "echo $PPID $SSH_CONNECTION"]).stdout
        with host.session():
            second = host.read(["sh", "-c", "echo $PPID $SSH_CONNECTION"]).stdout
        assert len(sshd.connections()) == 1

    assert first.split()[1:] == second.split()[1:]
    wait_for_connections(sshd, 0)


def test_threads_share_a_session(host):
    answers = []

    def ask(number):
        answers.append(host.read(["echo", str(number)]).stdout.strip())

    with host.session():
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(answers) == [str(number) for number in range(8)]


def test_a_session_whose_connection_died_in_between_connects_anew(sshd, host):
    with host.session():
        host.read(["true"])
        (transport,) = host.way().connections
        sshd.signal_connections(signal.SIGKILL)
        wait_until(lambda: not transport.is_active(), "the death to be seen", within_seconds=10)

        assert host.read(["echo", "back"]).stdout == "back\n"


def test_a_wrong_key_is_refused_and_says_what_was_tried(sshd, tmp_path):
    wrong = make_key(tmp_path / "wrong")

    with pytest.raises(LoginRefused) as refusal:
        sshd.block(key_file=wrong).read(["true"])

    assert str(wrong) in str(refusal.value)
    assert "SHA256:" in str(refusal.value)
    assert "authorized_keys" in str(refusal.value)


def test_a_password_the_server_does_not_take_is_refused_without_being_shown(sshd, monkeypatch):
    monkeypatch.setenv("OPS_PASSWORD", "hunter2")

    with pytest.raises(LoginRefused) as refusal:
        sshd.block(key_file=None, password_env="OPS_PASSWORD").read(  # noqa: S106 - a name
            ["true"]
        )

    assert "password: not offered" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_an_unknown_host_key_is_refused_and_the_message_pins_it(sshd, tmp_path):
    unknown = sshd.block(known_hosts_file=tmp_path / "none")

    with pytest.raises(HostKeyRefused) as refusal:
        unknown.read(["true"])

    assert f"host_key={sshd.host_fingerprint}" in str(refusal.value)
    pinned = sshd.block(known_hosts_file=tmp_path / "none", host_key=sshd.host_fingerprint)
    assert pinned.read(["echo", "in"]).stdout == "in\n"


def test_a_changed_host_key_is_refused_with_both_fingerprints(tmp_path):
    with private_sshd(tmp_path / "sshd") as sshd:
        before = sshd.host_fingerprint
        sshd.set_host_key(make_key(tmp_path / "new_host_key"))
        sshd.restart()

        with pytest.raises(HostKeyRefused) as refusal:
            sshd.block().read(["true"])
        with pytest.raises(HostKeyRefused, match="is pinned"):
            sshd.block(host_key=before).read(["true"])

        assert "has changed" in str(refusal.value)
        assert before in str(refusal.value)
        assert sshd.host_fingerprint in str(refusal.value)


def test_a_name_that_does_not_resolve_is_unreachable_and_named():
    with pytest.raises(Unreachable, match="could not be resolved"):
        SshHost(address="no-such-host.invalid", user="ops").read(["true"], within_seconds=10)


def test_a_closed_port_is_unreachable(sshd):
    with pytest.raises(Unreachable, match="Connection refused"):
        sshd.block(port=free_port()).read(["true"])


def test_a_server_that_accepts_and_stays_silent_is_given_up_at_the_deadline(sshd):
    with silent_server() as port:
        taken, error = seconds_until_error(
            Unreachable, lambda: sshd.block(port=port).read(["true"], within_seconds=1)
        )

    assert taken < 3
    assert "said nothing for 1 s" in str(error)


def test_a_server_that_is_no_ssh_server_is_named_as_such(sshd):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 200)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unreachable, match="handshake failed"):
            sshd.block(port=listener.getsockname()[1]).read(["true"], within_seconds=5)


def test_a_command_over_its_deadline_is_an_answer_lost(host):
    taken, error = seconds_until_error(
        AnswerLost, lambda: host.change(["sleep", "30"], within_seconds=1.5)
    )

    assert taken < 4
    assert "no end of it within 1.5 s" in str(error)


def test_a_command_that_never_stops_printing_is_given_up_at_the_deadline(host):
    taken, _ = seconds_until_error(AnswerLost, lambda: host.read(["yes"], within_seconds=2))

    assert taken < 5


def test_a_server_frozen_in_a_session_is_given_up_at_the_deadline(tmp_path):
    with private_sshd(tmp_path / "sshd") as sshd:
        host = sshd.block()
        with host.session():
            host.read(["true"])
            sshd.signal_connections(signal.SIGSTOP)

            taken, _ = seconds_until_error(
                Unreachable, lambda: host.read(["true"], within_seconds=1.5)
            )

            sshd.signal_connections(signal.SIGCONT)
            assert taken < 4
            assert host.read(["echo", "back"]).stdout == "back\n"


def test_a_change_whose_child_keeps_the_output_open_has_ended_with_its_exit_code(host):
    started = time.monotonic()

    answer = host.change(["sh", "-c", "sleep 20 & echo started"], within_seconds=30)

    assert (answer.stdout, answer.exit_code, answer.is_left_open) == ("started\n", 0, True)
    assert time.monotonic() - started < 10


def test_a_read_whose_child_keeps_the_output_open_is_not_taken_as_whole(host):
    taken, error = seconds_until_error(
        AnswerLost,
        lambda: host.read(["sh", "-c", "sleep 20 & echo half"], within_seconds=1.5),
    )

    assert taken < 4
    assert "holds its output open" in str(error)


def test_a_command_ended_by_a_signal_is_told_from_a_lost_connection(host):
    with pytest.raises(CommandFailed, match="ended by a signal"):
        host.read(["sh", "-c", "kill -9 $$"])


def test_fifty_megabytes_of_output_are_bounded_and_the_gap_is_noted(host):
    answer = host.read(
        ["sh", "-c", "echo first; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo last"]
    )

    assert answer.stdout.startswith("first\n")
    assert answer.stdout.endswith("\nlast\n")
    assert len(answer.stdout) < 1_001_000
    assert answer.left_out_bytes > 48_000_000
    with pytest.raises(UnreadableOutput):
        answer.whole()


def test_a_connection_killed_in_mid_command_is_an_answer_lost_and_the_next_works(tmp_path):
    started = tmp_path / "started"
    with private_sshd(tmp_path / "sshd") as sshd:
        host = sshd.block()

        def kill():
            wait_until(started.exists, "the command to run", within_seconds=10)
            sshd.signal_connections(signal.SIGKILL)

        with host.session():
            threading.Thread(target=kill).start()
            taken, error = seconds_until_error(
                AnswerLost,
                lambda: host.change(
                    ["sh", "-c", 'touch "$0"; sleep 20', str(started)], within_seconds=30
                ),
            )

            assert taken < 15
            assert "lost in mid-command" in str(error)
            assert host.read(["echo", "back"]).stdout == "back\n"


def test_a_file_is_fetched_equal_and_for_the_owner_alone(host, gate, tmp_path):
    content = os.urandom(5_000_000)
    (tmp_path / "empty").touch()
    (tmp_path / "a b.db").write_bytes(content)
    (tmp_path / "copy.partial").write_bytes(b"left over" * 1_000_000)

    fetched = host.fetch(str(tmp_path / "a b.db"), tmp_path / "copy")

    assert fetched.path.read_bytes() == content
    assert (fetched.size_bytes, fetched.sha256) == (
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert fetched.path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "copy.partial").exists()
    assert not any(call.is_change for call in gate.calls)
    assert host.fetch(str(tmp_path / "empty"), tmp_path / "none").size_bytes == 0


def test_a_missing_file_is_named_and_leaves_nothing_behind(host, tmp_path):
    with pytest.raises(CommandFailed, match="No such file"):
        host.fetch(str(tmp_path / "none"), tmp_path / "copy")

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_while_it_is_copied_is_not_taken(host, tmp_path, gate):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100_000)
    plain = gate.before

    def change_after_hash(call):
        plain(call)
        if call.command.startswith("sftp get"):
            source.write_bytes(b"y" * 100_000)

    gate.before = change_after_hash

    with pytest.raises(NotVerified, match="stop what writes to it"):
        host.fetch(str(source), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_host_without_sftp_is_named(tmp_path):
    (tmp_path / "source").write_text("x")
    without = {"Subsystem": "other /bin/false"}

    with (
        private_sshd(tmp_path / "sshd", without) as sshd,
        pytest.raises(CommandFailed, match="sftp subsystem"),
    ):
        sshd.block().fetch(str(tmp_path / "source"), tmp_path / "copy")


def test_a_fetch_from_a_frozen_server_is_given_up_at_the_deadline(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 1_000_000)
    with private_sshd(tmp_path / "sshd") as sshd:
        host = sshd.block()
        with host.session():
            host.read(["true"])
            sshd.signal_connections(signal.SIGSTOP)

            taken, _ = seconds_until_error(
                Unreachable,
                lambda: host.fetch(str(tmp_path / "source"), tmp_path / "copy", within_seconds=1.5),
            )

            assert taken < 4
