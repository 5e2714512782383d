"""A stand-in for crictl 1.36, as far as a renewal of certificates asks of it.

Shapes, texts and exit codes are those of the real crictl on containerd 1.6, put to the same tests
(tests/integration/test_control_plane_runtime.py): `rmp -f` without a pod prints its usage and
exits 0, flags behind the first argument are taken for arguments, names are regular expressions.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tests.lab.static_pods_runtime import READY, RUNNING, NotFound, ask
from tests.lab.static_pods_shapes import (
    ago,
    container_object,
    container_status,
    moment,
    pod_object,
)

CONFIG = Path("/etc/crictl.yaml")
DEFAULTS = (
    "unix:///run/containerd/containerd.sock",
    "unix:///run/crio/crio.sock",
    "unix:///var/run/cri-dockerd.sock",
)
FLAGS_WITH_VALUE = frozenset(
    {
        "name",
        "namespace",
        "label",
        "state",
        "output",
        "pod",
        "id",
        "last",
        "image",
        "tail",
        "timeout",
    }
)
SWITCHES = frozenset({"quiet", "no-trunc", "all", "force", "latest", "verbose"})
SHORT = {
    "a": "all",
    "f": "force",
    "l": "latest",
    "n": "last",
    "o": "output",
    "p": "pod",
    "q": "quiet",
    "s": "state",
    "v": "verbose",
}
STATES = {
    "running": RUNNING,
    "exited": "CONTAINER_EXITED",
    "created": "CONTAINER_CREATED",
    "unknown": "CONTAINER_UNKNOWN",
    "ready": READY,
    "notready": "SANDBOX_NOTREADY",
}
POD_COLUMNS = ("POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME")
CONTAINER_COLUMNS = (
    *("CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT"),
    *("POD ID", "POD", "NAMESPACE"),
)


class Fault(Exception):
    """crictl fails with this text."""


@dataclass
class Order:
    """One invocation."""

    endpoint: str
    flags: dict[str, list[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def ask(self, verb: str, **given: object) -> Any:
        """Ask the runtime.

        Raises:
            Fault: nobody listens there.
        """
        try:
            return ask(self.endpoint, verb, **given)
        except OSError as error:
            path = self.endpoint.removeprefix("unix://")
            reason = (error.strerror or str(error)).lower()
            dialing = f"error while dialing: dial unix {path}: connect: {reason}"
            endpoint = f'validate CRI v1 runtime API for endpoint "unix://{path}"'
            raise Fault(
                f"validate service connection: {endpoint}: rpc error: code = Unavailable "
                f'desc = connection error: desc = "transport: {dialing}"'
            ) from error

    def has(self, name: str) -> bool:
        """Whether a switch was given."""
        return name in self.flags

    def one(self, name: str, default: str = "") -> str:
        """The last value of a flag."""
        return self.flags.get(name, [default])[-1]


def list_pods(order: Order) -> None:
    """`crictl pods`."""
    found = [pod for pod in order.ask("list")["pods"] if _is_wanted(order, pod, pod)]
    found.sort(key=lambda pod: -pod["created_at"])
    if order.has("latest"):
        found = found[:1]
    rows = [
        (
            _short(order, pod["id"]),
            ago(pod["created_at"]),
            "Ready" if pod["state"] == READY else "NotReady",
            pod["name"],
            pod["namespace"],
            str(pod["attempt"]),
            "(default)",
        )
        for pod in found
    ]
    _print(order, found, {"items": [pod_object(pod) for pod in found]}, [POD_COLUMNS, *rows])


def list_containers(order: Order) -> None:
    """`crictl ps`; those that have ended only with -a."""
    known = order.ask("list")
    pods = {pod["id"]: pod for pod in known["pods"]}
    shows_all = any(order.has(name) for name in ("all", "state", "last", "latest"))
    found = [
        one
        for one in known["containers"]
        if _is_wanted(order, one, pods[one["pod"]])
        and (shows_all or one["state"] == RUNNING)
        and one["pod"].startswith(order.one("pod"))
    ]
    found.sort(key=lambda one: -one["created_at"])
    if order.has("latest"):
        found = found[:1]
    rows = [
        (
            _short(order, one["id"]),
            one["image"],
            ago(one["created_at"]),
            one["state"].removeprefix("CONTAINER_").capitalize(),
            one["name"],
            str(one["attempt"]),
            _short(order, one["pod"]),
            pods[one["pod"]]["name"],
            pods[one["pod"]]["namespace"],
        )
        for one in found
    ]
    listed = {"containers": [container_object(one) for one in found]}
    _print(order, found, listed, [CONTAINER_COLUMNS, *rows])


def inspect(order: Order) -> None:
    """`crictl inspect`."""
    known = {one["id"]: one for one in order.ask("list")["containers"]}
    for word in order.words:
        found = [one for key, one in known.items() if key.startswith(word)]
        if len(found) != 1:
            reason = f'an error occurred when try to find container "{word}": not found'
            raise Fault(
                "get the status of containers: get container status: "
                f"rpc error: code = NotFound desc = {reason}"
            )
        _say(json.dumps(container_status(found[0]), indent=2))


def inspect_pod(order: Order) -> None:
    """`crictl inspectp`."""
    known = {pod["id"]: pod for pod in order.ask("list")["pods"]}
    for word in order.words:
        found = [pod for key, pod in known.items() if key.startswith(word)]
        if len(found) != 1:
            raise _no_sandbox(word)
        pod = found[0]
        status = {**pod_object(pod), "createdAt": moment(pod["created_at"])}
        del status["runtimeHandler"]
        _say(json.dumps({"info": {"runtimeHandler": ""}, "status": status}, indent=2))


def stop_containers(order: Order) -> None:
    """`crictl stop`."""
    for word in order.words:
        seconds = float(order.one("timeout", "0"))
        _on_container(order, word, "stop_container", within_seconds=seconds)
        _say(word)


def remove_containers(order: Order) -> None:
    """`crictl rm`."""
    for word in order.words:
        _on_container(order, word, "remove_container", force=order.has("force"))
        _say(word)


def stop_pods(order: Order) -> None:
    """`crictl stopp`."""
    for word in order.words:
        try:
            order.ask("stop_pod", given=word)
        except NotFound as error:
            raise _no_sandbox(word) from error
        _say(f"Stopped sandbox {word}")


def remove_pods(order: Order) -> None:
    """`crictl rmp`; a running one only by force."""
    for word in order.words:
        try:
            if order.has("force"):
                order.ask("stop_pod", given=word)
                _say(f"Stopped sandbox {word}")
            order.ask("remove_pod", given=word)
        except NotFound as error:
            raise _no_sandbox(word) from error
        except ValueError as error:
            raise Fault(str(error)) from error
        _say(f"Removed sandbox {word}")


def show_logs(order: Order) -> None:
    """`crictl logs`."""
    known = {one["id"]: one for one in order.ask("list")["containers"]}
    for word in order.words:
        found = [one for key, one in known.items() if key.startswith(word)]
        if not found:
            raise Fault(f'rpc error: code = NotFound desc = container "{word}": not found')
        lines = Path(found[0]["log_path"]).read_text(errors="replace").splitlines()
        tail = order.one("tail")
        _say("\n".join(lines[-int(tail) :] if tail else lines))


def show_version(order: Order) -> None:
    """`crictl version`."""
    order.ask("list")
    _say(
        "Version:  0.1.0\nRuntimeName:  containerd\nRuntimeVersion:  1.6.20~ds1\n"
        "RuntimeApiVersion:  v1"
    )


COMMANDS: dict[str, tuple[Callable[[Order], None], str]] = {
    "pods": (list_pods, ""),
    "ps": (list_containers, ""),
    "inspect": (inspect, "crictl inspect - Display the status of one or more containers"),
    "inspectp": (inspect_pod, "crictl inspectp - Display the status of one or more pods"),
    "stop": (stop_containers, "crictl stop - Stop one or more running containers"),
    "rm": (remove_containers, "crictl rm - Remove one or more containers"),
    "stopp": (stop_pods, "crictl stopp - Stop one or more running pods"),
    "rmp": (remove_pods, "crictl rmp - Remove one or more pods"),
    "logs": (show_logs, "crictl logs - Fetch the logs of a container"),
    "version": (show_version, ""),
}


def _on_container(order: Order, word: str, verb: str, **given: object) -> None:
    try:
        order.ask(verb, given=word, **given)
    except NotFound as error:
        reason = f'an error occurred when try to find container "{word}": not found'
        raise Fault(
            f'getting container status "{word}": rpc error: code = NotFound desc = {reason}'
        ) from error
    except ValueError as error:
        raise Fault(str(error)) from error


def _no_sandbox(word: str) -> Fault:
    reason = (
        "rpc error: code = NotFound desc = an error occurred when try to find sandbox: not found"
    )
    return Fault(f'getting sandbox status of pod "{word}": {reason}')


def _is_wanted(order: Order, one: dict[str, Any], pod: dict[str, Any]) -> bool:
    labels = dict(text.partition("=")[::2] for text in order.flags.get("label", []))
    state = order.one("state").lower()
    return (
        re.search(order.one("name"), one["name"]) is not None
        and re.search(order.one("namespace"), pod["namespace"]) is not None
        and labels.items() <= one["labels"].items()
        and (not state or one["state"] == STATES.get(state))
    )


def _print(
    order: Order, found: list[Any], listed: dict[str, Any], rows: Sequence[tuple[str, ...]]
) -> None:
    kind = order.one("output", "table")
    if order.has("quiet"):
        _say("\n".join(one["id"] for one in found))
    elif kind == "json":
        _say(json.dumps(listed, indent=2))
    elif kind == "yaml":
        _say(yaml.safe_dump(listed))
    elif kind == "table":
        widths = [max(20, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]) - 1)]
        for *cells, last in rows:
            line = "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            _say(line + last)
    else:
        what = next(iter(listed)).replace("items", "pod sandboxes")
        raise Fault(f'listing {what}: unsupported output format "{kind}"')


def _short(order: Order, text: str) -> str:
    return text if order.has("no-trunc") else text[:13]


def _say(text: str) -> None:
    if text:
        sys.stdout.write(f"{text}\n")


def _warn(level: str, text: str) -> None:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sys.stderr.write(f'time="{stamp}" level={level} msg={json.dumps(text)}\n')


def understood(words: Sequence[str]) -> tuple[str, Order]:
    """Read the flags in front of the command, the command, and its own.

    Raises:
        Fault: there is no such flag.
    """
    rest, endpoint = list(words), ""
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).lstrip("-").partition("=")
        if name in {"debug", "D"}:
            continue
        value = value if equals else rest.pop(0)
        if name in {"runtime-endpoint", "r"}:
            endpoint = value
    if not endpoint and CONFIG.exists():
        endpoint = (yaml.safe_load(CONFIG.read_text()) or {}).get("runtime-endpoint", "")
    if not endpoint:
        _warn(
            "warning",
            f"runtime connect using default endpoints: [{' '.join(DEFAULTS)}]. As the default "
            "settings are now deprecated, you should set the endpoint instead.",
        )
        endpoint = DEFAULTS[0]
    command = rest.pop(0) if rest else "help"
    order = Order(endpoint)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).lstrip("-").partition("=")
        name = SHORT.get(name, name)
        if name in SWITCHES:
            order.flags[name] = []
        elif name in FLAGS_WITH_VALUE:
            order.flags.setdefault(name, []).append(value if equals else rest.pop(0))
        else:
            raise Fault(f"flag provided but not defined: -{name}")
    order.words = rest
    return command, order


def main(words: Sequence[str]) -> int:
    """Do what the words say and return the exit code."""
    if list(words) in (["--version"], ["-v"]):
        _say("crictl version v1.36.0")
        return 0
    try:
        command, order = understood(words)
        if command not in COMMANDS:
            sys.stderr.write(f"No help topic for '{command}'\n")
            return 3
        run, usage = COMMANDS[command]
        if usage and not order.words:
            _say(f"NAME:\n   {usage}")
            return 0
        run(order)
    except Fault as fault:
        sys.stdout.flush()
        _warn("error", str(fault))
        return 1
    return 0
