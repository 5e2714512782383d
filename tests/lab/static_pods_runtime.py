"""A stand-in for containerd (or Docker): pods and containers that are processes of the host.

It listens on the sockets it is given and answers one JSON line with another. Containers are
processes that outlive it, as behind a shim; what it knows of them is on disk, so that it takes
them up again, and shows after a reboot what had run before it.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

IMAGES = "/opt/lab/images"  # the programs that are in images, and on no host
SEARCHED = f"{IMAGES}:/usr/local/bin:/usr/bin:/bin"
RUNNING, EXITED = "CONTAINER_RUNNING", "CONTAINER_EXITED"
READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
UNKNOWN_EXIT = 255


@dataclass
class Pod:
    """A pod sandbox."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    labels: dict[str, str]
    annotations: dict[str, str]
    state: str = READY
    created_at: int = field(default_factory=time.time_ns)
    boot_id: str = ""


@dataclass
class Container:
    """A container; the moments are nanoseconds, zero for never."""

    id: str
    pod: str
    name: str
    attempt: int
    image: str
    command: list[str]
    labels: dict[str, str]
    annotations: dict[str, str]
    log_path: str
    state: str = RUNNING
    pid: int = 0
    ticks: str = ""  # when the process began, so that another of its number is not taken for it
    created_at: int = field(default_factory=time.time_ns)
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0


class NotFound(Exception):
    """There is no such pod or container."""


class Runtime:
    """All pods and containers of a host."""

    def __init__(self, state: Path) -> None:
        self._file = state
        self._saved = ""
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.pods: dict[str, Pod] = {}
        self.containers: dict[str, Container] = {}
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if state.exists():
            kept = json.loads(state.read_text())
            self.pods = {pod["id"]: Pod(**pod) for pod in kept["pods"]}
            self.containers = {one["id"]: Container(**one) for one in kept["containers"]}
            for pod in self.pods.values():
                if pod.boot_id != self._boot_id:
                    pod.state = NOT_READY
        self.look()

    def run_pod(self, **fields: Any) -> str:
        """Make a pod sandbox and return its id."""
        with self._lock:
            pod = Pod(id=secrets.token_hex(32), boot_id=self._boot_id, **fields)
            self.pods[pod.id] = pod
            self._save()
            return pod.id

    def run_container(self, **fields: Any) -> str:
        """Start a container in a pod and return its id; one that cannot start has exited."""
        with self._lock:
            container = Container(id=secrets.token_hex(32), **fields)
            Path(container.log_path).parent.mkdir(parents=True, exist_ok=True)
            self.containers[container.id] = container
            container.started_at = time.time_ns()
            try:
                with Path(container.log_path).open("ab") as log:
                    child = subprocess.Popen(
                        container.command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                        cwd="/",
                        env={"PATH": SEARCHED, "LANG": "C.UTF-8"},
                    )
            except OSError as error:
                Path(container.log_path).write_text(f"{error}\n")
                self._end(container, 127)
            else:
                container.pid, container.ticks = child.pid, ticks_of(child.pid)
                self._children[container.id] = child
            self._save()
            return container.id

    def look(self) -> None:
        """See which containers have ended."""
        with self._lock:
            for container in self.containers.values():
                if container.state != RUNNING:
                    continue
                child = self._children.get(container.id)
                code = child.poll() if child else None
                if code is not None:
                    self._end(container, 128 - code if code < 0 else code)
                elif child is None and ticks_of(container.pid) != container.ticks:
                    self._end(container, UNKNOWN_EXIT)
            self._save()

    def stop_container(self, given: str, within_seconds: float) -> str:
        """Ask a container to end, and kill it where it does not."""
        with self._lock:
            container = self.container(given)
        if within_seconds > 0:
            self._signal(container, signal.SIGTERM)
            self._wait(container, within_seconds)
        self._signal(container, signal.SIGKILL)
        self._wait(container, 10)
        return container.id

    def remove_container(self, given: str, *, force: bool) -> str:
        """Forget a container; a running one only by force.

        Raises:
            ValueError: it runs.
        """
        container = self.container(given)
        if container.state == RUNNING:
            if not force:
                raise ValueError(f'container "{given}" is running, please stop it first')
            self.stop_container(container.id, 0)
        with self._lock:
            self.containers.pop(container.id, None)
            self._children.pop(container.id, None)
            self._save()
        return container.id

    def stop_pod(self, given: str) -> str:
        """Kill what runs in a pod, at once, as containerd does."""
        pod = self.pod(given)
        for container in self.containers_of(pod.id):
            self.stop_container(container.id, 0)
        with self._lock:
            pod.state = NOT_READY
            self._save()
        return pod.id

    def remove_pod(self, given: str) -> str:
        """Forget a pod and its containers, which are stopped already.

        Raises:
            ValueError: it runs.
        """
        pod = self.pod(given)
        if pod.state == READY:
            raise ValueError(f'pod sandbox "{given}" is running, please stop it first')
        for container in self.containers_of(pod.id):
            self.remove_container(container.id, force=True)
        with self._lock:
            self.pods.pop(pod.id, None)
            self._save()
        return pod.id

    def reset(self) -> None:
        """Kill and forget everything, for a test that begins anew."""
        for pod in list(self.pods):
            self.stop_pod(pod)
            self.remove_pod(pod)

    def containers_of(self, pod: str) -> list[Container]:
        """The containers of a pod."""
        return [one for one in list(self.containers.values()) if one.pod == pod]

    def pod(self, given: str) -> Pod:
        """Find a pod by its id or the beginning of it."""
        found = [pod for key, pod in self.pods.items() if given and key.startswith(given)]
        if len(found) != 1:
            raise NotFound(given)
        return found[0]

    def container(self, given: str) -> Container:
        """Find a container by its id or the beginning of it."""
        found = [one for key, one in self.containers.items() if given and key.startswith(given)]
        if len(found) != 1:
            raise NotFound(given)
        return found[0]

    def _signal(self, container: Container, number: signal.Signals) -> None:
        self.look()
        if container.state == RUNNING:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(container.pid, number)

    def _wait(self, container: Container, within_seconds: float) -> None:
        deadline = time.monotonic() + within_seconds
        while container.state == RUNNING and time.monotonic() < deadline:
            time.sleep(0.01)
            self.look()

    def _end(self, container: Container, code: int) -> None:
        container.state, container.exit_code = EXITED, code
        container.finished_at = time.time_ns()

    def _save(self) -> None:
        kept = {
            "pods": [asdict(pod) for pod in self.pods.values()],
            "containers": [asdict(one) for one in self.containers.values()],
        }
        text = json.dumps(kept)
        if text == self._saved:
            return
        self._saved = text
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self._file)


