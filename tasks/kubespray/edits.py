"""Typed changes of an inventory, and the difference they make."""

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from recovery.errors import BadInput
from tasks.kubespray.judging import document_of, member_names
from tasks.kubespray.layout import (
    BROKEN_CONTROL_PLANE,
    BROKEN_ETCD,
    CONTROL_PLANE,
    ETCD,
    MEMBER_NAME,
    WORKERS,
    Document,
    Group,
    Layout,
    NewHost,
)

MASKED_WORD = r"(?:pass|secret|token|(?:certificate|private|encrypt\w*|vault|api|access)_key\b)"
SECRET_NAME = re.compile(rf"(?i){MASKED_WORD}")
SECRET_VALUE = re.compile(
    rf"(?i)\b([a-z0-9_]*{MASKED_WORD}\w*(?<!_file)[\"']?\s*[=:]\s*)"
    # Of several words all, up to a comment or the `name=` of the next one.
    r"(\"[^\"]*\"|'[^']*'|\S+(?:[ \t]+(?!#|[\w.]+=)\S+)*)"
)
SECRET_IN_URL = re.compile(r"(://)[^/@\s\"']*@")
# A value that goes on in the lines below, as `key: |` and `key: !vault |`.
SECRET_BLOCK = re.compile(
    rf"(?i)\s*(?:- +)?[\"']?[a-z0-9_]*{MASKED_WORD}\w*(?<!_file)[\"']?\s*:"
    r"\s*(?:!\S+\s+)?[|>][-+0-9]*\s*(?:#.*)?$"
)
MASK = "•••"


