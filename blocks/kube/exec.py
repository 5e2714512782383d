"""Running a command in a container: its exit code, its output up to a bound, secrets by stdin."""

import contextlib
import io
import json
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlencode

from websocket import WebSocketException

from blocks.kube.answer import CHANGED, ClusterConflict, message_in
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from blocks.kube.stream import CHUNK_BYTES, PodStream, StreamOrder, open_stream
from recovery.commands import Call, changing, reading
from recovery.errors import CommandFailed, UnreadableOutput
from recovery.secrecy.redaction import redacted_tail
from recovery.secrecy.secret import Secret

STDIN, STDOUT, STDERR, STATUS = 0, 1, 2, 3
OUTPUT_BYTES_MAX = 1 << 20
TAIL_CHARS = 2000
NO_SUCH_PROGRAM = 127
NOT_STARTED = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
)
NO_PROGRAM = (
    "The container has no such program, as small images often have no shell: use one that it has, "
    "or an ephemeral container (`kubectl debug`)"
)
TOO_MUCH = "Ask for less of it, or copy it as a file"


@dataclass(frozen=True)
class Place:
    """A container. With `uid`, the pod must still be that one: a StatefulSet reuses its names."""

    namespace: str
    pod: str
    container: str
    uid: str = ""

    @property
    def pod_path(self) -> str:
        """Where the API has the pod."""
        return path_of("v1", "pods", self.pod, namespace=self.namespace)

    def __str__(self) -> str:
        """As an operator would say it."""
        return f"{self.namespace}/{self.pod}/{self.container}"


@dataclass(frozen=True)
class Command:
    """A command for a container.

    Attributes:
        argv: the program and its arguments; no shell, unless it is one. Never a secret.
        stdin: what it reads; a `Secret` is written out on the wire only.
        is_change: it changes something, so that it must stand in a plan.
        within_seconds: for all of it.
        output_bytes_max: of each of its two streams.
        sink: gets the output instead, piece by piece, unbounded.
    """

    argv: tuple[str, ...]
    stdin: Secret | bytes | BinaryIO | None = None
    is_change: bool = False
    within_seconds: float = 60
    output_bytes_max: int = OUTPUT_BYTES_MAX
    sink: Callable[[bytes], object] | None = None


@dataclass(frozen=True)
class Printed:
    """What a command ended with."""

    exit_code: int
    stdout: str
    stderr: str


def exec_text(place: Place, command: Command) -> str:
    """What `run_in_pod` sends, as plans and evidence show it."""
    given = " < stdin" if command.stdin is not None else ""
    return f"EXEC {place}: {shlex.join(command.argv)}{given}"


def run_in_pod(session: KubernetesSession, place: Place, command: Command) -> Printed:
    """Run a command in a container and return what it printed.

    A command that is cut off by its deadline or by a lost connection may go on in the container.

    Raises:
        CommandFailed: it ended with another exit code than 0, or there is no such program.
        ClusterForbidden: the account may not; the remedy holds the rule for `pods/exec`.
        ClusterNotFound, ClusterRejected: there is no such pod or container, or it does not run.
        ClusterConflict: the pod is another one by now.
        UnreadableOutput: it printed more than it may.
        Unreachable, AnswerLost: it did not end in time; a change may have been made.
    """
    printed = ask_in_pod(session, place, command)
    if printed.exit_code != 0:
        tail = redacted_tail(printed.stderr or printed.stdout, TAIL_CHARS)
        remedy = NO_PROGRAM if printed.exit_code == NO_SUCH_PROGRAM else ""
        text = exec_text(place, command)
        raise CommandFailed(session.label, text, printed.exit_code, tail, remedy)
    return printed


def ask_in_pod(session: KubernetesSession, place: Place, command: Command) -> Printed:
    """As `run_in_pod`, for a command whose exit code is an answer."""
    text = exec_text(place, command)
    passing = changing if command.is_change else reading
    with passing(text, session.label) as call:
        if place.uid:
            _refuse_other_pod(session, place, text)
        order = StreamOrder(_path(place, command), text, command.within_seconds, command.is_change)
        with open_stream(session, order) as stream:
            printed = _printed(session, stream, command, call)
        call.exit_code = printed.exit_code
        call.answer = printed.stdout + printed.stderr
        return printed


def _path(place: Place, command: Command) -> str:
    query = [("container", place.container), ("stdout", "true"), ("stderr", "true")]
    if command.stdin is not None:
        query.append(("stdin", "true"))
    query += [("command", word) for word in command.argv]
    return f"{place.pod_path}/exec?{urlencode(query)}"


def _refuse_other_pod(session: KubernetesSession, place: Place, text: str) -> None:
    uid = str(session.get(place.pod_path)["metadata"]["uid"])
    if uid != place.uid:
        why = f"{place.pod} is another pod by now (uid {uid}, was {place.uid})"
        raise ClusterConflict(session.label, text, 409, why, CHANGED)


def _printed(
    session: KubernetesSession, stream: PodStream, command: Command, call: Call
) -> Printed:
    kept = {STDOUT: bytearray(), STDERR: bytearray()}
    status = bytearray()
    with _sending(stream, command.stdin):
        while (received := stream.receive()) is not None:
            channel, piece = received
            if channel == STATUS:
                status += piece
                break
            if channel == STDOUT and command.sink is not None:
                command.sink(piece)
            elif channel in kept:
                kept[channel] += piece
                if len(kept[channel]) > command.output_bytes_max:
                    call.answer = f"cut off after {len(kept[channel])} bytes"
                    told = f"more than {command.output_bytes_max} bytes. {TOO_MUCH}"
                    raise UnreadableOutput(call.command, told)
    if not status:
        raise stream.lost("the stream ended without an exit code")
    stdout, stderr = (kept[one].decode(errors="replace") for one in (STDOUT, STDERR))
    return Printed(_exit_code(session, call, status.decode(errors="replace")), stdout, stderr)


def _exit_code(session: KubernetesSession, call: Call, status: str) -> int:
    """Read the status channel: `{"status": "Success"}`, or a Failure with the code as a cause."""
    try:
        read: dict[str, Any] = json.loads(status)
    except ValueError as error:
        raise UnreadableOutput(call.command, status) from error
    if read.get("status") == "Success":
        return 0
    causes = (read.get("details") or {}).get("causes") or []
    for cause in causes:
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"])
    said = message_in(json.dumps({**read, "kind": "Status"}))
    remedy = NO_PROGRAM if any(words in said for words in NOT_STARTED) else ""
    raise CommandFailed(session.label, call.command, "not started", said, remedy)


@contextlib.contextmanager
def _sending(stream: PodStream, stdin: Secret | bytes | BinaryIO | None) -> Iterator[None]:
    """Send the input beside: a command that prints while it reads would else wait for ever."""
    if stdin is None:
        yield
        return
    source: BinaryIO
    if isinstance(stdin, Secret):
        source = io.BytesIO(stdin.reveal().encode())
    else:
        source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin

    def send() -> None:
        with contextlib.suppress(WebSocketException, OSError):  # told by who receives
            while piece := source.read(CHUNK_BYTES):
                stream.send(STDIN, piece)
            stream.end_input(STDIN)

    sending = threading.Thread(target=send, daemon=True, name="exec-stdin")
    sending.start()
    yield
    sending.join(timeout=1)
