"""A stand-in for the docker command, for nodes whose kubelet still used Docker (before 1.24).

As dockershim did it, each pod has a container `k8s_POD_…`, and those of its containers are named
`k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`.
"""

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.lab.static_pods_runtime import READY, RUNNING, NotFound, ask
from tests.lab.static_pods_shapes import ago, moment

SOCKET = "/var/run/docker.sock"
COLUMNS = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
FIELD = re.compile(r"\{\{\s*(json )?\.([A-Za-z.]*)\s*\}\}")
WITH_VALUE = frozenset({"filter", "format", "time", "tail", "signal"})
SHORT = {"f": "filter", "a": "all", "q": "quiet", "t": "time"}


class Fault(Exception):
    """docker fails with this text."""


def everything() -> list[dict[str, Any]]:
    """Return all containers, those of the pods themselves included, newest first."""
    known = ask(SOCKET, "list")
    pods = {pod["id"]: pod for pod in known["pods"]}
    found = []
    for one in known["containers"]:
        pod = pods[one["pod"]]
        name = f"k8s_{one['name']}_{pod['name']}_{pod['namespace']}_{pod['uid']}_{one['attempt']}"
        found.append({**one, "docker_name": name, "is_pod": False})
    for pod in pods.values():
        name = f"k8s_POD_{pod['name']}_{pod['namespace']}_{pod['uid']}_{pod['attempt']}"
        found.append(
            {
                **pod,
                "docker_name": name,
                "is_pod": True,
                "image": "registry.example.net/pause:3.2",
                "command": ["/pause"],
                "state": RUNNING if pod["state"] == READY else "CONTAINER_EXITED",
                "started_at": pod["created_at"],
                "finished_at": 0,
                "exit_code": 0,
                "pid": 0,
            }
        )
    return sorted(found, key=lambda one: -one["created_at"])


def row(one: dict[str, Any]) -> dict[str, str]:
    """A container as `docker ps --format '{{json .}}'` prints it."""
    is_running = one["state"] == RUNNING
    since = ago(one["started_at"] if is_running else one["finished_at"]).removesuffix(" ago")
    status = f"Up {since}" if is_running else f"Exited ({one['exit_code']}) {since} ago"
    made = datetime.fromtimestamp(one["created_at"] / 1e9, UTC)
    return {
        "Command": '"' + " ".join(one["command"])[:19] + '…"',
        "CreatedAt": made.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
        "ID": one["id"][:12],
        "Image": one["image"],
        "Labels": ",".join(f"{key}={value}" for key, value in one["labels"].items()),
        "LocalVolumes": "0",
        "Mounts": "",
        "Names": one["docker_name"],
        "Networks": "host",
        "Ports": "",
        "RunningFor": ago(one["created_at"]),
        "Size": "0B",
        "State": "running" if is_running else "exited",
        "Status": status,
    }


def details(one: dict[str, Any]) -> dict[str, Any]:
    """A container as `docker inspect` shows it."""
    is_running = one["state"] == RUNNING
    return {
        "Id": one["id"],
        "Created": moment(one["created_at"]),
        "Path": one["command"][0],
        "Args": one["command"][1:],
        "State": {
            "Status": "running" if is_running else "exited",
            "Running": is_running,
            "Pid": one["pid"] if is_running else 0,
            "ExitCode": one["exit_code"],
            "StartedAt": moment(one["started_at"]),
            "FinishedAt": moment(one["finished_at"]),
        },
        "Name": f"/{one['docker_name']}",
        "RestartCount": 0,
        "Config": {"Image": one["image"], "Labels": one["labels"]},
    }


