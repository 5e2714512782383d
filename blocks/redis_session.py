"""One open connection to a Redis or Sentinel through a unix socket: what is asked, what it says.

Every command passes the gate of `recovery.commands`. A reply that is an error keeps the word Redis
begins it with (LOADING, NOAUTH, MISCONF, …), because each means another thing to do.
"""

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis
from redis.connection import UnixDomainSocketConnection

from recovery.commands import changing, reading
from recovery.errors import BadInput, CommandFailed, Unreachable
from recovery.secrecy.redaction import redact, redacted_head
from recovery.secrecy.secret import Secret

ANSWER_CHARS_MAX = 2000
TOO_MANY_CLIENTS = "max number of clients"
REMEDIES = {
    "NOAUTH": "Name the file with its password in password_file, then resume",
    "WRONGPASS": "Correct the password the worker holds, then resume",
    "NOPERM": "Give this account the right (ACL SETUSER), or name another one, then resume",
    "LOADING": "Wait until it has loaded, then resume",
    "MISCONF": "It cannot save: see its disk, permissions and memory",
    "OOM": "Raise maxmemory, or delete keys",
    "BUSY": "A script runs: wait for it, or end it with SCRIPT KILL",
    "READONLY": "It is a replica: ask its master",
    "DENIED": "It is in protected mode: give it a password or bind it to loopback",
}


class RedisSaidNo(CommandFailed):
    """Redis answered with an error. Fields as of CommandFailed; the code is its first word."""

    @property
    def word(self) -> str:
        """The word the error begins with, as LOADING or NOAUTH."""
        return str(self.code)


class Silent(Unreachable):
    """The connection was accepted, and then nothing was said. Fields as of Unreachable."""


class HungUp(Unreachable):
    """The connection was accepted and closed again. Fields as of Unreachable."""


@dataclass(frozen=True)
class Login:
    """Who logs in and how: references only.

    Attributes:
        user: of the ACL; empty is the default user.
        password_file: path on the worker of a file with the password alone.
        password_env: environment variable of the worker with the password.
        tls_ca_file: path on the worker of the CA that signed the server's certificate; demands TLS.
    """

    user: str = ""
    password_file: str = ""
    password_env: str = ""
    tls_ca_file: str = ""

    def password(self) -> Secret | None:
        """The password, read now; `None` where no source is named.

        Raises:
            BadInput: the file or the variable is missing, empty or open to others.
        """
        if self.password_file:
            return Secret.from_file(self.password_file)
        return Secret.from_env(self.password_env) if self.password_env else None


class RedisSession:
    """An open connection, logged in."""

    def __init__(self, connection: UnixDomainSocketConnection, target: str) -> None:
        self._connection: Any = connection  # redis-py types only half of it
        self.target = target

    def __enter__(self) -> Self:
        """The session itself; it ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, also when it is already gone."""
        with suppress(redis.RedisError, OSError):
            self._connection.disconnect()

    def read(self, *words: str, within_seconds: float = 0) -> Any:
        """Send what changes nothing and return the reply, texts decoded.

        Args:
            words: the command and its arguments.
            within_seconds: for the reply; 0 is as long as the connection was given.

        Raises:
            RedisSaidNo: the reply is an error.
            Silent: no reply in time.
            HungUp: it closed the connection instead.
        """
        asked = line(words)
        with reading(asked, self.target) as call:
            reply = self._ask(words, asked, within_seconds)
            call.answer = _shown(reply)
        return reply

    def change(self, *words: str, within_seconds: float = 0) -> Any:
        """Send what changes something; arguments and errors as of `read`.

        After `Silent` or `HungUp` it is not known whether it was done.
        """
        asked = line(words)
        with changing(asked, self.target) as call:
            reply = self._ask(words, asked, within_seconds)
            call.answer = _shown(reply)
        return reply

    @contextmanager
    def repeated(self, *words: str) -> Iterator[Callable[[], Any]]:
        """Ask the same again and again, as one line of evidence with the last reply.

        Errors are those of `read`.
        """
        asked = line(words)
        with reading(asked, self.target) as call:

            def ask() -> Any:
                reply = self._ask(words, asked, 0)
                call.answer = _shown(reply)
                return reply

            yield ask

    def heard(self, channel: str, within_seconds: float) -> Iterator[str]:
        """What is published on a channel, until nothing came for that long.

        Raises:
            RedisSaidNo: this account may not listen.
            HungUp: the connection was closed.
        """
        asked = line(("SUBSCRIBE", channel))
        with reading(asked, self.target) as call:
            self._ask(("SUBSCRIBE", channel), asked, 0)
            while True:
                try:
                    message = self._reply(asked, within_seconds)
                except Silent:
                    return
                call.answer = _shown(message)
                yield str(message[-1])

    def log_in(self, login: Login) -> None:
        """Send AUTH where a password is named; no other command holds it.

        Raises:
            BadInput: the password cannot be read.
            RedisSaidNo: WRONGPASS, or it has no password at all.
        """
        secret = login.password()
        if secret is None:
            return
        asked = f"AUTH {login.user or 'default'} ***"
        words = ("AUTH", *([login.user] if login.user else []), secret.reveal())
        with reading(asked, self.target) as call:
            call.answer = str(self._ask(words, asked, 0))

    def _ask(self, words: Sequence[str], asked: str, within_seconds: float) -> Any:
        with self._translating(asked):
            self._connection.send_command(*words)
        return self._reply(asked, within_seconds)

    def _reply(self, asked: str, within_seconds: float) -> Any:
        limit = {"timeout": within_seconds} if within_seconds else {}
        with self._translating(asked):
            return _decoded(self._connection.read_response(disconnect_on_error=False, **limit))

    @contextmanager
    def _translating(self, asked: str) -> Iterator[None]:
        try:
            yield
        except (redis.exceptions.ResponseError, redis.exceptions.ConnectionError) as error:
            word, text = _words_of(error)
            if not word:
                raise HungUp(self.target, asked, f"it closed the connection: {text}") from None
            raise RedisSaidNo(self.target, asked, word, text, REMEDIES.get(word, "")) from None
        except redis.exceptions.TimeoutError:
            raise Silent(
                self.target, asked, "it accepted the connection and says nothing"
            ) from None
        except redis.exceptions.RedisError as error:
            raise HungUp(self.target, asked, f"that is no Redis: {error}") from None


