"""What an SSH host block makes of references, addresses, host keys and output."""

import base64
import hashlib
import hmac
import pickle
import socket
import threading
from types import SimpleNamespace

import paramiko
import pytest
from pydantic import ValidationError

from blocks.ssh.command import Answer, BoundedOutput, Order, require_exit_code
from blocks.ssh.connection import (
    AnswerLost,
    Deadline,
    HostKeyRefused,
    LoginRefused,
    Server,
    _places,
)
from blocks.ssh.credentials import CredentialReferences, SecretReference, gather
from blocks.ssh.deadline import call_within
from blocks.ssh.files import parse_sha256sum, start_sftp
from blocks.ssh.host import SshHost, path_in_url
from blocks.ssh.host_key import refuse_unless_known
from blocks.ssh.known_hosts import HostKeyVerdict, fingerprint, judge, parse_known_hosts
from recovery.errors import BadInput, CommandFailed, Unreachable, UnreadableOutput
from recovery.secrecy.redaction import redact
from recovery.secrecy.secret import Secret

PIN = "SHA256:" + "aB+/" * 10 + "xyz"
ED25519 = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))
OTHER = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(1, 33))


def line(names: str, key: bytes = ED25519, marker: str = "") -> str:
    return f"{marker} {names} ssh-ed25519 {base64.b64encode(key).decode()} comment".strip()


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("text", "name", "verdict"),
    [
        ("", "db1", HostKeyVerdict.UNKNOWN),
        (line("db1"), "db1", HostKeyVerdict.KNOWN),
        (line("web,DB1"), "db1", HostKeyVerdict.KNOWN),
        (line("db1"), "db11", HostKeyVerdict.UNKNOWN),
        (line("db1"), "[db1]:2222", HostKeyVerdict.UNKNOWN),
        (line("[db1]:2222"), "[db1]:2222", HostKeyVerdict.KNOWN),
        (line("*.lab,!bad.lab"), "good.lab", HostKeyVerdict.KNOWN),
        (line("*.lab,!bad.lab"), "bad.lab", HostKeyVerdict.UNKNOWN),
        (line(hashed("db1")), "db1", HostKeyVerdict.KNOWN),
        (line(hashed("db1")), "db2", HostKeyVerdict.UNKNOWN),
        (line("db1", OTHER), "db1", HostKeyVerdict.CHANGED),
        (line("db1", OTHER) + "\n" + line("db1"), "db1", HostKeyVerdict.KNOWN),
        (line("db1") + "\n" + line("*", marker="@revoked"), "db1", HostKeyVerdict.REVOKED),
        (line("*", marker="@cert-authority"), "db1", HostKeyVerdict.UNKNOWN),
        ("# db1 ssh-ed25519 AAAA\nrubbish\ndb1 ssh-ed25519 !!!", "db1", HostKeyVerdict.UNKNOWN),
    ],
)
def test_a_host_key_is_judged_as_openssh_does(text, name, verdict):
    assert judge(parse_known_hosts(text), name, ED25519) is verdict