def ticks_of(pid: int) -> str:
    """Return when a process began, by the kernel's clock; empty for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


class Session(socketserver.StreamRequestHandler):
    """One client: a line asks, a line answers."""

    runtime: Runtime

    def handle(self) -> None:
        """Answer every line."""
        for line in self.rfile:
            asked = json.loads(line)
            try:
                answer: object = {"ok": self._done(asked.pop("do"), asked)}
            except NotFound as error:
                answer = {"not_found": str(error)}
            except ValueError as error:
                answer = {"error": str(error)}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _done(self, verb: str, given: dict[str, Any]) -> object:
        runtime = self.runtime
        if verb == "list":
            runtime.look()
            return {
                "pods": [asdict(pod) for pod in list(runtime.pods.values())],
                "containers": [asdict(one) for one in list(runtime.containers.values())],
            }
        return getattr(runtime, verb)(**given)


class Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens on one socket."""

    daemon_threads = True


def ask(endpoint: str, verb: str, **given: object) -> Any:
    """Ask the runtime that listens there, and return its answer.

    Raises:
        OSError: nobody listens.
        NotFound: there is no such pod or container.
        ValueError: it said no.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(endpoint.removeprefix("unix://"))
        client.sendall(json.dumps({"do": verb, **given}).encode() + b"\n")
        with client.makefile("rb") as answers:
            answer = json.loads(answers.readline() or b'{"error": "it hung up"}')
    if "not_found" in answer:
        raise NotFound(answer["not_found"])
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["ok"]


def main(words: Sequence[str]) -> None:
    """Listen on the sockets named until it is ended; the containers go on."""
    state, *sockets = words
    Session.runtime = Runtime(Path(state))
    for path in sockets:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).unlink(missing_ok=True)
        listener = Listener(path, Session)
        threading.Thread(target=listener.serve_forever, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        time.sleep(0.3)
        Session.runtime.look()
