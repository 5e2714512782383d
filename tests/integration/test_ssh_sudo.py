"""Acting as root through sudo on a real host: asked, not asked, refused; no word of the secret."""

import logging
import subprocess
from uuid import uuid4

import pytest

from blocks.ssh import running as ssh_running
from blocks.ssh.sudo import SudoRefused
from recovery.errors import CommandFailed
from recovery.launch import launch
from recovery.run import Options, Recovery
from recovery.secrecy.secret import Secret
from recovery.stage import PlainStage
from recovery.steps import act
from recovery.verdict import Danger
from tests.lab.hosts import lab_hosts
from tests.lab.processes import find_binary, write_secret
from tests.lab.session import started_or_skipped
from tests.lab.ssh_attempt import attempt

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system
GUEST = "guest"  # has no line in sudoers
MIXED = "mixed"  # whom sudo asks for everything but cat
WRONG = "battery-staple-7"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("lab"))) as lab:
        host = lab.hosts[0]
        host.run(
            f"for user in {GUEST} {MIXED}; do useradd -m -s /bin/bash $user; done; "
            f'usermod -p "$(getent shadow asked | cut -d: -f2)" {MIXED}; '
            f"printf '%s\\n' '{MIXED} ALL=(ALL) ALL' '{MIXED} ALL=(ALL) NOPASSWD: /usr/bin/cat' "
            f">/etc/sudoers.d/{MIXED}; chmod 440 /etc/sudoers.d/{MIXED}"
        )
        yield lab


@pytest.fixture(scope="module")
def machine(lab):
    return lab.hosts[0]


@pytest.fixture
def asked(machine):
    return machine.block("asked", sudo_password_file=machine.keys.password_file)


def test_an_account_that_sudo_never_asks_acts_as_root(machine):
    ops = machine.block("ops")

    assert ops.read(["id", "-un"]).stdout == "ops\n"
    assert ops.read(["id", "-un"], as_root=True).stdout == "root\n"
    assert ops.read(["cat"], stdin=Secret("what is read"), as_root=True).stdout == "what is read"
    assert ops.command_line(["id", "-un"], as_root=True) == "sudo -n -- id -un"


def test_the_password_goes_to_sudo_and_the_rest_to_the_command(asked):
    with asked.session():
        assert asked.read(["id", "-un"], as_root=True).stdout == "root\n"
        answer = asked.read(["cat"], stdin=Secret("two\nlines"), as_root=True)
        failed = asked.read(["sh", "-c", "echo no >&2; exit 1"], as_root=True, accept=(0, 1))

    assert (answer.stdout, answer.stderr) == ("two\nlines", "")
    assert (failed.exit_code, failed.stderr) == (1, "no\n")


def test_what_is_sent_is_what_the_plan_shows_and_holds_no_password(asked, machine):
    line = asked.command_line(["touch", "/root/a b"], as_root=True)

    with attempt(1) as gate:
        asked.change(["touch", "/root/a b"], as_root=True)

    assert [call.command for call in gate.sent] == [line]
    assert machine.password not in line
    assert machine.run("stat -c %U '/root/a b'") == "root\n"


def test_a_password_is_not_given_to_a_command_that_sudo_does_not_ask_for(machine, monkeypatch):
    """Goal: a password that nobody asks for never becomes the input of what runs.

    Method: name one for an account that is never asked, and for one that is asked for all but cat.
    """
    monkeypatch.setattr(ssh_running, "PROMPT_SECONDS", 1.0)
    ops = machine.block("ops", sudo_password_file=machine.keys.password_file)
    mixed = machine.block(MIXED, sudo_password_file=machine.keys.password_file)

    assert ops.read(["cat"], stdin=Secret("only this"), as_root=True).stdout == "only this"
    assert ops.read(["cat"], as_root=True).stdout == ""
    assert mixed.read(["cat"], stdin=Secret("only this"), as_root=True).stdout == "only this"
    assert mixed.read(["cat"], as_root=True).stdout == ""
    assert mixed.read(["tee"], stdin=Secret("asked"), as_root=True).stdout == "asked"


