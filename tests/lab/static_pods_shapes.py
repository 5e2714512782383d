"""Pods and containers in the shapes in which crictl 1.36 shows them."""

import time
from datetime import UTC, datetime
from typing import Any

from tests.lab.static_pods_runtime import RUNNING

NEVER = "0001-01-01T00:00:00Z"


def pod_object(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod as `crictl pods -o json` lists it."""
    return {
        "id": pod["id"],
        "metadata": {key: pod[key] for key in ("name", "uid", "namespace", "attempt")},
        "state": pod["state"],
        "createdAt": str(pod["created_at"]),
        "labels": pod["labels"],
        "annotations": pod["annotations"],
        "runtimeHandler": "",
    }


def container_object(one: dict[str, Any]) -> dict[str, Any]:
    """A container as `crictl ps -o json` lists it."""
    return {
        "id": one["id"],
        "podSandboxId": one["pod"],
        "metadata": {"name": one["name"], "attempt": one["attempt"]},
        "image": _image(one),
        "imageRef": f"sha256:{one['id']}",
        "state": one["state"],
        "createdAt": str(one["created_at"]),
        "labels": one["labels"],
        "annotations": one["annotations"],
        "imageId": "",
    }


def container_status(one: dict[str, Any]) -> dict[str, Any]:
    """A container as `crictl inspect` shows it."""
    is_running = one["state"] == RUNNING
    reason = "" if is_running else "Completed" if one["exit_code"] == 0 else "Error"
    return {
        "info": {
            "config": {"command": one["command"], "labels": one["labels"]},
            "pid": one["pid"] if is_running else 0,
            "removing": False,
            "sandboxID": one["pod"],
        },
        "status": {
            "annotations": one["annotations"],
            "createdAt": moment(one["created_at"]),
            "exitCode": one["exit_code"],
            "finishedAt": moment(one["finished_at"]),
            "id": one["id"],
            "image": _image(one),
            "imageId": "",
            "imageRef": f"sha256:{one['id']}",
            "labels": one["labels"],
            "logPath": one["log_path"],
            "message": "",
            "metadata": {"attempt": one["attempt"], "name": one["name"]},
            "mounts": [],
            "reason": reason,
            "startedAt": moment(one["started_at"]),
            "state": one["state"],
        },
    }


def moment(nanoseconds: int) -> str:
    """Write a moment as Go does, to the nanosecond."""
    if not nanoseconds:
        return NEVER
    whole, rest = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09}".rstrip("0").rstrip(".") + "Z"


def _image(one: dict[str, Any]) -> dict[str, Any]:
    empty = {"userSpecifiedImage": "", "runtimeHandler": "", "imageRef": ""}
    return {"image": one["image"], "annotations": {}, **empty}


def ago(nanoseconds: int) -> str:
    """Say how long ago a moment was."""
    seconds = int(time.time() - nanoseconds / 1e9)
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "Less than a second ago" if seconds < 1 else f"{seconds} second{'s' * (seconds > 1)} ago"
