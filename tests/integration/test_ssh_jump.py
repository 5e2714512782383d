"""Hosts behind jump hosts: every hop is known, logged in to and named by itself."""

import os
import signal
import subprocess
import threading
import time

import pytest

from blocks.ssh.connection import Deadline, HostKeyRefused, LoginRefused, Via, connect
from blocks.ssh.host import SshHost
from recovery.errors import AnswerLost, BadInput, Refused, Unreachable
from tests.lab.ports import free_port
from tests.lab.processes import ServerMissing, find_binary, wait_until, write_secret
from tests.lab.sshd import make_key, private_sshd, silent_server

LEADS_ON = {"AllowTcpForwarding": "yes"}


@pytest.fixture
def chain(tmp_path):
    """Three servers with keys of their own; the third is to be reached through the others."""
    try:
        with (
            private_sshd(tmp_path / "one", LEADS_ON) as one,
            private_sshd(tmp_path / "two", LEADS_ON) as two,
            private_sshd(tmp_path / "three") as three,
        ):
            yield one, two, three
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def url_of(server, **options):
    right = {"key_file": server.client_key, "host_key": server.host_fingerprint}
    given = {**right, **options}
    query = "&".join(f"{name}={value}" for name, value in given.items() if value is not None)
    return f"ssh://{server.user}@{server.host}:{server.port}?{query}"


def through(chain, **fields):
    one, two, three = chain
    return three.block(jump=[url_of(one), url_of(two)], **fields)


def test_a_command_goes_through_two_hosts_each_with_its_own_key(chain):
    one, two, three = chain
    host = through(chain)

    with host.session():
        client = host.read(["sh", "-c", "echo $SSH_CONNECTION; echo $PPID"]).stdout.split()
        again = host.read(["sh", "-c", "echo $SSH_CONNECTION; echo $PPID"]).stdout.split()
        assert [len(server.connections()) for server in chain] == [1, 1, 1]

    assert client[:4] == again[:4]
    for server in (one, two, three):
        wait_until(lambda s=server: not s.connections(), "it to be closed", within_seconds=10)


def test_hosts_behind_one_jump_host_share_the_connection_to_it(chain):
    one, two, three = chain
    first, second = two.block(jump=[url_of(one)]), three.block(jump=[url_of(one)])

    with first.session(), second.session():
        first.read(["true"])
        second.read(["true"])

        assert len(one.connections()) == 1


def test_a_url_names_every_hop_and_a_mistake_in_one_is_named(chain):
    one, two, three = chain
    quoted = [url_of(hop).replace("&", "%26") for hop in (one, two)]
    host = SshHost.from_url(f"{url_of(three)}&jump={quoted[0]}&jump={quoted[1]}")

    assert host.read(["echo", "in"]).stdout == "in\n"
    assert [hop.target for hop in host.hops()] == [f"{s.user}@{s.host}:{s.port}" for s in chain[:2]]
    assert [len(hop.jump) for hop in host.hops()] == [0, 1]
    with pytest.raises(BadInput, match=r"jump 2: .*unknown or empty option 'keys'"):
        SshHost.from_url(f"{url_of(three)}&jump={quoted[0]}&jump=ssh://two%3Fkeys=1")
    with pytest.raises(BadInput, match="jump of its own"):
        SshHost.from_url("ssh://three?jump=ssh://two%3Fjump=ssh://one")


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_key_at_a_jump_is_refused_before_anything_is_sent_on(chain, tmp_path, number):
    host = through(chain)
    jump = chain[number]
    before = jump.host_fingerprint
    jump.set_host_key(make_key(tmp_path / "changed"))
    jump.restart()

    with pytest.raises(HostKeyRefused) as refused:
        host.read(["true"])

    assert f"{jump.host}:{jump.port}" in str(refused.value)
    assert before in str(refused.value)
    assert jump.host_fingerprint in str(refused.value)
    assert not chain[2].connections()


def test_an_unknown_key_at_a_jump_is_refused_with_what_to_pin(chain, tmp_path):
    one, _, three = chain
    nothing = tmp_path / "empty"
    nothing.touch()
    host = three.block(jump=[url_of(one, host_key=None, known_hosts=nothing)])

    with pytest.raises(HostKeyRefused, match="is unknown") as refused:
        host.read(["true"])

    assert f"pin host_key={one.host_fingerprint}" in str(refused.value)


def test_a_jump_that_lets_us_not_in_is_named(chain, tmp_path):
    one, two, three = chain
    host = three.block(jump=[url_of(one), url_of(two, key_file=make_key(tmp_path / "wrong"))])

    with pytest.raises(LoginRefused) as refused:
        host.read(["true"])

    assert refused.value.target == f"{two.host}:{two.port}"