def test_no_secret_is_in_plan_journal_log_or_the_processes_of_the_host(
    machine, tmp_path, monkeypatch, caplog
):
    """Goal: passphrase and password are known to the worker and to sudo, and to nobody else.

    Method: plan and carry out a recovery that acts through sudo, watch the processes of the host
    meanwhile, and search all of it for both.
    """
    caplog.set_level(logging.DEBUG)
    key, phrase = tmp_path / "key", tmp_path / "phrase"
    key.write_bytes(machine.keys.client_key.read_bytes())
    key.chmod(0o600)
    write_secret(phrase, "staple battery horse 8")
    command = [find_binary("ssh-keygen"), "-q", "-p", "-N", "staple battery horse 8", "-f", key]
    subprocess.run(command, check=True)
    host = machine.block(
        "asked",
        key_file=key,
        passphrase_file=phrase,
        sudo_password_file=machine.keys.password_file,
    )
    watch = (
        "i=0; while [ $i -lt 8 ]; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; "
        "sleep 0.05; i=$((i+1)); done >/root/seen"
    )
    argv = ["sh", "-c", f"{watch}; tee /root/told"]

    @act(
        commands=lambda: [host.command_line(argv, as_root=True)],
        without_probe="a test",
        redo_in_doubt=True,
    )
    def tell() -> None:
        host.change(argv, stdin=Secret("what is told 77"), as_root=True)

    declared = Recovery("secrets", tell, "x", (), Danger.CHANGE, lambda: "host", {})
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    for options in (Options(plan_only=True), Options()):
        told = launch(declared, {}, options, PlainStage(), str(uuid4()))
        assert told.error is None

    places = {path.name: path.read_bytes() for path in tmp_path.glob("journal*")}
    places |= {"log": caplog.text.encode(), "result": repr(told).encode()}
    places |= {"processes": machine.read_file("/root/seen")}
    assert b"sudo" in places["journal.sqlite"] + places.get("journal.sqlite-wal", b"")
    assert b"tee /root/told" in places["processes"]
    assert machine.read_file("/root/told") == b"what is told 77"
    for secret in (machine.password, "staple battery horse 8", "what is told 77"):
        for place, content in places.items():
            assert secret.encode() not in content, (secret, place)


@pytest.mark.parametrize("given", ["none", "wrong"])
@pytest.mark.parametrize("accept", [(0,), (0, 1)])
def test_sudo_that_says_no_is_never_the_answer_of_the_command(
    machine, tmp_path, given, accept, caplog
):
    caplog.set_level(logging.DEBUG)
    write_secret(tmp_path / "password", WRONG)
    secret = {"sudo_password_file": tmp_path / "password"} if given == "wrong" else {}
    host = machine.block("asked", **secret)

    with attempt(1) as gate, pytest.raises(SudoRefused) as refused:
        host.read(["test", "-e", "/root/nonesuch"], as_root=True, accept=accept)

    remedy = "did not take the one that was given" if given == "wrong" else "NOPASSWD"
    assert remedy in str(refused.value)
    evidence = [(call.command, call.answer) for call in gate.sent]
    for place in (str(refused.value), repr(refused.value.args), caplog.text, str(evidence)):
        assert WRONG not in place


def test_a_wrong_password_is_tried_once_and_nothing_else_is_taken_for_one(machine, tmp_path):
    given = tmp_path / "password"
    write_secret(given, WRONG)
    host = machine.block("asked", sudo_password_file=given, output_max_bytes=9999)
    since = machine.run("date '+%F %T'").strip()

    for _ in range(2):
        with pytest.raises(SudoRefused):
            host.put(Secret("content that is no password\n" * 5), "/root/put", as_root=True)
    with attempt(1, target="wrong"), pytest.raises(SudoRefused):
        host.change(["touch", "/home/asked/touched"])  # whose fence would be another one

    said = machine.run(
        f"journalctl -q --since '{since}' _COMM=sudo | grep -c 'authentication fail'"
    )
    assert said == "1\n"
    assert machine.run("ls /root /home/asked | grep -c -e put -e touched || true") == "0\n"
    given.write_text(machine.password)
    host.put(b"x", "/root/put", as_root=True)
    assert machine.read_file("/root/put") == b"x"


