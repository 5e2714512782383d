"""What may keep a recovery from acting on a host: the way there, the login, what it lacks."""

from collections.abc import Iterator

from blocks.inventory import hosts_named
from blocks.ssh.deadline import Deadline
from blocks.ssh.endpoint import SshEndpoint, shown_key
from blocks.ssh.host import SshHost
from operate.findings import Finding, Health, bad
from recovery.errors import BadInput, CommandFailed, RecoveryError, Refused, Unreachable

WITHIN_SECONDS = 30.0
PROGRAMS = {
    "flock": (Health.BAD, "no later attempt could be told from an earlier one: util-linux has it"),
    "sha256sum": (Health.BAD, "no file could be copied: coreutils has it"),
    "systemd-run": (Health.NOTE, "long commands cannot run detached there: systemd has it"),
}


def examine_hosts(given: str) -> list[Finding]:
    """Look at the hosts that a parameter names, and change nothing on them.

    Raises:
        BadInput: it names none.
    """
    if not given.strip():
        remedy = "Name hosts, or leave it out to look at this machine"
        raise BadInput("HOSTS", "it is empty (a variable that is not set?)", remedy)
    return [finding for host in hosts_named(given).hosts for finding in _examine(host)]


def _examine(host: SshHost) -> Iterator[Finding]:
    with host.session():
        for endpoint in (*host.hops(), host):
            for finding in _entry(endpoint):
                yield finding
                if finding.health is Health.BAD:
                    return
        yield _sudo(host)
        yield from _programs(host)
        yield _sftp(host)
        yield _forwarding(host)


def _entry(endpoint: SshEndpoint) -> Iterator[Finding]:
    """Whether a host is the one meant, and lets us in."""
    name = f"{endpoint.place}: host key"
    try:
        shown = shown_key(endpoint, Deadline(WITHIN_SECONDS))
    except RecoveryError as error:
        yield bad(name, error)
        return
    if shown.refusal is not None:
        yield bad(name, shown.refusal)
        return
    how = "pinned" if endpoint.host_key else f"known in {endpoint.known_hosts_file}"
    yield Finding(name, Health.OK, f"{shown.key_type} {shown.fingerprint}, {how}")
    name = f"{endpoint.place}: login"
    way = endpoint.way()
    try:
        with way.session(), way.connection("log in", Deadline(WITHIN_SECONDS)):
            yield Finding(name, Health.OK, f"as {endpoint.target.rpartition('@')[0]}")
    except RecoveryError as error:
        yield bad(name, error)


def _sudo(host: SshHost) -> Finding:
    name = f"{host.place}: root"
    if host.is_root:
        return Finding(name, Health.OK, "the login is root's")
    try:
        host.read(["true"], as_root=True, within_seconds=WITHIN_SECONDS)
    except RecoveryError as error:
        return bad(name, error)
    asked = "with a password" if host.sudo_password.is_given else "without a password"
    return Finding(name, Health.OK, f"through sudo, {asked}")


def _programs(host: SshHost) -> Iterator[Finding]:
    script = 'for name; do command -v "$name" || echo; done'
    try:
        answer = host.read(["sh", "-c", script, "sh", *PROGRAMS], within_seconds=WITHIN_SECONDS)
    except RecoveryError as error:
        yield bad(f"{host.place}: programs", error)
        return
    for name, path in zip(PROGRAMS, answer.stdout.splitlines(), strict=False):
        health, without = PROGRAMS[name]
        remedy = "Install it there, or put it on the PATH of this account"
        found = Finding(f"{host.place}: {name}", Health.OK, path)
        yield found if path else Finding(found.name, health, f"missing; {without}", remedy)


def _sftp(host: SshHost) -> Finding:
    name = f"{host.place}: sftp"
    try:
        host.require_sftp(within_seconds=WITHIN_SECONDS)
    except CommandFailed as error:
        found = bad(name, error)
        return Finding(name, Health.NOTE, found.seen, found.remedy)
    except RecoveryError as error:
        return bad(name, error)
    return Finding(name, Health.OK, "offered")


def _forwarding(host: SshHost) -> Finding:
    """Whether sshd leads on to services of the host; that nothing listens there is fine."""
    name = f"{host.place}: forwarding"
    try:
        with host.forwarded("127.0.0.1", host.port, within_seconds=WITHIN_SECONDS):
            pass
    except Refused as error:
        found = bad(name, error)
        return Finding(name, Health.NOTE, found.seen, found.remedy)
    except Unreachable:
        pass
    return Finding(name, Health.OK, "allowed")