class _Connection(UnixDomainSocketConnection):
    """Over a unix socket, with TLS where it is asked for, and without a handshake of its own."""

    tls: ssl.SSLContext | None = None
    host = ""  # what its base class asks for, for its metrics

    def _connect(self) -> socket.socket:
        plain: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        if self.tls is None:
            return plain
        try:
            return self.tls.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise


def open_session(
    socket_path: Path, target: str, login: Login, answer_within_seconds: float
) -> RedisSession:
    """Connect through a unix socket and log in.

    Raises:
        BadInput: the password or the CA cannot be read.
        HungUp: the connection was closed, or TLS and plain text met.
        Silent: it was accepted, and then nothing was said.
        RedisSaidNo: it refused the login, or takes no more clients.
    """
    connection: Any = _Connection(  # type: ignore[no-untyped-call]
        path=str(socket_path),
        socket_timeout=answer_within_seconds,
        socket_connect_timeout=answer_within_seconds,
        redis_connect_func=_without_handshake,
        protocol=2,
    )
    if login.tls_ca_file:
        connection.tls = _tls(login.tls_ca_file)
    try:
        connection.connect()
    except redis.exceptions.TimeoutError:
        raise Silent(target, "connect", "it accepted the connection and says nothing") from None
    except redis.exceptions.RedisError as error:
        raise HungUp(target, "connect", str(error)) from None
    session = RedisSession(connection, target)
    try:
        session.log_in(login)
    except BaseException:
        session.__exit__()
        raise
    return session


def line(words: Sequence[str]) -> str:
    """A command as it is typed at redis-cli, for plans and evidence."""
    return " ".join(
        word if word and not set(word) & set(" \"'\\\n\t") else repr(word) for word in words
    )


def _words_of(error: redis.RedisError) -> tuple[str, str]:
    """The first word of an error Redis answered with, and the rest; no word: it did not answer.

    redis-py takes off the words it knows, and makes some of these errors of the connection.
    """
    text = redact(str(error))
    if TOO_MANY_CLIENTS in text:
        return "CLIENTS", text
    if known := getattr(error, "status_code", None):
        return str(known), text
    if isinstance(error, redis.exceptions.ConnectionError):
        return "", text
    word, _, rest = text.partition(" ")
    return word, rest


def _without_handshake(connection: UnixDomainSocketConnection) -> None:
    connection._parser.on_connect(connection)  # noqa: SLF001 (what on_connect begins with)


def _tls(ca_file: str) -> ssl.SSLContext:
    """Demand a certificate that this CA signed.

    The name in it is not compared: behind the tunnel the server has none, and the tunnel's own host
    key says which host it is.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(
            "tls_ca_file", f"{ca_file}: {error}", "Name a PEM file on the worker"
        ) from None
    context.check_hostname = False
    return context


def _decoded(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "backslashreplace")
    return [_decoded(part) for part in reply] if isinstance(reply, list) else reply


def _shown(reply: Any) -> str:
    text = "\n".join(map(str, reply)) if isinstance(reply, list) else str(reply)
    return redacted_head(text, ANSWER_CHARS_MAX)
