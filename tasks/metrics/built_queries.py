"""Queries put together in Grafana's editor, from docker's names to those of containerd."""

import copy
from collections.abc import Mapping
from typing import Any

from tasks.metrics.containerd import (
    NOT_SCALED,
    POD_CONTAINER,
    NoCounterpart,
    dropped,
    field_counterpart,
    is_docker_measurement,
    legend,
    pattern_counterpart,
    tag_counterpart,
)

Part = dict[str, Any]
Target = dict[str, Any]


def migrated_target(target: Mapping[str, Any]) -> Target:
    """A target of the editor with the names of containerd.

    Raises:
        NoCounterpart: something in it has none.
    """
    new = copy.deepcopy(dict(target))
    measurement = str(target.get("measurement") or "")
    if not is_docker_measurement(measurement):
        return new
    new["select"] = [_column(measurement, parts) for parts in target.get("select") or []]
    new["measurement"] = POD_CONTAINER
    new["tags"] = _conditions(target.get("tags") or [])
    new["groupBy"] = [_grouped(part) for part in target.get("groupBy") or []]
    if target.get("alias"):
        new["alias"] = legend(str(target["alias"]))
    return new


def _column(measurement: str, parts: list[Part]) -> list[Part]:
    """One column: a field, what is called on it, and then arithmetic."""
    column: list[Part] = []
    scale = ""
    is_counted = any(part.get("type") in NOT_SCALED for part in parts)
    for part in parts:
        if part.get("type") == "field":
            field = str((part.get("params") or [""])[0]).partition("::")[0]
            counterpart = field_counterpart(measurement, field)
            column.append({**part, "params": [counterpart.name]})
            scale = "" if is_counted else counterpart.scale
        else:
            column.append(part)
    if not scale:
        return column
    # Arithmetic that is there already, and the name of the column, come behind it.
    behind = next((n for n, part in enumerate(column) if part["type"] in {"math", "alias"}), None)
    place = len(column) if behind is None else behind
    column.insert(place, {"type": "math", "params": [scale]})
    return column


def _conditions(tags: list[Part]) -> list[Part]:
    conditions: list[Part] = []
    for part in tags:
        tag, mark, suffix = str(part.get("key", "")).partition("::")
        value = str(part.get("value", ""))
        instead = dropped(tag, value)
        if instead is None:
            kept = {**part, "key": tag_counterpart(tag) + mark + suffix}
            kept["value"] = pattern_counterpart(tag_counterpart(tag), value)
            conditions.append(kept)
        elif instead:
            conditions.append({**part, "key": "pod_name", "operator": "=~", "value": instead})
        elif any(str(one.get("condition", "")).upper() == "OR" for one in tags):
            raise NoCounterpart("a condition that has no meaning any more stands beside an OR")
    if conditions and len(conditions) < len(tags):
        conditions[0] = {name: v for name, v in conditions[0].items() if name != "condition"}
    return conditions


def _grouped(part: Part) -> Part:
    if part.get("type") != "tag":
        return part
    tag, mark, suffix = str((part.get("params") or [""])[0]).partition("::")
    return {**part, "params": [tag_counterpart(tag) + mark + suffix]}


def rendered(target: Mapping[str, Any]) -> str:
    """The query that Grafana makes of a target; its own text where it was written by hand."""
    if target.get("rawQuery") or not target.get("measurement"):
        return str(target.get("query") or "")
    columns = ", ".join(_rendered_column(parts) for parts in target.get("select") or [])
    policy = str(target.get("policy") or "default")
    place = "" if policy == "default" else f'"{policy}".'
    query = f'SELECT {columns} FROM {place}"{target["measurement"]}" WHERE '  # noqa: S608 (shown, and asked by Grafana as its editor asks it)
    for n, part in enumerate(target.get("tags") or []):
        joint = f"{part.get('condition') or 'AND'} " if n else ""
        value = str(part.get("value", ""))
        is_pattern = value.startswith("/") and value.endswith("/")
        operator = part.get("operator") or ("=~" if is_pattern else "=")
        shown = value if operator in {"=~", "!~", "<", ">"} else f"'{value.strip(chr(39))}'"
        query += f'{joint}"{part.get("key")}" {operator} {shown} '
    query += "AND $timeFilter" if target.get("tags") else "$timeFilter"
    groups = [part for part in target.get("groupBy") or [] if part.get("type") != "fill"]
    if groups:
        query += " GROUP BY " + ", ".join(_rendered_group(part) for part in groups)
    fill = next((p for p in target.get("groupBy") or [] if p.get("type") == "fill"), None)
    return query + (f" fill({fill['params'][0]})" if fill and groups else "")


def _rendered_column(parts: list[Part]) -> str:
    text = ""
    for part in parts:
        params = [str(one) for one in part.get("params") or []]
        match part.get("type"):
            case "field":
                text = "*" if params == ["*"] else f'"{params[0]}"'
            case "math":
                text += params[0]
            case "alias":
                text += f' AS "{params[0]}"'
            case called:
                text = f"{called}({', '.join([text, *params])})"
    return text


def _rendered_group(part: Part) -> str:
    params = [str(one) for one in part.get("params") or [""]]
    if part.get("type") == "time":
        return f"time({', '.join(params).replace('$interval', '$__interval')})"
    return f'"{params[0]}"'
