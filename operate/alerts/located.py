"""YAML whose every value knows its field and its line, so that an error can name both."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from operate.nearest import did_you_mean
from recovery.errors import BadInput
from recovery.values import shortly


@dataclass(frozen=True)
class Located:
    """A value of the file, and where it stands. `value` is plain; `node` is what it was read of."""

    file: str
    path: str
    line: int
    value: Any
    children: Any

    def wrong(self, seen: str, remedy: str) -> BadInput:
        """Say what is wrong with it."""
        return BadInput(f"{self.file}:{self.line}: {self.path or 'the file'}", seen, remedy)

    def fields(self, known: Collection[str], needed: Collection[str] = ()) -> dict[str, "Located"]:
        """Return its fields by name.

        Raises:
            BadInput: it is no mapping, a field is unknown, or one is missing.
        """
        if not isinstance(self.children, dict):
            raise self.wrong(f"{shortly(self.value)} has no fields", f"It has {', '.join(known)}")
        for name, child in self.children.items():
            if name not in known:
                remedy = f"{did_you_mean(name, known)}There are: {', '.join(known)}"
                raise child.wrong("there is no such field", remedy)
        for name in needed:
            if name not in self.children:
                raise self.wrong(f"{name} is missing", f"Add `{name}:`")
        return dict(self.children)

    def named(self) -> dict[str, "Located"]:
        """Return its entries by names that the file chooses; none where it is empty."""
        if self.value is None:
            return {}
        if not isinstance(self.children, dict):
            raise self.wrong(f"{shortly(self.value)} has no names", "Write `name: value` lines")
        return dict(self.children)

    def items(self) -> list["Located"]:
        """Return the items of a list; none where it is empty."""
        if self.value is None:
            return []
        if not isinstance(self.children, list):
            raise self.wrong(f"{shortly(self.value)} is no list", "Write a list")
        return list(self.children)

    def text(self, one_of: Collection[str] = ()) -> str:
        """Return it where it is text, and one of these where some are given."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.wrong(f"{shortly(self.value)} is no text", "Write text, in quotes if needed")
        if one_of and self.value not in one_of:
            remedy = f"Write one of: {', '.join(one_of)}"
            raise self.wrong(f"there is no {self.value!r}", remedy)
        return self.value

    def number(self, at_least: int = 0) -> int:
        """Return it where it is a whole number."""
        is_number = isinstance(self.value, int) and not isinstance(self.value, bool)
        if not is_number or self.value < at_least:
            remedy = f"Write a whole number from {at_least} on"
            raise self.wrong(f"{shortly(self.value)} is none that fits", remedy)
        return int(self.value)


def read_located(file: Path) -> Located:
    """Read a YAML file of one document.

    Raises:
        BadInput: it cannot be read or is no YAML; names the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        seen = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise BadInput(str(file), f"it cannot be read: {seen}", "Name a YAML file") from None
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise BadInput(str(file), "it is empty", "Write `routes:` and what belongs to it")
        return _located(loader, node, str(file), "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        raise BadInput(place, f"it is no valid YAML: {error.problem}", "Mend that line") from None
    except (yaml.YAMLError, RecursionError):
        raise BadInput(str(file), "it is no valid YAML", "Mend it") from None
    finally:
        loader.dispose()


def _located(loader: yaml.SafeLoader, node: yaml.Node, file: str, path: str) -> Located:
    children: Any = None
    if isinstance(node, yaml.MappingNode):
        children = dict(_entries(loader, node, file, path))
    elif isinstance(node, yaml.SequenceNode):
        children = [
            _located(loader, item, file, f"{path}[{n}]") for n, item in enumerate(node.value)
        ]
    value = loader.construct_object(node, deep=True)
    return Located(file, path, node.start_mark.line + 1, value, children)


def _entries(
    loader: yaml.SafeLoader, node: yaml.MappingNode, file: str, path: str
) -> Iterator[tuple[str, Located]]:
    names = set()
    for key, value in node.value:
        name = str(key.value)
        if name in names:
            raise yaml.MarkedYAMLError(None, None, f"{name!r} stands there twice", key.start_mark)
        names.add(name)
        yield name, _located(loader, value, file, f"{path}.{name}" if path else name)
