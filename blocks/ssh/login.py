"""Logging in to a server that is known: with the agent, keys or a password, in this order."""

import contextlib
import getpass
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import paramiko

from blocks.ssh.deadline import Deadline, call_within
from blocks.ssh.known_hosts import fingerprint
from recovery.errors import CommandFailed, Unreachable
from recovery.secrecy.secret import Secret


class LoginRefused(CommandFailed):
    """The server let none of the credentials in. Fields as of CommandFailed."""


@dataclass(frozen=True)
class NamedKey:
    """A private key and where it came from."""

    origin: str
    key: paramiko.PKey


@dataclass(frozen=True)
class Credentials:
    """Who logs in, and with what, in this order: agent, keys, password."""

    user: str = ""  # empty: the account of this worker
    keys: tuple[NamedKey, ...] = ()
    uses_agent: bool = False
    password: Secret | None = None
    notes: tuple[str, ...] = ()  # what was not tried and why, for the error


def own_user() -> str:
    """The account of this worker, which ssh logs in with when none is named."""
    return getpass.getuser()


def log_in(
    transport: paramiko.Transport, target: str, credentials: Credentials, deadline: Deadline
) -> None:
    """Log in with the first of the credentials that is let in.

    Raises:
        LoginRefused: none is; says what was tried.
        Unreachable: it was silent.
    """
    user = credentials.user or own_user()
    tried = list(credentials.notes)
    offered: set[str] = set()
    for origin, attempt in _attempts(transport, user, credentials, deadline):
        transport.auth_timeout = max(0.1, deadline.seconds_left)
        try:
            offered |= set(attempt())
        except paramiko.BadAuthenticationType as error:
            tried.append(f"{origin}: not offered by the server")
            offered |= set(error.allowed_types)
        except (paramiko.SSHException, OSError, EOFError) as error:
            if deadline.is_over or "timeout" in str(error).lower():
                raise Unreachable(target, f"log in as {user}", f"silent for {deadline}") from error
            tried.append(f"{origin}: {str(error).rstrip('.') or type(error).__name__}")
            if not transport.is_active():
                tried.append("then it hung up, perhaps after too many attempts")
                break
        else:
            if transport.is_authenticated():
                return
            tried.append(f"{origin}: accepted, but more is asked for")
    ways = f"; it offers {', '.join(sorted(offered))}" if offered else ""
    raise LoginRefused(
        target,
        f"log in as {user}",
        "none",
        "; ".join(tried or ["there was no key, agent or password to try"]) + ways,
        f"Put the public key into ~/.ssh/authorized_keys of {user} there, or name the right "
        "key_file or password_file, then resume",
    )


def _attempts(
    transport: paramiko.Transport, user: str, credentials: Credentials, deadline: Deadline
) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    keys = list(credentials.keys)
    if credentials.uses_agent:
        # A broken or silent agent is as good as none: the keys and the password are still tried.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            agent = call_within(deadline.at_most(5), paramiko.Agent)
            keys[:0] = [NamedKey("agent", key) for key in agent.get_keys()]
    for named in keys:
        origin = f"key {fingerprint(named.key.asbytes())} ({named.origin})"
        yield origin, partial(transport.auth_publickey, user, named.key)
    if credentials.password is not None:
        yield "password", partial(_by_password, transport, user, credentials.password)


def _by_password(transport: paramiko.Transport, user: str, password: Secret) -> list[str]:
    """Give the password in the way that is asked for; to a first question only, else it is tried.

    Paramiko's own fallback hides why it was refused.
    """
    try:
        return transport.auth_password(user, password.reveal(), fallback=False)
    except paramiko.BadAuthenticationType as error:
        if "keyboard-interactive" not in error.allowed_types:
            raise
    answers = [password.reveal()]

    def answer(title: str, instructions: str, questions: list[tuple[str, bool]]) -> list[str]:
        del title, instructions
        return ["" if is_shown or not answers else answers.pop() for _, is_shown in questions]

    return transport.auth_interactive(user, answer)