@dataclass(frozen=True)
class Edit:
    """What an inventory is to be changed to, in this order; groups that are not named stay.

    Attributes:
        pins: names in etcd, by host.
        adds: hosts that come in.
        groups: hosts of a group, in their order.
        removes: hosts that leave it altogether.
    """

    pins: tuple[tuple[str, str], ...] = ()
    adds: tuple[NewHost, ...] = ()
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    removes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """An edit of one text: what it makes of it, by hash, and the lines that differ, masked."""

    edit: Edit
    before: str
    after: str
    diff: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Whether the file is already so."""
        return self.before == self.after

    def __str__(self) -> str:
        """The difference, for people."""
        return "\n".join(self.diff) or "nothing to change"


def applied(text: str, path: str, edit: Edit) -> str:
    """The text with the edit made, and read again: it says what is meant, and nothing else.

    Raises:
        BadInput: it is written so that this change would change more, or less; names the place.
    """
    document = document_of(text, path)
    before = document.layout()
    _apply(document, edit)
    after = document.text()
    _refuse_unlike(before, edit, document_of(after, path).layout())
    return after


def change_of(text: str, path: str, edit: Edit) -> Change:
    """What an edit would change."""
    after = applied(text, path, edit)
    lines = difflib.unified_diff(
        masked_lines(text), masked_lines(after), path, path, lineterm="", n=1
    )
    return Change(edit, sha256(text), sha256(after), tuple(lines))


def sha256(text: str) -> str:
    """The hash of a file with this text."""
    return hashlib.sha256(text.encode()).hexdigest()


def masked_lines(text: str) -> list[str]:
    """The lines of an inventory without values that look like secrets, also those of many lines."""
    lines: list[str] = []
    block: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if block is not None and (indent > block or not line.strip()):
            lines.append(" " * indent + MASK if line.strip() else line)
            continue
        block = indent if SECRET_BLOCK.match(line) else None
        lines.append(line if block is not None else masked(line))
    return lines


def masked(line: str) -> str:
    """A line of an inventory without the values that look like secrets."""
    return SECRET_IN_URL.sub(rf"\g<1>{MASK}@", SECRET_VALUE.sub(rf"\g<1>{MASK}", line))


def recovery_edit(
    layout: Layout,
    survivors: Sequence[str],
    broken: Sequence[str],
    new: Sequence[NewHost],
    *,
    comes_back: bool,
) -> Edit:
    """What recover-control-plane wants: names pinned, survivors first, the broken in their groups.

    Args:
        layout: the inventory.
        survivors: hosts of etcd and the control plane that live, the best one first.
        broken: hosts that are lost.
        new: hosts that take their places.
        comes_back: the broken hosts were installed anew and stay in their groups.
    """
    etcd, control_plane = layout.members(ETCD), layout.members(CONTROL_PLANE)
    stay = [*survivors, *(host for host in broken if comes_back)]
    names = [host.name for host in new]
    is_etcd = any(host in etcd for host in broken)
    is_control_plane = any(host in control_plane for host in broken)
    return Edit(
        pins=pins(layout, new if is_etcd else ()),
        adds=_without_known(layout, new),
        groups=(
            (BROKEN_ETCD, tuple(host for host in broken if host in etcd)),
            (BROKEN_CONTROL_PLANE, tuple(host for host in broken if host in control_plane)),
            (
                CONTROL_PLANE,
                (*_in(stay, control_plane), *(names if is_control_plane else ())),
            ),
            # After it: where etcd is a group of that group, it needs no line of its own.
            (ETCD, (*_in(stay, etcd), *(names if is_etcd else ()))),
            *_workers(layout, broken, names, comes_back=comes_back),
        ),
    )


def closing_edit(broken: Sequence[str], *, comes_back: bool) -> Edit:
    """What is left to do once the control plane is whole: the broken groups are emptied."""
    return Edit(
        groups=((BROKEN_ETCD, ()), (BROKEN_CONTROL_PLANE, ())),
        removes=() if comes_back else tuple(broken),
    )


def _workers(
    layout: Layout, broken: Sequence[str], names: Sequence[str], *, comes_back: bool
) -> list[tuple[str, tuple[str, ...]]]:
    """The place of each lost host among the workers is taken by one that comes in."""
    workers = layout.members(WORKERS)
    if comes_back or not any(host in workers for host in broken):
        return []
    kept = [host for host in workers if host not in broken]
    lost = len(workers) - len(kept)
    return [
        (WORKERS, tuple([*kept, *(name for name in names if name not in kept)][: len(kept) + lost]))
    ]


def pins(layout: Layout, new: Sequence[NewHost]) -> tuple[tuple[str, str], ...]:
    """A name for every host of etcd: those that have one keep it, the others get a free one."""
    names = member_names(layout)
    own = {host.name: dict(host.variables).get(MEMBER_NAME, "") for host in new}
    taken = {*names.values(), *own.values()}
    pinned = list(names.items())
    number = 1
    for host in new:
        if host.name in names:
            continue
        if own[host.name]:
            pinned.append((host.name, own[host.name]))
            continue
        while f"etcd{number}" in taken:
            number += 1
        taken.add(f"etcd{number}")
        pinned.append((host.name, f"etcd{number}"))
    return tuple(pinned)


def _without_known(layout: Layout, new: Sequence[NewHost]) -> tuple[NewHost, ...]:
    return tuple(host for host in new if host.name not in layout.hosts)


def _in(hosts: Sequence[str], group: Sequence[str]) -> list[str]:
    return [host for host in hosts if host in group]


def _apply(document: Document, edit: Edit) -> None:
    for host in edit.adds:
        document.add_host(host.name, dict(host.variables))
    for host_name, name in edit.pins:
        document.set_variable(host_name, MEMBER_NAME, name)
    for group, hosts in edit.groups:
        document.set_group(group, hosts)
    for gone in edit.removes:
        document.remove_host(gone)


def _refuse_unlike(before: Layout, edit: Edit, after: Layout) -> None:
    """Refuse where a host or group is another than it is meant to be.

    Raises:
        BadInput: names it.
    """
    meant = {host: dict(own) for host, own in before.variables.items()}
    for new in edit.adds:
        meant.setdefault(new.name, {}).update(new.variables)
    for name, member in edit.pins:
        meant.setdefault(name, {})[MEMBER_NAME] = member
    for gone in edit.removes:
        meant.pop(gone, None)
    for host in {**meant, **after.variables}:
        if meant.get(host) != after.variables.get(host):
            raise BadInput(
                f"inventory, {host}",
                "its variables would not be as meant: as they are written, this change reaches "
                "others too, or loses some",
                f"Write the variables of {host} once, below all.hosts, without & and *",
            )
    named = dict(edit.groups)
    for name in {**before.groups, **after.groups, **named}:
        wanted = named.get(name, before.groups.get(name, Group()).hosts)
        left = tuple(host for host in wanted if host not in edit.removes)
        is_as_meant = (
            after.members(name) == left
            if name in named
            else after.groups.get(name, Group()).hosts == left
        )
        if not is_as_meant:
            raise BadInput(
                f"inventory, {name}",
                "the group would not have the hosts that are meant: as it is written, a change of "
                "another reaches it",
                f"Write {name} by itself, not inside another group, without & and *",
            )