def list_containers(flags: dict[str, list[str]], words: list[str]) -> None:
    """`docker ps`."""
    found = [one for one in everything() if "all" in flags or one["state"] == RUNNING]
    for text in flags.get("filter", []):
        key, _, value = text.partition("=")
        if key == "name":
            found = [one for one in found if re.search(value, one["docker_name"])]
        elif key == "label":
            label, _, wanted = value.partition("=")
            found = [one for one in found if one["labels"].get(label) == wanted]
        elif key == "status":
            found = [one for one in found if row(one)["State"] == value]
        else:
            raise Fault(f"Error response from daemon: invalid filter '{key}'")
    rows = [row(one) for one in found]
    if "quiet" in flags:
        say(*(one["ID"] for one in rows))
    elif "format" in flags:
        say(*(formatted(flags["format"][-1], one) for one in rows))
    else:
        named = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
        say("   ".join(COLUMNS), *("   ".join(one[name] for name in named) for one in rows))


def inspect(flags: dict[str, list[str]], words: list[str]) -> None:
    """`docker inspect`."""
    shown = [details(found(word)) for word in words]
    if "format" in flags:
        say(*(formatted(flags["format"][-1], one) for one in shown))
    else:
        say(json.dumps(shown, indent=4))


def remove(flags: dict[str, list[str]], words: list[str]) -> None:
    """`docker rm`; a running one only by force."""
    for word in words:
        one = found(word)
        if one["state"] == RUNNING and "filter" not in flags:  # -f of rm, read as that of ps
            raise Fault(
                "Error response from daemon: You cannot remove a running container "
                f"{one['id']}. Stop the container before attempting removal or force remove"
            )
        if one["is_pod"]:
            ask(SOCKET, "stop_pod", given=one["id"])
            ask(SOCKET, "remove_pod", given=one["id"])
        else:
            ask(SOCKET, "remove_container", given=one["id"], force=True)
        say(word)


def stop(flags: dict[str, list[str]], words: list[str]) -> None:
    """`docker stop`, `docker kill` and `docker restart`: the kubelet makes another one."""
    seconds = float(flags.get("time", ["10"])[-1])
    for word in words:
        one = found(word)
        if one["is_pod"]:
            ask(SOCKET, "stop_pod", given=one["id"])
        else:
            ask(SOCKET, "stop_container", given=one["id"], within_seconds=seconds)
        say(word)


def logs(flags: dict[str, list[str]], words: list[str]) -> None:
    """`docker logs`."""
    with open(found(words[0])["log_path"], errors="replace") as file:  # noqa: PTH123 - of a container
        say(file.read())


COMMANDS = {
    "ps": list_containers,
    "inspect": inspect,
    "rm": remove,
    "stop": stop,
    "kill": stop,
    "restart": stop,
    "logs": logs,
}


def found(word: str) -> dict[str, Any]:
    """Find a container by id, the beginning of it, or name.

    Raises:
        Fault: there is none.
    """
    for one in everything():
        if one["id"].startswith(word) or one["docker_name"] == word:
            return one
    raise Fault(f"Error: No such object: {word}")


def formatted(template: str, value: dict[str, Any]) -> str:
    """Fill in a template of Go's, as far as fields and `json` go."""

    def filled(match: re.Match[str]) -> str:
        of: Any = value
        for part in filter(None, match[2].split(".")):
            of = of[part]
        return json.dumps(of, separators=(",", ":"), ensure_ascii=False) if match[1] else str(of)

    return FIELD.sub(filled, template)


def say(*lines: str) -> None:
    """Print lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def main(words: Sequence[str]) -> int:
    """Do what the words say and return the exit code."""
    rest = [word for word in words if word != "container"]
    command = rest.pop(0) if rest else ""
    flags: dict[str, list[str]] = {}
    plain = []
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            plain.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        is_force = command == "rm" and name in {"f", "force"}
        name = SHORT.get(name, name)
        if is_force:
            flags["filter"] = []
        elif name in WITH_VALUE:
            flags.setdefault(name, []).append(value if equals else rest.pop(0))
        else:
            flags[name] = []
    if command not in COMMANDS:
        sys.stderr.write(f"docker: '{command}' is not a docker command.\n")
        return 1
    try:
        COMMANDS[command](flags, plain)
    except (Fault, NotFound, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError:
        nobody = f"Cannot connect to the Docker daemon at unix://{SOCKET}."
        sys.stderr.write(f"{nobody} Is the docker daemon running?\n")
        return 1
    return 0