def test_an_account_without_a_line_in_sudoers_is_told_so(machine):
    with pytest.raises(SudoRefused, match="Give this user a line in sudoers") as refused:
        machine.block(GUEST, sudo_password_file=machine.keys.password_file).read(
            ["id"], as_root=True
        )
    assert "asked" not in str(refused.value)

    machine.run(f"echo '{GUEST} ALL=(root) NOPASSWD: /usr/bin/true' >/etc/sudoers.d/{GUEST}")
    try:
        assert machine.block(GUEST).read(["true"], as_root=True).exit_code == 0
        with pytest.raises(SudoRefused, match="NOPASSWD"):
            machine.block(GUEST).read(["id"], as_root=True)
    finally:
        machine.run(f"rm /etc/sudoers.d/{GUEST}")


def test_a_command_that_sudoers_does_not_list_is_named(machine):
    machine.run(f"echo 'Defaults:{GUEST} !authenticate' >/etc/sudoers.d/{GUEST}")
    machine.run(f"echo '{GUEST} ALL=(root) /usr/bin/true' >>/etc/sudoers.d/{GUEST}")
    try:
        with pytest.raises(SudoRefused, match="Allow this user exactly this command"):
            machine.block(GUEST).read(["id"], as_root=True)
    finally:
        machine.run(f"rm /etc/sudoers.d/{GUEST}")


def test_sudo_that_wants_a_terminal_is_told_with_the_line_that_helps(machine):
    machine.run("echo 'Defaults:ops requiretty' >/etc/sudoers.d/tty")
    try:
        with pytest.raises(SudoRefused, match="!requiretty"):
            machine.block("ops").read(["id"], as_root=True)
    finally:
        machine.run("rm /etc/sudoers.d/tty")


def test_a_missing_program_is_no_refusal_and_no_answer(machine, asked):
    for host in (machine.block("ops"), asked):
        with pytest.raises(CommandFailed, match="Install what is missing") as failed:
            host.read(["nonesuch"], as_root=True, accept=(0, 1))
        assert not isinstance(failed.value, SudoRefused)


@pytest.mark.parametrize("user", ["root", "ops", "asked"])
def test_a_file_is_put_whole_with_owner_and_mode(machine, user):
    secret = {"sudo_password_file": machine.keys.password_file} if user == "asked" else {}
    host = machine.block(user, **secret)
    path = f"/etc/put by {user}.conf"

    with attempt(1, target=user) as gate, host.session():
        host.put(Secret("first"), path, as_root=True)
        host.put(b"\0second\xff\n", path, mode=0o640, owner="root:ops", as_root=True)

    assert machine.read_file(path) == b"\0second\xff\n"
    assert machine.run(f"stat -c '%U %G %a' '{path}'") == "root ops 640\n"
    assert [call.command for call in gate.sent] == [
        host.put_line(path, as_root=True),
        host.put_line(path, mode=0o640, owner="root:ops", as_root=True),
    ]
    assert "second" not in str([(call.command, call.answer) for call in gate.sent])
    assert machine.run("ls -A /etc | grep -c recover || true") == "0\n"


def test_a_file_is_not_put_through_a_link(machine):
    machine.run("touch /etc/real.conf; ln -sf real.conf /etc/link.conf")

    with pytest.raises(CommandFailed, match="is a symbolic link"):
        machine.block().put(b"x", "/etc/link.conf")

    assert machine.read_file("/etc/real.conf") == b""


def test_what_only_root_may_read_is_fetched_through_sudo(machine, asked, tmp_path):
    content = bytes(range(256)) * 5000
    machine.write("/root/only for root", content, mode=0o600)

    for number, host in enumerate((machine.block(), machine.block("ops"), asked)):
        fetched = host.fetch("/root/only for root", tmp_path / str(number), as_root=True)
        assert fetched.path.read_bytes() == content
        assert fetched.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandFailed, match="No such file"):
        asked.fetch("/root/none", tmp_path / "none", as_root=True)
    assert not list(tmp_path.glob("*.partial"))
