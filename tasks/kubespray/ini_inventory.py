"""An inventory in Ansible's ini form, changed line by line: comments, blanks and order stay."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recovery.errors import BadInput
from tasks.kubespray.layout import Group, Layout

SECTION = re.compile(r"\[(?P<name>[^\[\]:\s]+)(?::(?P<kind>[^\[\]\s]*))?\]\s*(?:[#;].*)?")
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KINDS = ("hosts", "children", "vars")
UNGROUPED = "ungrouped"


@dataclass
class _Line:
    """A line with its section. `host` is set on lines of hosts, `child` on those of groups."""

    text: str
    group: str
    kind: str
    number: int = 0
    host: str = ""
    child: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    is_header: bool = False

    @property
    def is_entry(self) -> bool:
        return bool(self.host or self.child)


class IniInventory:
    """A file in the ini form.

    Raises:
        BadInput: a line cannot be read; names it and what to write instead.
    """

    def __init__(self, text: str, field: str = "inventory") -> None:
        self._field = field
        self._ends = "\r\n" if "\r\n" in text else "\n"
        self._lines: list[_Line] = []
        self._has_last_end = text.endswith("\n")
        group, kind = UNGROUPED, "hosts"
        for number, line in enumerate(text.splitlines(), 1):
            read = self._read(line, number, group, kind)
            group, kind = read.group, read.kind
            self._lines.append(read)
        self._refuse_twice()

    def layout(self) -> Layout:
        """What it says now."""
        variables: dict[str, dict[str, str]] = {}
        hosts: dict[str, list[str]] = {}
        children: dict[str, list[str]] = {}
        for line in self._lines:
            if line.is_header and line.kind != "vars":
                hosts.setdefault(line.group, [])
                children.setdefault(line.group, [])
            if line.host:
                variables.setdefault(line.host, {}).update(line.variables)
                hosts.setdefault(line.group, []).append(line.host)
            if line.child:
                children.setdefault(line.group, []).append(line.child)
        names = [name for name in {**hosts, **children} if name != UNGROUPED]
        groups = {
            name: Group(tuple(hosts.get(name, ())), tuple(children.get(name, ()))) for name in names
        }
        return Layout(variables, groups)

    def set_group(self, name: str, hosts: Sequence[str]) -> None:
        """Let a group have these hosts in this order.

        Lines of hosts trade places; comments between them stay where they are. A host that leaves
        the group in which its variables stand takes them along.
        """
        if self.layout().members(name) == tuple(hosts):
            if any(line.is_header and line.group == name for line in self._lines):
                return
            self._add_section(name)
            return
        for line in [one for one in self._lines if one.group == name and one.child]:
            self._lines.remove(line)  # a group of groups becomes one of hosts
        if not any(self._is_header(line, name) for line in self._lines):
            self._add_section(name)
        slots = [line for line in self._lines if line.host and line.group == name]
        known = {line.host: line for line in slots}
        wanted = [known.get(host) or self._bare(host, name) for host in hosts]
        leaving = [line for line in slots if line.host not in hosts]
        for line in leaving:
            self._rehome(line)
        places = [self._lines.index(slot) for slot in slots]
        for place, line in zip(places, wanted, strict=False):
            self._lines[place] = line
        for place in sorted(places[len(wanted) :], reverse=True):
            del self._lines[place]
        if len(wanted) > len(places):
            after = places[-1] if places else self._index_of_header(name)
            self._lines[after + 1 : after + 1] = wanted[len(places) :]

    def set_variable(self, host: str, name: str, value: str) -> None:
        """Set a variable on the line of a host that has variables already, else on its first."""
        lines = [line for line in self._lines if line.host == host]
        if not lines:
            raise BadInput(self._field, f"there is no host {host}", "Add it first")
        own = [line for line in lines if name in dict(line.variables)]
        line = next(iter(own or [one for one in lines if one.variables] or lines))
        if dict(line.variables).get(name) == value and len(own) == 1:
            return
        for one in own or [line]:
            one.text = _with_variable(one.text, name, value)
            one.variables = tuple({**dict(one.variables), name: value}.items())

    def add_host(self, name: str, variables: Mapping[str, str]) -> None:
        """Name a host before the first section, or after the last host that stands there."""
        text = " ".join([name, *(f"{key}={_quoted(value)}" for key, value in variables.items())])
        line = _Line(text, UNGROUPED, "hosts", host=name, variables=tuple(variables.items()))
        places = [n for n, one in enumerate(self._lines) if one.group == UNGROUPED and one.host]
        if places:
            self._lines.insert(places[-1] + 1, line)
            return
        first = next((n for n, one in enumerate(self._lines) if one.is_header), len(self._lines))
        while first and self._lines[first - 1].text.lstrip().startswith(("#", ";")):
            first -= 1  # what is said of the first section stays with it
        self._lines[first:first] = [line, _Line("", UNGROUPED, "hosts")]

    def remove_host(self, name: str) -> None:
        """Take all lines of a host out."""
        self._lines = [line for line in self._lines if line.host != name]

    def text(self) -> str:
        """The file."""
        whole = self._ends.join(line.text for line in self._lines)
        return whole + (self._ends if self._has_last_end and self._lines else "")

    def _read(self, text: str, number: int, group: str, kind: str) -> _Line:
        bare = text.strip()
        line = _Line(text, group, kind, number)
        if not bare or bare[0] in "#;":
            return line
        if bare.startswith("["):
            return self._header(line, bare)
        if kind == "vars":
            if "=" not in bare:
                raise self._bad(number, f"{bare!r} sets no variable", "Write name=value")
            return line
        words = self._words(bare, number)
        if kind == "hosts":
            return self._host(line, words)
        if len(words) > 1 or not HOST.fullmatch(words[0]):
            raise self._bad(number, f"{bare!r} is no group", "Write one name of a group")
        line.child = words[0]
        return line

    def _host(self, line: _Line, words: list[str]) -> _Line:
        number = line.number
        if "[" in words[0]:
            raise self._bad(
                number, f"{words[0]} is a range of hosts", "Write each host on a line of its own"
            )
        if not HOST.fullmatch(words[0]):
            raise self._bad(number, f"{words[0]!r} is no host", "Write its name first on the line")
        pairs = [word.partition("=") for word in words[1:]]
        for key, sign, _ in pairs:
            if not sign or not VARIABLE.fullmatch(key):
                raise self._bad(number, f"{key!r} is no name=value", "Write name=value, no blanks")
        line.host = words[0]
        line.variables = tuple((key, value) for key, _, value in pairs)
        return line

    def _header(self, line: _Line, bare: str) -> _Line:
        match = SECTION.fullmatch(bare)
        if match is None:
            raise self._bad(line.number, f"{bare!r} is no heading", "Write [group] alone")
        kind = match["kind"] if match["kind"] is not None else "hosts"
        if kind not in KINDS:
            raise self._bad(
                line.number, f"[…:{kind}] is no kind of section", "Use :children or :vars"
            )
        line.group, line.kind, line.is_header = match["name"], kind, True
        return line

    def _words(self, bare: str, number: int) -> list[str]:
        try:
            return shlex.split(bare, comments=True)
        except ValueError as error:
            raise self._bad(number, f"{str(error).lower()}", "Close the quotation mark") from None

    def _bad(self, number: int, seen: str, remedy: str) -> BadInput:
        return BadInput(f"{self._field}, line {number}", seen, remedy)

    def _refuse_twice(self) -> None:
        seen: dict[tuple[str, str], int] = {}
        for line in self._lines:
            if not line.host:
                continue
            first = seen.setdefault((line.group, line.host), line.number)
            if first != line.number:
                raise self._bad(
                    line.number,
                    f"{line.host} stands in [{line.group}] twice, first in line {first}",
                    "Leave one of the two lines",
                )

    def _is_header(self, line: _Line, name: str) -> bool:
        return line.is_header and line.group == name and line.kind == "hosts"

    def _index_of_header(self, name: str) -> int:
        return next(n for n, line in enumerate(self._lines) if self._is_header(line, name))

    def _add_section(self, name: str) -> None:
        if self._lines and self._lines[-1].text.strip():
            self._lines.append(_Line("", UNGROUPED, "hosts"))
        self._lines.append(_Line(f"[{name}]", name, "hosts", is_header=True))
        self._has_last_end = True

    def _bare(self, host: str, group: str) -> _Line:
        return _Line(host, group, "hosts", host=host)

    def _rehome(self, line: _Line) -> None:
        """Let the variables of a line that goes stand on another line of the host, if there is."""
        others = [one for one in self._lines if one.host == line.host and one is not line]
        if not line.variables or not others:
            return
        heir = others[0]
        for name, value in line.variables:
            if name not in dict(heir.variables):
                heir.text = _with_variable(heir.text, name, value)
                heir.variables = (*heir.variables, (name, value))


def _with_variable(text: str, name: str, value: str) -> str:
    """The line of a host with a variable set; a comment at its end stays there."""
    body, comment = _split_comment(text)
    setting = f"{name}={_quoted(value)}"
    given = re.compile(rf"(?<=\s){name}=(?:\"[^\"]*\"|'[^']*'|\S)*")
    if given.search(body):
        return given.sub(lambda _: setting, body, count=1) + comment
    stripped = body.rstrip()
    return f"{stripped} {setting}{body[len(stripped) :]}{comment}"


def _split_comment(text: str) -> tuple[str, str]:
    """The part of a line before its comment, and the comment; `#` in quotes begins none."""
    quote = ""
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == "#" and at and text[at - 1].isspace():
            return text[:at], text[at:]
    return text, ""


def _quoted(value: str) -> str:
    if value and not re.search(r"[\s#;\"'\\]", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
