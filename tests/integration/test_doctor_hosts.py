"""`recover doctor HOSTS` on real hosts: what to pin, whether one is let in, what is missing."""

import json

import pytest
from typer.testing import CliRunner

from operate.cli import app
from tests.lab.hosts import lab_hosts
from tests.lab.processes import write_secret
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("lab"), 2, inner=1)) as lab:
        yield lab


def doctor(*urls):
    ended = CliRunner().invoke(app, ["doctor", " ".join(urls), "--json"])
    told = json.loads(ended.stdout)
    found = {row["name"]: row for row in told["findings"]}
    assert (ended.exit_code, told["well"]) in {(0, True), (3, False)}
    return found


def fingerprint_of(host):
    return host.run("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]


def healths(found, place):
    prefix = f"{place}: "
    return {
        name.removeprefix(prefix): row["health"]
        for name, row in found.items()
        if name.startswith(prefix)
    }


def test_an_unknown_host_is_shown_with_the_fingerprint_to_pin_and_nobody_logs_in(lab, tmp_path):
    host = lab.hosts[0]
    nothing = tmp_path / "known"
    nothing.touch()
    logins = "journalctl -q -u ssh | grep -c Accepted || true"
    before = host.run(logins)

    found = doctor(f"ssh://root@{host.address}?known_hosts={nothing}")

    key = found[f"{host.address}: host key"]
    assert key["health"] == "bad"
    assert f"pin host_key={fingerprint_of(host)}" in key["remedy"]
    assert list(found) == [f"{host.address}: host key"]
    assert host.run(logins) == before


def test_a_pinned_host_is_looked_through(lab):
    host = lab.hosts[0]
    pinned = f"{host.url()}&host_key={fingerprint_of(host)}".replace("+", "%2B")

    found = doctor(pinned)

    assert set(healths(found, host.address).values()) == {"ok"}
    key = found[f"{host.address}: host key"]["seen"]
    assert key == f"ssh-ed25519 {fingerprint_of(host)}, pinned"
    assert found[f"{host.address}: login"]["seen"] == "as root"
    assert found[f"{host.address}: flock"]["seen"] == "/usr/bin/flock"


def test_every_hop_is_shown(lab):
    outer, inner = lab.hosts
    jump = outer.url().replace("%", "%25").replace("&", "%26")

    found = doctor(f"{inner.url('ops')}&jump={jump}")

    assert healths(found, outer.address) == {"host key": "ok", "login": "ok"}
    assert set(healths(found, inner.address).values()) == {"ok"}
    assert found[f"{inner.address}: root"]["seen"] == "through sudo, without a password"


def test_what_sudo_says_is_told(lab, tmp_path):
    host = lab.hosts[0]
    wrong = tmp_path / "wrong"
    write_secret(wrong, "battery-staple-9")

    without = doctor(host.url("asked"))
    right = doctor(host.url("asked", sudo_password_file=str(host.keys.password_file)))
    refused = doctor(host.url("asked", sudo_password_file=str(wrong)))

    row = f"{host.address}: root"
    assert without[row]["health"] == "bad"
    assert "sudo_password_file" in without[row]["remedy"]
    assert right[row]["seen"] == "through sudo, with a password"
    assert refused[row]["health"] == "bad"
    assert "battery-staple-9" not in str(refused)


def test_what_is_missing_on_the_host_is_named(lab):
    host = lab.hosts[0]
    host.run("chmod 0 /usr/bin/flock; cd /usr/bin && mv flock flock.away; mv systemd-run run.away")
    host.run(
        "printf 'AllowTcpForwarding no\\nSubsystem sftp /nonexistent\\n' "
        ">/etc/ssh/sshd_config.d/00.conf; sed -i 's/^Subsystem/#&/' /etc/ssh/sshd_config; "
        "systemctl restart ssh"
    )
    try:
        found = doctor(host.url())
    finally:
        host.run("cd /usr/bin && mv flock.away flock && chmod 755 flock && mv run.away systemd-run")
        host.run(
            "rm /etc/ssh/sshd_config.d/00.conf; sed -i 's/^#Subsystem/Subsystem/' "
            "/etc/ssh/sshd_config; systemctl restart ssh"
        )

    assert healths(found, host.address) == {
        "host key": "ok",
        "login": "ok",
        "root": "ok",
        "flock": "bad",
        "sha256sum": "ok",
        "systemd-run": "note",
        "sftp": "note",
        "forwarding": "note",
    }
    assert "AllowTcpForwarding" in found[f"{host.address}: forwarding"]["remedy"]


def test_a_host_that_is_away_is_told(lab):
    away = doctor("ssh://root@10.255.255.1:1?host_key=SHA256:" + "A" * 43)
    assert away["10.255.255.1:1: host key"]["health"] == "bad"


def test_people_read_it_too(lab):
    host = lab.hosts[0]

    ended = CliRunner().invoke(app, ["doctor", host.url()])

    assert ended.exit_code == 0
    assert fingerprint_of(host) in ended.stdout