def test_a_fingerprint_is_that_of_ssh_keygen():
    wire = base64.b64decode(
        "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    )  # github.com, as published

    assert fingerprint(wire) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


def test_an_unknown_host_key_is_refused_with_its_fingerprint_and_how_to_pin_it():
    key = paramiko.ECDSAKey.generate()

    with pytest.raises(HostKeyRefused) as refusal:
        refuse_unless_known(Server("db1", 22), key)

    assert f"host_key={fingerprint(key.asbytes())}" in str(refusal.value)
    assert "is unknown" in str(refusal.value)


def test_a_pinned_key_is_all_that_counts():
    key = paramiko.ECDSAKey.generate()
    stale = parse_known_hosts(line("db1", OTHER))

    refuse_unless_known(Server("db1", 22, stale, pin=fingerprint(key.asbytes())), key)
    with pytest.raises(HostKeyRefused, match="is pinned"):
        refuse_unless_known(Server("db1", 22, stale, pin=PIN), key)


def test_a_url_gives_every_reference_and_keeps_the_plus_of_a_fingerprint():
    host = SshHost.from_url(
        f"ssh://ops@db1:2222/var/lib/grafana.db?known_hosts=/k&key_file=/id&host_key={PIN}"
    )

    assert (host.user, host.address, host.port) == ("ops", "db1", 2222)
    assert (str(host.known_hosts_file), str(host.key_file), host.host_key) == ("/k", "/id", PIN)
    assert host.target == "ops@db1:2222"


def test_a_short_url_falls_back_to_what_ssh_itself_would_use(monkeypatch):
    monkeypatch.setenv("LOGNAME", "oncall")

    host = SshHost.from_url("ssh://db1/x")

    assert (host.port, host.target, host.use_agent) == (22, "oncall@db1", True)
    assert str(host.known_hosts_file) == "~/.ssh/known_hosts"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://db1/x", "no ssh URL"),
        ("ssh:///x", "no ssh URL"),
        ("ssh://db1:port/x", "no valid port"),
        ("ssh://ops:pw@db1/x", "password"),
        ("ssh://db1/x?key=1", "unknown or empty option 'key'"),
        ("ssh://db1/x?key_file=", "unknown or empty option 'key_file'"),
        ("ssh://db1/x?host_key=MD5:00", "host_key"),
        ("ssh://-oProxyCommand=x/x", "address"),
        ("ssh://-l@db1/x", "user"),
        ("ssh://db1/x?key_file=/a&key_file=/b", "'key_file' is given twice"),
    ],
)
def test_a_wrong_url_is_refused_by_the_part_that_is_wrong(url, named):
    with pytest.raises(BadInput, match=named):
        SshHost.from_url(url)


@pytest.mark.parametrize("secret", ["key", "passphrase", "password", "sudo_password"])
def test_a_url_names_every_secret_by_file_variable_or_block(secret):
    host = SshHost.from_url(
        f"ssh://db1?{secret}_file=/run/x&{secret}_env=X_ENV&{secret}_block=x-block"
    )

    assert str(getattr(host, f"{secret}_file")) == "/run/x"
    assert getattr(host, f"{secret}_env") == "X_ENV"
    assert getattr(host, f"{secret}_block") == "x-block"


def test_a_url_names_the_jumps_in_their_order():
    host = SshHost.from_url(
        "ssh://db1?jump=ssh://a%3Fkey_file=/a&jump=ssh://ops@b:2222&host_key=" + PIN
    )

    assert host.jump == ["ssh://a?key_file=/a", "ssh://ops@b:2222"]
    assert [hop.place for hop in host.hops()] == ["a", "b:2222"]
    assert host.place == "db1"


@pytest.mark.parametrize(
    ("jump", "named"),
    [
        ("bastion", "jump 1: ssh URL: 'bastion' is no ssh URL"),
        ("ssh://ops:hunter2@b", "jump 1: ssh URL: it holds a password"),
        ("ssh://b%3Fhost_key=MD5:x", "jump 1: ssh URL, host_key: "),
        ("ssh://b%3Fjump=ssh://c", "jump 1 has a jump of its own"),
    ],
)
def test_a_wrong_jump_is_named_by_number_and_part(jump, named):
    with pytest.raises(BadInput) as refusal:
        SshHost.from_url(f"ssh://db1?jump={jump}")

    assert str(refusal.value).startswith(f"ssh URL, jump: {named}")
    assert "hunter2" not in str(refusal.value)


def test_a_secret_given_by_name_is_no_secret_in_the_block():
    host = SshHost.from_url("ssh://ops@db1?sudo_password_env=SUDO_PASSWORD&password_file=/run/pw")

    line = host.command_line(["systemctl", "stop", "x"], as_root=True)

    assert line == "sudo -k -S -p 'recover-asks-for-sudo: ' -- systemctl stop x"


