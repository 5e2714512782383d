"""What telegraf calls under containerd what its docker input called otherwise.

AKS 1.19 and others moved from dockerd to containerd. Telegraf's docker input then has nothing to
read; its kubernetes input reads the same from the kubelet, under other names and in other units.
Where there is no counterpart, that is said, and never guessed.
"""

import re
from dataclasses import dataclass

POD_CONTAINER = "kubernetes_pod_container"
PERCENT = " / 10000000"  # of one core: 1e9 nanocores
DOCKER = re.compile(r"\bdocker(_container_[a-z]+)?\b")
DOCKER_MEASUREMENT = re.compile(r"docker|docker_container_\w+")
DOCKER_TAG = re.compile(r"io\.kubernetes\.[a-z.]+")


@dataclass(frozen=True)
class FieldCounterpart:
    """What a field is called now, and what brings its value into the former unit."""

    name: str
    scale: str = ""


FIELDS = {
    ("docker_container_cpu", "usage_percent"): FieldCounterpart("cpu_usage_nanocores", PERCENT),
    ("docker_container_mem", "usage"): FieldCounterpart("memory_working_set_bytes"),
}
TAGS = {
    "io.kubernetes.pod.name": "pod_name",
    "io.kubernetes.pod.namespace": "namespace",
    "io.kubernetes.container.name": "container_name",
}
LABELS = {**TAGS, "installation": "namespace"}  # of a variable that lists what there is
KEPT_TAGS = {"container_name", "pod_name", "namespace", "node_name", "host", "time"}
DROPPED_TAGS = {"component", "release"}
# A component was a label of the chart; its pods are told by their names.
COMPONENTS = {"": "", "vantiq-server": "/vantiq-/"}
ALL_CORES = ("cpu", "cpu-total")
# Docker called a container k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT.
DOCKER_NAME = re.compile(r"\^?k8s_(?P<container>[A-Za-z0-9.-]+)(?:_[A-Za-z0-9.-]*)?")
NOT_SCALED = {"count"}


class NoCounterpart(Exception):
    """Something in a query has no counterpart. Fields: why."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        """Why."""
        return self.why


def is_docker_measurement(name: str) -> bool:
    """Whether a measurement is of telegraf's docker input."""
    return DOCKER_MEASUREMENT.fullmatch(name) is not None


def field_counterpart(measurement: str, field: str) -> FieldCounterpart:
    """The counterpart of a field.

    Raises:
        NoCounterpart: there is none.
    """
    if (found := FIELDS.get((measurement, field))) is None:
        raise NoCounterpart(f"the field {field} of {measurement} has no counterpart")
    return found


def tag_counterpart(tag: str) -> str:
    """The counterpart of a tag.

    Raises:
        NoCounterpart: there is none.
    """
    if tag in TAGS:
        return TAGS[tag]
    if tag in KEPT_TAGS or tag.startswith(("$", "[[")):
        return tag
    raise NoCounterpart(f"the tag {tag} has no counterpart")


def pattern_counterpart(tag: str, value: str) -> str:
    """What a value or pattern of a tag is now, with its quotes or slashes.

    Raises:
        NoCounterpart: it is a name that only docker gave.
    """
    if tag != "container_name" or "k8s_" not in value:
        return value
    found = DOCKER_NAME.fullmatch(value.strip("/"))
    if found is None or not value.startswith("/"):
        raise NoCounterpart(f"{value} is a name that docker gave")
    return f"/^{found['container']}/"


def dropped(tag: str, value: str) -> str | None:
    """What stands instead of a condition that has no meaning any more; `None`: it has one.

    Empty means nothing does. What does is a pattern for the name of the pod.

    Raises:
        NoCounterpart: a component whose pods are not known.
    """
    bare = value.strip("'")
    if (tag, bare) == ALL_CORES or tag == "release":
        return ""
    if tag != "component":
        return None
    if bare not in COMPONENTS:
        raise NoCounterpart(f"the pods of component {value} are not known")
    return COMPONENTS[bare]


def legend(alias: str) -> str:
    """A legend with the tags as they are called now.

    `[[tag_io.kubernetes.pod.name]]: $col` becomes `$tag_pod_name: $col`.
    """
    for old, new in TAGS.items():
        for form in (f"[[tag_{old}]]", f"${{tag_{old}}}", f"$tag_{old}"):
            alias = alias.replace(form, f"$tag_{new}")
    return alias


def mentions_docker(query: str) -> bool:
    """Whether a query asks for what only the docker input wrote."""
    return bool(DOCKER.search(query) or DOCKER_TAG.search(query))
