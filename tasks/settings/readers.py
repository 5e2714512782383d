"""How the containers of a pod template read one key of a ConfigMap or Secret."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.settings.order import ConfigOrder, ObjectKind

REFERENCES = {
    ObjectKind.CONFIG_MAP: ("configMapRef", "configMapKeyRef", "configMap", "name"),
    ObjectKind.SECRET: ("secretRef", "secretKeyRef", "secret", "secretName"),
}
HasKey = Callable[[ObjectKind, str, str], bool]


@dataclass
class Reading:
    """What was found: how it is read, and what takes its place where it would be.

    Attributes:
        ways: `env NAME of web`, `file /etc/x of web`; none where it is not read.
        shadowed: `NAME of web is that of secret/other`.
    """

    ways: list[str] = field(default_factory=list)
    shadowed: list[str] = field(default_factory=list)


def reading_of(order: ConfigOrder, pod: Mapping[str, Any], has_key: HasKey) -> Reading:
    """Find how a pod's containers read the key.

    Of the sources of one variable the last one wins, and an entry of `env` wins over all of them,
    so that a value may be changed and never be seen.

    Args:
        order: which key of which object.
        pod: the `spec` of a pod or of a pod template.
        has_key: whether another object has a key.
    """
    found = Reading()
    volumes = [one["name"] for one in pod.get("volumes") or [] if _holds(order, one)]
    for container in [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]:
        _in_environment(order, container, has_key, found)
        for mount in container.get("volumeMounts") or []:
            if mount["name"] in volumes:
                once = ", read once (subPath)" if mount.get("subPath") else ""
                found.ways.append(f"file {mount['mountPath']} of {container['name']}{once}")
    return found


def variable_of(order: ConfigOrder, source: Mapping[str, Any]) -> str:
    """The variable that an `envFrom` source makes of the key; empty where it is another object."""
    reference = REFERENCES[order.kind][0]
    is_ours = (source.get(reference) or {}).get("name") == order.name
    return f"{source.get('prefix', '')}{order.key}" if is_ours else ""


def _in_environment(
    order: ConfigOrder, container: Mapping[str, Any], has_key: HasKey, found: Reading
) -> None:
    winners: dict[str, str] = {}
    sources = container.get("envFrom") or []
    ours = {variable for source in sources if (variable := variable_of(order, source))}
    for source in sources:
        if variable := variable_of(order, source):
            winners[variable] = ""
            continue
        for variable in ours & set(winners):
            if other := _other_with(source, variable, has_key):
                winners[variable] = other
    for entry in container.get("env") or []:
        if _is_from_key(order, entry):
            winners[entry["name"]] = ""
        elif entry["name"] in winners:
            winners[entry["name"]] = f"env of {container['name']}"
    for variable, winner in sorted(winners.items()):
        if winner:
            found.shadowed.append(f"{variable} of {container['name']} is that of {winner}")
        else:
            found.ways.append(f"env {variable} of {container['name']}")


def _other_with(source: Mapping[str, Any], variable: str, has_key: HasKey) -> str:
    prefix = source.get("prefix", "")
    for kind, (reference, *_) in REFERENCES.items():
        name = (source.get(reference) or {}).get("name", "")
        if name and variable.startswith(prefix):
            return f"{kind}/{name}" if has_key(kind, name, variable.removeprefix(prefix)) else ""
    return ""


def _is_from_key(order: ConfigOrder, entry: Mapping[str, Any]) -> bool:
    reference = (entry.get("valueFrom") or {}).get(REFERENCES[order.kind][1]) or {}
    return (reference.get("name"), reference.get("key")) == (order.name, order.key)


def _holds(order: ConfigOrder, volume: Mapping[str, Any]) -> bool:
    """Whether a volume shows the key, by itself or as a part of a projected one."""
    _, _, kind, name = REFERENCES[order.kind]
    whole = volume.get(kind) or {}
    sources = [(whole.get(name), whole)] if whole else []
    projected = (volume.get("projected") or {}).get("sources") or []
    sources += [(part[kind].get("name"), part[kind]) for part in projected if part.get(kind)]
    return any(
        named == order.name
        and (not one.get("items") or order.key in {item["key"] for item in one["items"]})
        for named, one in sources
    )