def test_the_path_of_a_url_is_absolute_and_decoded():
    assert path_in_url("ssh://db1/var/my%20db?key_file=/k") == "/var/my db"
    with pytest.raises(BadInput, match="names no file"):
        path_in_url("ssh://db1")


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(BadInput) as refusal:
        SshHost.from_url("ssh://ops:hunter2@db1/x")

    assert "hunter2" not in str(refusal.value)


def test_a_command_is_never_a_raw_string():
    with pytest.raises(TypeError, match="sequence of its parts"):
        SshHost(address="db1").read("rm -rf /")


def test_root_needs_no_sudo_and_others_are_never_asked_for_a_password():
    root, ops = SshHost(address="db1", user="root"), SshHost(address="db1", user="ops")

    assert root.command_line(["id", "a b"], as_root=True) == "id 'a b'"
    assert ops.command_line(["id", "a b"]) == "id 'a b'"
    assert ops.command_line(["id", "a b"], as_root=True) == "sudo -n -- id 'a b'"


def test_a_block_travels_without_its_connection():
    host = SshHost(address="db1", user="ops")

    with host.session():
        copy = pickle.loads(pickle.dumps(host))  # noqa: S301 - our own bytes

    assert copy == host
    assert copy.way() is host.way()


def test_a_malformed_block_is_refused_when_it_is_made():
    with pytest.raises(ValidationError, match="no host name"):
        SshHost(address="db1:22 ")


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        gather("ops", CredentialReferences(SecretReference(tmp_path / "none")))


def test_a_key_file_open_to_others_is_refused(tmp_path):
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o644)

    with pytest.raises(BadInput, match="open to others"):
        gather("ops", CredentialReferences(SecretReference(key)))


def test_a_key_from_the_environment_is_read(monkeypatch, tmp_path):
    key = paramiko.ECDSAKey.generate()
    key.write_private_key_file(str(tmp_path / "key"))
    monkeypatch.setenv("OPS_KEY", (tmp_path / "key").read_text())

    found = gather("ops", CredentialReferences(SecretReference(env="OPS_KEY")))

    assert found.keys[0].key.get_fingerprint() == key.get_fingerprint()
    assert not found.uses_agent


def test_a_file_that_is_no_key_is_refused_and_a_locked_key_says_what_to_do(tmp_path):
    rubbish, locked = tmp_path / "rubbish", tmp_path / "locked"
    rubbish.write_text("hello\n")
    rubbish.chmod(0o600)
    paramiko.ECDSAKey.generate().write_private_key_file(str(locked), password="pw")  # noqa: S106

    with pytest.raises(BadInput, match="no private key"):
        gather("ops", CredentialReferences(SecretReference(rubbish)))
    with pytest.raises(BadInput, match="ssh-add"):
        gather("ops", CredentialReferences(SecretReference(locked)))


def test_output_over_its_bound_keeps_head_and_tail_and_says_what_is_missing():
    output = BoundedOutput(10)

    for chunk in (b"01\n", b"23456789", b"abcdefghijklmnopqrstuvwxyz", b"\nEND"):
        output.add(chunk)

    assert output.left_out_bytes == 41 - 6
    assert str(output) == "01\n[… 35 bytes left out …]\nEND"


@pytest.mark.parametrize("before", range(490, 521))
def test_no_part_of_a_secret_is_shown_where_the_middle_of_an_output_is_left_out(before):
    """The gap lies inside of it, before it or behind it; masking comes after the cut."""
    secret = Secret("Zq9-hunter2-Kx7vPw4")
    parts = {secret.reveal()[at : at + 6] for at in range(len(secret.reveal()) - 5)}
    line = b"password=" + secret.reveal().encode() + b"\n"
    for lines in (b"x" * 400 + b"\n" + b"y" * (before - 401) + line + b"z\n" * 400,
                  b"z\n" * 400 + line + b"y" * (before - 401) + b"\n" + b"x" * 400):  # fmt: skip
        output = BoundedOutput(1000)

        output.add(lines)

        shown = redact(str(output))
        assert output.left_out_bytes
        assert not [part for part in parts if part in shown]