def test_a_jump_that_forbids_to_lead_on_is_named_with_the_setting(chain):
    _, two, three = chain
    host = two.block(jump=[url_of(three)])

    with pytest.raises(Refused, match="AllowTcpForwarding") as refused:
        host.read(["true"])

    assert refused.value.target == f"{three.user}@{three.host}:{three.port}"


def test_a_host_that_is_down_behind_a_jump_is_named_with_the_jump(chain):
    one, _, three = chain
    host = three.block(jump=[url_of(one)], port=free_port())

    with pytest.raises(
        Unreachable,
        match=r"through .*: Connect failed\. Check that it runs and can be reached from root@",
    ):
        host.read(["true"])


def test_a_host_that_is_silent_behind_a_jump_is_given_up_in_time(chain):
    one, _, three = chain
    with silent_server() as port:
        host = three.block(jump=[url_of(one)], port=port)
        started = time.monotonic()

        with pytest.raises(Unreachable, match="said nothing"):
            host.read(["true"], within_seconds=2)

    assert time.monotonic() - started < 5


def test_a_jump_that_died_in_between_is_connected_to_anew_before_a_command_is_sent(chain):
    one = chain[0]
    host = through(chain)
    with host.session():
        host.read(["true"])
        one.signal_connections(signal.SIGKILL)

        assert host.read(["echo", "back"]).stdout == "back\n"
        assert len(one.connections()) == 1


def test_a_jump_that_dies_in_mid_command_is_an_answer_lost(chain, tmp_path):
    one, _, _ = chain
    host = through(chain)
    began = tmp_path / "began"

    def kill():
        wait_until(began.exists, "the command to run", within_seconds=10)
        one.signal_connections(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(AnswerLost, match=rf"{one.port} on the way there: the other side closed it"):
        host.change(["sh", "-c", 'touch "$0"; sleep 20', str(began)], within_seconds=30)
    killer.join()


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_jump_that_is_frozen_is_noticed_by_its_keepalive(chain, tmp_path, frozen):
    host = through(chain, keepalive_seconds=1)
    began = tmp_path / "began"
    frozen_at = []

    def freeze():
        wait_until(began.exists, "the command to run", within_seconds=10)
        frozen_at.append(time.monotonic())
        chain[frozen].signal_connections(signal.SIGSTOP)

    freezer = threading.Thread(target=freeze)
    freezer.start()
    try:
        with pytest.raises(AnswerLost, match="no sign of life"):
            host.change(["sh", "-c", 'touch "$0"; sleep 20', str(began)], within_seconds=30)
        assert time.monotonic() - frozen_at[0] < 18  # before the command would have ended by itself
    finally:
        freezer.join()
        chain[frozen].signal_connections(signal.SIGCONT)


def test_a_host_lost_with_its_frozen_jump_is_told_as_lost_on_the_way(chain):
    one, _, three = chain
    jump = SshHost.from_url(url_of(one)).model_copy(update={"keepalive_seconds": 1})
    host = three.block(keepalive_seconds=0)
    deadline = Deadline(30)
    with jump.way().session(), jump.way().connection("lead on", deadline) as through_one:
        via = Via(through_one, jump.target)
        connection = connect(host.server, host.credentials(), deadline, 0, via)
        one.signal_connections(signal.SIGSTOP)
        try:
            wait_until(lambda: not connection.is_active(), "it to be lost", within_seconds=30)
        finally:
            one.signal_connections(signal.SIGCONT)

    assert connection.lost_because == f"{jump.target} on the way there: no sign of life for 4 s"


def test_a_command_that_is_silent_for_long_is_no_dead_host(chain):
    host = through(chain, keepalive_seconds=1)

    assert host.read(["sh", "-c", "sleep 6; echo done"]).stdout == "done\n"


def test_a_key_with_a_passphrase_opens_with_the_right_one_alone(chain, tmp_path):
    one, _, three = chain
    for server in (one, three):
        subprocess.run(
            [find_binary("ssh-keygen"), "-q", "-p", "-N", "a pass phrase", "-f", server.client_key],
            check=True,
        )
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    write_secret(right, "a pass phrase")
    write_secret(wrong, "another phrase")
    jump = url_of(one, passphrase_file=right)

    host = three.block(jump=[jump], passphrase_file=right)
    assert host.read(["echo", "in"]).stdout == "in\n"
    with pytest.raises(BadInput, match="the passphrase does not open this key") as refused:
        three.block(jump=[jump], passphrase_file=wrong).read(["true"])
    assert str(three.client_key) in str(refused.value)
    assert "another phrase" not in str(refused.value)
    with pytest.raises(BadInput, match="passphrase_file"):
        three.block(jump=[url_of(one)], passphrase_file=right).read(["true"])
