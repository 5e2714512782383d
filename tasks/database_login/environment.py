"""What the containers of a pod template get as variables, and where each is from."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from recovery.secrecy.secret import Secret
from tasks.settings.contents import Content
from tasks.settings.order import ObjectKind
from tasks.settings.readers import REFERENCES

Contents = Mapping[str, Content]
ReadObject = Callable[[ObjectKind, str], Contents]


@dataclass(frozen=True)
class Variable:
    """A variable. `holder` is `secret/NAME` or `configmap/NAME`; empty: the pod template itself."""

    value: Content
    holder: str = ""
    key: str = ""

    @property
    def text(self) -> str:
        """What the program reads."""
        return self.value.reveal() if isinstance(self.value, Secret) else self.value


def variables_of(
    container: Mapping[str, Any], wanted: Collection[str], read: ReadObject
) -> dict[str, Variable]:
    """The wanted variables of a container, as the kubelet makes them: the last source wins.

    Args:
        container: of a pod template.
        wanted: names of variables; nothing else is read.
        read: the contents of a ConfigMap or Secret, as a program reads them.
    """
    found: dict[str, Variable] = {}
    for source in container.get("envFrom") or []:
        for kind, (reference, *_) in REFERENCES.items():
            name = (source.get(reference) or {}).get("name")
            for key, value in (read(kind, name) if name else {}).items():
                found[f"{source.get('prefix', '')}{key}"] = Variable(value, f"{kind}/{name}", key)
    found = {name: one for name, one in found.items() if name in wanted}
    for entry in container.get("env") or []:
        if entry["name"] not in wanted:
            continue
        found.pop(entry["name"], None)
        if (one := _of_entry(entry, read)) is not None:
            found[entry["name"]] = one
    return found


def _of_entry(entry: Mapping[str, Any], read: ReadObject) -> Variable | None:
    if "value" in entry:
        return Variable(str(entry["value"]))
    for kind, (_, reference, *_) in REFERENCES.items():
        named = (entry.get("valueFrom") or {}).get(reference)
        if named:
            value = read(kind, named["name"]).get(named["key"])
            holder = f"{kind}/{named['name']}"
            return None if value is None else Variable(value, holder, named["key"])
    return None