def test_of_one_endless_line_nothing_is_kept():
    output = BoundedOutput(10)

    output.add(b"x" * 30)

    assert (str(output), output.left_out_bytes) == ("[… 30 bytes left out …]\n", 30)


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_output_within_its_bound_is_kept_whole(size):
    output = BoundedOutput(10)

    output.add(b"x" * size)

    assert (str(output), output.left_out_bytes) == ("x" * size, 0)


def test_a_parser_is_not_given_half_an_output():
    with pytest.raises(UnreadableOutput, match="bytes left out"):
        Answer("cat x", "db1", 0, "a…b", "", left_out_bytes=5).whole()


@pytest.mark.parametrize(
    ("code", "stderr", "remedy"),
    [
        (127, "bash: x: command not found\n", "Install what is missing"),
        (126, "bash: x: Permission denied\n", "who may execute it"),
        (2, "", "Mend the cause"),
    ],
)
def test_another_exit_code_is_an_error_with_a_remedy(code, stderr, remedy):
    with pytest.raises(CommandFailed, match=remedy):
        require_exit_code(Answer("x", "db1", code, "", stderr), (0,))


def test_an_accepted_exit_code_is_an_answer():
    answer = Answer("grep x f", "db1", 1, "", "")

    assert require_exit_code(answer, (0, 1)) is answer


@pytest.mark.parametrize(
    "printed", ["", "sha256sum: x: No such file\n", "ab  x\n", "G" * 64 + "  x"]
)
def test_what_is_no_hash_is_not_taken_for_one(printed):
    with pytest.raises(UnreadableOutput):
        parse_sha256sum(printed)


def test_a_hash_is_read_also_where_the_name_is_escaped():
    assert parse_sha256sum("\\" + "ab" * 32 + "  a\\nb\n") == "ab" * 32


class ChannelOfNologin:
    """What a shell says that refuses log-ins, in place of the SFTP that was asked for."""

    said = b"This account is currently not available.\n"
    closed = False

    def invoke_subsystem(self, name):
        assert name == "sftp"

    def send(self, data):
        return len(data)

    def recv(self, size):
        taken, self.said = self.said[:size], self.said[size:]
        return taken

    def close(self):
        self.closed = True


def test_a_shell_that_speaks_no_sftp_is_named_with_a_remedy():
    connection = SimpleNamespace(is_active=lambda: True, lost_because="")
    order = Order("sftp", "nobody@db1", Deadline(5), is_change=False)

    with pytest.raises(CommandFailed) as failed:
        start_sftp(connection, ChannelOfNologin(), order)

    assert (failed.value.target, failed.value.command) == ("nobody@db1", "sftp")
    assert failed.value.tail == "what came back is no SFTP (Garbage packet received)"
    assert "nologin" in failed.value.remedy


@pytest.mark.parametrize(
    ("code", "is_retried"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)]
)
def test_a_name_that_does_not_exist_is_asked_for_once(monkeypatch, code, is_retried):
    def look_up(*_args, **_more):
        raise socket.gaierror(code, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    with pytest.raises(Unreachable) as unknown:
        _places(SimpleNamespace(address="nowhere", port=22, target="root@nowhere"), Deadline(5))

    assert unknown.value.is_retried is is_retried


def test_a_call_that_hangs_is_left_behind_at_the_deadline():
    with pytest.raises(TimeoutError, match="no answer within"):
        call_within(Deadline(0.05), threading.Event().wait)


@pytest.mark.parametrize(
    "error",
    [
        AnswerLost("db1", "reboot", "cut"),
        HostKeyRefused("db1", "changed", "compare"),
        LoginRefused("db1", "log in", "none", "key", "add it"),
    ],
)
def test_errors_survive_being_stored(error):
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert (type(again), str(again)) == (type(error), str(error))


def test_a_lost_answer_counts_as_unanswered_and_says_that_it_may_have_run():
    error = AnswerLost("db1", "reboot", "cut")

    assert isinstance(error, Unreachable)
    assert "may have run" in str(error)
