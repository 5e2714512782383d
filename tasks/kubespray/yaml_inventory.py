"""An inventory in Ansible's YAML form, changed in place: comments, quotes and order stay."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from recovery.errors import BadInput
from tasks.kubespray.layout import Group, Layout

ROOT = "all"
KEYS = ("hosts", "vars", "children")
INDENTS = (2, 4, 3, 8)
SHAPE = "Write all: with hosts: and children:, each group with hosts: and the names below it"


class YamlInventory:
    """A file in the YAML form.

    Raises:
        BadInput: it is no YAML, or no inventory; names the place.
    """

    def __init__(self, text: str, field: str = "inventory") -> None:
        self._field = field
        self._yaml = _yaml(INDENTS[0], text)
        try:
            read = self._yaml.load(text)
        except YAMLError as error:
            raise BadInput(
                field, f"it is no YAML: {_shortly(error)}", "Correct that place"
            ) from None
        if not isinstance(read, CommentedMap):
            raise BadInput(field, "it holds no groups", SHAPE)
        self._top: CommentedMap = read
        for name, group in read.items():
            self._check_group(name, group, str(name))
        for indent in INDENTS:  # the one in which it is written, so that a change changes no more
            self._yaml = _yaml(indent, text)
            if self.text() == text:
                break
        else:
            self._yaml = _yaml(INDENTS[0], text)

    def layout(self) -> Layout:
        """What it says now."""
        variables: dict[str, dict[str, str]] = {}
        groups: dict[str, Group] = {}
        for name, group in self._groups():
            hosts = group.get("hosts") or {}
            for host, own in hosts.items():
                said = {str(key): _as_text(value) for key, value in (own or {}).items()}
                variables.setdefault(str(host), {}).update(said)
            before = groups.get(name, Group())
            groups[name] = Group(
                tuple(dict.fromkeys([*before.hosts, *map(str, hosts)])),
                tuple(dict.fromkeys([*before.children, *map(str, group.get("children") or {})])),
            )
        groups.pop(ROOT, None)
        return Layout(variables, groups)

    def set_group(self, name: str, hosts: Sequence[str]) -> None:
        """Let a group have these hosts in this order; what is said of each goes along."""
        layout = self.layout()
        if name in layout.groups and layout.members(name) == tuple(hosts):
            return
        group = self._own(name)
        for child, below in (group.pop("children", None) or {}).items():
            if below and not self._children().get(child):
                self._children()[child] = below
        listed = group.get("hosts")
        if not isinstance(listed, CommentedMap):
            listed = CommentedMap()
        for host in [host for host in listed if host not in hosts]:
            self._rehome(str(host), listed.pop(host), listed)
        for host in hosts:
            listed.setdefault(host, None)
        for host in hosts:
            listed.move_to_end(host)
        group["hosts"] = listed

    def set_variable(self, host: str, name: str, value: str) -> None:
        """Set a variable of a host: where it is set already, else where the host has variables."""
        places = [listed for listed in self._host_maps() if host in listed]
        if not places:
            raise BadInput(self._field, f"there is no host {host}", "Add it first")
        own = [place for place in places if name in (place[host] or {})]
        for place in own or [next((one for one in places if one[host]), places[0])]:
            said = place[host]
            if not isinstance(said, CommentedMap):
                said = place[host] = CommentedMap()
            if said.yaml_anchor() is not None:  # one mapping that others are too, by its alias
                said = place[host] = CommentedMap(said.items())
            if _as_text(said.get(name)) != value:
                said[name] = value

    def add_host(self, name: str, variables: Mapping[str, str]) -> None:
        """Name a host among those of `all`."""
        top = self._top.setdefault(ROOT, CommentedMap())
        hosts = top.get("hosts")
        if not isinstance(hosts, CommentedMap):
            hosts = CommentedMap()
            if "hosts" in top:
                top["hosts"] = hosts
            else:
                top.insert(0, "hosts", hosts)
        hosts[name] = CommentedMap(variables)

    def remove_host(self, name: str) -> None:
        """Take a host out of all groups."""
        for listed in self._host_maps():
            listed.pop(name, None)

    def text(self) -> str:
        """The file."""
        out = io.StringIO()
        self._yaml.dump(self._top, out)
        return out.getvalue()

    def _check_group(self, name: object, group: object, path: str) -> None:
        if not isinstance(name, str):
            raise self._bad(path, f"{name!r} is no name of a group", "Put it in quotes")
        if group is None:
            return
        if not isinstance(group, CommentedMap):
            raise self._bad(path, "it is no group", SHAPE)
        for key, value in group.items():
            if key not in KEYS:
                raise self._bad(f"{path}.{key}", "a group has hosts, vars and children only", SHAPE)
            if value is not None and not isinstance(value, CommentedMap):
                remedy = "Write each name as a key, with a colon after it"
                raise self._bad(f"{path}.{key}", "it is no mapping", remedy)
        self._check_hosts(group.get("hosts") or {}, path)
        for child, below in (group.get("children") or {}).items():
            self._check_group(child, below, f"{path}.children.{child}")

    def _check_hosts(self, hosts: Mapping[Any, Any], path: str) -> None:
        for host, said in hosts.items():
            if not isinstance(host, str) or "[" in host:
                remedy = "Write each host by itself, numbers in quotes"
                raise self._bad(f"{path}.hosts", f"{host!r} is no name of one host", remedy)
            if said is not None and not isinstance(said, CommentedMap):
                remedy = "Write its variables below it, as name: value"
                raise self._bad(f"{path}.hosts.{host}", "its variables are no mapping", remedy)

    def _bad(self, path: str, seen: str, remedy: str) -> BadInput:
        return BadInput(f"{self._field}, {path}", seen, remedy)

    def _groups(self) -> Iterator[tuple[str, CommentedMap]]:
        yield from _walk(self._top)

    def _host_maps(self) -> list[CommentedMap]:
        listed = [group.get("hosts") for _, group in self._groups()]
        return [hosts for hosts in listed if isinstance(hosts, CommentedMap)]

    def _own(self, name: str) -> CommentedMap:
        """The mapping of a group; made below `all` where there is none."""
        found = [group for known, group in self._groups() if known == name]
        if found:
            return next((group for group in found if group.get("hosts")), found[0])
        for parent in [self._top, *(group.get("children") or {} for _, group in self._groups())]:
            if name in parent:
                made = parent[name] = CommentedMap()
                return made
        made = self._children()[name] = CommentedMap()
        return made

    def _children(self) -> CommentedMap:
        """The groups below `all`."""
        top = self._top.setdefault(ROOT, CommentedMap())
        children = top.get("children")
        if not isinstance(children, CommentedMap):
            children = top["children"] = CommentedMap()
        return children

    def _rehome(self, host: str, said: Any, left: CommentedMap) -> None:
        """Let the variables of a host that leaves a group stand where it is still listed."""
        for listed in self._host_maps():
            if said and listed is not left and host in listed:
                listed[host] = CommentedMap({**said, **(listed[host] or {})})
                return


def _walk(groups: Mapping[Any, Any]) -> Iterator[tuple[str, CommentedMap]]:
    for name, group in groups.items():
        yield str(name), group if isinstance(group, CommentedMap) else CommentedMap()
        yield from _walk((group or {}).get("children") or {})


def _yaml(indent: int, text: str) -> YAML:
    made = YAML()
    made.preserve_quotes = True
    made.width = 10_000
    made.indent(mapping=indent, sequence=indent + 2, offset=indent)
    made.explicit_start = text.lstrip().startswith("---")
    made.allow_duplicate_keys = False
    return made


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _shortly(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    said = str(getattr(error, "problem", "") or error).splitlines()[0]
    return f"{said}, line {mark.line + 1}" if mark is not None else said
