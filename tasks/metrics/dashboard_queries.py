"""Every query of a dashboard, wherever it stands, before and after."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.metrics.built_queries import migrated_target, rendered
from tasks.metrics.containerd import NoCounterpart, is_docker_measurement, legend, mentions_docker
from tasks.metrics.raw_queries import migrated_query

Dashboard = dict[str, Any]


@dataclass(frozen=True)
class QueryChange:
    """One query, where it stands, and what it becomes."""

    at: str
    before: str
    after: str

    def __str__(self) -> str:
        """As a diff has it."""
        return f"{self.at}\n- {self.before}\n+ {self.after}"


@dataclass(frozen=True)
class QueryLeft:
    """One query that has no counterpart, where it stands, and why."""

    at: str
    query: str
    why: str

    def __str__(self) -> str:
        """In a line."""
        return f"{self.at}: {self.why}"


@dataclass(frozen=True)
class Migrated:
    """A dashboard with other queries, what was changed in it, and what was left."""

    dashboard: Dashboard
    changes: list[QueryChange]
    left: list[QueryLeft]


def migrated_dashboard(dashboard: Dashboard) -> Migrated:
    """A dashboard with every query migrated that has a counterpart; it itself is left alone."""
    new = copy.deepcopy(dashboard)
    changes: list[QueryChange] = []
    left: list[QueryLeft] = []
    is_concerned = any(_asks_docker(target) for _, target in targets_of(new))
    for at, target in targets_of(new):
        if _asks_docker(target):
            _migrate_target(at, target, changes, left)
    for at, holder, name in texts_of(new):
        query = holder[name]
        if not mentions_docker(query) and not (is_concerned and _lists_installations(query)):
            continue
        try:
            holder[name] = migrated_query(query)
        except NoCounterpart as none:
            left.append(QueryLeft(at, query, none.why))
        else:
            _note(changes, at, query, holder[name])
    return Migrated(new, changes, left)


def targets_of(dashboard: Dashboard) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every target of every panel, also of folded rows, old rows and annotations."""
    for panel in _panels(dashboard):
        title = panel.get("title") or "without a title"
        for n, target in enumerate(_objects(panel.get("targets"))):
            place = target.get("refId") or n + 1
            yield f"panel {panel.get('id', '?')} {title!r}, query {place}", target
    annotations = dashboard.get("annotations") or {}
    for one in _objects(annotations.get("list")):
        if isinstance(one.get("target"), dict):
            yield f"annotation {one.get('name')!r}", one["target"]


def texts_of(dashboard: Dashboard) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every query that stands as a text: of variables and annotations, with its holder and name."""
    for one in _objects((dashboard.get("templating") or {}).get("list")):
        if one.get("type") != "query":
            continue
        at = f"variable {one.get('name')!r}"
        holder = one["query"] if isinstance(one.get("query"), dict) else one
        for where, name in ((holder, "query"), (one, "definition")):
            if isinstance(where.get(name), str):
                yield at, where, name
    for one in _objects((dashboard.get("annotations") or {}).get("list")):
        if isinstance(one.get("query"), str):
            yield f"annotation {one.get('name')!r}", one, "query"


def _migrate_target(
    at: str, target: dict[str, Any], changes: list[QueryChange], left: list[QueryLeft]
) -> None:
    before = rendered(target)
    try:
        new = migrated_target(target) if not target.get("rawQuery") else dict(target)
        if target.get("rawQuery"):
            new["query"] = migrated_query(str(target.get("query") or ""))
            new["alias"] = legend(str(target.get("alias") or ""))
    except NoCounterpart as none:
        left.append(QueryLeft(at, before, none.why))
        return
    if target.get("rawQuery"):
        _migrate_what_is_not_asked(new)
        if "alias" not in target:
            del new["alias"]
    else:
        new.pop("query", None)  # the editor makes it anew
    target.clear()
    target.update(new)
    _note(changes, at, before, rendered(target))


def _migrate_what_is_not_asked(target: dict[str, Any]) -> None:
    """The editor's own form beside a query by hand: shown again when somebody switches back."""
    try:
        target.update(migrated_target(target))
    except NoCounterpart:
        return


def _note(changes: list[QueryChange], at: str, before: str, after: str) -> None:
    change = QueryChange(at, before, after)
    if before != after and change not in changes:  # a definition repeats the query of its variable
        changes.append(change)


def _asks_docker(target: dict[str, Any]) -> bool:
    if target.get("rawQuery") or not target.get("measurement"):
        return mentions_docker(str(target.get("query") or ""))
    return is_docker_measurement(str(target["measurement"]))


def _lists_installations(query: str) -> bool:
    """`show tag values with key = "installation"`: a label that only docker's containers had."""
    words = query.lower().replace('"', " ").split()
    return words[:3] == ["show", "tag", "values"] and "installation" in words and (
        "from" not in words
    )  # fmt: skip


def _panels(holder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in _objects(holder.get("panels")):
        yield panel
        yield from _panels(panel)
    for row in _objects(holder.get("rows")):
        yield from _panels(row)


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
