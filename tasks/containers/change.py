"""One place of a container and what is to stand there: the JSON patch forwards and backwards."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.kube import text
from blocks.kube.text import MISSING, Operation


@dataclass(frozen=True)
class Change:
    """What a place of a container holds before and after, as JSON; empty where nothing does.

    Attributes:
        where: the pointer inside the container, as `/livenessProbe/timeoutSeconds`.
        before: what was there.
        after: what is to be there.
        copied_from: another place that is copied to the parent of this one first. A probe may hold
            a password in its command or headers, so it is copied by the API and never read here.
    """

    where: str
    before: str
    after: str
    copied_from: str = ""

    @property
    def parent(self) -> str:
        """The place that holds this one."""
        return self.where.rpartition("/")[0]

    def __str__(self) -> str:
        """As an operator would say it."""
        return f"{self.where.strip('/')}: {self.before or 'not set'} -> {self.after}"


def written(value: object) -> str:
    """A value as a `Change` holds it."""
    return "" if value is MISSING else json.dumps(value, sort_keys=True, separators=(",", ":"))


def change(container: Mapping[str, Any], where: str, after: object) -> Change:
    """What makes this value stand there."""
    return Change(where, written(text.value_at(dict(container), where)), written(after))


def is_done(container: Mapping[str, Any], changes: Sequence[Change]) -> bool:
    """Whether each place holds what it is to hold."""
    return all(written(text.value_at(dict(container), one.where)) == one.after for one in changes)


def is_undone(container: Mapping[str, Any], changes: Sequence[Change]) -> bool:
    """Whether each place holds what it held."""
    return all(
        written(text.value_at(dict(container), one.parent if one.copied_from else one.where))
        == one.before
        for one in changes
    )


def forwards(root: str, changes: Sequence[Change]) -> list[Operation]:
    """Operations that make the changes in the container at `root`, each tested for before."""
    operations: list[Operation] = []
    for one in changes:
        place = f"{root}{one.where}"
        if one.copied_from:
            copied = {"op": "copy", "from": f"{root}{one.copied_from}", "path": root + one.parent}
            operations += [copied, {"op": "add", "path": place, "value": json.loads(one.after)}]
        elif one.before:
            operations.append(text.tested(place, json.loads(one.before)))
            operations.append({"op": "replace", "path": place, "value": json.loads(one.after)})
        else:
            operations.append({"op": "add", "path": place, "value": json.loads(one.after)})
    return operations


def backwards(root: str, changes: Sequence[Change]) -> list[Operation]:
    """Operations that take the changes back, where each place still holds what they put there."""
    operations: list[Operation] = []
    for one in reversed(changes):
        place = f"{root}{one.where}"
        operations.append(text.tested(place, json.loads(one.after)))
        if one.copied_from:
            operations.append({"op": "remove", "path": root + one.parent})
        elif one.before:
            operations.append({"op": "replace", "path": place, "value": json.loads(one.before)})
        else:
            operations.append({"op": "remove", "path": place})
    return operations
